//! Saved states: what a plugin handed over at the agent's end, or at a checkpoint. One file per plugin.
//!
//! A file is one line `fleetswap-state FORMAT SHA256`, one line of JSON that says what it is, and the state. The
//! checksum covers format, JSON and state. A damaged file is an error that is told, never taken; it is kept aside as
//! `NAME.aside` for whoever can make something of it, the newest such file only.

use std::{fmt::Write as _, path::PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{DurableError, Kind, Operation, Point, disk, read, remove, replace, sync_folder};

/// First word of every file.
const MAGIC: &str = "fleetswap-state";
/// Largest format that this agent reads; the one that it writes.
const FORMAT: u32 = 1;
/// Largest state, in bytes; as in the ABI.
pub(crate) const STATE_MAX: u64 = 64 * 1024 * 1024;
/// Room for the two lines before the state, in bytes.
const HEAD_MAX: u64 = 4 * 1024;

/// The folder of states.
#[derive(Clone, Debug)]
pub(crate) struct States {
    dir: PathBuf,
}

/// What a state is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    /// Id of the release that saved it.
    pub(crate) release: String,
    /// Its version, for people.
    pub(crate) saved_by: String,
    /// State version.
    pub(crate) version: u32,
    /// When it was saved, in milliseconds since 1970.
    pub(crate) unix_ms: u64,
    /// Grows with each file of this plugin.
    pub(crate) sequence: u64,
    /// The run of the agent that ended with it: nothing was active after it in that run. `None` for a checkpoint.
    pub(crate) ends_run: Option<u64>,
}

impl States {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// A folder of its own.
    #[cfg(test)]
    pub(crate) fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Keeps a state in place of the one before. `plugin` must be a valid plugin name: it becomes a file name.
    ///
    /// # Errors
    /// More than [`STATE_MAX`] bytes, or the disk failed: then the old file is still there.
    pub(crate) fn save(&self, plugin: &str, about: &About, state: &[u8]) -> Result<(), DurableError> {
        let (path, length) = (self.path(plugin), state.len() as u64);
        if length > STATE_MAX {
            return Err(DurableError::TooLarge { path, length, max: STATE_MAX });
        }
        let head = serde_json::to_vec(about)
            .map_err(|error| DurableError::Damaged { path: path.clone(), why: error.to_string() })?;
        let mut file = format!("{MAGIC} {FORMAT} {}\n", checksum(FORMAT, &head, state)).into_bytes();
        file.reserve_exact(head.len() + 1 + state.len());
        file.extend_from_slice(&head);
        file.push(b'\n');
        file.extend_from_slice(state);
        replace(Kind::SavedState, &path, &file)?;
        self.sync()
    }

    /// The state that was saved last; `None` if there is none.
    ///
    /// # Errors
    /// [`DurableError::Damaged`], a newer format, or the disk failed.
    pub(crate) fn load(&self, plugin: &str) -> Result<Option<(About, Bytes)>, DurableError> {
        let path = self.path(plugin);
        let Some(file) = read(&path, STATE_MAX + HEAD_MAX)? else { return Ok(None) };
        let file = Bytes::from(file);
        let damaged = |why: String| DurableError::Damaged { path: path.clone(), why };
        let (line, rest) = split_line(&file).ok_or_else(|| damaged("it has no first line".to_owned()))?;
        let line = String::from_utf8_lossy(&line).into_owned();
        let mut words = line.split(' ');
        let (magic, format, sum) = (words.next(), words.next(), words.next());
        let format: u32 = format
            .filter(|_| magic == Some(MAGIC))
            .and_then(|format| format.parse().ok())
            .ok_or_else(|| damaged("its first line is not that of a state".to_owned()))?;
        if format > FORMAT {
            return Err(DurableError::NewerFormat { path, found: format });
        }
        let (head, state) = split_line(&rest).ok_or_else(|| damaged("it is cut off".to_owned()))?;
        if sum != Some(checksum(format, &head, &state).as_str()) {
            return Err(damaged("its checksum does not match".to_owned()));
        }
        let about = serde_json::from_slice(&head).map_err(|error| damaged(error.to_string()))?;
        Ok(Some((about, state)))
    }

    /// Keeps the file where no start takes it from. One that isn't there is no error.
    ///
    /// # Errors
    /// The disk failed.
    pub(crate) fn set_aside(&self, plugin: &str) -> Result<(), DurableError> {
        let path = self.path(plugin);
        if !path.exists() {
            return Ok(());
        }
        disk::rename(Kind::SavedState, &path, &self.aside(plugin))
            .map_err(DurableError::io("renaming", &path))?;
        self.sync()
    }

    /// Where a file is kept aside.
    pub(crate) fn aside(&self, plugin: &str) -> PathBuf {
        self.dir.join(format!("{plugin}.aside"))
    }

    /// Removes everything of a plugin.
    ///
    /// # Errors
    /// The disk failed.
    pub(crate) fn forget(&self, plugin: &str) -> Result<(), DurableError> {
        remove(Kind::SavedState, &self.path(plugin))?;
        remove(Kind::SavedState, &self.aside(plugin))
    }

    fn sync(&self) -> Result<(), DurableError> {
        sync_folder(Point(Kind::SavedState, Operation::SyncFolder), &self.dir)
    }

    fn path(&self, plugin: &str) -> PathBuf {
        self.dir.join(plugin)
    }
}

fn split_line(bytes: &Bytes) -> Option<(Bytes, Bytes)> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some((bytes.slice(..end), bytes.slice(end + 1..)))
}

fn checksum(format: u32, head: &[u8], state: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update(format.to_be_bytes());
    hash.update((head.len() as u64).to_be_bytes());
    hash.update(head);
    hash.update(state);
    hash.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn about(sequence: u64) -> About {
        About {
            release: "ab".repeat(32),
            saved_by: "1.0.0".into(),
            version: 2,
            unix_ms: 7,
            sequence,
            ends_run: Some(3),
        }
    }

    fn states() -> (tempfile::TempDir, States) {
        let dir = tempfile::tempdir().unwrap();
        let states = States::new(dir.path().to_owned());
        (dir, states)
    }

    #[test]
    fn a_state_is_found_as_it_was_saved_and_each_plugin_has_its_own() {
        let (_dir, states) = states();
        assert!(states.load("counter").unwrap().is_none());
        states.save("counter", &about(1), b"one\ntwo").unwrap();
        states.save("counter", &about(2), b"\nthree").unwrap();
        assert_eq!(states.load("counter").unwrap().unwrap(), (about(2), Bytes::from_static(b"\nthree")));
        assert!(states.load("clock").unwrap().is_none());
        states.forget("counter").unwrap();
        assert!(states.load("counter").unwrap().is_none());
    }

    #[test]
    fn a_state_with_any_byte_changed_or_cut_off_is_never_taken() {
        let (dir, states) = states();
        states.save("counter", &about(1), b"{\"value\":7}").unwrap();
        let file = fs::read(dir.path().join("counter")).unwrap();
        for at in 0..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 1;
            fs::write(dir.path().join("counter"), &changed).unwrap();
            let loaded = states.load("counter");
            let is_told =
                matches!(loaded, Err(DurableError::Damaged { .. } | DurableError::NewerFormat { .. }));
            assert!(is_told, "byte {at}: {loaded:?}");
            fs::write(dir.path().join("counter"), &file[..at]).unwrap();
            assert!(matches!(states.load("counter"), Err(DurableError::Damaged { .. })), "cut at {at}");
        }
    }

    #[test]
    fn a_newer_format_is_told_from_damage() {
        let (dir, states) = states();
        fs::write(dir.path().join("counter"), "fleetswap-state 2 00\n{}\n").unwrap();
        assert_eq!(states.load("counter").unwrap_err().code(), "FORMAT_TOO_NEW");
    }

    #[test]
    fn a_state_beyond_its_bound_is_refused_and_the_old_one_stays() {
        let (_dir, states) = states();
        states.save("counter", &about(1), b"7").unwrap();
        let large = vec![0; usize::try_from(STATE_MAX).unwrap() + 1];
        assert_eq!(states.save("counter", &about(2), &large).unwrap_err().code(), "STATE_TOO_LARGE");
        assert_eq!(states.load("counter").unwrap().unwrap().0.sequence, 1);
        states.save("counter", &about(3), &large[1..]).unwrap();
        assert_eq!(states.load("counter").unwrap().unwrap().1.len() as u64, STATE_MAX);
    }

    #[test]
    fn what_is_set_aside_is_kept_and_not_found() {
        let (dir, states) = states();
        states.set_aside("counter").unwrap();
        states.save("counter", &about(1), b"7").unwrap();
        states.set_aside("counter").unwrap();
        assert!(states.load("counter").unwrap().is_none());
        assert!(fs::read(dir.path().join("counter.aside")).unwrap().ends_with(b"7"));
    }
}
