//! The file that holds the first part of a blob until it is complete.

use std::{
    fs::{File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

use fleetswap_trust::Digest;

use crate::durable::{Contents, DurableError};

/// An open `.part` file, positioned at its end. Writes are small and go to the page cache, so they are made in place.
#[derive(Debug)]
pub(super) struct Partial {
    file: File,
    path: PathBuf,
    length: u64,
}

impl Partial {
    /// Opens what an earlier try left, or an empty file. One that is longer than the blob starts anew.
    pub(super) fn open(blobs: &Contents, sha256: Digest, whole: u64) -> Result<Self, DurableError> {
        let path = blobs.part(sha256);
        let mut options = OpenOptions::new();
        let opened =
            options.create(true).truncate(false).write(true).mode(0o600).open(&path).and_then(|mut file| {
                let length = file.seek(SeekFrom::End(0))?;
                Ok((file, length))
            });
        match opened {
            Ok((file, length)) => {
                let mut partial = Self { file, path, length };
                if length > whole {
                    partial.cut(0)?;
                }
                Ok(partial)
            }
            Err(source) => Err(DurableError::Io { doing: "opening", path, source }),
        }
    }

    /// How many bytes there are.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Keeps only the first `length` bytes; a longer `length` changes nothing.
    pub(super) fn cut(&mut self, length: u64) -> Result<(), DurableError> {
        if length >= self.length {
            return Ok(());
        }
        let cut = self.file.set_len(length).and_then(|()| self.file.seek(SeekFrom::Start(length)));
        cut.map_err(|error| self.failed("cutting", error))?;
        self.length = length;
        Ok(())
    }

    /// Adds bytes at the end.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), DurableError> {
        self.file.write_all(bytes).map_err(|error| self.failed("writing", error))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> DurableError {
        DurableError::Io { doing, path: self.path.clone(), source }
    }
}
