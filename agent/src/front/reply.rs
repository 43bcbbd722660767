//! What a caller gets: one status and one body for each way that a call can end.

use std::time::Duration;

use axum::{
    http::{
        HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER},
    },
    response::IntoResponse,
};
use bytes::Bytes;
use http_body_util::Full;
use serde::{Serialize, de::IgnoredAny};

use super::{RELEASE_HEADER, TIMEOUT_HEADER, VERSION_HEADER, request::BODY_MAX};
use crate::calls::{Answer, CallFailure, ReleaseTag};

/// Wait that a 503 advises when nothing better is known.
const RETRY_SOON: Duration = Duration::from_secs(1);
/// The same where a person has to act first.
const RETRY_LATER: Duration = Duration::from_secs(60);

/// An answer that is not the plugin's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// Stable, with a page.
    pub(super) code: &'static str,
    /// The plugin's own code, with 422.
    plugin_code: Option<Box<str>>,
    message: String,
    field: Option<String>,
    executed: Option<&'static str>,
    retry_after: Option<Duration>,
}

/// The body of every refusal: `{"error": {…}}`.
#[derive(Serialize)]
struct Body<'a> {
    error: Error<'a>,
}

#[derive(Serialize)]
struct Error<'a> {
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    plugin_code: Option<&'a str>,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    executed: Option<&'static str>,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { status, code, plugin_code: None, message, field: None, executed: None, retry_after: None }
    }

    fn field(self, field: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..self }
    }

    fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    pub(super) fn no_route() -> Self {
        let message = "there is nothing here; calls go to POST /v1/call/PLUGIN/FUNCTION";
        Self::new(StatusCode::NOT_FOUND, "NO_ROUTE", message)
    }

    pub(super) fn wrong_method() -> Self {
        let message = "this path has another method; calls are POST, everything else is GET";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "WRONG_METHOD", message)
    }

    pub(super) fn bad_timeout() -> Self {
        let message = "wanted more than 0 and at most 60 seconds, such as 2, 0.5 or 500ms";
        Self::new(StatusCode::BAD_REQUEST, "BAD_TIMEOUT", message).field(TIMEOUT_HEADER)
    }

    pub(super) fn body_broken() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BODY_BROKEN", "the body ended before it was complete")
    }

    pub(super) fn body_too_slow() -> Self {
        let message = "the body was not complete by the call's deadline; the plugin was not called";
        Self::new(StatusCode::REQUEST_TIMEOUT, "BODY_TOO_SLOW", message)
    }

    pub(super) fn body_too_large() -> Self {
        let message = format!("the body has more than {BODY_MAX} bytes; the plugin was not called");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "BODY_TOO_LARGE", message)
    }

    pub(super) fn foreign(header: &str) -> Self {
        let message = format!("the header {header} is not this front's own address");
        Self::new(StatusCode::FORBIDDEN, "FOREIGN_REQUEST", message).field(header)
    }
}

impl From<CallFailure> for Refusal {
    fn from(failure: CallFailure) -> Self {
        let message = failure.to_string();
        let simple = |status, code| Self::new(status, code, message.clone());
        match failure {
            CallFailure::UnknownPlugin(_) => simple(StatusCode::NOT_FOUND, "UNKNOWN_PLUGIN"),
            CallFailure::UnknownFunction(_) => simple(StatusCode::NOT_FOUND, "UNKNOWN_FUNCTION"),
            CallFailure::BadInput { field, message } => {
                Self::new(StatusCode::BAD_REQUEST, "BAD_INPUT", message).field(field)
            }
            CallFailure::Plugin { code, message } => {
                let own = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "PLUGIN_ERROR", message);
                Self { plugin_code: Some(code.into()), ..own }
            }
            CallFailure::TooLarge { what: "input", .. } => {
                simple(StatusCode::PAYLOAD_TOO_LARGE, "BODY_TOO_LARGE")
            }
            CallFailure::TooLarge { .. } => simple(StatusCode::INTERNAL_SERVER_ERROR, "OUTPUT_TOO_LARGE"),
            CallFailure::QueueFull => simple(StatusCode::TOO_MANY_REQUESTS, "QUEUE_FULL"),
            CallFailure::Panic(_) => simple(StatusCode::INTERNAL_SERVER_ERROR, "PLUGIN_PANICKED"),
            CallFailure::WorkerDied { executed } => {
                // Without `Retry-After`: a client that heeds it by itself might make the call's effect twice.
                let died = simple(StatusCode::SERVICE_UNAVAILABLE, "WORKER_DIED");
                Self { executed: Some(executed), ..died }
            }
            CallFailure::Down { retry_after } => {
                simple(StatusCode::SERVICE_UNAVAILABLE, "PLUGIN_DOWN").retry_after(retry_after)
            }
            CallFailure::SafeMode => {
                simple(StatusCode::SERVICE_UNAVAILABLE, "AGENT_SAFE_MODE").retry_after(RETRY_LATER)
            }
            CallFailure::Deadline => simple(StatusCode::GATEWAY_TIMEOUT, "DEADLINE_EXCEEDED"),
            CallFailure::Stopping => {
                simple(StatusCode::SERVICE_UNAVAILABLE, "AGENT_STOPPING").retry_after(RETRY_SOON)
            }
        }
    }
}

impl Refusal {
    pub(super) fn response(self) -> Response<Full<Bytes>> {
        let error = Error {
            code: self.code,
            plugin_code: self.plugin_code.as_deref(),
            message: &self.message,
            field: self.field.as_deref(),
            executed: self.executed,
        };
        // Texts and names only: there is nothing in it that JSON can't say.
        let body = serde_json::to_vec(&Body { error }).unwrap_or_default();
        let mut response = with_body(body.into(), JSON);
        *response.status_mut() = self.status;
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> axum::response::Response {
        self.response().into_response()
    }
}

/// The response, and the outcome under which it is counted: a plugin's own codes are one, as they must not become
/// labels.
pub(super) fn of(answer: Result<Answer, Refusal>) -> (Response<Full<Bytes>>, &'static str) {
    let (tag, outcome) = match answer {
        Ok(Answer { tag, outcome }) => (tag, outcome.map_err(Refusal::from)),
        Err(refusal) => (None, Err(refusal)),
    };
    let (mut response, counted) = match outcome {
        Ok(output) => (output_response(output), "OK"),
        Err(refusal) => {
            let code = refusal.code;
            (refusal.response(), code)
        }
    };
    if let Some(tag) = tag {
        add_tag(response.headers_mut(), &tag);
    }
    (response, counted)
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

fn output_response(output: Bytes) -> Response<Full<Bytes>> {
    let json = serde_json::from_slice::<IgnoredAny>(&output).is_ok();
    with_body(output, if json { JSON } else { BYTES })
}

fn with_body(body: Bytes, content_type: HeaderValue) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

fn add_tag(headers: &mut HeaderMap, tag: &ReleaseTag) {
    for (name, value) in [(RELEASE_HEADER, &tag.release_id), (VERSION_HEADER, &tag.version)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}
