//! What a plugin wrote: where it is found, while it comes and afterwards, and what a crash leaves there.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use fleetswap_integration_tests::harness::{
    Agent, Fleet, Plugin, Process, compile_c, eventually, repository, signal,
};
use object::{Object, ObjectSymbol};
use rustix::process::Signal;
use serde_json::Value;
use tokio::{runtime::Runtime, task::JoinSet};

use crate::common::{QUICK, active_version, call, fleet, install};

/// Lines of a flood, and bytes of each with its end.
const FLOOD: (u64, u64) = (5_000, 4_000);
/// Calls in flight while a worker crashes.
const LOAD: usize = 16;

fn talker(fleet: &Fleet, version: &str, defines: &[&str]) -> Result<Plugin> {
    let version_define = format!("VERSION=\"{version}\"");
    let defines = [&[version_define.as_str()], defines].concat();
    let source = repository().join("integration-tests/zoo/talker.c");
    compile_c(&source, "talker", version, &defines, &fleet.path(""))
}

/// `agent logs talker -f …`, with its standard error in a file.
fn follow(agent: &Agent, name: &str, more: &[&str]) -> Result<Process> {
    let mut command = agent.command([&["logs", "talker", "--follow"], more].concat());
    Process::start(name, &mut command, &agent.folder().join(format!("{name}.log")))
}

fn say(agent: &Agent, words: &str) -> Result<()> {
    let reply = call(&agent.caller(), "talker", "say", words)?;
    ensure!(reply.status == 200, "{reply:?}");
    Ok(())
}

fn lines(agent: &Agent) -> Result<Vec<Value>> {
    let reply = agent.run(["logs", "talker", "-o", "json"])?.expect(0)?.json()?;
    Ok(reply["lines"].as_array().cloned().unwrap_or_default())
}

/// The function of a plugin that a frame such as `talker+0x1139` lies in.
fn function_at(plugin: &Plugin, frame: &str) -> Result<String> {
    let offset = frame.strip_prefix("talker+0x").context("a frame of the plugin")?;
    let offset = u64::from_str_radix(offset, 16)?;
    let bytes = fs::read(&plugin.file)?;
    let library = object::File::parse(&*bytes)?;
    let holds = |symbol: &object::Symbol<'_, '_>| {
        (symbol.address()..symbol.address() + symbol.size()).contains(&offset)
    };
    Ok(library.symbols().find(holds).context("a symbol")?.name()?.to_owned())
}

#[test]
fn a_follower_sees_a_line_that_is_written_after_it_began_with_release_and_rollout() -> Result<()> {
    let fleet = fleet(1)?;
    let rollout = install(&fleet, &talker(&fleet, "1.0.0", &[])?)?;
    let agent = &fleet.agents[0];
    say(agent, "an old line")?;
    say(agent, "the last line")?;
    let mut follower = follow(agent, "follower", &["-n", "1", "-o", "json"])?;
    let first = follower.wait_for_line("line")?;
    ensure!(first.contains("the last line"), "only one old line was asked for: {first}");
    say(agent, "a new line")?;
    let line: Value = serde_json::from_str(&follower.wait_for_line("a new line")?)?;
    let line = &line["line"];
    assert_eq!((&line["version"], &line["plugin"]), (&"1.0.0".into(), &"talker".into()));
    assert_eq!((&line["release"], &line["rollout"]), (&rollout["to"]["release_id"], &rollout["rollout_id"]));
    assert_eq!((&line["level"], &line["source"]), (&"info".into(), &"plugin".into()));
    signal(follower.pid(), Signal::INT)?;
    assert_eq!(follower.wait()?.code(), Some(130), "as every command that Ctrl-C ends");
    let text = agent.run(["logs", "talker", "-n", "2"])?.expect(0)?.stdout;
    let id = &rollout["to"]["release_id"].as_str().context("an id")?[..12];
    let wanted = format!(
        " 1.0.0 {id} {} info  plugin a new line\n",
        rollout["rollout_id"].as_str().unwrap_or_default()
    );
    ensure!(text.ends_with(&wanted) && text.lines().count() == 2, "{text}");
    Ok(())
}

#[test]
fn a_plugin_that_is_still_to_come_is_followed_from_its_first_line_on_trial() -> Result<()> {
    let fleet = fleet(1)?;
    let agent = &fleet.agents[0];
    let mut follower = follow(agent, "early", &["-o", "json"])?;
    eventually("the follower waits", || Ok(follower.log().contains("not on this host yet").then_some(())))?;
    let rollout = install(&fleet, &talker(&fleet, "1.0.0", &["SPEAKS_AT_LOAD"])?)?;
    let line: Value = serde_json::from_str(&follower.wait_for_line("loading 1.0.0")?)?;
    assert_eq!(line["line"]["rollout"], rollout["rollout_id"]);
    assert_eq!(line["line"]["source"], "output");
    follower.kill();
    Ok(())
}

#[test]
fn a_follower_ends_with_the_agent_and_knows_a_stop_from_a_death() -> Result<()> {
    let mut fleet = fleet(1)?;
    install(&fleet, &talker(&fleet, "1.0.0", &[])?)?;
    say(&fleet.agents[0], "here")?;
    let mut follower = follow(&fleet.agents[0], "killed", &[])?;
    follower.wait_for_line("here")?;
    fleet.agents[0].kill();
    assert_eq!(follower.wait()?.code(), Some(1));
    ensure!(follower.log().contains("error[AGENT_UNREACHABLE]"), "{}", follower.log());

    fleet.agents[0].start()?;
    let agent = &mut fleet.agents[0];
    eventually("it serves", || Ok((active_version(agent, "talker")? == "1.0.0").then_some(())))?;
    say(agent, "again")?;
    let mut follower = follow(agent, "stopped", &[])?;
    let line = follower.wait_for_line("again")?;
    ensure!(line.contains(" 1.0.0 ") && line.contains(" r-000001 "), "its rollout is on record: {line}");
    agent.process.as_mut().context("the agent runs")?.stop()?;
    assert_eq!(follower.wait()?.code(), Some(0));
    ensure!(follower.log().contains("the agent stops"), "{}", follower.log());
    Ok(())
}

/// What a follower was shown of a flood.
#[derive(Debug, Default)]
struct Seen {
    shown: u64,
    dropped: u64,
    lost: u64,
    /// Lines after the flood that were dropped and counted with it.
    late: u64,
}

impl Seen {
    /// Reads up to the line that was written after the flood.
    fn of(follower: &Process) -> Result<Self> {
        let mut seen = Self::default();
        loop {
            let event: Value = serde_json::from_str(&follower.wait_for_line("")?)?;
            seen.lost += event["lost"].as_u64().unwrap_or_default();
            let text = event["line"]["text"].as_str().unwrap_or_default();
            if text.starts_with("xxx") {
                seen.shown += 1;
            } else if let Some((count, _)) = text.split_once(" lines were dropped") {
                seen.dropped += count.parse::<u64>()?;
            } else if let Some(number) = text.strip_prefix("the end ") {
                seen.late = number.parse()?;
                return Ok(seen);
            }
        }
    }
}

fn resident_bytes(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("a size")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

#[test]
fn a_flood_is_cut_and_counted_and_takes_neither_memory_nor_other_calls() -> Result<()> {
    let fleet = fleet(1)?;
    install(&fleet, &talker(&fleet, "1.0.0", &[])?)?;
    let agent = &fleet.agents[0];
    say(agent, "the start")?;
    let [quick, stopped] = ["quick", "stopped"].map(|name| follow(agent, name, &["-n", "1", "-o", "json"]));
    let (quick, stopped) = (quick?, stopped?);
    quick.wait_for_line("the start")?;
    stopped.wait_for_line("the start")?;
    signal(stopped.pid(), Signal::STOP)?;
    let pid = agent.process.as_ref().context("the agent runs")?.pid();
    let before = resident_bytes(pid)?;

    let (count, size) = FLOOD;
    let caller = agent.caller().with_timeout("60s");
    let other = agent.caller();
    Runtime::new()?.block_on(async {
        let input = Bytes::from(count.to_string());
        let flood = caller.call("talker", "flood", input, Duration::from_secs(60));
        let others = async {
            for _ in 0..20 {
                let reply = other.call("talker", "echo", Bytes::new(), Duration::from_secs(20)).await?;
                ensure!(reply.status == 200, "{reply:?}");
            }
            anyhow::Ok(())
        };
        let (flood, others) = tokio::join!(flood, others);
        ensure!(flood?.status == 200, "the flood came to its end");
        others
    })?;
    let after = resident_bytes(pid)?;
    let grown = after.saturating_sub(before);
    ensure!(grown < count * size / 2, "{grown} bytes more, of a flood of {}", count * size);
    // Within the second of the flood's end these lines are dropped as well.
    let mut ends = 0..;
    eventually("the flood is over", || {
        let words = format!("the end {}", ends.next().unwrap_or(u64::MAX));
        say(agent, &words)?;
        Ok(lines(agent)?.last().is_some_and(|line| line["text"] == *words).then_some(()))
    })?;

    let seen = Seen::of(&quick)?;
    ensure!(seen.dropped > 0 && seen.shown < count, "nothing was cut: {seen:?}");
    if seen.lost == 0 {
        assert_eq!(seen.shown + seen.dropped, count + seen.late, "each line was shown or counted: {seen:?}");
    }
    signal(stopped.pid(), Signal::CONT)?;
    let slow = Seen::of(&stopped)?;
    ensure!(slow.lost > 0 && slow.shown < seen.shown, "it lost nothing: {slow:?}, beside {seen:?}");
    ensure!(lines(agent)?.len() < 200, "256 KiB are kept");
    Ok(())
}

#[test]
fn a_crash_under_load_is_in_the_log_with_its_place_in_the_library() -> Result<()> {
    let fleet = fleet(1)?;
    let plugin = talker(&fleet, "1.0.0", &[])?;
    let rollout = install(&fleet, &plugin)?;
    let agent = &fleet.agents[0];
    let caller = agent.caller();
    Runtime::new()?.block_on(async {
        let mut load = JoinSet::new();
        for _ in 0..LOAD {
            let caller = caller.clone();
            load.spawn(async move {
                for _ in 0..50 {
                    caller
                        .call("talker", "say", Bytes::from_static(b"busy"), Duration::from_secs(20))
                        .await?;
                }
                anyhow::Ok(())
            });
        }
        let fallen = caller.call("talker", "fall", Bytes::new(), Duration::from_secs(20)).await?;
        ensure!(fallen.status == 503 && fallen.body["error"]["code"] == "WORKER_DIED", "{fallen:?}");
        while let Some(ended) = load.join_next().await {
            ended??;
        }
        Ok(())
    })?;
    let text = |line: &Value| line["text"].as_str().unwrap_or_default().to_owned();
    let crash = lines(agent)?;
    let crash: Vec<&Value> = crash.iter().filter(|line| text(line).starts_with("crash: ")).collect();
    let head = text(crash.first().context("a record")?);
    ensure!(head.starts_with("crash: SIGSEGV (MAPERR at 0x10) in thread call-"), "{head}");
    let library = fs::read(&plugin.file)?;
    let library = object::File::parse(&*library)?;
    let id = library.build_id()?.context("a build id")?;
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    ensure!(head.ends_with(&format!(", build id {id}")), "{head}, not {id}");
    for (number, function) in ["fall_over", "call"].into_iter().enumerate() {
        let frame = text(crash.get(number + 1).context("a frame")?);
        let frame = frame.strip_prefix(&format!("crash: #{number} ")).context("its number")?;
        assert_eq!(function_at(&plugin, frame)?, function, "{frame}");
    }
    for line in &crash {
        assert_eq!((&line["source"], &line["version"]), (&"host".into(), &"1.0.0".into()));
        assert_eq!(line["rollout"], rollout["rollout_id"]);
    }
    Ok(())
}

#[test]
fn a_push_that_crashes_tells_the_operator_where() -> Result<()> {
    let fleet = fleet(1)?;
    install(&fleet, &talker(&fleet, "1.0.0", &[])?)?;
    let plugin = talker(&fleet, "1.1.0", &["FALLS_IN_HEALTH"])?;
    let said = fleet.controller(Fleet::push_arguments(&plugin, &QUICK))?.expect(3)?.stdout;
    ensure!(
        said.contains("signal 11 (SIGSEGV)") && said.contains(", in thread health at talker+0x"),
        "{said}"
    );
    let shown = fleet.controller(["status", "r-000002", "-o", "json"])?.expect(3)?.json()?;
    let failure = &shown["rollout"]["failure"];
    assert_eq!(failure["code"], "WORKER_DIED");
    let tail = failure["log_tail"].as_str().unwrap_or_default();
    ensure!(tail.contains("crash: SIGSEGV (MAPERR at 0x10) in thread health"), "{failure}");
    let frame = tail.lines().find_map(|line| line.strip_prefix("crash: #0 ")).context("a frame")?;
    assert_eq!(function_at(&plugin, frame)?, "fall_over");
    Ok(())
}
