//! The calls of one connection, and when the last of them is over: a client that keeps a connection open may be writing
//! its next request at the very moment in which the agent is told to stop.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use hyper::{
    Request,
    body::Incoming,
    header::{CONNECTION, HeaderValue},
    service::{HttpService, service_fn},
};
use tokio::{sync::Notify, time::timeout};

use super::Answers;

/// So long an open connection has to be idle before it is closed at the agent's end. A client that calls again within it
/// is answered, and told that this was the last answer on it.
pub(super) const LINGER: Duration = Duration::from_millis(500);

/// The calls of one connection.
#[derive(Clone, Default)]
pub(super) struct Calls(Arc<Counts>);

#[derive(Default)]
struct Counts {
    begun: AtomicUsize,
    over: AtomicUsize,
    /// Every answer from now on is the connection's last.
    is_last: AtomicBool,
    changed: Notify,
}

impl Calls {
    /// What answers, with every call noted here.
    pub(super) fn noted<A: Answers>(
        &self,
        answers: A,
    ) -> impl HttpService<Incoming, ResBody = A::Out, Error = Infallible, Future: Send> + use<A> {
        let counts = Arc::clone(&self.0);
        service_fn(move |request: Request<Incoming>| {
            counts.begun.fetch_add(1, Relaxed);
            counts.changed.notify_one();
            let call = Call(Arc::clone(&counts));
            let answer = answers.call(request);
            async move {
                let mut response = answer.await?;
                if call.0.is_last.load(Relaxed) {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            }
        })
    }

    /// Whether none ever came.
    pub(super) fn are_none(&self) -> bool {
        self.0.begun.load(Relaxed) == 0
    }

    /// From now on every answer says that it is the connection's last. Returns once no call is in flight and none came
    /// for [`LINGER`].
    pub(super) async fn last(&self) {
        self.0.is_last.store(true, Relaxed);
        loop {
            let quiet = timeout(LINGER, self.0.changed.notified()).await.is_err();
            if quiet && self.0.begun.load(Relaxed) == self.0.over.load(Relaxed) {
                return;
            }
        }
    }
}

/// One call in flight.
struct Call(Arc<Counts>);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.over.fetch_add(1, Relaxed);
        self.0.changed.notify_one();
    }
}
