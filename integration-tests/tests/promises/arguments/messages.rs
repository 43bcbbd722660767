//! Every message of an operator: a field that is missing, wrong or too large is named.

use anyhow::{Context, Result, ensure};
use fleetswap_integration_tests::harness::Binaries;
use fleetswap_proto::{
    Explained,
    v1::{
        BlobHeader, GetAssignmentRequest, GetReleaseRequest, GetRolloutRequest, ListHostsRequest,
        ListRolloutsRequest, Policy, PublishRequest, PushRequest, PutBlobRequest, RollbackRequest,
        StatBlobRequest, WatchRolloutRequest, operator_service_client::OperatorServiceClient,
    },
};
use tonic::{
    Response, Status,
    transport::{Channel, Endpoint},
};

use super::has_page;
use crate::common::{block_on, fleet};

type Operator = OperatorServiceClient<Channel>;

/// Larger than any field may be that isn't a file.
const OVERSIZE: usize = 70_000;

/// What was asked, what is expected, and what came.
struct Asked {
    case: &'static str,
    code: &'static str,
    /// Of `what`, e.g. the field.
    words: &'static str,
    refused: Option<Status>,
}

/// A request with a field that can't be accepted.
fn field<T>(case: &'static str, words: &'static str, answer: Result<Response<T>, Status>) -> Asked {
    Asked { case, code: "REQUEST_INVALID", words, refused: answer.err() }
}

impl Asked {
    fn check(self) -> Result<()> {
        let Self { case, code, words, refused } = self;
        let status = refused.with_context(|| format!("{case}: accepted"))?;
        let error = Explained::from_status(&status).with_context(|| format!("{case}: bare {status:?}"))?;
        ensure!(!error.what.is_empty() && !error.why.is_empty() && !error.fix.is_empty(), "{case}: {error}");
        ensure!(error.code == code && error.what.contains(words), "{case}: not {code} {words}, but {error}");
        has_page(&error.code)
    }
}

#[test]
fn every_message_of_an_operator_is_checked() -> Result<()> {
    let fleet = fleet(0)?;
    let file = Binaries::find()?.example("clock", "1.0.0")?.file.display().to_string();
    fleet.controller(["publish", "clock", "--version", "1.0.0", "--artifact", &file])?.expect(0)?;
    let address = format!("http://{}", fleet.address());
    let asked = block_on(async move {
        let mut operator = Operator::new(Endpoint::from_shared(address)?.connect().await?);
        let release = GetReleaseRequest { plugin: "clock".to_owned(), version: "1.0.0".to_owned() };
        let manifest = operator.get_release(release).await?.into_inner().manifest;
        let mut asked = pushes(&mut operator, manifest).await;
        asked.extend(rollbacks(&mut operator).await);
        asked.extend(releases(&mut operator).await);
        asked.extend(blobs(&mut operator).await);
        asked.extend(views(&mut operator).await);
        anyhow::Ok(asked)
    })??;
    asked.into_iter().try_for_each(Asked::check)
}

async fn pushes(operator: &mut Operator, manifest: Vec<u8>) -> Vec<Asked> {
    let good = PushRequest {
        request_id: "7d444840-9dc0-11d1-b245-5ffdce74fad2".to_owned(),
        plugin: "clock".to_owned(),
        selector: "all".to_owned(),
        manifest,
        actor: "test".to_owned(),
        ..PushRequest::default()
    };
    let long = "x".repeat(OVERSIZE);
    let steep = Policy { max_parallel: u32::MAX, ..Policy::default() };
    let requests = [
        ("push without id", "`request_id`", PushRequest { request_id: String::new(), ..good.clone() }),
        ("push with a long id", "`request_id`", PushRequest { request_id: long.clone(), ..good.clone() }),
        ("push with an odd id", "`request_id`", PushRequest { request_id: "a b".to_owned(), ..good.clone() }),
        ("push without plugin", "`plugin`", PushRequest { plugin: String::new(), ..good.clone() }),
        ("push of a long name", "`plugin`", PushRequest { plugin: long.clone(), ..good.clone() }),
        ("push with a long selector", "`selector`", PushRequest { selector: long.clone(), ..good.clone() }),
        ("push without manifest", "`manifest`", PushRequest { manifest: Vec::new(), ..good.clone() }),
        ("push of too much", "`manifest`", PushRequest { manifest: vec![b' '; OVERSIZE], ..good.clone() }),
        ("push by nobody", "`actor`", PushRequest { actor: String::new(), ..good.clone() }),
        ("push by a long name", "`actor`", PushRequest { actor: long.clone(), ..good.clone() }),
        ("push for a long reason", "`reason`", PushRequest { reason: long, ..good.clone() }),
        (
            "push beyond all hosts",
            "`policy.max_parallel`",
            PushRequest { policy: Some(steep), ..good.clone() },
        ),
    ];
    let mut asked = Vec::new();
    for (case, words, request) in requests {
        asked.push(field(case, words, operator.push(request).await));
    }
    let request = PushRequest { manifest: b"{}".to_vec(), ..good.clone() };
    let refused = operator.push(request).await.err();
    asked.push(Asked { case: "push of nonsense", code: "MANIFEST_INVALID", words: "manifest", refused });
    let request = PushRequest { selector: "colour".to_owned(), ..good };
    let refused = operator.push(request).await.err();
    asked.push(Asked { case: "push to a word", code: "SELECTOR_INVALID", words: "", refused });
    asked
}

async fn rollbacks(operator: &mut Operator) -> Vec<Asked> {
    let good = RollbackRequest {
        request_id: "7d444840-9dc0-11d1-b245-5ffdce74fad3".to_owned(),
        plugin: "clock".to_owned(),
        reason: "test".to_owned(),
        actor: "test".to_owned(),
        ..RollbackRequest::default()
    };
    let long = "x".repeat(OVERSIZE);
    let late = Policy { healthy_deadline_ms: u64::MAX, ..Policy::default() };
    let requests = [
        (
            "rollback without id",
            "`request_id`",
            RollbackRequest { request_id: String::new(), ..good.clone() },
        ),
        ("rollback, long id", "`request_id`", RollbackRequest { request_id: long.clone(), ..good.clone() }),
        ("rollback of nothing", "`plugin`", RollbackRequest { plugin: String::new(), ..good.clone() }),
        ("rollback of a long name", "`plugin`", RollbackRequest { plugin: long.clone(), ..good.clone() }),
        ("rollback, long selector", "`selector`", RollbackRequest { selector: long.clone(), ..good.clone() }),
        (
            "rollback to a word",
            "`to_version`",
            RollbackRequest { to_version: "one".to_owned(), ..good.clone() },
        ),
        (
            "rollback, long version",
            "`to_version`",
            RollbackRequest { to_version: long.clone(), ..good.clone() },
        ),
        ("rollback without reason", "`reason`", RollbackRequest { reason: String::new(), ..good.clone() }),
        ("rollback, long reason", "`reason`", RollbackRequest { reason: long.clone(), ..good.clone() }),
        ("rollback by nobody", "`actor`", RollbackRequest { actor: String::new(), ..good.clone() }),
        ("rollback by two lines", "`actor`", RollbackRequest { actor: "a\nb".to_owned(), ..good.clone() }),
        ("rollback by a long name", "`actor`", RollbackRequest { actor: long, ..good.clone() }),
        ("rollback, far deadline", "`policy.healthy", RollbackRequest { policy: Some(late), ..good.clone() }),
    ];
    let mut asked = Vec::new();
    for (case, words, request) in requests {
        asked.push(field(case, words, operator.rollback(request).await));
    }
    let refused = operator.rollback(RollbackRequest { selector: "colour".to_owned(), ..good }).await.err();
    asked.push(Asked { case: "rollback of a word", code: "SELECTOR_INVALID", words: "", refused });
    asked
}

async fn releases(operator: &mut Operator) -> Vec<Asked> {
    let long = "x".repeat(OVERSIZE);
    let release = |plugin: &str, version: &str| GetReleaseRequest {
        plugin: plugin.to_owned(),
        version: version.to_owned(),
    };
    let assignment = |plugin: &str, selector: &str| GetAssignmentRequest {
        plugin: plugin.to_owned(),
        selector: selector.to_owned(),
    };
    let publish = PublishRequest { request_id: "p".to_owned(), ..PublishRequest::default() };
    let never = operator.get_release(release("clock", "9.9.9")).await.err();
    vec![
        field("publish without id", "`request_id`", operator.publish(PublishRequest::default()).await),
        field("publish on nothing", "`expected`", operator.publish(publish).await),
        field("release of nothing", "`plugin`", operator.get_release(release("", "1.0.0")).await),
        field("release of a long name", "`plugin`", operator.get_release(release(&long, "1.0.0")).await),
        field("release without version", "`version`", operator.get_release(release("clock", "")).await),
        field("release of a word", "`version`", operator.get_release(release("clock", "one")).await),
        field("release, long version", "`version`", operator.get_release(release("clock", &long)).await),
        Asked { case: "release that never was", code: "RELEASE_NOT_FOUND", words: "9.9.9", refused: never },
        field("assignment of nothing", "`plugin`", operator.get_assignment(assignment("", "")).await),
        field("assignment, long name", "`plugin`", operator.get_assignment(assignment(&long, "")).await),
        field("long selector", "`selector`", operator.get_assignment(assignment("clock", &long)).await),
    ]
}

async fn blobs(operator: &mut Operator) -> Vec<Asked> {
    let mut asked = Vec::new();
    for (case, sha256) in [
        ("no hash", String::new()),
        ("a short hash", "abc".to_owned()),
        ("a hash in capitals", "AB".repeat(32)),
        ("a long hash", "a".repeat(OVERSIZE)),
    ] {
        let stat = StatBlobRequest { sha256: sha256.clone() };
        asked.push(field(case, "`sha256`", operator.stat_blob(stat).await));
        let header = Some(BlobHeader { sha256, length: 1, offset: 0 });
        let put = tokio_stream::iter([PutBlobRequest { header, data: vec![0] }]);
        asked.push(field(case, "`header.sha256`", operator.put_blob(put).await));
    }
    let put = tokio_stream::iter([PutBlobRequest { header: None, data: vec![0] }]);
    asked.push(field("no header", "`header`", operator.put_blob(put).await));
    asked
}

async fn views(operator: &mut Operator) -> Vec<Asked> {
    let mut asked = Vec::new();
    for (case, id) in [
        ("no rollout", String::new()),
        ("a bare number", "7".to_owned()),
        ("a long id", "r-1".repeat(OVERSIZE)),
    ] {
        let get = GetRolloutRequest { rollout_id: id.clone() };
        asked.push(field(case, "`rollout_id`", operator.get_rollout(get).await));
        let watch = WatchRolloutRequest { rollout_id: id };
        asked.push(field(case, "`rollout_id`", operator.watch_rollout(watch).await));
    }
    let rollout_id = "r-999999".to_owned();
    let unknown = operator.get_rollout(GetRolloutRequest { rollout_id: rollout_id.clone() }).await.err();
    asked.push(Asked { case: "unknown", code: "ROLLOUT_NOT_FOUND", words: "r-999999", refused: unknown });
    let unknown = operator.watch_rollout(WatchRolloutRequest { rollout_id }).await.err();
    asked.push(Asked { case: "watch it", code: "ROLLOUT_NOT_FOUND", words: "r-999999", refused: unknown });
    let (list, long) = (ListRolloutsRequest::default(), "x".repeat(OVERSIZE));
    let page = ListRolloutsRequest { page_size: 1_000_000, ..list.clone() };
    asked.push(field("a page too large", "`page_size`", operator.list_rollouts(page).await));
    let page = ListRolloutsRequest { page_token: long.clone(), ..list.clone() };
    asked.push(field("a long token", "`page_token`", operator.list_rollouts(page).await));
    let page = ListRolloutsRequest { plugin: long.clone(), ..list };
    asked.push(field("rollouts of a long name", "`plugin`", operator.list_rollouts(page).await));
    let page = ListHostsRequest { page_size: 1_000_000, page_token: String::new() };
    asked.push(field("a page of hosts too large", "`page_size`", operator.list_hosts(page).await));
    let page = ListHostsRequest { page_size: 1, page_token: long };
    asked.push(field("a long token of hosts", "`page_token`", operator.list_hosts(page).await));
    asked
}
