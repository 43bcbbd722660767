//! The log lines of one plugin: the last ones at once, or with `follow=true` an event a line for as long as both sides go on.

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{Path, RawQuery, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use fleetswap_proto::Explained;
use futures_util::stream;
use serde::{Deserialize, Serialize};

use super::{ErrorReply, Sources};
use crate::logs::{FOLLOWERS_MAX, Followed, Follower, LINES_MAX, Line, TooMany};

/// The lines of one plugin.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LogReply {
    pub(crate) schema: u32,
    pub(crate) plugin: String,
    pub(crate) lines: Vec<Line>,
}

/// What a follower gets, each on a line of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Event {
    /// The first: whether the host has the plugin already.
    Following {
        /// It has.
        known: bool,
    },
    /// A line.
    Line(Line),
    /// So many lines came faster than they were read.
    Lost(u64),
    /// The agent is stopping; nothing follows.
    Stopping,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    /// Lines of the past at most.
    lines: usize,
    follow: bool,
}

impl Wanted {
    /// None for a query that no command of this version makes.
    fn parse(query: &str) -> Option<Self> {
        let mut wanted = Self { lines: LINES_MAX, follow: false };
        for field in query.split('&').filter(|field| !field.is_empty()) {
            match field.split_once('=')? {
                ("lines", count) => wanted.lines = count.parse().ok()?,
                ("follow", yes) => wanted.follow = yes.parse().ok()?,
                _ => return None,
            }
        }
        Some(wanted)
    }
}

/// `GET /logs/{plugin}?lines=N&follow=true`.
pub(super) async fn answer(
    State(sources): State<Sources>,
    Path(plugin): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let Some(wanted) = Wanted::parse(query.as_deref().unwrap_or_default()) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let known = sources.standing.borrow().plugins.contains_key(&plugin);
    if wanted.follow {
        return match sources.logs.follow(&plugin, wanted.lines) {
            Ok(follower) => followed(follower, known, &sources),
            Err(TooMany) => refused(StatusCode::TOO_MANY_REQUESTS, too_many()),
        };
    }
    match sources.logs.last(&plugin, wanted.lines) {
        Some(lines) => Json(LogReply { schema: 1, plugin, lines }).into_response(),
        None if known => Json(LogReply { schema: 1, plugin, lines: Vec::new() }).into_response(),
        None => refused(StatusCode::NOT_FOUND, unknown(&plugin)),
    }
}

/// The stream waits for its reader: what a slow one misses is counted in the follower, not kept.
fn followed(follower: Follower, known: bool, sources: &Sources) -> Response {
    let (first, stop) = (Some(Event::Following { known }), sources.stop.clone());
    let events = stream::unfold((first, Some(follower)), move |(first, follower)| {
        let stop = stop.clone();
        async move {
            if let Some(first) = first {
                return Some((encoded(&first), (None, follower)));
            }
            let mut follower = follower?;
            let next = tokio::select! {
                biased;
                next = follower.next() => next,
                () = stop.cancelled() => None,
            };
            Some(match next {
                Some(Followed::Line(line)) => (encoded(&Event::Line(line)), (None, Some(follower))),
                Some(Followed::Lost(count)) => (encoded(&Event::Lost(count)), (None, Some(follower))),
                None => (encoded(&Event::Stopping), (None, None)),
            })
        }
    });
    ([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(events)).into_response()
}

fn encoded(event: &Event) -> serde_json::Result<Bytes> {
    let mut text = serde_json::to_vec(event)?;
    text.push(b'\n');
    Ok(text.into())
}

fn refused(status: StatusCode, error: Explained) -> Response {
    (status, Json(ErrorReply { error })).into_response()
}

fn unknown(plugin: &str) -> Explained {
    Explained::new(
        "UNKNOWN_PLUGIN",
        format!("no plugin `{plugin}` on this host"),
        "it was never installed here, or it was removed before the agent started",
        "agent status lists the plugins of this host; agent logs -f waits for one that is still to come",
    )
}

fn too_many() -> Explained {
    Explained::new(
        "TOO_MANY_FOLLOWERS",
        "the agent's logs are followed by as many commands as it allows",
        format!("at most {FOLLOWERS_MAX} may follow at a time, each keeps lines in the agent's memory"),
        "end one of them, or ask for the last lines without --follow",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_understood_whole_or_not_at_all() {
        assert_eq!(Wanted::parse(""), Some(Wanted { lines: LINES_MAX, follow: false }));
        assert_eq!(Wanted::parse("follow=true&lines=0"), Some(Wanted { lines: 0, follow: true }));
        for query in ["lines", "lines=-1", "lines=many", "follow=1", "tail=3"] {
            assert_eq!(Wanted::parse(query), None, "{query}");
        }
    }
}
