//! The verbs that set up and look: init, status, history, host list, plugin list.

use std::time::SystemTime;

use fleetswap_proto::Explained;
use fleetswap_proto::v1::{
    GetRolloutRequest, GetStatusRequest, Host, ListHostsRequest, ListPluginsRequest, ListRolloutsRequest,
    Rollout,
};
use serde_json::{Value, json};

use super::{
    args::{HistoryArgs, InitArgs, ListArgs, StatusArgs},
    client::Client,
    exit::{Exit, Failure},
    follow::{Follow, exit_of, no_rollout},
    json as views,
    output::Output,
    text,
};

/// Most pages that one list asks for; with 1,000 entries each far beyond any fleet.
const PAGES_MAX: usize = 1_000;
/// Entries of one page.
const PAGE_SIZE: u32 = 1_000;

/// `controller init --dev`
pub(super) fn init(args: &InitArgs, output: &Output) -> Result<Exit, Failure> {
    let made = crate::publish::init_dev(&args.data_dir, &args.publisher_dir, SystemTime::now());
    let made = made.map_err(|error| Failure::from(Explained::from(error)))?;
    // Agents want an absolute path; what was just written can be resolved, or is shown as it was given.
    let root = std::fs::canonicalize(&made.trust_root).unwrap_or(made.trust_root);
    let root = root.display();
    let text = format!(
        "DEV TRUST: one key per role, made just now; agents refuse it unless `allow_dev_trust = true`\n\
         controller   controller serve --data-dir {}\n\
         publisher    export FLEETSWAP_PUBLISHER_DIR={}\n\
         agents       trust_root = \"{root}\"",
        args.data_dir.display(),
        args.publisher_dir.display()
    );
    output.result(&text, json!({ "dev": true, "trust_root": root.to_string() }));
    Ok(Exit::Ok)
}

/// `controller status`
pub(super) async fn status(args: &StatusArgs, output: &Output) -> Result<Exit, Failure> {
    let client = Client::connect(&args.remote.controller).await?;
    match &args.rollout {
        Some(id) => one_rollout(args, id, &client, output).await,
        None if args.watch => watch_unfinished(args, &client, output).await,
        None => fleet(&client, output).await,
    }
}

async fn fleet(client: &Client, output: &Output) -> Result<Exit, Failure> {
    let response = client.operator().get_status(GetStatusRequest {}).await;
    let status = response.map_err(|status| client.failure(&status))?.into_inner();
    output.result(&text::status(&status), views::status(&status));
    Ok(Exit::Ok)
}

async fn one_rollout(args: &StatusArgs, id: &str, client: &Client, output: &Output) -> Result<Exit, Failure> {
    let request = GetRolloutRequest { rollout_id: id.to_owned() };
    let response = client.operator().get_rollout(request).await.map_err(|status| client.failure(&status))?;
    let rollout = response.into_inner().rollout.ok_or_else(|| no_rollout(client))?;
    if args.watch {
        return follow(args, rollout, client, output).await;
    }
    output.result(&text::rollout(&rollout), json!({ "rollout": views::rollout(&rollout) }));
    Ok(if rollout.state().has_ended() { exit_of(&rollout) } else { Exit::Ok })
}

/// Without an id there is one thing to follow: the rollout that moves. Several are named instead.
async fn watch_unfinished(args: &StatusArgs, client: &Client, output: &Output) -> Result<Exit, Failure> {
    let response = client.operator().get_status(GetStatusRequest {}).await;
    let mut status = response.map_err(|status| client.failure(&status))?.into_inner();
    if status.unfinished.len() == 1 {
        return follow(args, status.unfinished.remove(0), client, output).await;
    }
    output.note(&not_watched(&status.unfinished));
    output.result(&text::status(&status), views::status(&status));
    Ok(Exit::Ok)
}

/// Why the fleet is printed once instead of being watched.
fn not_watched(unfinished: &[Rollout]) -> String {
    match unfinished {
        [] => "nothing is moving, so there is nothing to watch".to_owned(),
        [first, ..] => format!(
            "{} rollouts are under way; watch one of them: controller status {} --watch",
            unfinished.len(),
            first.rollout_id
        ),
    }
}

async fn follow(
    args: &StatusArgs,
    rollout: Rollout,
    client: &Client,
    output: &Output,
) -> Result<Exit, Failure> {
    let follow = Follow { client, output, wait: args.wait.wait_timeout, each_update: true };
    let ended = follow.until_it_ends(rollout).await?;
    follow.finish(&ended, json!({}))
}

/// `controller history`
pub(super) async fn history(args: &HistoryArgs, output: &Output) -> Result<Exit, Failure> {
    let client = Client::connect(&args.remote.controller).await?;
    let request = ListRolloutsRequest {
        plugin: args.name.clone().unwrap_or_default(),
        page_size: args.limit,
        page_token: String::new(),
    };
    let response =
        client.operator().list_rollouts(request).await.map_err(|status| client.failure(&status))?;
    let rollouts = response.into_inner().rollouts;
    let objects: Vec<Value> = rollouts.iter().map(views::rollout).collect();
    output.result(&text::history(&rollouts), json!({ "rollouts": objects }));
    Ok(Exit::Ok)
}

/// `controller host list`
pub(super) async fn hosts(args: &ListArgs, output: &Output) -> Result<Exit, Failure> {
    let client = Client::connect(&args.remote.controller).await?;
    let mut hosts: Vec<Host> = Vec::new();
    let mut page_token = String::new();
    for _ in 0..PAGES_MAX {
        let request = ListHostsRequest { page_size: PAGE_SIZE, page_token };
        let response =
            client.operator().list_hosts(request).await.map_err(|status| client.failure(&status))?;
        let page = response.into_inner();
        hosts.extend(page.hosts);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    hosts.sort_by(|one, other| one.name.cmp(&other.name));
    let objects: Vec<Value> = hosts.iter().map(views::host).collect();
    output.result(&text::hosts(&hosts), json!({ "hosts": objects }));
    Ok(Exit::Ok)
}

/// `controller plugin list`
pub(super) async fn plugins(args: &ListArgs, output: &Output) -> Result<Exit, Failure> {
    let client = Client::connect(&args.remote.controller).await?;
    let response = client.operator().list_plugins(ListPluginsRequest {}).await;
    let releases = response.map_err(|status| client.failure(&status))?.into_inner().releases;
    let objects: Vec<Value> = releases.iter().map(views::published).collect();
    output.result(&text::plugins(&releases), json!({ "releases": objects }));
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_that_ends_at_once_says_why() {
        assert!(not_watched(&[]).starts_with("nothing is moving"));
        let rollout = Rollout { rollout_id: "r-000003".to_owned(), ..Rollout::default() };
        let words = not_watched(&[rollout.clone(), rollout]);
        assert_eq!(words, "2 rollouts are under way; watch one of them: controller status r-000003 --watch");
    }
}
