//! Who speaks on the control socket: the kernel says, and nobody can claim another name.

use std::{fs, path::Path};

use axum::{Extension, Router};
use fleetswap_update::ORDERED_BY_MAX;
use hyper_util::service::TowerToHyperService;
use tokio::net::UnixStream;

/// Largest `/etc/passwd` that is searched, in bytes.
const PASSWD_MAX: u64 = 4 * 1024 * 1024;

/// The user at the other end of a connection; `None` if the kernel doesn't say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer(pub(crate) Option<u32>);

/// The answers for one connection of the control socket: they know whose it is.
pub(crate) fn greet(router: &Router, stream: &UnixStream) -> TowerToHyperService<Router> {
    // SO_PEERCRED: who connected, not who holds the descriptor now.
    let peer = Peer(stream.peer_cred().ok().map(|peer| peer.uid()));
    TowerToHyperService::new(router.clone().layer(Extension(peer)))
}

impl Peer {
    /// The user's name, or its number where it has none.
    pub(crate) fn name(self) -> String {
        let Some(uid) = self.0 else { return "an unknown user".to_owned() };
        passwd().and_then(|text| find_user(&text, uid)).unwrap_or_else(|| format!("uid {uid}"))
    }
}

fn passwd() -> Option<String> {
    let path = Path::new("/etc/passwd");
    let length = fs::metadata(path).ok()?.len();
    (length <= PASSWD_MAX).then(|| fs::read_to_string(path).ok()).flatten()
}

/// The name behind a number in the text of `/etc/passwd` (`NAME:PASSWORD:ID:…`), if it is short and printable.
fn find_user(text: &str, uid: u32) -> Option<String> {
    let is_it = |line: &&str| line.split(':').nth(2).and_then(|id| id.parse().ok()) == Some(uid);
    let name = text.lines().find(is_it)?.split(':').next()?;
    let is_shown = !name.is_empty() && name.len() <= ORDERED_BY_MAX && !name.chars().any(char::is_control);
    is_shown.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_number_alone() {
        let text =
            "root:x:0:0:root:/root:/bin/sh\nbroken\nalice:x:1000:0::/home/alice:/bin/sh\n\u{7}:x:7:0:::\n";
        assert_eq!(find_user(text, 0).as_deref(), Some("root"));
        assert_eq!(find_user(text, 1000).as_deref(), Some("alice"), "not by its group");
        assert_eq!((find_user(text, 100), find_user(text, 7)), (None, None));
        assert_eq!(Peer(Some(4_000_000_000)).name(), "uid 4000000000");
    }
}
