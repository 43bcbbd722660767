//! The daemon's sockets, and why one did not open.

use std::{
    error::Error,
    fmt, fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use fleetswap_proto::Explained;

use crate::explain::root_cause;

/// A socket of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// For `agent status` and `agent logs`; only the agent's own user may open it.
    Control,
    /// For calls; its group may open it as well.
    Front,
}

/// Nobody answered at a socket.
pub(super) fn unreachable(socket: &Path, door: Door, error: &(dyn Error + 'static)) -> Explained {
    let place = socket.display();
    let (what, why, fix) = match io_kind(error) {
        Some(io::ErrorKind::PermissionDenied) => return denied(socket, door),
        Some(io::ErrorKind::NotFound) => (
            format!("no agent answers on {place}: there is no such socket"),
            "the daemon does not run, or it was started with another configuration".to_owned(),
            "start it with `agent daemon`, and name the same configuration with --config here",
        ),
        Some(io::ErrorKind::ConnectionRefused) => (
            format!("no agent answers on {place}: nobody listens there"),
            "the daemon has ended without removing its socket, as after a kill".to_owned(),
            "start it again with `agent daemon`; its log says how it ended",
        ),
        _ => (
            format!("no agent answers on {place}"),
            root_cause(error),
            "see in the agent's log whether it is stopping or has too much to do, then try again",
        ),
    };
    Explained::new("AGENT_UNREACHABLE", what, why, fix)
}

fn denied(socket: &Path, door: Door) -> Explained {
    let owner = fs::metadata(socket).ok();
    let user = owner.as_ref().map_or_else(|| "USER".to_owned(), |owner| format!("'#{}'", owner.uid()));
    let as_user = format!("run the command as the agent's user: sudo -u {user} agent …");
    let (why, fix) = match door {
        Door::Control => ("only the user who runs the agent may open its control socket", as_user),
        Door::Front => (
            "only the agent's user and the members of the front's group may open it",
            format!("join the group of the socket (`front.group` in the configuration), or {as_user}"),
        ),
    };
    let rights = owner.map_or_else(
        || "its folder is closed to this user".to_owned(),
        |owner| {
            let mode = owner.permissions().mode() & 0o777;
            format!("it belongs to user {} and group {}, mode {mode:o}", owner.uid(), owner.gid())
        },
    );
    let what = format!("this user may not open the agent's {door} socket {}", socket.display());
    Explained::new("SOCKET_DENIED", what, format!("{why}; {rights}"), fix)
}

/// What the system said, somewhere below the layers of HTTP.
fn io_kind(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    let mut layer = Some(error);
    let mut kind = None;
    while let Some(error) = layer {
        kind = error.downcast_ref::<io::Error>().map(io::Error::kind).or(kind);
        layer = error.source();
    }
    kind
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Control => "control",
            Self::Front => "front",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(kind: io::ErrorKind, socket: &Path, door: Door) -> Explained {
        unreachable(socket, door, &io::Error::from(kind))
    }

    #[test]
    fn a_closed_socket_names_whose_it_is_and_not_a_missing_daemon() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (door, way) in [(Door::Control, "sudo -u"), (Door::Front, "front.group")] {
            let error = said(io::ErrorKind::PermissionDenied, file.path(), door);
            assert_eq!(error.code, "SOCKET_DENIED");
            assert!(error.why.contains("mode 600") && error.fix.contains(way), "{error}");
            assert!(!error.fix.contains("start it"), "{error}");
        }
        let error = said(io::ErrorKind::PermissionDenied, Path::new("/nonexistent/sock"), Door::Control);
        assert!(error.why.contains("folder is closed"), "{error}");
    }

    #[test]
    fn a_socket_that_is_not_there_differs_from_one_that_nobody_listens_on() {
        let path = Path::new("/run/none.sock");
        let absent = said(io::ErrorKind::NotFound, path, Door::Control);
        let deserted = said(io::ErrorKind::ConnectionRefused, path, Door::Control);
        assert_eq!((&*absent.code, &*deserted.code), ("AGENT_UNREACHABLE", "AGENT_UNREACHABLE"));
        assert!(absent.what.contains("no such socket") && deserted.what.contains("nobody listens"));
        assert!(absent.fix.contains("--config") && deserted.fix.contains("log"));
    }
}
