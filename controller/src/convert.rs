//! Between the wire and the planner: the only place that names the types of both.
//!
//! What comes in has been validated field by field; what still doesn't fit is taken for the most careful meaning.

mod incoming;
mod outgoing;
mod refusal;
#[cfg(test)]
mod tests;

pub(crate) use incoming::{
    Answer, Greeting, Said, Wish, greeting, nothing_of, platforms, push, report, rollback, said_of_row,
    selector,
};
pub(crate) use outgoing::{
    AssignmentView, HostView, PlanView, PushAnswer, RolloutView, assignment, begun, desired_state, host,
    nothing_to_do, release, rollout, welcome,
};
pub(crate) use refusal::refusal;
