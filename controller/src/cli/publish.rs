//! `controller publish`: sign and upload without a rollout.

use serde_json::json;

use super::{
    args::PublishArgs,
    client::Client,
    exit::{Exit, Failure},
    output::Output,
    release::{self, Draft},
};

/// Publishes one release.
pub(super) async fn run(args: &PublishArgs, output: &Output) -> Result<Exit, Failure> {
    let publisher = release::publisher(&args.release)?;
    let artifacts = release::prepare(&args.release).await?;
    let client = Client::connect(&args.remote.controller).await?;
    let draft = Draft::assemble(&args.release, artifacts, &client).await?;
    if !draft.is_published() {
        draft.publish(&publisher, &client).await?;
    }
    let manifest = &draft.manifest;
    let done = if draft.is_published() { "is published already" } else { "is published" };
    let text = format!(
        "{} {} revision {} {done}\nrelease {}",
        manifest.plugin,
        manifest.version,
        manifest.revision,
        manifest.release_id()
    );
    let release = json!({
        "plugin": manifest.plugin, "version": manifest.version.to_string(), "revision": manifest.revision,
        "release_id": manifest.release_id().to_string(),
    });
    output.result(&text, json!({ "release": release, "nothing_to_do": draft.is_published() }));
    Ok(Exit::Ok)
}
