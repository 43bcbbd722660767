//! Between the wire and the planner: the only place that names the types of both.
//!
//! What comes in has been validated field by field; what still doesn't fit is taken for the most careful meaning.

mod incoming;
mod outgoing;
mod refusal;
#[cfg(test)]
mod tests;

pub(crate) use incoming::{
    Greeting, Said, Wish, greeting, invalid_selector, nothing_of, platforms, push, report, rollback,
    said_of_row,
};
pub(crate) use outgoing::{
    AssignmentView, HostView, RolloutView, assignment, assignment_status, desired_state, host, plan, rollout,
};
pub(crate) use refusal::refusal;
