//! What the environment of whoever starts the tests must not change.

use std::{
    env,
    ffi::{OsStr, OsString},
    process::Command,
};

/// Names in the history, colours, and the width of help texts.
const NAMES: [&str; 5] = ["USER", "LOGNAME", "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS"];

/// Starts a program of the fleet without them: the same words everywhere, and no detour for loopback addresses.
pub(super) fn without_surroundings(command: &mut Command) -> &mut Command {
    for name in disturbing(env::vars_os().map(|(name, _)| name)) {
        command.env_remove(name);
    }
    command.env("NO_COLOR", "1")
}

fn disturbing(names: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    let is_proxy = |name: &OsStr| name.to_string_lossy().to_ascii_lowercase().ends_with("_proxy");
    names.filter(move |name| is_proxy(name) || NAMES.iter().any(|one| *one == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_disturbs_is_taken_away() {
        let names = ["PATH", "USER", "http_proxy", "HTTPS_PROXY", "all_proxy", "No_Proxy", "TMPDIR", "PROXY"];
        let left: Vec<OsString> = disturbing(names.map(OsString::from).into_iter()).collect();
        assert_eq!(left, ["USER", "http_proxy", "HTTPS_PROXY", "all_proxy", "No_Proxy"]);
    }
}
