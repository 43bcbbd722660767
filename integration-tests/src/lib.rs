//! Real processes: the harness, the load, the demo, `cargo ci` and the tests that keep the promises.
//!
//! Nothing here stands in for a part: a [`harness::Fleet`] is one controller and some agents as the operator
//! runs them, with plugins as their authors build them.
#![forbid(unsafe_code)]

pub mod harness;
pub mod load;
pub mod swaps;
