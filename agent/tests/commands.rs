//! The program as a process: exit codes, and where its words go.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixListener, process::CommandExt},
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

/// A root that `controller init --dev` made.
const DEV_ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/daemon/dev-root.json");
/// A user who owns nothing.
const NOBODY: u32 = 65_534;

/// Runs `agent` with the words of a line, and `--config` where a file is given.
fn agent(line: &str, config: Option<&Path>) -> Output {
    command(line, config).output().unwrap()
}

fn command(line: &str, config: Option<&Path>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_agent"));
    command.args(line.split_whitespace()).env_remove("FLEETSWAP_AGENT_CONFIG");
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    command
}

/// A folder with a configuration that is right as such, and no root of trust.
fn configured() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let text = format!(
        "name = \"host-1\"\nstate_dir = {:?}\ncontroller = \"127.0.0.1:1\"\ntrust_root = {:?}\n\
         [front]\nsocket = {:?}\n[control]\nsocket = {:?}\n",
        at("state"),
        at("root.json"),
        at("front.sock"),
        at("control.sock"),
    );
    let config = dir.path().join("agent.toml");
    fs::write(&config, text).unwrap();
    (dir, config)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The code of an error that came as JSON on standard output.
fn json_code(output: &Output) -> String {
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    let error = &value["error"];
    assert_eq!(value["schema"], 1);
    assert!(["what", "why", "fix", "page"].iter().all(|part| error[part].is_string()), "{value}");
    error["code"].as_str().unwrap().to_owned()
}

#[test]
fn help_and_version_end_well() {
    for line in ["--help", "--version", "daemon --help"] {
        let output = agent(line, None);
        assert_eq!(output.status.code(), Some(0), "{line}");
        assert!(!output.stdout.is_empty(), "{line}");
    }
}

#[test]
fn wrong_words_end_with_two() {
    for line in ["", "serve", "status x", "logs", "call clock", "call clock time {} --timeout soon"] {
        let output = agent(line, None);
        assert_eq!(output.status.code(), Some(2), "{line}");
        let words = text(&output.stderr);
        assert!(output.stdout.is_empty() && words.starts_with("error[USAGE]: "), "{line}: {words}");
        assert!(
            ["\n  why:  ", "\n  fix:  ", "\n  page: "].iter().all(|part| words.contains(part)),
            "{words}"
        );
    }
    let output = agent("status x -o json", None);
    assert_eq!((output.status.code(), json_code(&output).as_str()), (Some(2), "USAGE"));
}

#[test]
fn an_error_is_text_on_standard_error_or_json_on_standard_output() {
    let (_dir, config) = configured();
    for line in ["status", "logs clock", "call clock time {}"] {
        let output = agent(line, Some(&config));
        assert_eq!(output.status.code(), Some(1), "{line}");
        assert!(output.stdout.is_empty(), "{line}");
        assert!(text(&output.stderr).starts_with("error[AGENT_UNREACHABLE]: "), "{line}");
        let output = agent(&format!("{line} -o json"), Some(&config));
        assert_eq!(
            (output.status.code(), json_code(&output).as_str()),
            (Some(1), "AGENT_UNREACHABLE"),
            "{line}"
        );
    }
}

#[test]
fn the_daemon_does_not_start_without_a_root_of_trust_or_with_a_bad_configuration() {
    let (dir, config) = configured();
    let output = agent("daemon -o json", Some(&config));
    assert_eq!((output.status.code(), json_code(&output).as_str()), (Some(1), "TRUST_STORE_UNUSABLE"));
    fs::copy(DEV_ROOT, dir.path().join("root.json")).unwrap();
    // An agent that went on would end here, with another code, instead of holding the test up.
    fs::write(dir.path().join("control.sock"), "no socket").unwrap();
    let output = agent("daemon -o json", Some(&config));
    assert_eq!((output.status.code(), json_code(&output).as_str()), (Some(1), "TRUST_DEV_ROOT"));
    let words = text(&agent("daemon", Some(&config)).stderr);
    assert!(
        words.starts_with("error[TRUST_DEV_ROOT]: ") && words.contains("allow_dev_trust = true"),
        "{words}"
    );
    assert!(!dir.path().join("front.sock").exists());
    fs::write(&config, format!("{}typo = 1\n", fs::read_to_string(&config).unwrap())).unwrap();
    let output = agent("daemon -o json", Some(&config));
    assert_eq!((output.status.code(), json_code(&output).as_str()), (Some(1), "CONFIG_INVALID"));
    let output = agent("status -o json", Some(&dir.path().join("none.toml")));
    assert_eq!((output.status.code(), json_code(&output).as_str()), (Some(1), "CONFIG_UNREADABLE"));
}

#[test]
fn a_socket_that_this_user_may_not_open_is_not_taken_for_a_missing_daemon() {
    let (dir, config) = configured();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let sockets = ["control.sock", "front.sock"].map(|name| dir.path().join(name));
    let _listening = sockets.each_ref().map(|socket| UnixListener::bind(socket).unwrap());
    sockets.iter().for_each(|socket| fs::set_permissions(socket, fs::Permissions::from_mode(0o000)).unwrap());
    for (line, way) in [("status", "sudo -u"), ("logs clock", "sudo -u"), ("call clock time", "front.group")]
    {
        let mut command = command(line, Some(&config));
        if rustix::process::getuid().is_root() {
            // No permission bits keep root out.
            command.uid(NOBODY).gid(NOBODY);
        }
        let output = command.output().unwrap();
        let words = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{line}: {words}");
        assert!(words.starts_with("error[SOCKET_DENIED]: ") && words.contains(way), "{line}: {words}");
    }
}
