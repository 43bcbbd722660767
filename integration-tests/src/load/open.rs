//! A storm of `swapped work`: open loop, over keep-alive and new connections, by every door that a front has.
//!
//! Arrival times are fixed beforehand. A call is sent once and never again, whatever becomes of it. Each carries a nonce,
//! and a reply is right only if it repeats the nonce, the length of the body and the version that its header names.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep_until, timeout},
};

use super::CALL_TIMEOUT;

/// Kept in words at most.
const FAILURES_KEPT: usize = 10;
/// Shortest and longest call, in milliseconds.
const WORK_MS: (u64, u64) = (5, 50);
/// Of a hundred calls so many come on a connection of their own.
const NEW_OF_HUNDRED: u64 = 10;
/// The largest body, in bytes.
const BODY_MAX: usize = 1024 * 1024;

/// A way into the front.
#[derive(Clone, Debug)]
pub enum Door {
    /// Its unix socket.
    Unix(PathBuf),
    /// Its loopback port.
    Tcp(SocketAddr),
}

/// A running storm.
#[derive(Debug)]
pub struct Storm {
    shared: Arc<Shared>,
    arrivals: JoinHandle<JoinSet<()>>,
}

/// What became of a storm's calls.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Calls sent.
    pub sent: u64,
    /// Calls with the right reply.
    pub right: u64,
    /// The first few of the others, in words.
    pub failures: Vec<String>,
    /// Versions that answered.
    pub versions: BTreeSet<String>,
    /// Counts that replies named, one of each reply.
    pub counts: Vec<u64>,
    /// Fewest calls in flight at a moment when the answering version changed; `None` if it never did.
    pub fewest_at_change: Option<usize>,
    /// How long each right reply took beyond the time that its work takes.
    pub waits: Vec<Duration>,
    last_version: String,
}

impl Outcome {
    /// Calls without the right reply.
    #[must_use]
    pub const fn failed(&self) -> u64 {
        self.sent - self.right
    }
}

#[derive(Debug)]
struct Shared {
    doors: Vec<Door>,
    idle: Vec<Mutex<Vec<SendRequest<Full<Bytes>>>>>,
    in_flight: AtomicUsize,
    stop: AtomicBool,
    outcome: Mutex<Outcome>,
}

impl Storm {
    /// Begins to send so many calls a second, by the doors in turn.
    #[must_use]
    pub fn begin(doors: Vec<Door>, rate: u32) -> Self {
        let idle = doors.iter().map(|_| Mutex::default()).collect();
        let shared = Arc::new(Shared {
            doors,
            idle,
            in_flight: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            outcome: Mutex::default(),
        });
        let arrivals = tokio::spawn(arrive(Arc::clone(&shared), Duration::from_secs(1) / rate.max(1)));
        Self { shared, arrivals }
    }

    /// Calls in flight now.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.in_flight.load(Ordering::Relaxed)
    }

    /// Calls answered rightly so far.
    #[must_use]
    pub fn right(&self) -> u64 {
        self.shared.outcome().right
    }

    /// How long each right reply since the last time of asking took beyond its work.
    #[must_use]
    pub fn take_waits(&self) -> Vec<Duration> {
        std::mem::take(&mut self.shared.outcome().waits)
    }

    /// Sends no further call, and waits for those in flight.
    pub async fn end(self) -> Outcome {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Ok(mut calls) = self.arrivals.await {
            while calls.join_next().await.is_some() {}
        }
        let mut outcome = std::mem::take(&mut *self.shared.outcome());
        outcome.counts.sort_unstable();
        outcome
    }
}

async fn arrive(shared: Arc<Shared>, interval: Duration) -> JoinSet<()> {
    let (mut calls, mut at) = (JoinSet::new(), Instant::now());
    for sequence in 0_u64.. {
        sleep_until(at).await;
        at += interval;
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        calls.spawn(Arc::clone(&shared).call(sequence));
        while calls.try_join_next().is_some() {}
    }
    calls
}

/// One call, made from its number alone.
struct Call {
    nonce: String,
    work: Duration,
    body: Bytes,
    door: usize,
    is_new: bool,
}

impl Call {
    fn of(sequence: u64, doors: usize) -> Self {
        let drawn = mixed(sequence);
        let (least, most) = WORK_MS;
        // Long ones are drawn more often: of four throws the greatest counts.
        let throw = |shift: u32| (drawn >> shift) % (most - least + 1);
        let work = least + throw(0).max(throw(8)).max(throw(16)).max(throw(24));
        let length = match (drawn >> 32) % 500 {
            0 => BODY_MAX,
            1..=24 => 64 * 1024,
            _ => 128,
        };
        let nonce = format!("n{sequence}");
        let mut body = format!("{work} {nonce} ").into_bytes();
        body.resize(length, b'.');
        Self {
            nonce,
            work: Duration::from_millis(work),
            body: body.into(),
            door: usize::try_from(sequence).unwrap_or_default() % doors.max(1),
            is_new: (drawn >> 40) % 100 < NEW_OF_HUNDRED,
        }
    }

    /// The version and the count of a right reply.
    fn check(&self, status: u16, header: &str, reply: &[u8]) -> Result<(String, u64), String> {
        let text = String::from_utf8_lossy(reply);
        if status != 200 {
            return Err(format!("status {status}: {text}"));
        }
        let fields: Vec<&str> = text.split(' ').collect();
        let &[version, nonce, length, count] = &fields[..] else {
            return Err(format!("the reply is {text}"));
        };
        if version != header {
            return Err(format!("{version} answered under the name of {header}"));
        }
        if nonce != self.nonce || length != self.body.len().to_string() {
            let (wanted, bytes) = (&self.nonce, self.body.len());
            return Err(format!("the reply to {wanted} with {bytes} bytes is {text}"));
        }
        let count = count.parse().map_err(|_| format!("the reply is {text}"))?;
        Ok((version.to_owned(), count))
    }
}

/// SplitMix64's finaliser (Steele, Lea and Flood, 2014): every bit of the number decides about every bit of the result.
const fn mixed(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Shared {
    async fn call(self: Arc<Self>, sequence: u64) {
        let call = Call::of(sequence, self.doors.len());
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.outcome().sent += 1;
        let started = Instant::now();
        let late = || Err(format!("no reply within {CALL_TIMEOUT:?}"));
        let got = timeout(CALL_TIMEOUT, self.exchange(&call)).await.unwrap_or_else(|_| late());
        let in_flight = self.in_flight.fetch_sub(1, Ordering::Relaxed);
        let mut outcome = self.outcome();
        match got {
            Ok((version, count)) => {
                outcome.right += 1;
                outcome.counts.push(count);
                outcome.waits.push(started.elapsed().saturating_sub(call.work));
                outcome.answered_by(version, in_flight);
            }
            Err(words) if outcome.failures.len() < FAILURES_KEPT => {
                outcome.failures.push(format!("{} by {:?}: {words}", call.nonce, self.doors[call.door]));
            }
            Err(_) => {}
        }
    }

    async fn exchange(&self, call: &Call) -> Result<(String, u64), String> {
        let mut sender = self.sender(call).await?;
        let mut request = Request::post("/v1/call/swapped/work").body(Full::new(call.body.clone()));
        if let (Ok(request), Ok(host)) = (&mut request, self.doors[call.door].name().parse()) {
            request.headers_mut().insert("host", host);
        }
        let request = request.map_err(|error| error.to_string())?;
        let response =
            sender.send_request(request).await.map_err(|error| format!("it broke off: {error:?}"))?;
        let read = read(response).await?;
        if !call.is_new && sender.ready().await.is_ok() {
            lock(&self.idle[call.door]).push(sender);
        }
        call.check(read.0, &read.1, &read.2)
    }

    /// An idle connection, or a new one.
    async fn sender(&self, call: &Call) -> Result<SendRequest<Full<Bytes>>, String> {
        while let Some(mut sender) = self.idle_one(call) {
            // One that the front has closed in order is no longer there to be used; whether it is, shows before sending.
            if sender.ready().await.is_ok() {
                return Ok(sender);
            }
        }
        self.doors[call.door].open().await.map_err(|error| format!("no connection: {error}"))
    }

    fn idle_one(&self, call: &Call) -> Option<SendRequest<Full<Bytes>>> {
        if call.is_new { None } else { lock(&self.idle[call.door]).pop() }
    }

    fn outcome(&self) -> MutexGuard<'_, Outcome> {
        lock(&self.outcome)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outcome {
    fn answered_by(&mut self, version: String, in_flight: usize) {
        if self.last_version == version {
            return;
        }
        if !self.last_version.is_empty() {
            self.fewest_at_change =
                Some(self.fewest_at_change.map_or(in_flight, |least| least.min(in_flight)));
        }
        self.versions.insert(version.clone());
        self.last_version = version;
    }
}

/// Status, version header and body.
async fn read(response: Response<Incoming>) -> Result<(u16, String, Bytes), String> {
    let header = response.headers().get("fleetswap-version").and_then(|value| value.to_str().ok());
    let (status, version) = (response.status().as_u16(), header.unwrap_or_default().to_owned());
    let body =
        response.into_body().collect().await.map_err(|error| format!("the reply broke off: {error}"))?;
    Ok((status, version, body.to_bytes()))
}

impl Door {
    fn name(&self) -> String {
        match self {
            Self::Unix(_) => "localhost".to_owned(),
            Self::Tcp(address) => address.to_string(),
        }
    }

    async fn open(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        match self {
            Self::Unix(path) => handshake(UnixStream::connect(path).await).await,
            Self::Tcp(address) => handshake(TcpStream::connect(address).await).await,
        }
    }
}

async fn handshake(
    stream: std::io::Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static>,
) -> Result<SendRequest<Full<Bytes>>, String> {
    let stream = stream.map_err(|error| error.to_string())?;
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> Call {
        Call::of(7, 2)
    }

    #[test]
    fn a_reply_to_another_call_or_under_another_name_is_noticed() {
        let length = call().body.len();
        let check = |header: &str, reply: &str| call().check(200, header, reply.as_bytes());
        assert_eq!(check("1.0.0", &format!("1.0.0 n7 {length} 3")), Ok(("1.0.0".to_owned(), 3)));
        for (header, reply) in [
            ("1.0.0", format!("1.0.0 n8 {length} 3")),
            ("1.1.0", format!("1.0.0 n7 {length} 3")),
            ("1.0.0", format!("1.0.0 n7 {} 3", length + 1)),
            ("1.0.0", format!("1.0.0 n7 {length}")),
            ("1.0.0", String::new()),
        ] {
            assert!(check(header, &reply).is_err(), "{reply}");
        }
        assert!(call().check(503, "1.0.0", format!("1.0.0 n7 {length} 3").as_bytes()).is_err());
    }

    #[test]
    fn calls_differ_in_length_of_work_body_and_door() {
        let calls: Vec<Call> = (0..2_000).map(|sequence| Call::of(sequence, 2)).collect();
        let work: BTreeSet<Duration> = calls.iter().map(|call| call.work).collect();
        let (least, most) = (Duration::from_millis(WORK_MS.0), Duration::from_millis(WORK_MS.1));
        assert!(work.len() > 20 && work.iter().all(|work| (least..=most).contains(work)), "{work:?}");
        assert!(calls.iter().any(|call| call.body.len() == BODY_MAX));
        assert!(calls.iter().any(|call| call.is_new) && calls.iter().any(|call| !call.is_new));
        assert!(calls.iter().any(|call| call.door == 0) && calls.iter().any(|call| call.door == 1));
    }
}
