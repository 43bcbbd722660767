//! `controller rollback`: back to an earlier release, without canary and without download.

use fleetswap_proto::v1::{Policy, RollbackRequest};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    args::RollbackArgs,
    client::Client,
    exit::{Exit, Failure},
    follow::{self, Follow},
    json as views,
    output::Output,
    push, text,
};

/// Rolls a plugin back and waits for the end.
pub(super) async fn run(args: &RollbackArgs, output: &Output) -> Result<Exit, Failure> {
    let client = Client::connect(&args.remote.controller).await?;
    let request = RollbackRequest {
        request_id: Uuid::new_v4().to_string(),
        plugin: args.name.clone(),
        selector: args.hosts.clone().unwrap_or_default(),
        to_version: args.to.as_ref().map(ToString::to_string).unwrap_or_default(),
        reason: args.reason.clone(),
        actor: push::actor(),
        dry_run: args.dry_run,
        policy: Some(Policy::default()),
    };
    let response = client
        .resend(|| {
            let (mut operator, request) = (client.operator(), request.clone());
            async move { operator.rollback(request).await }
        })
        .await?;
    if response.nothing_to_do {
        let words = format!("{} already runs that release; nothing to do", args.name);
        output.result(&words, json!({ "rollout": null, "nothing_to_do": true }));
        return Ok(Exit::Ok);
    }
    if args.dry_run {
        let plan = response.plan.unwrap_or_default();
        let object = json!({ "rollout": null, "nothing_to_do": false, "plan": views::plan(&plan) });
        output.result(&text::plan(&plan), object);
        return Ok(Exit::Ok);
    }
    let rollout = response.rollout.ok_or_else(|| follow::no_rollout(&client))?;
    let follow = Follow { client: &client, output, wait: args.wait.wait_timeout, each_update: false };
    let ended = follow.until_it_ends(rollout).await?;
    follow.finish(&ended, json!({ "nothing_to_do": false, "diff": Value::Null }))
}
