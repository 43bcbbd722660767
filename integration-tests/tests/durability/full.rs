//! A disk that is really full: a small file system of its own for the state folder of a host.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use fleetswap_integration_tests::harness::{Outcome, Process, eventually};
use fleetswap_proto::v1::{Fault, HostState, RolloutState};
use tokio::runtime::Runtime;

use crate::common::{PLUGIN, World, active, is_whole, subject};

/// Room for the state folder, in KiB.
const SMALL: &str = "size=4096k";
/// Room after the operator made some.
const LARGE: &str = "size=16384k";
/// Bytes of a release that doesn't fit.
const BULKY: usize = 4 * 1024 * 1024;

/// A file system in memory, gone with this value.
struct Mounted(PathBuf);

impl Mounted {
    /// `None`: this user, or this machine, may not mount.
    fn at(folder: &Path) -> Result<Option<Self>> {
        fs::create_dir_all(folder)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", SMALL, "fleetswap-test"]).arg(folder);
        let is_mounted = Outcome::of(&mut mount).is_ok_and(|outcome| outcome.code == 0);
        Ok(is_mounted.then(|| Self(folder.to_owned())))
    }

    fn resize(&self, options: &str) -> Result<()> {
        Outcome::of(Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.0))?
            .expect(0)
            .map(drop)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: an agent may still be ending in it.
        if let Err(error) = Outcome::of(Command::new("umount").arg("-l").arg(&self.0)) {
            eprintln!("{} stays mounted: {error:#}", self.0.display());
        }
    }
}

/// Moves the host's state folder to a small file system.
fn small_disk(world: &mut World) -> Result<Option<Mounted>> {
    let agent = &mut world.fleet.agents[0];
    let (state, aside) = (agent.folder().join("state"), agent.folder().join("aside"));
    agent.kill();
    fs::rename(&state, &aside)?;
    let mounted = Mounted::at(&state)?;
    Outcome::of(Command::new("cp").arg("-a").arg(aside.join(".")).arg(&state))?.expect(0)?;
    agent.start()?;
    Ok(mounted)
}

#[test]
fn a_full_disk_is_the_hosts_fault_costs_no_call_and_is_over_when_there_is_room() -> Result<()> {
    let mut world = World::start(1)?;
    let Some(disk) = small_disk(&mut world)? else {
        println!("NOT RUN: this user may not mount; a full disk was exercised by failpoints only");
        return Ok(());
    };
    let runtime = Runtime::new()?;
    let old = active(&world.fleet.agents[0])?.0;
    let bulky = bulky(&mut world)?;
    let (state, fault) = push(&mut world, &bulky)?;
    ensure!(
        (state, &fault) == (HostState::Rejected, &Some((Fault::Host, "DISK_FULL".to_owned()))),
        "{state:?} {fault:?}"
    );
    ensure!(is_whole(&world.fleet.agents[0], &runtime)?.0 == old, "the old release serves on");
    no_room_to_remember(&mut world, &disk, &runtime)?;
    disk.resize(LARGE)?;
    let (state, fault) = push(&mut world, &bulky)?;
    ensure!(state == HostState::Committed, "the same release, with room: {state:?} {fault:?}");
    ensure!(is_whole(&world.fleet.agents[0], &runtime)?.0 == crate::common::hex(&bulky), "it runs");
    Ok(())
}

/// Not one byte is left: what the host is told is not accepted, until there is room again.
fn no_room_to_remember(world: &mut World, disk: &Mounted, runtime: &Runtime) -> Result<()> {
    let before = active(&world.fleet.agents[0])?.0;
    let ballast = disk.0.join("ballast");
    let mut file = fs::File::create(&ballast)?;
    while file.write_all(&[0; 4096]).is_ok() {}
    // An open file would keep its room when it is removed.
    drop(file);
    let release = world.publish(&[])?;
    let rollout = world.operator.push(PLUGIN, "host-1", &release.manifest, 0)?;
    let log = world.fleet.agents[0].folder().join("agent.log");
    eventually("the agent says that its disk is full", || {
        let log = fs::read_to_string(&log)?;
        Ok(log
            .lines()
            .any(|line| line.contains("DISK_FULL") && line.contains("could not be kept"))
            .then_some(()))
    })?;
    ensure!(is_whole(&world.fleet.agents[0], runtime)?.0 == before, "the old release serves on");
    let states = world.operator.states()?;
    let state = states.into_iter().find(|(id, _)| *id == rollout).context("the rollout is known")?.1;
    ensure!(state == RolloutState::Running, "it waits: {state:?}");
    fs::remove_file(&ballast)?;
    world.operator.wait_for(&[rollout])?;
    ensure!(is_whole(&world.fleet.agents[0], runtime)?.0 == release.id, "with room it commits by itself");
    Ok(())
}

/// A release whose library is longer than the disk.
fn bulky(world: &mut World) -> Result<Vec<u8>> {
    let plugin = subject(&world.fleet, "1.50.0", &[])?;
    // Behind everything that is loaded, and not to be compressed away.
    let bulk: Vec<u8> = (0_u32..).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).take(BULKY).collect();
    fs::File::options().append(true).open(&plugin.file)?.write_all(&bulk)?;
    world.operator.publish(&world.fleet, &plugin)
}

fn push(world: &mut World, manifest: &[u8]) -> Result<(HostState, Option<(Fault, String)>)> {
    let rollout = world.operator.push(PLUGIN, "host-1", manifest, 0)?;
    let log = || world.fleet.agents[0].process.as_ref().map(Process::log_tail).unwrap_or_default();
    world.operator.wait_for(std::slice::from_ref(&rollout)).with_context(log)?;
    let (_, host) = world.operator.rollout(&rollout)?;
    Ok((host.state(), host.failure.map(|failure| (failure.fault(), failure.code))))
}
