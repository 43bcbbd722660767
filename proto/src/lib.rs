//! The wire between controller, agents and operators: package `fleetswap.v1`.
//!
//! Changes are additive only. Every hello carries the protocol version and a list of features, so that either
//! side can tell what the other understands.
#![forbid(unsafe_code)]

pub mod address;
mod explained;
mod terminal;

pub use explained::{ERROR_DOMAIN, Explained};
pub use terminal::for_terminal;

/// Generated from `fleetswap/v1/*.proto`; the comments there are the documentation.
#[expect(
    missing_docs,
    unused_qualifications,
    clippy::allow_attributes,
    clippy::large_enum_variant,
    clippy::too_many_lines,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("fleetswap.v1");
}

impl v1::RolloutState {
    /// Whether nothing more happens in it.
    #[must_use]
    pub const fn has_ended(self) -> bool {
        match self {
            Self::Succeeded | Self::Failed | Self::Aborted | Self::RolledBack | Self::Superseded => true,
            Self::Unspecified | Self::Pending | Self::Running | Self::Paused | Self::RollingBack => false,
        }
    }
}

/// The compiled descriptors of all files, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The protocol version of this build; a peer with another one is refused.
pub const PROTOCOL: u32 = 1;

/// Largest chunk of a blob or metadata file in one message, in bytes.
pub const CHUNK_MAX: usize = 256 * 1024;

/// gRPC metadata key of the host's id (a UUID), until certificates carry the identity.
pub const HOST_ID_KEY: &str = "fleetswap-host-id";

/// gRPC metadata key of the host's name.
pub const HOST_NAME_KEY: &str = "fleetswap-host-name";
