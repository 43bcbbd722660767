//! What the front asks of the plugins: one call in, one answer out.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;

/// One call of a caller, fully read.
#[derive(Clone, Debug)]
pub(crate) struct CallRequest {
    /// The plugin's name.
    pub(crate) plugin: String,
    /// The function's name.
    pub(crate) function: String,
    /// The body, at most the front's bound.
    pub(crate) input: Bytes,
    /// Time until the caller must have its answer.
    pub(crate) timeout: Duration,
}

/// The one answer of a call.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The release that answered, or that answers now; `None` where no release runs.
    pub(crate) tag: Option<Arc<ReleaseTag>>,
    /// The output, or why there is none.
    pub(crate) outcome: Result<Bytes, CallFailure>,
}

/// Which release took a call: the reply's `Fleetswap-Release` and `Fleetswap-Version`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReleaseTag {
    /// 64 hex digits.
    pub(crate) release_id: String,
    /// Semantic version.
    pub(crate) version: String,
}

/// Why a call has no output. The front turns each into one HTTP status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallFailure {
    /// 404
    #[error("no plugin `{0}` on this host")]
    UnknownPlugin(String),
    /// 404
    #[error("the plugin has no function `{0}`")]
    UnknownFunction(String),
    /// 400
    #[error("field `{field}`: {message}")]
    BadInput {
        /// The field that does not fit, as a path; empty for the whole body.
        field: String,
        /// What is wrong with it.
        message: String,
    },
    /// 422 `PLUGIN_ERROR`: the plugin's own error.
    #[error("{code}: {message}")]
    Plugin {
        /// The plugin's code.
        code: String,
        /// The plugin's words.
        message: String,
    },
    /// 413, or 500 for an output that is too large.
    #[error("the {what} is larger than {limit} bytes")]
    TooLarge {
        /// `input` or `output`.
        what: &'static str,
        /// The bound in bytes.
        limit: usize,
    },
    /// 429
    #[error("the queue of the plugin is full")]
    QueueFull,
    /// 500
    #[error("the plugin panicked: {0}")]
    Panic(String),
    /// 503 `WORKER_DIED`; whether the function ran is unknown.
    #[error("the worker died while it held the call; executed: {executed}")]
    WorkerDied {
        /// Always `unknown` so far.
        executed: &'static str,
    },
    /// 503: the plugin is down; the agent tries again.
    #[error("the plugin is down")]
    Down {
        /// When it is worth asking again.
        retry_after: Duration,
    },
    /// 504
    #[error("no answer within the deadline")]
    Deadline,
    /// 503: the agent runs in safe mode, so no plugin is started.
    #[error("the agent runs in safe mode: no plugin is started")]
    SafeMode,
    /// 503: the agent is stopping.
    #[error("the agent is stopping")]
    Stopping,
}

/// A plugin as `GET /v1/plugins` and `agent status` show it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct PluginInfo {
    /// The plugin's name.
    pub(crate) plugin: String,
    /// `EMPTY`, `SERVING`, `RESTARTING` or `DOWN`.
    pub(crate) service: &'static str,
    /// 64 hex digits; empty where nothing runs.
    pub(crate) release_id: String,
    /// Semantic version; empty where nothing runs.
    pub(crate) version: String,
    /// Names of the functions that can be called now.
    pub(crate) functions: Vec<String>,
    /// Process id of the worker that answers; none where nothing runs.
    pub(crate) worker_pid: Option<u32>,
}

/// The plugins of this host, as callers see them.
pub(crate) trait Calls: Send + Sync + 'static {
    /// Runs one call. Answers exactly once, by the request's timeout.
    fn call(&self, request: CallRequest) -> BoxFuture<'_, Answer>;

    /// Every plugin that runs or should run here, by name.
    fn plugins(&self) -> Vec<PluginInfo>;
}
