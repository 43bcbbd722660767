//! The rollout planner: pure, told the time, always says why it waits.
//!
//! [`plan`] looks at the whole fleet and answers with everything that has to change: rows, never commands. The shell
//! commits them, then sends what hosts should run. A plan on its own result changes nothing, so a crash between
//! commit and send costs nothing but a second look.
//!
//! The policy of this version: a canary of one host, then the rest within `max_parallel`.
//! - The first fault of the release (or of trust) ends the offers, sends hosts on trial back, and the rollout is
//!   FAILED once they have answered or their deadlines have passed. Hosts that committed stay.
//! - Any failure of the canary does the same: nothing has proven the release yet.
//! - A fault of the host or the link in the later wave does not stop the others; the rollout then ends FAILED, since
//!   not every host that was offered the release runs it. Pushing again tries those hosts again.
//! - A host that is offline before its offer stays PENDING; the rollout ends without it and the host gets the release
//!   when it is back, within the same `max_parallel`. So does a host that joins.
//! - A rollback has no canary and is twice as wide: it goes to a release that has been proven.

#![forbid(unsafe_code)]
#![deny(clippy::wildcard_enum_match_arm)]

mod failure;
mod fleet;
mod id;
mod intent;
mod order;
mod plan;
mod policy;
mod preview;
mod release;
mod rollout;
mod selector;
mod stored;
mod waiting;

pub use failure::{Failure, Fault};
pub use fleet::{Assignment, AssignmentKey, Denied, Desired, Fleet, Host, HostPlugin, Reported, Trial};
pub use id::{Elapsed, Generation, HostId, InvalidRolloutId, RolloutId};
pub use intent::{Change, Push, Refusal, Rollback, Started};
pub use order::order;
pub use plan::{DesiredChange, MemberChange, Plan, ProgressChange, plan};
pub use policy::{Amount, InvalidPolicy, Policy};
pub use preview::{Preview, PreviewWave, preview};
pub use release::Release;
pub use rollout::{
    FailedHost, HostState, Member, Progress, Rollout, RolloutState, SkipReason, Spec, Trigger, Wave,
    WaveName, WaveState,
};
pub use selector::{InvalidSelector, Selector};
pub use stored::{FORMAT, Stored};
pub use waiting::Waiting;
