//! Requests that change something: each is carried out once, however often it is sent.

use std::fmt;

use fleetswap_proto::{
    Explained,
    v1::{self, PushRequest, PushResponse, RollbackRequest},
};
use fleetswap_rollout::Policy;
use fleetswap_trust::{Digest, Manifest};
use prost::Message;

use super::{RequestKey, Shared, publish, validate};
use crate::{explain, store::RequestRow};

/// Starts a rollout, or says what it would do.
pub(super) async fn push(shared: &Shared, request: PushRequest) -> Result<PushResponse, Explained> {
    validate::plugin("plugin", &request.plugin)?;
    validate::selector("selector", &request.selector)?;
    validate::bytes("manifest", &request.manifest, fleetswap_trust::manifest::MANIFEST_MAX)?;
    policy(request.policy.as_ref())?;
    validate::who_and_why(&request.actor, &request.reason)?;
    let manifest = Manifest::parse(&request.manifest).map_err(|error| explain::manifest(&error))?;
    if manifest.plugin != request.plugin {
        return Err(validate::invalid("plugin", format!("the manifest is one of {}", manifest.plugin)));
    }
    if request.dry_run {
        publish::refuse_other_bytes(shared, &manifest).await?;
        return shared.fleet.push(request, None).await;
    }
    let _one_at_a_time = shared.mutations.lock().await;
    let seen = Seen::of(shared, &request.request_id, "push", &request).await?;
    match seen {
        Seen::Answered(response) => decode(&response),
        Seen::New(key) => {
            publish::require_published(shared, &manifest)?;
            shared.fleet.push(request, Some(key)).await
        }
    }
}

/// Starts a rollout back to an earlier release.
pub(super) async fn rollback(shared: &Shared, request: RollbackRequest) -> Result<PushResponse, Explained> {
    validate::plugin("plugin", &request.plugin)?;
    validate::selector("selector", &request.selector)?;
    policy(request.policy.as_ref())?;
    validate::who_and_why(&request.actor, &request.reason)?;
    validate::line("reason", &request.reason, request.reason.len())?;
    if !request.to_version.is_empty() {
        validate::version("to_version", &request.to_version)?;
    }
    if request.dry_run {
        return shared.fleet.rollback(request, None).await;
    }
    let _one_at_a_time = shared.mutations.lock().await;
    let seen = Seen::of(shared, &request.request_id, "rollback", &request).await?;
    match seen {
        Seen::Answered(response) => decode(&response),
        Seen::New(key) => shared.fleet.rollback(request, Some(key)).await,
    }
}

/// What is known of a request's id.
pub(super) enum Seen {
    /// The same request was answered before.
    Answered(Vec<u8>),
    /// It is new; its answer is stored under this key.
    New(RequestKey),
}

impl Seen {
    /// Looks a request up. The same id with another content is refused.
    pub(super) async fn of(
        shared: &Shared,
        request_id: &str,
        kind: &str,
        request: &(impl Message + fmt::Debug),
    ) -> Result<Self, Explained> {
        validate::request_id(request_id)?;
        let fingerprint = fingerprint(kind, request);
        match shared.store.request(request_id).await? {
            None => Ok(Self::New(RequestKey { request_id: request_id.to_owned(), fingerprint })),
            Some(row) if row.fingerprint == fingerprint => Ok(Self::Answered(row.response)),
            Some(_) => Err(Explained::new(
                "REQUEST_ID_REUSED",
                format!("the request id {request_id} was used for something else"),
                "an id names one request for ever, so that sending it twice is harmless",
                "send this request under a new id",
            )),
        }
    }
}

impl RequestKey {
    /// The row that stores the answer.
    pub(crate) fn row(self, response: &impl Message) -> RequestRow {
        RequestRow {
            request_id: self.request_id,
            fingerprint: self.fingerprint,
            response: response.encode_to_vec(),
        }
    }
}

/// Reads a stored answer.
pub(super) fn decode<T: Message + Default>(response: &[u8]) -> Result<T, Explained> {
    T::decode(response).map_err(|error| {
        Explained::new(
            "STORE_FAILED",
            "the stored answer to this request can't be read",
            error.to_string(),
            "look at the rollout itself: controller history",
        )
    })
}

fn fingerprint(kind: &str, request: &impl Message) -> String {
    let mut bytes = kind.as_bytes().to_vec();
    bytes.push(0);
    bytes.extend(request.encode_to_vec());
    Digest::of(&bytes).to_string()
}

fn policy(policy: Option<&v1::Policy>) -> Result<(), Explained> {
    let Some(policy) = policy else { return Ok(()) };
    validate::at_most("policy.max_parallel", policy.max_parallel.into(), Policy::PARALLEL_MAX.into())?;
    validate::at_most("policy.min_healthy_ms", policy.min_healthy_ms, Policy::TIME_MAX_MS)?;
    validate::at_most("policy.healthy_deadline_ms", policy.healthy_deadline_ms, Policy::TIME_MAX_MS)
}
