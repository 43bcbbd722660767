//! What holds for every order of events.

use super::host::{Cut, Host, STEPS, installed, offer, order, problem, release};
use crate::{Event, Fact, Fault, Outcome, Plugin, Proof, Serve, Stage, Target, Task, Time};
use proptest::prelude::*;

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        6 => (1_u8..6).prop_map(|n| Target::Release(release(n))),
        1 => Just(Target::Nothing),
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![Just(Fault::Release), Just(Fault::Host), Just(Fault::Link), Just(Fault::Trust)]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Fetched),
        (1_u8..6).prop_map(|n| Outcome::Verified(installed(n))),
        Just(Outcome::Loaded),
        Just(Outcome::Probed),
        Just(Outcome::Prepared),
        Just(Outcome::Saved { lost: String::new() }),
        Just(Outcome::Restored),
        Just(Outcome::Activated),
        Just(Outcome::Switched { pause_us: 1 }),
        Just(Outcome::Proven(Proof::Probes)),
        any::<bool>().prop_map(|answers| Outcome::WentBack { answers, lost: String::new() }),
        fault().prop_map(|fault| Outcome::Failed(problem(fault, "ANY"))),
    ]
}

/// What an operator on the host says.
fn local_order(at_rest: bool) -> impl Strategy<Value = Fact> {
    let said = || prop::sample::select(vec!["hands off", "it is slow"]).prop_map(order);
    prop_oneof![
        2 => said().prop_map(move |order| Fact::Held { order, at_rest }),
        2 => said().prop_map(move |order| Fact::OrderedBack { order, at_rest }),
        1 => Just(Fact::Released),
    ]
}

/// What may be seen twice; generation and serial are those of [`Host`] when it comes.
fn repeatable() -> impl Strategy<Value = Fact> {
    let well = outcome().prop_filter("a failure", |outcome| !matches!(outcome, Outcome::Failed(_)));
    let told = |(target, rollback)| Fact::Told(crate::Offer { rollback, ..offer(0, target) });
    prop_oneof![
        Just(Fact::TimePassed),
        Just(Fact::SlotGranted),
        (1_u8..6).prop_map(|n| Fact::Ready(release(n).id)),
        (1_u8..6).prop_map(|n| Fact::StateLost(release(n).id, "its state".into())),
        (target(), any::<bool>()).prop_map(told),
        local_order(false),
        well.prop_map(|outcome| Fact::Trial { serial: 0, outcome }),
    ]
}

fn as_of(host: &Host, fact: Fact) -> Fact {
    match fact {
        Fact::Told(told) => {
            let next = offer(host.plugin.generation().n + 1, told.target);
            Fact::Told(crate::Offer { rollback: told.rollback, ..next })
        }
        Fact::Trial { outcome, .. } => {
            Fact::Trial { serial: host.plugin.trial_serial().unwrap_or_default(), outcome }
        }
        Fact::TimePassed | Fact::SlotGranted | Fact::Ready(_) | Fact::StateLost(..) => fact,
        Fact::Started { .. } | Fact::Died(..) | Fact::StartFailed(..) | Fact::FilesLost(..) => fact,
        Fact::Held { .. } | Fact::OrderedBack { .. } | Fact::Released => fact,
    }
}

/// What a story is made of.
#[derive(Clone, Debug)]
enum Act {
    Tell {
        ahead: i64,
        target: Target,
        rollback: bool,
    },
    Honest,
    Any(Outcome),
    Fail(Fault),
    Late(Outcome),
    Pass(u64),
    Die(u8),
    StartFails(u8, Fault),
    FilesLost(u8),
    Ready(u8),
    Cut(Cut),
    Order(Fact),
    /// The agent ends, and is given an order while no plugin runs.
    AtRest(Fact, Cut),
}

fn act() -> impl Strategy<Value = Act> {
    let cut = || prop_oneof![Just(Cut::Kill), Just(Cut::CleanStop), Just(Cut::Reboot)];
    prop_oneof![
        4 => (-2_i64..4, target(), any::<bool>())
            .prop_map(|(ahead, target, rollback)| Act::Tell { ahead, target, rollback }),
        16 => Just(Act::Honest),
        4 => outcome().prop_map(Act::Any),
        2 => fault().prop_map(Act::Fail),
        2 => outcome().prop_map(Act::Late),
        2 => (0_u64..100_000).prop_map(Act::Pass),
        4 => (1_u8..6).prop_map(Act::Die),
        1 => (1_u8..6, fault()).prop_map(|(n, fault)| Act::StartFails(n, fault)),
        1 => (1_u8..6).prop_map(Act::FilesLost),
        2 => (1_u8..6).prop_map(Act::Ready),
        2 => cut().prop_map(Act::Cut),
        3 => local_order(false).prop_map(Act::Order),
        1 => (local_order(true), cut()).prop_map(|(order, how)| Act::AtRest(order, how)),
    ]
}

fn play(host: &mut Host, act: Act) {
    match act {
        Act::Tell { ahead, target, rollback } => {
            let n = host.plugin.generation().n.saturating_add_signed(ahead);
            let mut offer = offer(n, target);
            offer.rollback = rollback;
            host.feed(Fact::Told(offer));
        }
        Act::Honest => {
            host.step_honestly();
        }
        Act::Any(outcome) => host.outcome(outcome),
        Act::Fail(fault) => host.fail(fault, "FAILED"),
        Act::Late(outcome) => {
            let serial = host.plugin.trial_serial().unwrap_or_default().wrapping_sub(1);
            host.feed(Fact::Trial { serial, outcome });
        }
        Act::Pass(ms) => {
            host.now = host.now.after(ms);
            host.feed(Fact::TimePassed);
        }
        Act::Die(n) => host.feed(Fact::Died(release(n).id, problem(Fault::Release, "WORKER_DIED"))),
        Act::StartFails(n, fault) => {
            host.feed(Fact::StartFailed(release(n).id, problem(fault, "START")));
        }
        Act::FilesLost(n) => {
            host.feed(Fact::FilesLost(release(n).id, problem(Fault::Host, "RELEASE_FILES_MISSING")));
        }
        Act::Ready(n) => host.feed(Fact::Ready(release(n).id)),
        Act::Cut(how) => host.cut(how),
        Act::Order(order) => host.feed(order),
        Act::AtRest(order, how) => {
            host.plugin = serde_json::from_slice(&host.disk).unwrap();
            host.feed(order);
            host.cut(how);
        }
    }
}

fn owns_gate(task: &Task) -> bool {
    match task {
        Task::Idle | Task::AwaitSlot | Task::Wait | Task::Fetch { .. } | Task::Verify(_) => false,
        Task::Load(_) | Task::Probe(_) | Task::Prepare(_) => false,
        Task::Pause(_) | Task::Restore(_) | Task::Activate(_) | Task::Move(_) => true,
        Task::Watch { .. } | Task::GoBack { .. } => true,
    }
}

/// The releases that the work loads or lets answer.
fn loaded(plugin: &Plugin) -> Vec<crate::ReleaseId> {
    let work = plugin.work();
    let mut ids = match work.serve {
        Serve::Nothing | Serve::Trial => Vec::new(),
        Serve::Run(id) => vec![id],
        Serve::Start { release, .. } => vec![release.release.id],
    };
    match work.trial {
        Task::Idle | Task::AwaitSlot | Task::Wait | Task::Fetch { .. } | Task::Verify(_) => {}
        Task::Load(it) | Task::Probe(it) | Task::Prepare(it) | Task::Watch { release: it, .. } => {
            ids.push(it.release.id)
        }
        Task::Pause(swap) | Task::Restore(swap) | Task::Activate(swap) | Task::Move(swap) => {
            ids.extend(swap.to.map(|it| it.release.id));
        }
        Task::GoBack { swap, .. } => ids.extend(swap.to.map(|it| it.release.id)),
    }
    ids
}

fn check(before: &Plugin, host: &Host) {
    let (plugin, status) = (&host.plugin, host.plugin.status());
    let work = plugin.work();
    assert_eq!(work.serve == Serve::Trial, owns_gate(&work.trial), "one hand on the gate: {work:?}");
    for id in loaded(plugin) {
        assert!(
            status.denied.iter().all(|denied| denied.release.id != id),
            "a denied release is loaded: {work:?}"
        );
    }
    let id = |release: &Option<crate::Release>| release.as_ref().map(|it| it.id);
    assert!(id(&status.active).is_none() || id(&status.active) != id(&status.previous));
    let old = before.status();
    let allowed =
        [id(&old.active), id(&old.previous), old.trial.as_ref().and_then(|trial| id(&trial.candidate)), None];
    assert!(allowed.contains(&id(&status.active)), "active comes from nowhere");
    assert!(status.generation >= old.generation);
    let on_disk: Plugin = serde_json::from_slice(&host.disk).unwrap();
    assert!(!plugin.must_be_saved(&on_disk));
    assert_eq!(id(&on_disk.status().active), id(&status.active), "the record is the commit");
    assert!(plugin.kept().count() <= 4);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_invariants_hold_after_every_event(
        acts in prop::collection::vec(act(), 1..120),
        clumsy in any::<bool>(),
    ) {
        let mut host = Host { clumsy, ..Host::new() };
        for act in acts {
            let before = host.plugin.clone();
            play(&mut host, act.clone());
            check(&before, &host);
        }
        host.run_honestly();
        prop_assert!(!host.plugin.local_override().is_some_and(|it| it.is_rolling_back()), "every way back ends");
        prop_assert_eq!(host.plugin.trial_serial(), None, "every trial ends when its events end");
    }

    #[test]
    fn a_lower_generation_changes_nothing(acts in prop::collection::vec(act(), 1..40), target in target()) {
        let mut host = Host::running(&[1]);
        host.tell(10, 2);
        for act in acts {
            play(&mut host, act);
        }
        let below = host.plugin.generation().n - 1;
        let before = host.plugin.clone();
        host.feed(Fact::Told(offer(below, target)));
        prop_assert_eq!(&host.plugin, &before);
    }

    /// A death is one each time, and a failure of the step that is under way: the shell tells those once.
    #[test]
    fn an_event_that_is_seen_twice_counts_once(
        acts in prop::collection::vec(act(), 1..40),
        fact in repeatable(),
    ) {
        let mut host = Host::running(&[1]);
        for act in acts {
            play(&mut host, act);
        }
        let fact = as_of(&host, fact);
        host.feed(fact.clone());
        let once = host.plugin.clone();
        host.feed(fact);
        prop_assert_eq!(&host.plugin, &once);
    }

    #[test]
    fn a_late_outcome_of_an_earlier_trial_changes_nothing(
        acts in prop::collection::vec(act(), 1..40),
        late in outcome(),
    ) {
        let mut host = Host::running(&[1]);
        for act in acts {
            play(&mut host, act);
        }
        let Some(serial) = host.plugin.trial_serial() else { return Ok(()) };
        let before = host.plugin.clone();
        host.feed(Fact::Trial { serial: serial - 1, outcome: late });
        prop_assert_eq!(&host.plugin, &before);
    }

    #[test]
    fn however_often_the_agent_is_killed_there_is_one_verdict(
        at in prop::sample::select(STEPS.to_vec()),
        more in prop::collection::vec(prop_oneof![Just(Cut::Kill), Just(Cut::CleanStop), Just(Cut::Reboot)], 0..6),
    ) {
        let mut host = Host::running(&[1]);
        host.tell(2, 2);
        host.run_to(at);
        host.cut(Cut::Kill);
        if matches!(at, Stage::Fetching | Stage::Verifying) {
            prop_assert_eq!(host.stage(), Stage::Fetching);
            return Ok(());
        }
        let verdict = host.plugin.status().trial;
        prop_assert_eq!(host.fault(), Some(Fault::Release));
        for cut in more {
            host.cut(cut);
        }
        prop_assert_eq!(host.plugin.status().trial, verdict);
        prop_assert_eq!(host.plugin.work().trial, Task::Idle);
        prop_assert_eq!(host.active(), Some(release(1)));
    }

    /// Whatever the controller tells, and whenever, a host that is held runs what it runs; and it still hears.
    #[test]
    fn nothing_that_the_controller_tells_moves_a_held_host(
        before in prop::collection::vec(act(), 1..60),
        hold in prop_oneof![
            Just(Fact::Held { order: order("hands off"), at_rest: false }),
            Just(Fact::OrderedBack { order: order("it is slow"), at_rest: false }),
        ],
        told in prop::collection::vec((0_i64..3, target(), any::<bool>(), 0_u8..4), 1..20),
    ) {
        let mut host = Host::running(&[1, 2]);
        before.into_iter().for_each(|act| play(&mut host, act));
        host.feed(Fact::Released);
        host.feed(hold);
        if host.plugin.local_override().is_none() {
            // Nothing runs here, or nothing ran before it.
            return Ok(());
        }
        // What callers notice already ends by itself.
        host.run_honestly();
        let (held, runs) = (host.plugin.local_override().cloned(), host.active());
        for (ahead, target, rollback, then) in told {
            let next = offer(host.plugin.generation().n.saturating_add_signed(ahead), target);
            host.feed(Fact::Told(crate::Offer { rollback, ..next }));
            let generation = host.plugin.generation();
            match then {
                0 => host.feed(Fact::SlotGranted),
                1 => host.cut(Cut::Kill),
                2 => host.cut(Cut::Reboot),
                _ => { host.step_honestly(); }
            }
            prop_assert_eq!(host.plugin.trial(), None, "no trial begins");
            prop_assert_eq!(&host.active(), &runs);
            prop_assert_eq!(host.plugin.local_override(), held.as_ref());
            prop_assert_eq!(host.plugin.generation(), generation, "it has heard");
        }
        host.feed(Fact::Released);
        host.run_honestly();
        prop_assert_eq!(host.plugin.local_override(), None::<&crate::LocalOverride>);
        prop_assert_eq!(host.plugin.work().trial, Task::Idle, "what waited has taken its course");
    }

    /// The honest run commits, the other fails at `bad`; both are cut after any count of steps.
    #[test]
    fn a_cut_has_the_verdict_of_section_5(
        steps in 0_usize..15,
        how in prop_oneof![Just(Cut::Kill), Just(Cut::CleanStop), Just(Cut::Reboot)],
        bad in prop::option::of(prop::sample::select(STEPS.to_vec())),
        old in 0_u8..2,
    ) {
        let first: Vec<u8> = (1..=old).collect();
        let mut host = Host::running(&first);
        host.tell(9, 2);
        let mut cut_at = None;
        for n in 0..100 {
            if n == steps {
                cut_at = Some(host.stage());
                host.cut(how);
            }
            if Some(host.stage()) == bad && !matches!(host.plugin.work().trial, Task::Wait) {
                host.fail(Fault::Release, "BAD");
            } else if !host.step_honestly() && n >= steps {
                break;
            }
        }
        let killed = how == Cut::Kill && cut_at.is_some_and(|stage| {
            matches!(stage, Stage::Loading | Stage::Probing | Stage::Switching | Stage::Probation)
        });
        let committed = bad.is_none() && !killed;
        prop_assert_eq!(host.stage() == Stage::Committed, committed, "cut at {:?}", cut_at);
        prop_assert_eq!(host.active(), if committed { Some(release(2)) } else { first.last().map(|n| release(*n)) });
        prop_assert_eq!(host.plugin.status().denied.len(), usize::from(!committed));
        if !committed {
            let late = |stage| matches!(stage, Stage::Probation);
            let moved = if killed { cut_at.is_some_and(late) } else { bad.is_some_and(late) };
            let after = if moved { Stage::RolledBack } else { Stage::Rejected };
            // Within the switch the pointer may or may not have moved.
            let unsure = killed && cut_at == Some(Stage::Switching);
            prop_assert!(unsure || host.stage() == after, "{:?}, cut at {:?}", host.stage(), cut_at);
        }
    }
}

#[test]
fn a_time_that_went_back_with_a_reboot_harms_nothing() {
    let mut host = Host::running(&[1]);
    host.feed(Fact::Died(release(1).id, problem(Fault::Release, "WORKER_DIED")));
    host.cut(Cut::Reboot);
    let plugin = host.plugin.clone().step(Event { now: Time(5), fact: Fact::TimePassed });
    assert_eq!(plugin.work().serve, Serve::Run(release(1).id));
}
