//! Errors in the operator's words: what happened, why, and what to do.

use std::error::Error;

use fleetswap_proto::Explained;

use crate::durable::DurableError;

/// An error of the state folder.
pub(crate) fn durable(error: &DurableError) -> Explained {
    let fix = match error.code() {
        "DISK_FULL" => "make room on the disk of `state_dir`, then start the agent again",
        "RECORD_DAMAGED" => {
            "restore the file from a backup, or move the state folder away and let the controller install again"
        }
        "FORMAT_TOO_NEW" => "start the newer agent that wrote it; nothing was changed",
        "STATE_DIR_LOCKED" => "stop the other agent, or give this one a `state_dir` of its own",
        "STATE_TOO_LARGE" => "look into the release that asks for so many bytes",
        _ => "see that `state_dir` exists, is writable and that its disk is healthy",
    };
    Explained::new(error.code(), error.to_string(), cause(error), fix)
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        words = format!("{words}: {next}");
        cause = next.source();
    }
    words
}

/// The first cause of an error: the layers above it only say that they have failed as well.
pub(crate) fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}

fn cause(error: &DurableError) -> String {
    match error {
        DurableError::Io { source, .. } => source.to_string(),
        DurableError::Damaged { .. } => {
            "the bytes are not those that were written, and there is no good copy".into()
        }
        DurableError::NewerFormat { .. } => "an agent never touches what it does not understand".into(),
        DurableError::Locked { .. } => "two agents would overwrite each other's records".into(),
        DurableError::NoRoom { .. } => "the disk of the state folder is full".into(),
        DurableError::TooLarge { .. } => "everything that is kept on disk has a bound".into(),
    }
}
