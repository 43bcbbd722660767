//! Every key of the configuration: wrong, too long, missing.

use super::*;

const GOOD: &str = r#"name = "host-1"
state_dir = "/var/lib/fleetswap"
controller = "127.0.0.1:7443"
trust_root = "/etc/fleetswap/root.json"
"#;

const FULL: &str = r#"name = "host-1"
state_dir = "/var/lib/fleetswap"
controller = "http://localhost:7443"
trust_root = "/etc/fleetswap/root.json"
allow_dev_trust = true
mirrors = ["http://127.0.0.1:8080/blobs", "https://mirror.example/"]

[labels]
zone = "eu-1"

[front]
socket = "/run/f.sock"
mode = "0600"
group = "callers"
listen = "[::1]:8080"

[control]
socket = "/run/c.sock"

[sandbox]
min = "strict"

[limits]
memory_mib = 256
threads = 32
cpu_percent = 150
files = 100
load_timeout_ms = 7000
control_timeout_ms = 8000
state_timeout_ms = 9000
"#;

fn refusal(text: &str) -> Explained {
    let fault = Config::parse(text).expect_err("the text must be refused");
    fault.explain(Path::new("agent.toml"), text)
}

/// GOOD with the line of `key` replaced.
fn with(key: &str, line: &str) -> String {
    let kept: Vec<&str> = GOOD.lines().filter(|have| !have.starts_with(&format!("{key} ="))).collect();
    format!("{line}\n{}\n", kept.join("\n"))
}

#[test]
fn defaults_fill_what_a_short_file_leaves_out() {
    let config = Config::parse(GOOD).unwrap();
    assert_eq!(config.front.socket, Path::new("/run/fleetswap/front.sock"));
    assert_eq!(config.front.mode, 0o660);
    assert_eq!(config.control_socket, Path::new("/run/fleetswap/control.sock"));
    assert_eq!((config.limits, config.sandbox_min), (Limits::default(), Level::Standard));
    assert!(!config.allow_dev_trust && config.mirrors.is_empty() && config.labels.is_empty());
}

#[test]
fn every_key_is_read() {
    let config = Config::parse(FULL).unwrap();
    assert_eq!(config.controller.to_string(), "127.0.0.1:7443");
    assert!(config.allow_dev_trust);
    assert_eq!(config.mirrors.len(), 2);
    assert_eq!(config.labels["zone"], "eu-1");
    assert_eq!((config.front.mode, config.front.group.as_deref()), (0o600, Some("callers")));
    assert_eq!(config.front.listen.unwrap().to_string(), "[::1]:8080");
    let limits = Limits {
        memory_bytes: 256 << 20,
        threads: 32,
        open_files: 100,
        cpu_percent: Some(150),
        load_timeout: Duration::from_secs(7),
        control_timeout: Duration::from_secs(8),
        state_timeout: Duration::from_secs(9),
        ..Limits::default()
    };
    assert_eq!(config.sandbox_min, Level::Strict);
    assert_eq!(config.limits, limits);
}

#[test]
fn a_missing_key_is_named() {
    for key in ["name", "state_dir", "controller", "trust_root"] {
        let error = refusal(&with(key, ""));
        assert_eq!(error.code, "CONFIG_INVALID");
        assert!(error.what.contains(&format!("`{key}`")), "{key}: {}", error.what);
    }
}

#[test]
fn a_wrong_value_is_refused_with_its_key_line_and_column() {
    let cases = [
        ("name", "name = 7"),
        ("name", "name = \"\""),
        ("name", "name = \"ho st\""),
        ("name", "name = \"-host\""),
        ("state_dir", "state_dir = \"var/lib\""),
        ("state_dir", "state_dir = \"/a\\u0000b\""),
        ("controller", "controller = \"here\""),
        ("controller", "controller = \"127.0.0.1\""),
        ("controller", "controller = \"https://127.0.0.1:7443\""),
        ("trust_root", "trust_root = \"root.json\""),
        ("allow_dev_trust", "allow_dev_trust = \"yes\""),
        ("mirrors", "mirrors = \"http://127.0.0.1\""),
        ("mirrors", "mirrors = [\"ftp://127.0.0.1/\"]"),
        ("mirrors", "mirrors = [\"http://127.0.0.1/?a=b\"]"),
        ("mirrors", "mirrors = [\"http://me:secret@127.0.0.1/\"]"),
        ("mirrors", "mirrors = [\"\"]"),
        ("labels", "labels = { \"a b\" = \"x\" }"),
        ("labels", "labels = { zone = \"\" }"),
        ("labels", "labels = { zone = \"a,b\" }"),
        ("labels", "labels = { name = \"x\" }"),
        ("labels", "labels = { zone = 3 }"),
        ("front", "front = { socket = \"front.sock\" }"),
        ("front", "front = { mode = 660 }"),
        ("front", "front = { mode = \"rw\" }"),
        ("front", "front = { mode = -1 }"),
        ("front", "front = { mode = [1] }"),
        ("front", "front = { group = \"a b\" }"),
        ("front", "front = { socket = 7 }"),
        ("front", "front = { socket = \"\" }"),
        ("front", "front = { group = 7 }"),
        ("front", "front = { group = \"\" }"),
        ("front", "front = { listen = 8080 }"),
        ("front", "front = { listen = \"\" }"),
        ("front", "front = { listen = \"8080\" }"),
        ("control", "control = { socket = 5 }"),
        ("control", "control = { socket = \"\" }"),
        ("control", "control = { socket = \"c.sock\" }"),
        ("sandbox", "sandbox = { min = 1 }"),
        ("sandbox", "sandbox = { min = \"\" }"),
        ("sandbox", "sandbox = { min = \"none\" }"),
        ("sandbox", "sandbox = { min = \"strict\" }"),
    ];
    for (key, line) in cases {
        let error = refusal(&with(key, line));
        assert_eq!(error.code, "CONFIG_INVALID", "{line}");
        assert!(error.what.starts_with("agent.toml, line 1, column "), "{line}: {}", error.what);
        assert!(!error.why.is_empty() && !error.fix.is_empty(), "{line}");
    }
}

#[test]
fn each_limit_has_its_type_its_bounds_and_its_default() {
    let of = |text: &str| Config::parse(text).unwrap().limits;
    for (key, low, high) in [
        ("memory_mib", 16, 65_536),
        ("threads", 1, 4_096),
        ("files", 16, 4_096),
        ("load_timeout_ms", 100, 600_000),
        ("control_timeout_ms", 100, 600_000),
        ("state_timeout_ms", 100, 600_000),
    ] {
        let line = |value: &str| with("limits", &format!("limits = {{ {key} = {value} }}"));
        for wrong in [(low - 1).to_string(), (high + 1).to_string(), "-1".to_owned(), "4294967312".to_owned()]
        {
            let error = refusal(&line(&wrong));
            assert_eq!(error.code, "CONFIG_INVALID", "{key} = {wrong}");
            let wanted = format!("`limits.{key}` is {wrong}; wanted {low} to {high}");
            assert!(error.what.ends_with(&wanted), "{}", error.what);
            assert!(error.what.starts_with("agent.toml, line 1, column "), "{}", error.what);
        }
        for wrong in ["\"16\"", "16.5", "true", "[16]", "99999999999999999999"] {
            let error = refusal(&line(wrong));
            assert_eq!(error.code, "CONFIG_INVALID", "{key} = {wrong}");
            assert!(error.what.starts_with("agent.toml, line 1, column "), "{}", error.what);
        }
        for right in [low, high] {
            assert_ne!(of(&line(&right.to_string())), Limits::default(), "{key} = {right}");
        }
        let without = FULL.lines().filter(|line| !line.starts_with(&format!("{key} =")));
        let (full, rest) = (of(FULL), of(&without.collect::<Vec<_>>().join("\n")));
        let default = Limits::default();
        let expected = match key {
            "memory_mib" => Limits { memory_bytes: default.memory_bytes, ..full },
            "threads" => Limits { threads: default.threads, ..full },
            "load_timeout_ms" => Limits { load_timeout: default.load_timeout, ..full },
            "control_timeout_ms" => Limits { control_timeout: default.control_timeout, ..full },
            "state_timeout_ms" => Limits { state_timeout: default.state_timeout, ..full },
            _ => Limits { open_files: default.open_files, ..full },
        };
        assert_eq!(rest, expected, "a {key} that is missing has its default");
    }
}

#[test]
fn a_value_that_is_too_long_is_refused_with_the_bound() {
    let long = |count: usize| "a".repeat(count);
    let cases = [
        ("name", format!("name = \"{}\"", long(129)), "128"),
        ("state_dir", format!("state_dir = \"/{}\"", long(4_095)), "4095"),
        ("controller", format!("controller = \"{}\"", long(2_049)), "2048"),
        ("trust_root", format!("trust_root = \"/{}\"", long(4_095)), "4095"),
        ("mirrors", format!("mirrors = [\"http://a/{}\"]", long(2_048)), "2048"),
        ("mirrors", format!("mirrors = [{}]", "\"http://a/\",".repeat(17)), "16"),
        ("labels", format!("labels = {{ {} = \"x\" }}", long(64)), "63"),
        ("labels", format!("labels = {{ zone = \"{}\" }}", long(254)), "253"),
        ("front", format!("front = {{ socket = \"/{}\" }}", long(107)), "107"),
        ("front", format!("front = {{ group = \"{}\" }}", long(33)), "32"),
        ("front", format!("front = {{ listen = \"{}\" }}", long(2_049)), "2048"),
        ("front", format!("front = {{ mode = \"{}\" }}", "0".repeat(99)), "permission bits"),
        ("control", format!("control = {{ socket = \"/{}\" }}", long(107)), "107"),
    ];
    for (key, line, bound) in cases {
        let error = refusal(&with(key, &line));
        assert_eq!(error.code, "CONFIG_INVALID");
        assert!(error.what.contains(bound), "{key}: {}", error.what);
    }
    let many: String = (0..65).map(|n| format!("k{n} = \"v\"\n")).collect();
    assert!(refusal(&format!("{GOOD}[labels]\n{many}")).what.contains("64"));
}

#[test]
fn an_unknown_key_is_refused_where_it_stands() {
    for (text, place) in [
        (format!("{GOOD}nmae = 1\n"), "line 5, column 1"),
        (format!("{GOOD}[front]\nport = 1\n"), "line 6, column 1"),
        (format!("{GOOD}[control]\nmode = 1\n"), "line 6, column 1"),
        (format!("{GOOD}[sandbox]\nmax = 1\n"), "line 6, column 1"),
        (format!("{GOOD}[limits]\ncpu = 1\n"), "line 6, column 1"),
    ] {
        let error = refusal(&text);
        assert_eq!(error.code, "CONFIG_INVALID");
        assert!(error.what.contains(place) && error.what.contains("unknown field"), "{}", error.what);
    }
}

#[test]
fn an_address_beyond_this_machine_is_refused_with_the_reason() {
    for line in [
        "controller = \"10.0.0.1:7443\"",
        "controller = \"http://controller.example:7443\"",
        "controller = \"0.0.0.0:7443\"",
    ] {
        let error = refusal(&with("controller", line));
        assert_eq!(error.code, "ADDRESS_NOT_LOOPBACK", "{line}");
        assert!(error.why.contains("no TLS yet"));
    }
    let error = refusal(&with("front", "front = { listen = \"192.0.2.1:80\" }"));
    assert_eq!(error.code, "ADDRESS_NOT_LOOPBACK");
    assert!(error.what.contains("front.listen"));
}

#[test]
fn broken_toml_is_refused_with_its_place() {
    let error = refusal("name = \"host-1\"\nstate_dir /var\n");
    assert_eq!(error.code, "CONFIG_INVALID");
    assert!(error.what.contains("line 2"), "{}", error.what);
}

#[test]
fn a_file_that_is_missing_or_huge_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.toml");
    assert_eq!(Config::load(&path).unwrap_err().code, "CONFIG_UNREADABLE");
    fs::write(&path, "#".repeat(usize::try_from(FILE_MAX).unwrap() + 1)).unwrap();
    assert!(Config::load(&path).unwrap_err().why.contains("65536"));
    fs::write(&path, FULL).unwrap();
    assert_eq!(Config::load(&path).unwrap().name, "host-1");
}

#[test]
fn a_plugin_has_its_own_checkpoint_interval_or_none_and_others_have_the_default() {
    let interval = |text: &str| format!("{GOOD}[plugins.counter]\ncheckpoint_interval = \"{text}\"\n");
    let of = |text: &str, plugin: &str| Config::parse(text).unwrap().checkpoints.of(plugin);
    assert_eq!(of(&interval("10s"), "counter"), Some(Duration::from_secs(10)));
    assert_eq!(of(&interval("1h 30min"), "counter"), Some(Duration::from_secs(5_400)));
    assert_eq!(of(&interval("off"), "counter"), None);
    for (text, plugin) in [(interval("off"), "clock"), (format!("{GOOD}[plugins.counter]\n"), "counter")] {
        assert_eq!(of(&text, plugin), Some(CHECKPOINT_DEFAULT));
    }
    for wrong in ["999ms", "25h", "never", "0", ""] {
        let error = refusal(&interval(wrong));
        assert!(
            error.what.contains("line 6, column 23") && error.what.contains("checkpoint_interval"),
            "{error}"
        );
    }
    let error = refusal(&format!("{GOOD}[plugins.Counter]\ncheckpoint_interval = \"10s\"\n"));
    assert!(error.what.contains("`plugins.Counter`"), "{error}");
}
