//! Mirrors that lie, stall, or are gone: each costs its own place in the order, and nothing else.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use fleetswap_integration_tests::harness::{Binaries, Fleet, eventually};
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    sync::Notify,
    time::{interval, timeout},
};

use crate::common::{Pushed, QUICK, fleet, install, runs, subject};

/// What a throttled mirror sends every 100 ms: 5 KiB a second. That is above the lowest pace of any source, and half an
/// hour for the library of a plugin in Rust.
const THROTTLED: usize = 512;

/// How long a test waits until a mirror is asked.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a mirror does when it is asked for a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manners {
    Honest,
    WrongBytes,
    TooMany,
    TooFew,
    Missing,
    /// Sends the first half, and the rest only when it is let go.
    StallsUntilReleased,
    /// Sends everything, at [`THROTTLED`].
    Throttled,
}

/// A mirror on a loopback port; it ends with the runtime it runs on.
struct Mirror {
    address: String,
    manners: Manners,
    blobs: PathBuf,
    asked: Notify,
    release: Notify,
}

impl Mirror {
    fn start(runtime: &Runtime, manners: Manners, blobs: PathBuf) -> Result<Arc<Self>> {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = format!("http://{}", listener.local_addr()?);
        let (asked, release) = (Notify::new(), Notify::new());
        let mirror = Arc::new(Self { address, manners, blobs, asked, release });
        let router = Router::new().route("/{sha256}", get(serve)).with_state(Arc::clone(&mirror));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Ok(mirror)
    }

    /// Waits until somebody asks for a blob, or has asked.
    fn is_asked(&self, runtime: &Runtime) -> Result<()> {
        let asked = runtime.block_on(async { timeout(PATIENCE, self.asked.notified()).await });
        asked.with_context(|| format!("nobody asks the mirror that is {:?}", self.manners))
    }
}

async fn serve(
    State(mirror): State<Arc<Mirror>>,
    Path(sha256): Path<String>,
    headers: HeaderMap,
) -> Response {
    mirror.asked.notify_one();
    let Ok(mut blob) = fs::read(mirror.blobs.join(sha256)) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let offset = headers.get("range").and_then(|range| {
        range.to_str().ok()?.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok()
    });
    match mirror.manners {
        Manners::Honest => {}
        Manners::WrongBytes => blob.iter_mut().for_each(|byte| *byte ^= 1),
        Manners::TooMany => blob.extend_from_slice(&[0; 4096]),
        Manners::TooFew => blob.truncate(blob.len() / 2),
        Manners::Missing => return StatusCode::NOT_FOUND.into_response(),
        Manners::StallsUntilReleased => return stall(mirror, blob),
        Manners::Throttled => return throttle(blob),
    }
    match offset {
        Some(offset) => (StatusCode::PARTIAL_CONTENT, blob.split_off(offset.min(blob.len()))).into_response(),
        None => blob.into_response(),
    }
}

fn stall(mirror: Arc<Mirror>, mut blob: Vec<u8>) -> Response {
    let rest = blob.split_off(blob.len() / 2);
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    tokio::spawn(async move {
        drop(sender.send(Ok(blob.into())).await);
        mirror.release.notified().await;
        drop(sender.send(Ok(rest.into())).await);
    });
    Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receiver)).into_response()
}

fn throttle(blob: Vec<u8>) -> Response {
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    tokio::spawn(async move {
        let mut ticks = interval(Duration::from_millis(100));
        for chunk in blob.chunks(THROTTLED) {
            ticks.tick().await;
            if sender.send(Ok(Bytes::copy_from_slice(chunk))).await.is_err() {
                return;
            }
        }
    });
    Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receiver)).into_response()
}

/// Writes the mirrors into the config of the first agent and starts it again.
fn use_mirrors(fleet: &mut Fleet, mirrors: &[Arc<Mirror>]) -> Result<()> {
    let list: Vec<String> = mirrors.iter().map(|mirror| format!("\"{}\"", mirror.address)).collect();
    let agent = &mut fleet.agents[0];
    let config = fs::read_to_string(agent.config())?;
    fs::write(agent.config(), format!("mirrors = [{}]\n{config}", list.join(", ")))?;
    agent.kill();
    agent.start()
}

#[test]
fn a_mirror_that_misbehaves_costs_no_more_than_its_own_place() -> Result<()> {
    let runtime = Runtime::new()?;
    for manners in [Manners::WrongBytes, Manners::TooMany, Manners::TooFew, Manners::Missing] {
        let mut fleet = fleet(1)?;
        let blobs = fleet.path("controller/blobs");
        let bad = Mirror::start(&runtime, manners, blobs.clone())?;
        let good = Mirror::start(&runtime, Manners::Honest, blobs)?;
        use_mirrors(&mut fleet, &[Arc::clone(&bad), Arc::clone(&good)])?;
        let rollout =
            install(&fleet, &subject(&fleet, "1.0.0", &[])?).with_context(|| format!("{manners:?}"))?;
        assert_eq!(rollout["state"], "SUCCEEDED", "{manners:?}");
        bad.is_asked(&runtime)?;
        good.is_asked(&runtime)?;
    }
    Ok(())
}

#[test]
fn without_any_good_mirror_the_controller_gives_the_bytes() -> Result<()> {
    let runtime = Runtime::new()?;
    let mut fleet = fleet(1)?;
    let bad = Mirror::start(&runtime, Manners::WrongBytes, fleet.path("controller/blobs"))?;
    use_mirrors(&mut fleet, &[bad])?;
    assert_eq!(install(&fleet, &subject(&fleet, "1.0.0", &[])?)?["state"], "SUCCEEDED");
    Ok(())
}

#[test]
fn an_agent_killed_while_fetching_goes_on_and_blames_nobody() -> Result<()> {
    let runtime = Runtime::new()?;
    let mut fleet = fleet(1)?;
    install(&fleet, &subject(&fleet, "1.0.0", &[])?)?;
    let slow = Mirror::start(&runtime, Manners::StallsUntilReleased, fleet.path("controller/blobs"))?;
    use_mirrors(&mut fleet, &[Arc::clone(&slow)])?;
    let pushed = Pushed::detached(&fleet, &subject(&fleet, "1.1.0", &[])?, &QUICK)?;
    slow.is_asked(&runtime)?;
    pushed.wait_for_trial(&fleet.agents[0], "FETCHING")?;
    fleet.agents[0].kill();
    slow.release.notify_one();
    let config = fs::read_to_string(fleet.agents[0].config())?;
    let (_, without_mirrors) = config.split_once('\n').context("a config of several lines")?;
    fs::write(fleet.agents[0].config(), without_mirrors)?;
    fleet.agents[0].start()?;
    let rollout = pushed.wait_for_the_end(&fleet)?;
    assert_eq!(rollout["state"], "SUCCEEDED", "{rollout}");
    runs(&fleet.agents[0], &pushed.to)
}

#[test]
fn a_controller_killed_while_a_host_fetches_finds_the_rollout_again() -> Result<()> {
    let runtime = Runtime::new()?;
    let mut fleet = fleet(1)?;
    let installed = install(&fleet, &subject(&fleet, "1.0.0", &[])?)?;
    let slow = Mirror::start(&runtime, Manners::StallsUntilReleased, fleet.path("controller/blobs"))?;
    use_mirrors(&mut fleet, &[Arc::clone(&slow)])?;
    eventually("the agent is back", || Ok((fleet.status()?["hosts_online"] == 1).then_some(())))?;
    let pushed = Pushed::detached(&fleet, &subject(&fleet, "1.1.0", &[])?, &QUICK)?;
    slow.is_asked(&runtime)?;
    pushed.wait_for_trial(&fleet.agents[0], "FETCHING")?;
    fleet.controller = None;
    runs(&fleet.agents[0], &installed["to"])?;
    fleet.start_controller()?;
    (0..16).for_each(|_| slow.release.notify_one());
    runtime.spawn(async move {
        loop {
            slow.asked.notified().await;
            slow.release.notify_one();
        }
    });
    let rollout = pushed.wait_for_the_end(&fleet)?;
    assert_eq!(rollout["state"], "SUCCEEDED", "{rollout}");
    runs(&fleet.agents[0], &pushed.to)
}

#[test]
fn a_mirror_that_stalls_is_left_for_the_next_one() -> Result<()> {
    let runtime = Runtime::new()?;
    let mut fleet = fleet(1)?;
    let blobs = fleet.path("controller/blobs");
    let stalls = Mirror::start(&runtime, Manners::StallsUntilReleased, blobs.clone())?;
    let good = Mirror::start(&runtime, Manners::Honest, blobs)?;
    use_mirrors(&mut fleet, &[Arc::clone(&stalls), Arc::clone(&good)])?;
    let wait = ["--wait-timeout", "5m", "--hosts", "all"];
    fleet.push(&subject(&fleet, "1.0.0", &[])?, &[&QUICK[..], &wait].concat())?.expect(0)?;
    good.is_asked(&runtime)
}

/// The deadline is far below the half hour that the mirror would take.
#[test]
fn a_mirror_that_is_slow_all_the_time_does_not_fail_a_push() -> Result<()> {
    let runtime = Runtime::new()?;
    let mut fleet = fleet(1)?;
    let slow = Mirror::start(&runtime, Manners::Throttled, fleet.path("controller/blobs"))?;
    use_mirrors(&mut fleet, &[Arc::clone(&slow)])?;
    let clock = Binaries::find()?.example("clock", "1.0.0")?;
    let impatient = ["--hosts", "all", "--healthy-deadline", "30s"];
    let outcome = fleet.push(&clock, &[&QUICK[..], &impatient].concat())?.expect(0)?;
    assert_eq!(outcome.json()?["rollout"]["state"], "SUCCEEDED");
    slow.is_asked(&runtime)
}

/// The deadline is over while the mirror is still within its grace; whatever it did, the next push goes through.
#[test]
fn a_mirror_from_which_a_push_ran_out_of_time_does_not_fail_the_next_push() -> Result<()> {
    let runtime = Runtime::new()?;
    let mut fleet = fleet(1)?;
    let stalls = Mirror::start(&runtime, Manners::StallsUntilReleased, fleet.path("controller/blobs"))?;
    use_mirrors(&mut fleet, &[stalls])?;
    let next = subject(&fleet, "1.0.0", &[])?;
    let impatient = ["--hosts", "all", "--healthy-deadline", "1s"];
    let failed = fleet.push(&next, &[&QUICK[..], &impatient].concat())?.expect(3)?;
    assert_eq!(failed.json()?["rollout"]["failure"]["code"], "FETCH_DEADLINE");
    // Less than a source may stall when nobody stands behind it.
    fleet.push(&next, &[&QUICK[..], &["--healthy-deadline", "10s"]].concat())?.expect(0)?;
    Ok(())
}
