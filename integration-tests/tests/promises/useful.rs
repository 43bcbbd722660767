//! A useful plugin, in Rust and in C, within the default limits and at each level of the sandbox that this host reaches.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use fleetswap_integration_tests::harness::{Binaries, Caller, Fleet, compile_c, repository};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    common::{CALL_LIMIT, block_on, fleet, install, plugin_status},
    levels::{Piece, told, without},
};

/// Callers at a time.
const CALLERS: u64 = 16;
/// Calls of each.
const CALLS: u64 = 10;

/// Calls with different numbers, many at once; returns the replies in the order of the numbers.
fn work(caller: &Caller, plugin: &'static str, input: fn(u64) -> String) -> Result<Vec<Value>> {
    block_on(async {
        let mut callers = JoinSet::new();
        for first in 0..CALLERS {
            let caller = caller.clone();
            callers.spawn(async move {
                let mut replies = Vec::new();
                for n in (first * CALLS)..(first + 1) * CALLS {
                    let reply = caller.call(plugin, "work", Bytes::from(input(n)), CALL_LIMIT).await?;
                    ensure!(reply.status == 200, "{reply:?}");
                    replies.push((n, reply.body));
                }
                Ok(replies)
            });
        }
        let mut replies = Vec::new();
        while let Some(done) = callers.join_next().await {
            replies.extend(done??);
        }
        replies.sort_by_key(|(n, _)| *n);
        Ok(replies.into_iter().map(|(_, reply)| reply).collect())
    })?
}

/// Checks every reply, and that the work in the background went on meanwhile.
fn check(replies: &[Value], in_tasks: bool) -> Result<()> {
    let mut ticks = Vec::new();
    for (n, reply) in replies.iter().enumerate() {
        let sum = n * (n + 1) / 2;
        let mut expected =
            json!({"by_threads": sum, "remainders": n.min(7), "moved": true, "kept": 67_108_864});
        if in_tasks {
            expected["by_tasks"] = sum.into();
        }
        expected["ticks"] = reply["ticks"].clone();
        assert_eq!(*reply, expected, "for {n}");
        ticks.push(reply["ticks"].as_u64().context("ticks")?);
    }
    assert_eq!(replies.len() as u64, CALLERS * CALLS);
    ensure!(ticks.iter().max() > ticks.iter().min(), "the background stands still: {ticks:?}");
    Ok(())
}

/// Both plugins, installed and called, with one worker each from the beginning to the end.
fn both_answer(fleet: &Fleet) -> Result<()> {
    let agent = &fleet.agents[0];
    let source = repository().join("integration-tests/zoo/useful.c");
    install(fleet, &Binaries::find()?.example("useful", "1.0.0")?)?;
    install(fleet, &compile_c(&source, "useful-c", "1.0.0", &[], &fleet.path(""))?)?;
    for (plugin, in_tasks, input) in [
        ("useful", true, (|n| format!("{{\"n\":{n}}}")) as fn(u64) -> String),
        ("useful-c", false, |n| n.to_string()),
    ] {
        let worker = plugin_status(agent, plugin)?["worker_pid"].clone();
        check(&work(&agent.caller(), plugin, input)?, in_tasks)?;
        assert_eq!(plugin_status(agent, plugin)?["worker_pid"], worker, "it never ended");
    }
    Ok(())
}

#[test]
fn a_useful_plugin_in_rust_and_in_c_works_at_the_highest_level_of_this_host() -> Result<()> {
    let fleet = fleet(1)?;
    let level = told(&fleet.agents[0])?["level"].clone();
    if level != "strict" {
        eprintln!("this host reaches {level} only: strict was not exercised");
    }
    both_answer(&fleet)
}

#[test]
fn a_useful_plugin_in_rust_and_in_c_works_at_each_lower_level() -> Result<()> {
    for (pieces, agent_config, level) in
        [(&[Piece::Mdwe][..], "", "standard"), (&[Piece::Landlock], "[sandbox]\nmin = \"basic\"\n", "basic")]
    {
        let fleet = without(pieces, agent_config)?;
        assert_eq!(told(&fleet.agents[0])?["level"], level);
        both_answer(&fleet)?;
    }
    Ok(())
}
