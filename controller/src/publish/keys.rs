//! Key files: Ed25519 in PKCS#8, readable by their owner alone.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};
use tough::{schema::key::Key, sign::Sign};

use super::PublishError;
use crate::durable;

/// Permission bits of a key file.
pub(super) const KEY_MODE: u32 = 0o600;
/// Largest key file, in bytes; a PKCS#8 Ed25519 key has less than 100.
const KEY_MAX: u64 = 4096;

/// A key that signs, and the file that it came from.
pub(super) struct SigningKey {
    pair: Ed25519KeyPair,
    path: PathBuf,
}

impl SigningKey {
    /// Makes a key and writes it to `path`, which must not exist.
    pub(super) fn generate(path: &Path) -> Result<Self, PublishError> {
        refuse_existing(path)?;
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| PublishError::Sign("the system gave no random bytes".to_owned()))?;
        durable::write(durable::Kind::Init, path, document.as_ref(), KEY_MODE)
            .map_err(|cause| io_error(path, cause))?;
        Self::parse(document.as_ref(), path)
    }

    /// Reads a key file that nobody but its owner can read.
    pub(super) fn read(path: &Path) -> Result<Self, PublishError> {
        let status = fs::metadata(path).map_err(|cause| match cause.kind() {
            io::ErrorKind::NotFound => unusable(path, "there is no such file"),
            _ => io_error(path, cause),
        })?;
        if status.permissions().mode() & 0o077 != 0 {
            return Err(PublishError::KeyOpen { path: path.to_owned() });
        }
        if status.len() > KEY_MAX {
            return Err(unusable(path, "it is too long"));
        }
        let bytes = fs::read(path).map_err(|cause| io_error(path, cause))?;
        Self::parse(&bytes, path)
    }

    /// The public key as TUF metadata names it.
    pub(super) fn public(&self) -> Key {
        self.pair.tuf_key()
    }

    /// The file that the key came from.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }

    fn parse(bytes: &[u8], path: &Path) -> Result<Self, PublishError> {
        let pair = Ed25519KeyPair::from_pkcs8(bytes).map_err(|cause| unusable(path, &cause.to_string()))?;
        Ok(Self { pair, path: path.to_owned() })
    }
}

/// Shows which key it is, never the key.
impl std::fmt::Debug for SigningKey {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "SigningKey({})", hex::encode(self.pair.public_key()))
    }
}

/// Refuses to go on where something stands already.
pub(super) fn refuse_existing(path: &Path) -> Result<(), PublishError> {
    match path.try_exists() {
        Ok(false) => Ok(()),
        Ok(true) => Err(PublishError::InitExists { path: path.to_owned() }),
        Err(cause) => Err(io_error(path, cause)),
    }
}

pub(super) fn io_error(path: &Path, cause: io::Error) -> PublishError {
    PublishError::Io { path: path.to_owned(), cause }
}

fn unusable(path: &Path, reason: &str) -> PublishError {
    PublishError::KeyUnusable { path: path.to_owned(), reason: reason.to_owned() }
}
