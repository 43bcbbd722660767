//! Durable files: the only place of this program that syncs and renames, with the parts below it.
//!
//! A write is: new file, its bytes, fsync, rename over the name, fsync of the folder. A crash leaves the old file or
//! the new one, never a part. Each operation is a failpoint, and no sync is without need:
//! `docs/decisions/0010-durable-writing.md`. The store is SQLite's own, with `PRAGMA synchronous = FULL`.

#[cfg(test)]
mod losses;
mod points;

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

#[cfg(feature = "failpoints")]
pub(crate) use points::list;
pub(crate) use points::{Kind, Moment};
use points::{Operation, Point};

/// Notes the operation for the tests' model of a disk; whether it is to be done. Always, outside of tests.
macro_rules! noted {
    ($point:expr, $operation:ident($($path:expr),+)) => {{
        #[cfg(test)]
        {
            use fleetswap_faults::disk::{Operation as Noted, note};
            note(&$point.name(), || Noted::$operation($($path.to_owned()),+))?
        }
        #[cfg(not(test))]
        true
    }};
}

/// Ends the name of a file that is not yet whole; one that a crash left behind is overwritten by the next write.
const PART: &str = ".new";

/// Replaces the file at `path` by `bytes` with permission bits `mode`; durable when it returns.
pub(crate) fn write(kind: Kind, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(PART);
    let part = path.with_file_name(name);
    remove(kind, &part)?;
    noted!(Point(kind, Operation::Write), Create(part));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&part)?;
    append(kind, &mut file, &part, (bytes, 0))?;
    commit(kind, &file, &part, path)
}

/// Opens a file that grows, or makes it with permission bits `mode`.
pub(crate) fn open(kind: Kind, path: &Path, mode: u32) -> io::Result<File> {
    let point = Point(kind, Operation::Open);
    point.pass()?;
    noted!(point, Open(path));
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(mode).open(path)
}

/// Writes bytes where the file stands, which is `at`. Durable only once the file is committed.
pub(crate) fn append(kind: Kind, file: &mut File, path: &Path, (bytes, at): (&[u8], u64)) -> io::Result<()> {
    let point = Point(kind, Operation::Write);
    // A failpoint lets half of the bytes through first, as a disk does that fills up.
    let passed = point.pass();
    // Of use for the tests' model alone.
    let (_, _) = (path, at);
    #[cfg(test)]
    fleetswap_faults::disk::note(&point.name(), || {
        fleetswap_faults::disk::Operation::Write(path.to_owned(), at, bytes.to_owned())
    })?;
    let whole = matches!(passed, Ok(false));
    let (first, rest) = bytes.split_at(if whole { bytes.len() } else { bytes.len() / 2 });
    file.write_all(first)?;
    passed?;
    file.write_all(rest)
}

/// Keeps only the first `length` bytes of a file that grows.
pub(crate) fn cut(kind: Kind, file: &File, path: &Path, length: u64) -> io::Result<()> {
    let point = Point(kind, Operation::Cut);
    point.pass()?;
    // Of use for the tests' model alone.
    let _ = path;
    #[cfg(test)]
    fleetswap_faults::disk::note(&point.name(), || {
        fleetswap_faults::disk::Operation::Cut(path.to_owned(), length)
    })?;
    file.set_len(length)
}

/// Makes a fully written file durable under its final name.
pub(crate) fn commit(kind: Kind, file: &File, from: &Path, to: &Path) -> io::Result<()> {
    let (sync, rename) = (Point(kind, Operation::Sync), Point(kind, Operation::Rename));
    sync.pass()?;
    if noted!(sync, Sync(from)) {
        file.sync_all()?;
    }
    rename.pass()?;
    noted!(rename, Rename(from, to));
    fs::rename(from, to)?;
    sync_folder(Point(kind, Operation::SyncFolder), above(to))
}

/// Makes a folder (and the ones above it that are missing) durably, with permission bits `mode`.
pub(crate) fn create_folder(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
        create_folder(above, mode)?;
    }
    let make = Point(Kind::Folder, Operation::Make);
    make.pass()?;
    noted!(make, MakeFolder(path));
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !path.is_dir() => Err(error),
        _ => sync_folder(Point(Kind::Folder, Operation::SyncFolder), above(path)),
    }
}

/// What a start finds in a folder is durable when this returns: a program that was killed may have renamed without
/// having synced, and what is found is acted on.
pub(crate) fn settle(kind: Kind, folder: &Path) -> io::Result<()> {
    sync_folder(Point(kind, Operation::SyncAtStart), folder)
}

/// Removes a file; one that is gone already is fine. A crash may bring it back, which is harmless: what is removed is
/// incomplete and never read as if it were whole.
pub(crate) fn remove(kind: Kind, path: &Path) -> io::Result<()> {
    let point = Point(kind, Operation::Remove);
    point.pass()?;
    noted!(point, Remove(path));
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync_folder(point: Point, folder: &Path) -> io::Result<()> {
    point.pass()?;
    if noted!(point, SyncFolder(folder)) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// The folder in which `path` stands.
fn above(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_replaces_the_file_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("timestamp.json");
        write(Kind::Metadata, &path, b"old", 0o600).unwrap();
        write(Kind::Metadata, &path, b"new", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_part_that_a_crash_left_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("timestamp.json");
        fs::write(dir.path().join("timestamp.json.new"), b"half").unwrap();
        write(Kind::Metadata, &path, b"whole", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
    }

    #[test]
    fn a_failed_write_keeps_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("timestamp.json");
        write(Kind::Metadata, &path, b"old", 0o600).unwrap();
        fs::create_dir(dir.path().join("timestamp.json.new")).unwrap();
        assert!(write(Kind::Metadata, &path, b"new", 0o600).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }

    #[test]
    fn a_folder_is_made_with_those_above_it_and_not_over_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        create_folder(&deep, 0o700).unwrap();
        create_folder(&deep, 0o700).unwrap();
        fs::write(dir.path().join("file"), b"").unwrap();
        assert!(create_folder(&dir.path().join("file"), 0o700).is_err());
        assert!(create_folder(&dir.path().join("file/below"), 0o700).is_err());
    }

    #[test]
    fn removing_what_is_gone_is_fine() {
        let dir = tempfile::tempdir().unwrap();
        assert!(remove(Kind::Blob, &dir.path().join("gone")).is_ok());
    }
}
