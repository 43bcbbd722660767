//! The stage: the one folder that a demo writes in, and the result that its story leaves there.

use std::{
    fs::{self, File},
    io::ErrorKind,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Empty until the story is over; so it also marks the folder as a stage.
const RESULT: &str = "result.json";
/// How often [`Stage::clear`] tries, and its pause before it tries again.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Clone, Debug)]
pub(crate) struct Stage {
    folder: PathBuf,
}

impl Stage {
    /// Makes a new folder, under the system's folder for temporary files.
    pub(crate) fn set_up() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("fleetswap-").tempdir().context("a folder")?;
        File::create_new(folder.path().join(RESULT)).context("marking the folder")?;
        Ok(Self { folder: folder.keep() })
    }

    /// For the story: refuses a folder that no keeper has set up, since it is going to be removed.
    pub(crate) fn enter(folder: &Path) -> Result<Self> {
        let mark = folder.join(RESULT);
        let fresh = fs::metadata(mark).is_ok_and(|mark| mark.is_file() && mark.len() == 0);
        ensure!(fresh, "{} is no stage of a demo", folder.display());
        Ok(Self { folder: folder.to_owned() })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Leaves the story's result, whole or not at all.
    pub(crate) fn leave_result(&self, result: &Value) -> Result<()> {
        let unfinished = self.folder.join("result.part");
        fs::write(&unfinished, result.to_string()).context("writing the result")?;
        fs::rename(unfinished, self.folder.join(RESULT)).context("leaving the result")
    }

    /// The story's result; `None` while it has not come to its end.
    pub(crate) fn result(&self) -> Option<Value> {
        serde_json::from_slice(&fs::read(self.folder.join(RESULT)).ok()?).ok()
    }

    /// Removes the folder, though somebody may still write in it.
    pub(crate) fn clear(&self) -> Result<()> {
        let mut removed = fs::remove_dir_all(&self.folder);
        for _ in 1..TRIES {
            match &removed {
                Ok(()) => break,
                Err(error) if error.kind() == ErrorKind::NotFound && !self.folder.exists() => return Ok(()),
                Err(_) => thread::sleep(PAUSE),
            }
            removed = fs::remove_dir_all(&self.folder);
        }
        removed.with_context(|| format!("removing {}", self.folder.display()))
    }
}
