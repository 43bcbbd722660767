//! A disk that loses what was not synced.
//!
//! The durable code of a program does its work on a real folder and [notes](note) each operation first. From the notes
//! [`after_power_loss`] makes everything that the disk may hold after a power loss: each operation that no sync has made
//! certain is lost or kept, on its own; of bytes that were not synced, half or a hole of zeros may be left as well.
//! A sync of a file makes its bytes certain, not its name; a sync of a folder makes the names in it certain, not bytes.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

/// Most operations that may be uncertain at once: everything that they may leave is made.
const UNCERTAIN_MAX: usize = 12;

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A folder is made.
    MakeFolder(PathBuf),
    /// A file is made, or emptied if it is there.
    Create(PathBuf),
    /// A file is opened, and made if it isn't there.
    Open(PathBuf),
    /// Bytes are written from this offset on.
    Write(PathBuf, u64, Vec<u8>),
    /// A file gets this length.
    Cut(PathBuf, u64),
    /// Takes the place of what had the second name.
    Rename(PathBuf, PathBuf),
    /// A file loses its name.
    Remove(PathBuf),
    /// The bytes of a file are certain from here on.
    Sync(PathBuf),
    /// The names in a folder are certain from here on.
    SyncFolder(PathBuf),
}

/// What a folder holds: `None` for a folder, bytes for a file.
pub type Tree = BTreeMap<PathBuf, Option<Vec<u8>>>;

thread_local! {
    static RECORDING: RefCell<Option<Recording>> = const { RefCell::new(None) };
}

#[derive(Debug, Default)]
struct Recording {
    operations: Vec<Operation>,
    points: BTreeSet<String>,
    ignored: Option<String>,
    left: Option<usize>,
}

/// Notes operations of this thread for as long as it lives.
#[derive(Debug)]
pub struct Recorder(());

impl Recorder {
    /// Starts; syncs at the failpoint `ignored` are left out, as if the code had forgotten them.
    #[must_use]
    pub fn start(ignored: Option<&str>) -> Self {
        let recording = Recording { ignored: ignored.map(str::to_owned), ..Recording::default() };
        RECORDING.set(Some(recording));
        Self(())
    }

    /// After so many more operations the program counts as killed: all that follow fail, until it is revived.
    pub fn kill_after(&self, operations: usize) {
        with(|recording| recording.left = Some(operations));
    }

    /// The next start of the program.
    pub fn revive(&self) {
        with(|recording| recording.left = None);
    }

    /// How many operations were noted.
    #[must_use]
    pub fn count(&self) -> usize {
        with(|recording| recording.operations.len()).unwrap_or_default()
    }

    /// What was noted, and the failpoints that were passed.
    #[must_use]
    pub fn take(self) -> (Vec<Operation>, BTreeSet<String>) {
        let recording = RECORDING.take().unwrap_or_default();
        (recording.operations, recording.points)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        RECORDING.set(None);
    }
}

/// Work that nobody is to note, e.g. of the code that looks at what is left. Syncs are left out, as while noting: what
/// matters is the model's disk, and the real one is slow.
pub fn unnoted<T>(work: impl FnOnce() -> T) -> T {
    let held = RECORDING.replace(Some(Recording::default()));
    let done = work();
    RECORDING.set(held);
    done
}

fn with<T>(change: impl FnOnce(&mut Recording) -> T) -> Option<T> {
    RECORDING.with_borrow_mut(|recording| recording.as_mut().map(change))
}

/// Notes an operation that is about to be done; whether the real disk is to do it: always, but for syncs while noting.
///
/// # Errors
/// The program counts as killed.
pub fn note(point: &str, operation: impl FnOnce() -> Operation) -> io::Result<bool> {
    let noted = with(|recording| {
        if recording.left == Some(0) {
            return Err(io::Error::other("the program was killed"));
        }
        recording.left = recording.left.map(|left| left - 1);
        recording.points.insert(point.to_owned());
        let operation = operation();
        let is_sync = matches!(operation, Operation::Sync(_) | Operation::SyncFolder(_));
        if is_sync && recording.ignored.as_deref() == Some(point) {
            return Ok(false);
        }
        recording.operations.push(operation);
        Ok(!is_sync)
    });
    noted.unwrap_or(Ok(true))
}

/// A change that a power loss may undo.
#[derive(Clone, Debug)]
enum Change {
    Name(PathBuf, usize),
    Move(PathBuf, PathBuf, usize),
    Unname(PathBuf),
    Folder(PathBuf),
    Bytes(usize, usize, Vec<u8>),
    Length(usize, usize),
}

impl Change {
    /// What a power loss may leave of it.
    fn ways(&self) -> &'static [Way] {
        match self {
            Self::Bytes(..) => &[Way::Kept, Way::Lost, Way::Half, Way::Zeros],
            Self::Name(..) | Self::Move(..) | Self::Unname(_) | Self::Folder(_) | Self::Length(..) => {
                &[Way::Kept, Way::Lost]
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Kept,
    Lost,
    Half,
    Zeros,
}

/// The changes in their order, and which are certain.
#[derive(Debug, Default)]
struct Log {
    changes: Vec<(Change, bool)>,
    names: BTreeMap<PathBuf, usize>,
    files: usize,
}

/// Everything that may be below `root` after these operations and a power loss. Other paths are left out.
///
/// # Panics
/// More operations are uncertain than can be gone through, or an operation names a file that was never made.
#[must_use]
pub fn after_power_loss(root: &Path, operations: &[Operation]) -> BTreeSet<Tree> {
    let mut log = Log::default();
    operations.iter().for_each(|operation| log.take(operation));
    let uncertain: Vec<usize> = (0..log.changes.len()).filter(|index| !log.changes[*index].1).collect();
    assert!(uncertain.len() <= UNCERTAIN_MAX, "{} operations are uncertain at once", uncertain.len());
    let mut choices = vec![vec![Way::Kept; log.changes.len()]];
    for index in uncertain {
        let ways = log.changes[index].0.ways();
        choices = choices
            .into_iter()
            .flat_map(|choice| {
                ways.iter().map(move |way| {
                    let mut choice = choice.clone();
                    choice[index] = *way;
                    choice
                })
            })
            .collect();
    }
    choices.iter().map(|choice| log.tree(root, choice)).collect()
}

impl Log {
    fn take(&mut self, operation: &Operation) {
        match operation {
            Operation::MakeFolder(path) => self.push(Change::Folder(path.clone())),
            Operation::Create(path) => match self.names.get(path) {
                Some(file) => self.push(Change::Length(*file, 0)),
                None => self.create(path),
            },
            Operation::Open(path) if self.names.contains_key(path) => {}
            Operation::Open(path) => self.create(path),
            Operation::Write(path, at, bytes) => {
                let at = usize::try_from(*at).expect("an offset in memory");
                self.push(Change::Bytes(self.file(path), at, bytes.clone()));
            }
            Operation::Cut(path, length) => {
                let length = usize::try_from(*length).expect("a length in memory");
                self.push(Change::Length(self.file(path), length));
            }
            Operation::Rename(from, to) => {
                let file = self.file(from);
                self.names.remove(from);
                self.names.insert(to.clone(), file);
                self.push(Change::Move(from.clone(), to.clone(), file));
            }
            Operation::Remove(path) => {
                self.names.remove(path);
                self.push(Change::Unname(path.clone()));
            }
            Operation::Sync(path) => {
                let synced = self.file(path);
                self.settle(|change| {
                    matches!(change, Change::Bytes(file, ..) | Change::Length(file, _) if *file == synced)
                });
            }
            Operation::SyncFolder(folder) => self.settle(|change| match change {
                Change::Name(path, _) | Change::Unname(path) | Change::Folder(path) => {
                    path.parent() == Some(folder)
                }
                Change::Move(_, to, _) => to.parent() == Some(folder),
                Change::Bytes(..) | Change::Length(..) => false,
            }),
        }
    }

    fn push(&mut self, change: Change) {
        self.changes.push((change, false));
    }

    fn create(&mut self, path: &Path) {
        self.names.insert(path.to_owned(), self.files);
        self.push(Change::Name(path.to_owned(), self.files));
        self.files += 1;
    }

    fn file(&self, path: &Path) -> usize {
        *self.names.get(path).unwrap_or_else(|| panic!("{} was never made", path.display()))
    }

    fn settle(&mut self, which: impl Fn(&Change) -> bool) {
        for (change, is_certain) in &mut self.changes {
            *is_certain |= which(change);
        }
    }

    fn tree(&self, root: &Path, choice: &[Way]) -> Tree {
        let mut names: BTreeMap<PathBuf, Option<usize>> = BTreeMap::new();
        let mut files = vec![Vec::new(); self.files];
        for ((change, _), way) in self.changes.iter().zip(choice).filter(|(_, way)| **way != Way::Lost) {
            match change {
                Change::Name(path, file) => drop(names.insert(path.clone(), Some(*file))),
                Change::Folder(path) => drop(names.insert(path.clone(), None)),
                Change::Unname(path) => drop(names.remove(path)),
                Change::Move(from, to, file) => {
                    names.remove(from);
                    names.insert(to.clone(), Some(*file));
                }
                Change::Length(file, length) => files[*file].resize(*length, 0),
                Change::Bytes(file, at, bytes) => write(&mut files[*file], *at, bytes, *way),
            }
        }
        let holds = |path: &Path| {
            path.ancestors()
                .skip(1)
                .take_while(|above| *above != root)
                .all(|above| names.get(above) == Some(&None))
        };
        let below = names.iter().filter(|(path, _)| path.starts_with(root) && *path != root && holds(path));
        below
            .map(|(path, file)| {
                let name = path.strip_prefix(root).expect("it is below the root").to_owned();
                (name, file.map(|file| files[file].clone()))
            })
            .collect()
    }
}

fn write(file: &mut Vec<u8>, at: usize, bytes: &[u8], way: Way) {
    let bytes = match way {
        Way::Half => bytes[..bytes.len() / 2].to_vec(),
        Way::Zeros => vec![0; bytes.len()],
        Way::Kept | Way::Lost => bytes.to_vec(),
    };
    let end = at + bytes.len();
    file.resize(file.len().max(end), 0);
    file[at..end].copy_from_slice(&bytes);
}

/// Puts a tree into an empty folder.
///
/// # Errors
/// The disk of the test failed.
pub fn put(tree: &Tree, folder: &Path) -> io::Result<()> {
    // Sorted, so a folder comes before what is in it.
    for (path, content) in tree {
        match content {
            None => fs::create_dir(folder.join(path))?,
            Some(bytes) => fs::write(folder.join(path), bytes)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Operation::*, *};

    fn path(name: &str) -> PathBuf {
        Path::new("/d").join(name)
    }

    fn left(operations: &[Operation]) -> BTreeSet<Tree> {
        after_power_loss(Path::new("/d"), operations)
    }

    fn tree(files: &[(&str, &str)]) -> Tree {
        files.iter().map(|(name, bytes)| (PathBuf::from(name), Some(bytes.as_bytes().to_vec()))).collect()
    }

    #[test]
    fn what_was_never_synced_may_be_lost_torn_or_kept() {
        let all = left(&[Create(path("a")), Write(path("a"), 0, b"abcd".into())]);
        let whole = [&[][..], &[("a", "")], &[("a", "ab")], &[("a", "abcd")], &[("a", "\0\0\0\0")]];
        assert_eq!(all, whole.into_iter().map(tree).collect());
    }

    #[test]
    fn a_sync_of_a_file_does_not_make_its_name_certain() {
        let all = left(&[Create(path("a")), Write(path("a"), 0, b"abcd".into()), Sync(path("a"))]);
        assert_eq!(all, BTreeSet::from([tree(&[]), tree(&[("a", "abcd")])]));
    }

    #[test]
    fn a_rename_is_lost_or_kept_until_its_folder_is_synced() {
        let write = |name: &str, bytes: &str| {
            [Create(path(name)), Write(path(name), 0, bytes.into()), Sync(path(name))]
        };
        let mut operations = [write("a", "old"), write("b", "new")].concat();
        operations.push(SyncFolder("/d".into()));
        operations.push(Rename(path("b"), path("a")));
        let (old, new) = (tree(&[("a", "old"), ("b", "new")]), tree(&[("a", "new")]));
        assert_eq!(left(&operations), BTreeSet::from([old, new.clone()]));
        operations.push(SyncFolder("/d".into()));
        assert_eq!(left(&operations), BTreeSet::from([new]));
    }

    #[test]
    fn a_folder_that_is_lost_takes_everything_in_it_along() {
        let operations = [MakeFolder(path("sub")), Create(path("sub/a")), SyncFolder(path("sub"))];
        let kept = Tree::from([("sub".into(), None), ("sub/a".into(), Some(Vec::new()))]);
        assert_eq!(left(&operations), BTreeSet::from([Tree::new(), kept]));
    }

    #[test]
    fn a_killed_program_does_nothing_more_and_a_forgotten_sync_is_left_out() {
        let recorder = Recorder::start(Some("x.sync"));
        assert!(!note("x.sync", || Sync(path("a"))).unwrap() && recorder.count() == 0);
        recorder.kill_after(1);
        assert!(note("x.write", || Create(path("a"))).unwrap());
        note("x.write", || Create(path("b"))).unwrap_err();
        recorder.revive();
        assert!(!note("y.sync", || Sync(path("a"))).unwrap());
        assert_eq!(recorder.take().0, [Create(path("a")), Sync(path("a"))]);
    }

    #[test]
    fn a_tree_is_put_into_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Tree::from([("sub".into(), None), ("sub/a".into(), Some(b"1".to_vec()))]);
        put(&kept, dir.path()).unwrap();
        assert_eq!(fs::read(dir.path().join("sub/a")).unwrap(), b"1");
    }
}
