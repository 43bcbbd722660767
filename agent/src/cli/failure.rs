//! An error on its way to the operator.

use fleetswap_proto::Explained;

/// What a command ends with that did not go as asked.
#[derive(Debug)]
pub(super) struct Failure {
    /// In words, under a code that has a page.
    pub(super) error: Explained,
    /// The plugin's own code, which has none.
    pub(super) plugin_code: Option<String>,
}

impl From<Explained> for Failure {
    fn from(error: Explained) -> Self {
        Self { error, plugin_code: None }
    }
}
