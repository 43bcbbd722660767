//! The core as a whole: stories, and properties over all orders of events.

mod holding;
mod host;
mod keeping;
mod properties;
mod stories;
