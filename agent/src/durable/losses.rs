//! What a power loss may leave of the state folder: every operation is old or new, and no sync is without need.
//!
//! The real code writes into a real folder and notes its operations; the model makes everything that a disk may hold when
//! it loses what was not synced; the real code reads each of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use fleetswap_faults::disk::{Operation as Noted, Recorder, Tree, after_power_loss, put, unnoted};
use fleetswap_trust::Digest;
use tempfile::TempDir;

use super::*;

/// What is done in a story, and what is seen of it afterwards.
struct Story {
    name: &'static str,
    tell: fn(&Path, &mut Telling),
    /// What is found, in words; an error is what must never be.
    look: fn(&Path) -> Result<String, DurableError>,
    /// What must be seen in the folder as it is, before a start that could mend it: when all is done.
    look_untouched: fn(&Tree, &str) -> bool,
}

/// A story being told.
struct Telling {
    recorder: Recorder,
    /// How many operations had been noted when this was certain.
    marks: Vec<(usize, String)>,
}

impl Telling {
    /// From here on this is what is found.
    fn certain(&mut self, found: &str) {
        self.marks.push((self.recorder.count(), found.to_owned()));
    }
}

const STATE: &str = "var/lib/state";

fn state(root: &Path) -> Result<StateDir, DurableError> {
    StateDir::open(&root.join(STATE))
}

/// A folder in memory where there is one: what the model loses is not up to the real disk.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.unwrap()
}

/// The word in a record, however it is reached.
fn word(record: &Record) -> Result<String, DurableError> {
    Ok(record.load::<String>()?.unwrap_or_else(|| "none".to_owned()))
}

type Reach = fn(&StateDir) -> Record;

const RECORDS: [(&str, Reach); 3] = [
    ("clock", |state| state.records().of("clock")),
    ("@host", StateDir::host_record),
    ("trusted", |state| Record::new(&state.root.join("trust"), "trusted", Kind::Trusted)),
];

fn save_twice(root: &Path, told: &mut Telling, reach: Reach) {
    let state = state(root).unwrap();
    told.certain("none");
    for word in ["one", "two"] {
        reach(&state).save(&word).unwrap();
        told.certain(word);
    }
}

/// Each copy alone is enough.
fn is_in_both(tree: &Tree, folder: &str, name: &str, word: &str) -> bool {
    ["a", "b"].iter().all(|copy| {
        let bytes = tree.get(&Path::new(STATE).join(folder).join(format!("{name}.{copy}")));
        word == "none"
            || matches!(bytes, Some(Some(bytes)) if bytes.ends_with(format!("\"{word}\"").as_bytes()))
    })
}

fn artifact() -> (Digest, u64) {
    (Digest::of(b"artifact"), 8)
}

fn fetch(state: &StateDir) {
    let (sha256, length) = artifact();
    let (part, _) = state.blobs().open_part(sha256).unwrap();
    part.write_at(b"artifice", 0).unwrap();
    part.cut(5).unwrap();
    part.write_at(b"act", 5).unwrap();
    assert!(state.blobs().finish(sha256, length).unwrap());
}

fn seen_blob(root: &Path) -> Result<String, DurableError> {
    let (sha256, length) = artifact();
    Ok(if state(root)?.blobs().holds(sha256, length)? { "whole" } else { "none" }.to_owned())
}

fn seen_manifest(root: &Path) -> Result<String, DurableError> {
    let found = state(root)?.manifests().get(Digest::of(b"manifest"));
    // One that was cut is found out when it is put again.
    let found = found.or_else(|error| if error.code() == "RECORD_DAMAGED" { Ok(None) } else { Err(error) });
    Ok(if found?.is_some() { "whole" } else { "none" }.to_owned())
}

fn untouched(_: &Tree, _: &str) -> bool {
    true
}

/// The format is there before anything else is.
fn has_its_format(tree: &Tree, word: &str) -> bool {
    word == "none" || tree.get(&Path::new(STATE).join("format")) == Some(&Some(b"1\n".to_vec()))
}

fn stories() -> Vec<Story> {
    [stories_of_a_start(), stories_of_records(), stories_of_files(), stories_of_states()]
        .into_iter()
        .flatten()
        .collect()
}

fn stories_of_a_start() -> Vec<Story> {
    vec![
        Story {
            name: "a state folder is made",
            tell: |root, told| {
                told.certain("none");
                drop(state(root).unwrap());
                told.certain("made");
            },
            look: |root| {
                let was = root.join(STATE).join("manifests").is_dir();
                StateDir::open(&root.join(STATE)).map(|_| if was { "made" } else { "none" }.to_owned())
            },
            look_untouched: has_its_format,
        },
        Story {
            name: "the host gets its id",
            tell: |root, told| {
                let state = state(root).unwrap();
                told.certain("none");
                let id = state.host_id().unwrap();
                told.certain(&id);
            },
            look: |root| {
                let was = root.join(STATE).join("host-id").is_file();
                let id = state(root)?.host_id()?;
                Ok(if was { id } else { "none".to_owned() })
            },
            look_untouched: untouched,
        },
    ]
}

fn stories_of_records() -> Vec<Story> {
    vec![
        Story {
            name: "a plugin's record is saved",
            tell: |root, told| save_twice(root, told, RECORDS[0].1),
            look: |root| word(&RECORDS[0].1(&state(root)?)),
            look_untouched: |tree, word| is_in_both(tree, "records", "clock", word),
        },
        Story {
            name: "the host's record is saved",
            tell: |root, told| save_twice(root, told, RECORDS[1].1),
            look: |root| word(&RECORDS[1].1(&state(root)?)),
            look_untouched: |tree, word| is_in_both(tree, "records", "@host", word),
        },
        Story {
            name: "trusted metadata is saved",
            tell: |root, told| save_twice(root, told, RECORDS[2].1),
            look: |root| word(&RECORDS[2].1(&state(root)?)),
            look_untouched: |tree, word| is_in_both(tree, "trust", "trusted", word),
        },
    ]
}

fn stories_of_files() -> Vec<Story> {
    vec![
        Story {
            name: "a blob is fetched",
            tell: |root, told| {
                let state = state(root).unwrap();
                told.certain("none");
                fetch(&state);
                told.certain("whole");
            },
            look: seen_blob,
            look_untouched: untouched,
        },
        Story {
            name: "a manifest is kept",
            tell: |root, told| {
                let state = state(root).unwrap();
                told.certain("none");
                state.manifests().put(b"manifest").unwrap();
                told.certain("whole");
            },
            look: seen_manifest,
            look_untouched: untouched,
        },
        Story {
            name: "old files are removed",
            tell: |root, told| {
                let state = state(root).unwrap();
                fetch(&state);
                state.manifests().put(b"manifest").unwrap();
                told.certain("whole");
                state.manifests().keep_only(&BTreeSet::new()).unwrap();
                state.blobs().keep_only(&BTreeSet::new()).unwrap();
                // A crash may bring it back.
                told.marks.push((usize::MAX, "none".to_owned()));
            },
            look: seen_blob,
            look_untouched: untouched,
        },
    ]
}

fn save_state(state: &StateDir, word: &str) -> Result<(), DurableError> {
    let about = About {
        release: String::new(),
        saved_by: String::new(),
        version: 1,
        unix_ms: 0,
        sequence: 1,
        ends_run: None,
    };
    state.states().save("counter", &about, word.as_bytes())
}

fn seen_state(root: &Path) -> Result<String, DurableError> {
    let found = state(root)?.states().load("counter")?;
    Ok(found.map_or_else(|| "none".to_owned(), |(_, state)| String::from_utf8_lossy(&state).into_owned()))
}

fn stories_of_states() -> Vec<Story> {
    vec![
        Story {
            name: "a plugin's state is kept, and set aside",
            tell: |root, told| {
                let state = state(root).unwrap();
                told.certain("none");
                for word in ["one", "two"] {
                    save_state(&state, word).unwrap();
                    told.certain(word);
                }
                state.states().set_aside("counter").unwrap();
                told.certain("none");
            },
            look: seen_state,
            look_untouched: untouched,
        },
        Story {
            name: "a plugin's state is removed",
            tell: |root, told| {
                let state = state(root).unwrap();
                save_state(&state, "one").unwrap();
                told.certain("one");
                state.states().forget("counter").unwrap();
                // A crash may bring it back.
                told.marks.push((usize::MAX, "none".to_owned()));
            },
            look: seen_state,
            look_untouched: untouched,
        },
    ]
}

/// The same words acted on after a kill: no power loss takes back what the second start found.
struct Relapse {
    name: &'static str,
    first: fn(&StateDir),
    second: fn(&StateDir) -> Result<(), DurableError>,
    look: fn(&Path) -> Result<String, DurableError>,
}

fn relapses() -> Vec<Relapse> {
    vec![
        Relapse {
            name: "a plugin's record",
            first: |state| RECORDS[0].1(state).save(&"one").unwrap(),
            second: |state| RECORDS[0].1(state).save(&"two"),
            look: |root| word(&RECORDS[0].1(&state(root)?)),
        },
        Relapse {
            name: "a plugin's state",
            first: |state| save_state(state, "one").unwrap(),
            second: |state| save_state(state, "two"),
            look: seen_state,
        },
        Relapse {
            name: "trusted metadata",
            first: |state| RECORDS[2].1(state).save(&"one").unwrap(),
            second: |state| RECORDS[2].1(state).save(&"two"),
            look: |root| word(&RECORDS[2].1(&state(root)?)),
        },
        Relapse {
            name: "the host's id",
            first: |_| {},
            second: |state| state.host_id().map(drop),
            look: |root| {
                let id = fs::read_to_string(root.join(STATE).join("host-id"));
                Ok(id.unwrap_or_else(|_| "none".to_owned()))
            },
        },
        Relapse {
            name: "a manifest",
            first: |_| {},
            second: |state| state.manifests().put(b"manifest").map(drop),
            look: seen_manifest,
        },
        Relapse {
            name: "a blob",
            first: |state| {
                let (part, _) = state.blobs().open_part(artifact().0).unwrap();
                part.write_at(b"artifact", 0).unwrap();
            },
            second: |state| state.blobs().finish(artifact().0, artifact().1).map(drop),
            look: seen_blob,
        },
    ]
}

/// Violations, story by story, with the failpoints that were passed.
fn survey(ignored: Option<&str>) -> impl Iterator<Item = (Vec<String>, BTreeSet<String>)> {
    let told = stories().into_iter().map(move |story| {
        let dir = folder();
        let mut told = Telling { recorder: Recorder::start(ignored), marks: Vec::new() };
        (story.tell)(dir.path(), &mut told);
        let (operations, points) = told.recorder.take();
        let mut looks = BTreeMap::new();
        let cuts = told.marks[0].0..=operations.len();
        let cuts = cuts.map(|cut| check(&story, dir.path(), (&operations[..cut], &told.marks), &mut looks));
        (cuts.flatten().collect(), points)
    });
    told.chain(relapses().into_iter().map(move |relapse| relapses_of(&relapse, ignored)))
}

/// What is seen of a tree, once for each.
type Looks = BTreeMap<Tree, String>;

/// Everything that a power loss may leave at this cut.
fn check(
    story: &Story,
    root: &Path,
    (before, marks): (&[Noted], &[(usize, String)]),
    looks: &mut Looks,
) -> Vec<String> {
    let cut = before.len();
    let done = marks.iter().rposition(|(at, _)| *at <= cut).unwrap();
    let is_exact = marks[done].0 == cut;
    let allowed: Vec<&str> =
        marks[done..].iter().take(if is_exact { 1 } else { 2 }).map(|(_, found)| found.as_str()).collect();
    let mut violations = Vec::new();
    for tree in after_power_loss(root, before) {
        let is_left = !is_exact || (story.look_untouched)(&tree, allowed[0]);
        let found = looks.entry(tree.clone()).or_insert_with(|| look(story.look, &tree));
        if !is_left || !allowed.contains(&found.as_str()) {
            violations.push(format!("{}: after {cut} operations {found}, not {allowed:?}", story.name));
        }
    }
    violations
}

fn look(look: fn(&Path) -> Result<String, DurableError>, tree: &Tree) -> String {
    let left = folder();
    put(tree, left.path()).unwrap();
    unnoted(|| look(left.path())).unwrap_or_else(|error| error.to_string())
}

/// Kills the agent after each operation, starts it again, and looks at what a power loss leaves of what it found.
fn relapses_of(relapse: &Relapse, ignored: Option<&str>) -> (Vec<String>, BTreeSet<String>) {
    let (mut violations, mut passed, mut looks) = (Vec::new(), BTreeSet::new(), Looks::new());
    for killed_after in 0.. {
        let dir = folder();
        let recorder = Recorder::start(ignored);
        let state = state(dir.path()).unwrap();
        (relapse.first)(&state);
        recorder.kill_after(killed_after);
        let was_killed = (relapse.second)(&state).is_err();
        recorder.revive();
        drop(state);
        drop(self::state(dir.path()).unwrap());
        let found = unnoted(|| (relapse.look)(dir.path())).unwrap();
        let (operations, points) = recorder.take();
        passed.extend(points);
        for tree in after_power_loss(dir.path(), &operations) {
            let later = looks.entry(tree.clone()).or_insert_with(|| look(relapse.look, &tree));
            if *later != found {
                violations.push(format!("{}: {found} was found, and later {later}", relapse.name));
            }
        }
        if !was_killed {
            break;
        }
    }
    (violations, passed)
}

#[test]
fn after_a_power_loss_everything_is_old_or_new_and_what_was_acknowledged_is_new() {
    let (violations, passed): (Vec<_>, Vec<_>) = survey(None).unzip();
    assert_eq!(violations.concat(), [""; 0]);
    let passed: BTreeSet<String> = passed.into_iter().flatten().collect();
    let all: BTreeSet<String> = Point::all().into_iter().map(Point::name).collect();
    let never: Vec<_> = all.difference(&passed).collect();
    assert!(never.is_empty(), "no story passes {never:?}");
    let unlisted: Vec<_> = passed.difference(&all).collect();
    assert!(unlisted.is_empty(), "{unlisted:?} is not in the list of failpoints");
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
