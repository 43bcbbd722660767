//! Break-glass: `POST /hold/{plugin}`, `/release/{plugin}` and `/rollback/{plugin}`, each with a reason.

mod peer;

use std::time::{SystemTime, UNIX_EPOCH};

use axum::{
    Extension, Json, Router,
    extract::{DefaultBodyLimit, Path, State, rejection::JsonRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use fleetswap_proto::Explained;
use fleetswap_update::{Order, REASON_MAX};
use serde::{Deserialize, Serialize};

use super::{
    ErrorReply, Sources,
    status::{LocalOverride, Plugin},
};
use crate::run::{Done, Refused, Verb};

pub(crate) use peer::{Peer, greet};

/// Largest body, in bytes: a reason with every character escaped.
const BODY_MAX: usize = 8 * 1024;

/// The body of an order.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ordered {
    pub(crate) reason: String,
}

/// What came of an order.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct OverrideReply {
    pub(crate) schema: u32,
    /// `hold`, `release` or `rollback`.
    pub(crate) verb: String,
    /// Something is not as it was before.
    pub(crate) changed: bool,
    /// No plugin runs on this host: it takes effect with the next start without --safe.
    pub(crate) safe_mode: bool,
    /// How the plugin stands now.
    pub(crate) plugin: Plugin,
}

impl OverrideReply {
    /// What stands now.
    pub(crate) fn local_override(&self) -> Option<&LocalOverride> {
        self.plugin.local_override.as_ref()
    }
}

pub(super) fn router() -> Router<Sources> {
    Router::new()
        .route("/hold/{plugin}", post(hold))
        .route("/release/{plugin}", post(release))
        .route("/rollback/{plugin}", post(rollback))
        .layer(DefaultBodyLimit::max(BODY_MAX))
}

type Body = Result<Json<Ordered>, JsonRejection>;

async fn hold(sources: State<Sources>, peer: Extension<Peer>, plugin: Path<String>, body: Body) -> Response {
    Box::pin(give(sources, peer, plugin, (Verb::Hold, body))).await
}

async fn release(
    sources: State<Sources>,
    peer: Extension<Peer>,
    plugin: Path<String>,
    body: Body,
) -> Response {
    Box::pin(give(sources, peer, plugin, (Verb::Release, body))).await
}

async fn rollback(
    sources: State<Sources>,
    peer: Extension<Peer>,
    plugin: Path<String>,
    body: Body,
) -> Response {
    Box::pin(give(sources, peer, plugin, (Verb::RollBack, body))).await
}

async fn give(
    State(sources): State<Sources>,
    Extension(peer): Extension<Peer>,
    Path(plugin): Path<String>,
    (verb, body): (Verb, Body),
) -> Response {
    let reason = match body {
        Ok(Json(Ordered { reason })) => reason,
        Err(rejection) => return refused(StatusCode::BAD_REQUEST, bad_reason(rejection.body_text())),
    };
    if let Err(why) = check(&reason) {
        return refused(StatusCode::BAD_REQUEST, bad_reason(why));
    }
    let by = peer.name();
    tracing::warn!(plugin, by, reason, "an operator on this host orders: {}", word(verb));
    let at_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let order = Order { reason, by, at_ms: u64::try_from(at_ms).unwrap_or(u64::MAX) };
    match sources.orders.give(&plugin, verb, order).await {
        Ok(Done { changed, status, at_rest }) => {
            let verb = word(verb).to_owned();
            let saved = sources.keeper.view(&plugin);
            let plugin = Plugin::of((None, saved), status);
            Json(OverrideReply { schema: 1, verb, changed, safe_mode: at_rest, plugin }).into_response()
        }
        Err(why) => {
            let (status, error) = explain(&plugin, verb, *why);
            refused(status, error)
        }
    }
}

fn refused(status: StatusCode, error: Explained) -> Response {
    (status, Json(ErrorReply { error })).into_response()
}

/// A reason that people can read later, on every screen.
fn check(reason: &str) -> Result<(), String> {
    if reason.trim().is_empty() {
        return Err("it is empty".to_owned());
    }
    if reason.len() > REASON_MAX {
        return Err(format!("it has {} bytes, more than {REASON_MAX}", reason.len()));
    }
    let control = reason.chars().find(|character| character.is_control());
    control.map_or(Ok(()), |it| Err(format!("it has the control character {}", it.escape_unicode())))
}

fn bad_reason(why: impl Into<String>) -> Explained {
    Explained::new(
        "REASON_INVALID",
        "the order has no reason that can be kept",
        why,
        "give --reason TEXT: one line, for whoever finds the host like this later",
    )
}

pub(crate) const fn word(verb: Verb) -> &'static str {
    match verb {
        Verb::Hold => "hold",
        Verb::Release => "release",
        Verb::RollBack => "rollback",
    }
}

fn explain(plugin: &str, verb: Verb, refused: Refused) -> (StatusCode, Explained) {
    let verb = word(verb);
    match refused {
        Refused::UnknownPlugin => (StatusCode::NOT_FOUND, unknown(plugin)),
        Refused::NotHeld => (StatusCode::CONFLICT, not_held(plugin)),
        Refused::NothingBefore { active } => {
            let runs =
                active.map_or_else(|| "nothing runs here yet".to_owned(), |it| format!("{it} runs here"));
            (StatusCode::CONFLICT, nothing_before(plugin, &runs))
        }
        Refused::NotKept(problem) => {
            let what = format!("the {verb} of `{plugin}` could not be kept, so it was not done");
            let why = format!("{}; whether the next start finds it is not known", problem.message);
            let fix = "mend what the page of the code names, then give the order again";
            let (code, fix) = (problem.code.into_string().into(), fix.to_owned());
            (StatusCode::INTERNAL_SERVER_ERROR, Explained { code, what, why, fix })
        }
        Refused::GivenUp { failure } => (StatusCode::INTERNAL_SERVER_ERROR, given_up(plugin, failure)),
        Refused::NotAnswering(to) => {
            (StatusCode::INTERNAL_SERVER_ERROR, not_answering(plugin, &to.to_string()))
        }
        Refused::Unfinished => (StatusCode::GATEWAY_TIMEOUT, unfinished(plugin, verb)),
        Refused::Stopping => {
            let why = "the agent stops; what was not kept before is not done";
            let fix = format!("when the agent runs again, look at agent status, and give the {verb} again");
            let what = format!("the {verb} of `{plugin}` was cut short");
            (StatusCode::SERVICE_UNAVAILABLE, Explained::new("AGENT_STOPPING", what, why, fix))
        }
    }
}

fn unknown(plugin: &str) -> Explained {
    Explained::new(
        "UNKNOWN_PLUGIN",
        format!("no plugin `{plugin}` on this host"),
        "it was never installed here, or the name is misspelt",
        "agent status lists the plugins of this host",
    )
}

fn not_held(plugin: &str) -> Explained {
    let what = format!("nothing holds `{plugin}` on this host");
    let why = "no `agent hold` or `agent rollback` stands for it";
    Explained::new("NOT_HELD", what, why, "agent status shows what is held on this host")
}

fn nothing_before(plugin: &str, runs: &str) -> Explained {
    let fix = format!(
        "to keep what runs, `agent hold {plugin} --reason TEXT`; to get another release here, push or roll back on the \
         controller"
    );
    let why = format!("{runs}, and no release before it is retained");
    Explained::new("NOTHING_TO_ROLL_BACK_TO", format!("`{plugin}` has no release to go back to"), why, fix)
}

fn given_up(plugin: &str, failure: Option<(String, String)>) -> Explained {
    let why = failure.map_or_else(
        || "the hold was released meanwhile".to_owned(),
        |(code, message)| format!("{code} (docs/errors/{code}.md): {message}"),
    );
    Explained::new(
        "ROLLBACK_GIVEN_UP",
        format!("`{plugin}` did not go back; what runs is held"),
        why,
        format!(
            "mend the cause, then give the order again; `agent release {plugin} --reason TEXT` lifts the hold"
        ),
    )
}

fn not_answering(plugin: &str, to: &str) -> Explained {
    Explained::new(
        "ROLLED_BACK_NOT_ANSWERING",
        format!("`{plugin}` is back on {to}, but that does not start"),
        "its first start has failed; it is tried again with growing pauses, and callers wait or are refused meanwhile",
        format!(
            "agent logs {plugin} and the agent's log say why; `agent release {plugin} --reason TEXT` lets the \
                 controller install again"
        ),
    )
}

fn unfinished(plugin: &str, verb: &str) -> Explained {
    Explained::new(
        "ORDER_UNFINISHED",
        format!("the {verb} of `{plugin}` has not come to its end yet"),
        "it is kept and goes on: it waits for a moment that costs no call",
        "agent status shows how far it is",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_printable_line() {
        assert_eq!(check("INC-412: größer"), Ok(()));
        assert_eq!(check(&"x".repeat(REASON_MAX)), Ok(()));
        for bad in ["", "  ", "a\nb", "\u{1b}[0m", &"x".repeat(REASON_MAX + 1)] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }
}
