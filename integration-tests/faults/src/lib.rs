//! Faults on purpose: failpoints that the environment arms, and a disk that loses what was not synced.
//!
//! Both programs use it in their tests, and in the builds with feature `failpoints`. No shipped program has it.
#![forbid(unsafe_code)]

pub mod disk;
mod failpoints;

pub use failpoints::{Fault, boot_id, hit, is_held, is_renewal_due, list};
