//! What a power loss may leave of the controller's files: each is old or new, and no sync is without need.
//!
//! The real code writes into a real folder and notes its operations; the model makes everything that a disk may hold when
//! it loses what was not synced; the real code, or a plain look, reads each of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::SystemTime,
};

use fleetswap_faults::disk::{Recorder, Tree, after_power_loss, put, unnoted};
use fleetswap_trust::Digest;
use tempfile::TempDir;

use super::*;
use crate::blobs::Blobs;

const DATA: &str = "var/controller";

/// A story being told.
struct Telling {
    recorder: Recorder,
    /// How many operations had been noted when this was certain.
    marks: Vec<(usize, String)>,
}

impl Telling {
    fn certain(&mut self, found: &str) {
        self.marks.push((self.recorder.count(), found.to_owned()));
    }
}

type Tell = dyn Fn(&Path, &mut Telling);
type Look = dyn Fn(&Path) -> String;

struct Story {
    name: String,
    tell: Box<Tell>,
    look: Box<Look>,
}

/// A folder in memory where there is one: what the model loses is not up to the real disk.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.unwrap()
}

fn file(root: &Path) -> String {
    let bytes = fs::read(root.join(DATA).join("file"));
    bytes.map_or_else(|_| "none".to_owned(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// A file of this kind is written twice.
fn replaced(kind: Kind) -> Story {
    Story {
        name: format!("{kind:?} is replaced"),
        tell: Box::new(move |root, told| {
            told.certain("none");
            create_folder(&root.join(DATA), 0o700).unwrap();
            for word in ["old", "new"] {
                write(kind, &root.join(DATA).join("file"), word.as_bytes(), 0o600).unwrap();
                told.certain(word);
            }
        }),
        look: Box::new(file),
    }
}

/// The program is killed in the second write; what its next start finds no power loss takes back.
fn found_again(kind: Kind, killed_after: usize) -> Story {
    Story {
        name: format!("{kind:?} is found after a kill"),
        tell: Box::new(move |root, told| {
            let (data, path) = (root.join(DATA), root.join(DATA).join("file"));
            create_folder(&data, 0o700).unwrap();
            write(kind, &path, b"old", 0o600).unwrap();
            told.recorder.kill_after(killed_after);
            drop(write(kind, &path, b"new", 0o600));
            told.recorder.revive();
            settle(kind, &data).unwrap();
            told.certain(&file(root));
        }),
        look: Box::new(file),
    }
}

fn blobs(root: &Path) -> Blobs {
    Blobs::open(&root.join(DATA), SystemTime::UNIX_EPOCH).unwrap()
}

/// An upload in two parts, the first of which is sent again in part.
fn uploaded() -> Story {
    Story {
        name: "a blob is uploaded".to_owned(),
        tell: Box::new(|root, told| {
            told.certain("none");
            let (blobs, sha256) = (blobs(root), Digest::of(b"artifact"));
            let mut begun = blobs.upload(sha256, 8, 0).unwrap();
            begun.write(b"arti").unwrap();
            begun.finish().unwrap();
            let mut rest = blobs.upload(sha256, 8, 2).unwrap();
            rest.write(b"tifact").unwrap();
            rest.finish().unwrap();
            told.certain("artifact");
        }),
        look: Box::new(|root| {
            let held = blobs(root).get(Digest::of(b"artifact"), 8);
            held.map_or_else(|_| "none".to_owned(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
        }),
    }
}

fn stories() -> Vec<Story> {
    let mut stories: Vec<Story> =
        [Kind::Init, Kind::Seen, Kind::Metadata, Kind::Blob].map(replaced).into_iter().collect();
    stories.push(uploaded());
    // Remove, create, write, sync, rename, sync of the folder.
    stories.extend((0..=6).flat_map(|cut| [Kind::Metadata, Kind::Blob].map(|kind| found_again(kind, cut))));
    stories
}

/// Violations, story by story, with the failpoints that were passed.
fn survey(ignored: Option<&str>) -> impl Iterator<Item = (Vec<String>, BTreeSet<String>)> {
    stories().into_iter().map(move |story| {
        let dir = folder();
        let mut told = Telling { recorder: Recorder::start(ignored), marks: Vec::new() };
        (story.tell)(dir.path(), &mut told);
        let (operations, points) = told.recorder.take();
        let (mut violations, mut looks) = (Vec::new(), BTreeMap::new());
        for cut in told.marks[0].0..=operations.len() {
            let done = told.marks.iter().rposition(|(at, _)| *at <= cut).unwrap();
            let many = if told.marks[done].0 == cut { 1 } else { 2 };
            let allowed: Vec<&str> =
                told.marks[done..].iter().take(many).map(|(_, it)| it.as_str()).collect();
            for tree in after_power_loss(dir.path(), &operations[..cut]) {
                let found = looks.entry(tree.clone()).or_insert_with(|| look(&story, &tree));
                if !allowed.contains(&found.as_str()) {
                    violations
                        .push(format!("{}: after {cut} operations {found}, not {allowed:?}", story.name));
                }
            }
        }
        (violations, points)
    })
}

fn look(story: &Story, tree: &Tree) -> String {
    let left = folder();
    put(tree, left.path()).unwrap();
    unnoted(|| (story.look)(left.path()))
}

#[test]
fn after_a_power_loss_every_file_is_old_or_new_and_what_was_acknowledged_is_new() {
    let (violations, passed): (Vec<_>, Vec<_>) = survey(None).unzip();
    assert_eq!(violations.concat(), [""; 0]);
    let passed: BTreeSet<String> = passed.into_iter().flatten().collect();
    let all: BTreeSet<String> = Point::all().into_iter().map(Point::name).collect();
    assert_eq!(passed, all, "the stories pass the failpoints of the list, and no others");
}

#[test]
fn no_sync_can_be_left_out_without_something_being_lost() {
    let syncs = Point::all().into_iter().filter(|Point(_, operation)| match operation {
        Operation::Sync | Operation::SyncFolder | Operation::SyncAtStart => true,
        Operation::Make | Operation::Open | Operation::Write | Operation::Cut => false,
        Operation::Rename | Operation::Remove => false,
    });
    let names: Vec<String> = syncs.map(Point::name).collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        let loses = survey(Some(&name)).any(|(violations, _)| !violations.is_empty());
        assert!(loses, "without {name} nothing is lost: it is not needed, or the stories miss it");
    }
}
