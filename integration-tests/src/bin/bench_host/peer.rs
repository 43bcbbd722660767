//! The peer that many would take: nginx, told to reload under the same client.
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use bytes::Bytes;
use fleetswap_integration_tests::harness::{Process, eventually, signal};
use rustix::process::Signal;
use tokio::{task::JoinSet, time::sleep};

use super::{
    client::{Connection, Target},
    table::Row,
};

/// Connections, which are kept, and the time between two calls on one.
const CONNECTIONS: usize = 20;
const THINK: Duration = Duration::from_millis(2);
/// Between two reloads.
const RELOAD_EVERY: Duration = Duration::from_millis(500);

/// Calls that fail while nginx reloads, where it is installed.
pub(crate) async fn row(folder: &Path, time: Duration) -> Result<Row> {
    let what = "calls lost in nginx reloads, 20 connections, 2 ms between calls";
    let Some(program) = find("nginx") else { return Ok(Row::skipped(what, "nginx is not installed")) };
    let (socket, config) = (folder.join("nginx.sock"), folder.join("nginx.conf"));
    fs::write(&config, configuration(folder, &socket))?;
    let mut command = Command::new(program);
    command.arg("-p").arg(folder).arg("-e").arg(folder.join("nginx.err")).arg("-c").arg(&config);
    let mut process = Process::start("nginx", &mut command, &folder.join("nginx.log"))?;
    eventually("nginx listens", || {
        Ok(std::os::unix::net::UnixStream::connect(&socket).is_ok().then_some(()))
    })?;
    let target = Target { socket, path: "/", body: Bytes::new() };
    let mut callers = JoinSet::new();
    let end = Instant::now() + time;
    for _ in 0..CONNECTIONS {
        callers.spawn(call_until(target.clone(), end));
    }
    let mut reloads = 0;
    while Instant::now() + RELOAD_EVERY < end {
        sleep(RELOAD_EVERY).await;
        signal(process.pid(), Signal::HUP)?;
        reloads += 1;
    }
    let (mut answered, mut lost) = (0_u64, 0_u64);
    while let Some(done) = callers.join_next().await {
        let (right, wrong) = done?;
        answered += right;
        lost += wrong;
    }
    process.stop().context("ending nginx")?;
    Ok(Row::alone(what, "", lost as f64).note(format!("{reloads} reloads, {answered} calls answered")))
}

/// Calls without a repetition; a lost connection is opened anew for the next call. Answered and lost.
async fn call_until(target: Target, end: Instant) -> (u64, u64) {
    let (mut answered, mut lost, mut connection) = (0, 0, None);
    while Instant::now() < end {
        let mut open = match connection.take() {
            Some(open) => open,
            None => match Connection::open(&target).await {
                Ok(open) => open,
                Err(_) => {
                    lost += 1;
                    sleep(THINK).await;
                    continue;
                }
            },
        };
        if open.call().await.is_ok_and(|status| status == 200) {
            answered += 1;
            connection = Some(open);
        } else {
            lost += 1;
        }
        sleep(THINK).await;
    }
    (answered, lost)
}

fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let folders = env::split_paths(&path).chain(["/usr/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

fn configuration(folder: &Path, socket: &Path) -> String {
    format!(
        "daemon off;\nworker_processes 2;\npid {0}/nginx.pid;\nevents {{}}\nhttp {{ access_log off; \
         client_body_temp_path {0}/b; proxy_temp_path {0}/p; fastcgi_temp_path {0}/f; uwsgi_temp_path {0}/u; \
         scgi_temp_path {0}/s; server {{ listen unix:{1}; keepalive_requests 1000000; location / {{ return 200 \"ok\"; }} }} \
         }}\n",
        folder.display(),
        socket.display()
    )
}
