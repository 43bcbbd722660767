//! The matrix: every kind of harm at every moment of a plugin's life, and what must come of it.
//!
//! Cells are generated from the two lists. What is expected follows from rules over families of kinds, with a few
//! exceptions that say why; nothing is copied from a run.

use std::fmt;

/// When a plugin does its harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Moment {
    Constructor,
    Create,
    Health,
    Activate,
    /// A caller's call, so the release is in its place already.
    Call,
    /// On the way to the next release, which is pushed afterwards.
    SaveState,
    RestoreState,
    /// At the end of the worker that is thrown away, and at that of the one that served.
    Destroy,
}

/// All of them, in the order of a life.
pub(crate) const MOMENTS: [Moment; 8] = [
    Moment::Constructor,
    Moment::Create,
    Moment::Health,
    Moment::RestoreState,
    Moment::Activate,
    Moment::Call,
    Moment::SaveState,
    Moment::Destroy,
];

/// One kind of harm; `hostile.c` has a function of the same name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    family: Family,
}

/// What kinds have in common: what becomes of a worker that does them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    /// It ends by itself.
    Dies,
    /// It never returns.
    Hangs,
    /// It is ended at once, for this.
    Takes(&'static str),
    /// A thread of it takes more and more, until it is ended for this.
    Grows(&'static str),
    /// It is ended for what it writes to its host.
    Forges,
    /// Its output has no end.
    Pours,
    /// It tells lies while it is loaded, and this is the answer.
    Lies(&'static str),
    /// The sandbox refuses each attempt with this error; it lives.
    Refused(&'static [(&'static str, &'static str)]),
    /// It does not matter to anybody outside.
    Harmless,
}

const fn kind(name: &'static str, family: Family) -> Kind {
    Kind { name, family }
}

/// All of them.
pub(crate) const KINDS: [Kind; 34] = [
    kind("abort", Family::Dies),
    kind("segfault", Family::Dies),
    kind("illegal", Family::Dies),
    kind("exit", Family::Dies),
    kind("_exit", Family::Dies),
    kind("overflow", Family::Dies),
    kind("panic", Family::Dies),
    kind("panic_abort", Family::Dies),
    kind("loop", Family::Hangs),
    kind("sleep", Family::Hangs),
    kind("hold_lock", Family::Hangs),
    kind("allocate", Family::Takes("WORKER_MEMORY")),
    kind("threads", Family::Takes("WORKER_THREADS")),
    kind("leak", Family::Grows("WORKER_MEMORY")),
    kind("close_all", Family::Forges),
    kind("write_all", Family::Forges),
    kind("other_request", Family::Forges),
    kind("twice", Family::Forges),
    kind("gibibyte", Family::Forges),
    kind("pour", Family::Pours),
    kind("lie_version", Family::Lies("LOAD_DESCRIPTOR_DIFFERS")),
    kind("lie_descriptor", Family::Lies("LOAD_DESCRIPTOR_DIFFERS")),
    kind("lie_abi", Family::Lies("LOAD_ABI_MISMATCH")),
    kind("fork_bomb", Family::Refused(&[("fork", "EPERM")])),
    kind("exec", Family::Refused(&[("execve", "EPERM"), ("execveat", "EPERM")])),
    kind(
        "kill_parent",
        Family::Refused(&[("kill", "EPERM"), ("tgkill", "EPERM"), ("sigqueue", "EPERM"), ("pidfd", "EPERM")]),
    ),
    kind(
        "ptrace",
        Family::Refused(&[("seize", "EPERM"), ("traceme", "EPERM"), ("readv", "EPERM"), ("mem", "EACCES")]),
    ),
    kind(
        "passwd",
        Family::Refused(&[
            ("passwd", "EACCES"),
            ("shadow", "EACCES"),
            ("write", "EPERM"),
            ("create", "EPERM"),
        ]),
    ),
    kind(
        "sockets",
        Family::Refused(&[
            ("socket", "EPERM"),
            ("socketpair", "EPERM"),
            ("connect", "EPERM"),
            ("bind", "EPERM"),
            ("sendto", "EPERM"),
            ("sendmsg", "EPERM"),
            ("recvmsg", "EPERM"),
        ]),
    ),
    kind("io_uring", Family::Refused(&[("setup", "EPERM"), ("enter", "EPERM"), ("register", "EPERM")])),
    kind("spin_all", Family::Harmless),
    kind("flood", Family::Harmless),
    kind("mask_and_locale", Family::Harmless),
    kind("outlive", Family::Harmless),
];

/// Verdicts as reports spell them.
const COMMITTED: &[&str] = &["COMMITTED"];
const REJECTED: &[&str] = &["REJECTED"];
const ROLLED_BACK: &[&str] = &["ROLLED_BACK"];

/// One kind at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    pub(crate) kind: Kind,
    pub(crate) moment: Moment,
}

/// What must come of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expectation {
    /// The host's verdict: one of these.
    pub(crate) verdicts: &'static [&'static str],
    /// With one of these codes; none for a commit.
    pub(crate) codes: Vec<&'static str>,
    /// Each attempt, and the error that it must have met.
    pub(crate) refused: &'static [(&'static str, &'static str)],
    /// Errors that a caller may get while it is tried, and only from the bad release itself.
    pub(crate) errors: &'static [u64],
    /// The same while the next release is pushed.
    pub(crate) errors_later: &'static [u64],
    /// What becomes of the release that is pushed next.
    pub(crate) next: Next,
}

/// What becomes of the release after a bad one that was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It is not needed to see the harm.
    NotPushed,
    /// It takes its place.
    Commits,
    /// The bad one can't give its state away and stays: a fault of the host with one of these codes.
    Refused(&'static [&'static str]),
}

/// A cell that has to be run, or why it would mean nothing.
pub(crate) type Meaning = Result<Expectation, &'static str>;

/// Every cell there is.
pub(crate) fn cells() -> impl Iterator<Item = Cell> {
    KINDS.into_iter().flat_map(|kind| MOMENTS.map(|moment| Cell { kind, moment }))
}

impl Cell {
    /// The words in the library that make it this cell.
    pub(crate) fn text(&self) -> String {
        format!("{}/{}", self.moment.word(), self.kind.name)
    }

    /// What must come of it.
    pub(crate) fn meaning(&self) -> Meaning {
        self.rule().map(|rule| self.exception(rule))
    }

    fn rule(&self) -> Meaning {
        let family = self.kind.family;
        match (family, self.moment) {
            (Family::Lies(code), Moment::Constructor) => Ok(ended(REJECTED, &[code])),
            (Family::Lies(_), _) => Err("a plugin says what it is once, while it is loaded"),
            (Family::Pours, Moment::Constructor | Moment::Destroy) => Err("there is no sink to pour into"),
            // Whoever asks too much of it is told so; that is no sign of ill health.
            (Family::Pours, Moment::Call) => {
                Ok(Expectation { errors: &[500], errors_later: &[500], ..committed(Next::Commits) })
            }
            (Family::Refused(refused), moment) => Ok(Expectation { refused, ..committed(after(moment)) }),
            (Family::Harmless, moment) => Ok(committed(after(moment))),
            (Family::Grows(_), Moment::SaveState) => Ok(committed(Next::Commits)),
            (_, Moment::Destroy) => Ok(committed(Next::Commits)),
            // How far it gets until it has taken too much is a matter of how busy the machine is.
            (Family::Grows(code), _) => Ok(ended(&["REJECTED", "ROLLED_BACK"], &[code])),
            (_, Moment::SaveState) => {
                let errors_later: &[u64] = if family == Family::Hangs { &[504] } else { &[] };
                Ok(Expectation { errors_later, ..committed(Next::Refused(unsaved(family))) })
            }
            (_, Moment::Call) => {
                let errors: &[u64] = if family == Family::Hangs { &[504] } else { &[] };
                Ok(Expectation { errors, ..ended(ROLLED_BACK, &[code(family, Moment::Call)]) })
            }
            (_, moment) => Ok(ended(REJECTED, &[code(family, moment)])),
        }
    }

    fn exception(&self, rule: Expectation) -> Expectation {
        match (self.kind.name, self.moment) {
            ("close_all", Moment::Constructor | Moment::Destroy | Moment::SaveState) => rule,
            // It can't answer any more: whether it ends for that first, or is ended, is a matter of microseconds.
            ("close_all", _) => Expectation { codes: vec!["WORKER_PROTOCOL", "WORKER_DIED"], ..rule },
            // What goes on in the background ends with the worker, so its end is a part of the cell.
            ("outlive" | "spin_all" | "flood", _) => Expectation { next: Next::Commits, ..rule },
            (_, _) => rule,
        }
    }

    /// Whether callers must wait less than others: to see that a call which never returns is held against the release.
    pub(crate) fn hurries(&self) -> bool {
        self.kind.family == Family::Hangs && self.moment == Moment::Call
    }

    /// How long a release must stay healthy here. Whatever takes its time to show is given it.
    pub(crate) fn probation(&self) -> &'static str {
        match (self.kind.family, self.moment) {
            (_, Moment::SaveState | Moment::Destroy) => "700ms",
            (Family::Refused(_) | Family::Harmless | Family::Pours, Moment::Call) => "2s",
            // The first call ends it, and is made however busy the machine is.
            (_, Moment::Call) | (Family::Grows(_), _) => "9s",
            (_, _) => "700ms",
        }
    }

    /// Whether it takes all cores, so that no two of its sort should be tried at a time.
    pub(crate) fn takes_all_cores(&self) -> bool {
        self.kind.name == "spin_all"
    }

    /// About how long it takes, to begin with the longest.
    pub(crate) fn weight(&self) -> u32 {
        match (self.kind.family, self.moment) {
            (Family::Hangs | Family::Pours, Moment::SaveState) => 9,
            (_, Moment::SaveState) => 6,
            (Family::Pours, Moment::Health) => 5,
            (Family::Hangs, _) => 4,
            (_, Moment::Constructor | Moment::Create) => 1,
            (_, _) => 2,
        }
    }
}

impl Moment {
    /// The word in the library.
    fn word(self) -> &'static str {
        match self {
            Self::Constructor => "constructor",
            Self::Create => "create",
            Self::Health => "health",
            Self::Activate => "activate",
            Self::Call => "call",
            Self::SaveState => "save_state",
            Self::RestoreState => "restore_state",
            Self::Destroy => "destroy",
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` in `{}`", self.kind.name, self.moment.word())
    }
}

fn committed(next: Next) -> Expectation {
    Expectation { verdicts: COMMITTED, codes: Vec::new(), refused: &[], errors: &[], errors_later: &[], next }
}

fn ended(verdicts: &'static [&'static str], codes: &[&'static str]) -> Expectation {
    Expectation { verdicts, codes: codes.to_vec(), ..committed(Next::NotPushed) }
}

/// The harm of these two moments, in full, comes only with the next release.
fn after(moment: Moment) -> Next {
    if matches!(moment, Moment::SaveState | Moment::Destroy) { Next::Commits } else { Next::NotPushed }
}

/// The codes of the next release where the bad one can't give its state away.
fn unsaved(family: Family) -> &'static [&'static str] {
    match family {
        Family::Hangs | Family::Pours => &["SAVE_STATE_FAILED"],
        Family::Takes(_) => &["WORKER_MEMORY", "WORKER_THREADS"],
        Family::Forges => &["WORKER_PROTOCOL", "WORKER_DIED"],
        Family::Dies | Family::Grows(_) | Family::Lies(_) | Family::Refused(_) | Family::Harmless => {
            &["WORKER_DIED"]
        }
    }
}

/// The code of a worker that ended, or had to be given up, at a moment before its release was committed.
fn code(family: Family, moment: Moment) -> &'static str {
    match (family, moment) {
        (Family::Takes(code) | Family::Grows(code) | Family::Lies(code), _) => code,
        (Family::Hangs, Moment::Constructor) => "LOAD_TIMEOUT",
        (Family::Hangs, Moment::Call) => "DEADLINE_EXCEEDED",
        (Family::Hangs | Family::Pours, moment) => own_code(moment),
        (_, Moment::Constructor) => "LOAD_CRASHED",
        (Family::Forges, _) => "WORKER_PROTOCOL",
        (Family::Dies | Family::Refused(_) | Family::Harmless, _) => "WORKER_DIED",
    }
}

/// The code of a function that failed without the end of its worker.
fn own_code(moment: Moment) -> &'static str {
    match moment {
        Moment::Constructor | Moment::Create => "CREATE_FAILED",
        Moment::Health => "HEALTH_FAILED",
        Moment::Activate => "ACTIVATE_FAILED",
        Moment::Call => "DEADLINE_EXCEEDED",
        Moment::SaveState => "SAVE_STATE_FAILED",
        Moment::RestoreState => "RESTORE_STATE_FAILED",
        Moment::Destroy => "WORKER_DIED",
    }
}

#[test]
fn every_kind_meets_every_moment_or_the_matrix_says_why_not() {
    let (mut run, mut meaningless) = (0, Vec::new());
    for cell in cells() {
        match cell.meaning() {
            Ok(expectation) => {
                assert_eq!(expectation.codes.is_empty(), expectation.verdicts == COMMITTED, "{cell}");
                run += 1;
            }
            Err(why) => {
                assert!(!why.is_empty(), "{cell}");
                meaningless.push(cell.text());
            }
        }
    }
    assert!(KINDS.len() >= 25 && MOMENTS.len() == 8);
    assert_eq!(run + meaningless.len(), KINDS.len() * MOMENTS.len());
    assert_eq!(meaningless.len(), 3 * 7 + 2, "a new one needs its reason: {meaningless:?}");
    let mut names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), KINDS.len(), "no kind counts twice");
}
