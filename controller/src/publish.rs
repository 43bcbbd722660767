//! Publishing: signing of releases on the publisher's side, and of freshness on the server's.
//!
//! The two sides never meet. `serve` uses [`timestamp`] only, which knows one key, its own. The keys of root, targets
//! and snapshot stand in the publisher's folder and are read by `push` and `publish` in their own process.

mod error;
mod init;
mod keys;
mod metadata;
mod publisher;
mod seen;
pub(crate) mod timestamp;

pub(crate) use error::PublishError;
pub(crate) use init::init_dev;
pub(crate) use publisher::Publisher;
#[cfg(test)]
pub(crate) use publisher::Signed;

#[cfg(test)]
mod tests;
