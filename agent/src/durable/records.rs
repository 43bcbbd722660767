//! Records: a few bytes each that must never be lost and never be reset. Two copies, numbered and checksummed.
//!
//! A copy is one line `fleetswap-record FORMAT SEQUENCE SHA256`, then the body. The checksum covers format,
//! sequence and body; the line keeps this shape in every format, so that a newer format is told from damage.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use super::{DurableError, Kind, Operation, Point, points::Copy as Which, read, replace, sync_folder};

/// First word of every copy.
const MAGIC: &str = "fleetswap-record";
/// Largest format that this agent reads; the one that it writes.
const FORMAT: u32 = 1;
/// Largest record of a plugin or host, in bytes.
const RECORD_MAX: u64 = 1024 * 1024;
/// Room for the first line, in bytes.
const LINE_MAX: u64 = 256;
/// Most records in a folder.
const RECORDS_MAX: usize = 1_024;

/// A folder with a record per plugin.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    dir: PathBuf,
}

impl Records {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The record of one plugin. `plugin` must be a valid plugin name: it becomes a file name.
    pub(crate) fn of(&self, plugin: &str) -> Record {
        Record::new(&self.dir, plugin, Kind::Record)
    }

    /// The plugins that have a record.
    ///
    /// # Errors
    /// The folder can't be read, or holds more records than an agent ever writes.
    pub(crate) fn plugins(&self) -> Result<BTreeSet<String>, DurableError> {
        let entries = self.dir.read_dir().map_err(DurableError::io("reading", &self.dir))?;
        let mut names = BTreeSet::new();
        for entry in entries {
            let name = entry.map_err(DurableError::io("reading", &self.dir))?.file_name();
            let plugin =
                name.to_str().and_then(|name| name.strip_suffix(".a").or_else(|| name.strip_suffix(".b")));
            names.extend(plugin.filter(|plugin| !plugin.starts_with('@')).map(str::to_owned));
            if names.len() > RECORDS_MAX {
                let why = format!("it holds more than {RECORDS_MAX} records");
                return Err(DurableError::Damaged { path: self.dir.clone(), why });
            }
        }
        Ok(names)
    }
}

/// One record: the files `NAME.a` and `NAME.b`.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    dir: PathBuf,
    copies: [PathBuf; 2],
    kind: fn(Which) -> Kind,
    max: u64,
}

/// What one file holds.
enum Copy {
    Missing,
    Good { sequence: u64, body: Vec<u8> },
    Newer(u32),
    Bad(String),
}

impl Record {
    pub(super) fn new(dir: &Path, name: &str, kind: fn(Which) -> Kind) -> Self {
        let copies = ["a", "b"].map(|copy| dir.join(format!("{name}.{copy}")));
        Self { dir: dir.to_owned(), copies, kind, max: RECORD_MAX }
    }

    /// The same with another bound, in bytes.
    pub(super) fn at_most(self, max: u64) -> Self {
        Self { max, ..self }
    }

    /// The value last saved; `None` if none ever was. A bad or missing copy is written again from the good one.
    ///
    /// # Errors
    /// No copy is good, a copy has a newer format, or the disk failed. Nothing is ever reset.
    pub(crate) fn load<T: DeserializeOwned>(&self) -> Result<Option<T>, DurableError> {
        let Some(body) = self.load_bytes()? else { return Ok(None) };
        let damaged = |error: serde_json::Error| self.damaged(error.to_string());
        serde_json::from_slice(&body).map(Some).map_err(damaged)
    }

    /// The bytes last saved; as [`Record::load`].
    ///
    /// # Errors
    /// As [`Record::load`].
    pub(super) fn load_bytes(&self) -> Result<Option<Vec<u8>>, DurableError> {
        Ok(self.latest()?.map(|(_, body)| body))
    }

    /// Saves a value. When this returns, it survives any crash and the loss of either copy.
    ///
    /// # Errors
    /// The disk failed, or the record present is damaged or newer. Either the old or the new value is found later.
    pub(crate) fn save<T: Serialize>(&self, value: &T) -> Result<(), DurableError> {
        let damaged = |error: serde_json::Error| self.damaged(error.to_string());
        self.save_bytes(&serde_json::to_vec(value).map_err(damaged)?)
    }

    /// Saves bytes; as [`Record::save`].
    ///
    /// # Errors
    /// As [`Record::save`].
    pub(super) fn save_bytes(&self, body: &[u8]) -> Result<(), DurableError> {
        let length = body.len() as u64;
        if length > self.max {
            return Err(DurableError::TooLarge { path: self.copies[0].clone(), length, max: self.max });
        }
        let sequence = self.latest()?.map_or(0, |(sequence, _)| sequence);
        self.write(&encode(sequence.saturating_add(1), body))
    }

    /// The newest good copy, after the other one was made equal to it.
    fn latest(&self) -> Result<Option<(u64, Vec<u8>)>, DurableError> {
        let [first, second] = [self.read(0)?, self.read(1)?];
        let (sequence, body) = match (first, second) {
            (Copy::Newer(found), _) => return Err(self.newer(0, found)),
            (_, Copy::Newer(found)) => return Err(self.newer(1, found)),
            (Copy::Missing, Copy::Missing) => return Ok(None),
            (Copy::Good { sequence: a, body }, Copy::Good { sequence: b, .. }) if a == b => {
                return Ok(Some((a, body)));
            }
            (Copy::Good { sequence: a, body }, Copy::Good { sequence: b, .. }) if a > b => (a, body),
            (_, Copy::Good { sequence, body }) | (Copy::Good { sequence, body }, _) => (sequence, body),
            (Copy::Bad(why), _) | (_, Copy::Bad(why)) => return Err(self.damaged(why)),
        };
        self.write(&encode(sequence, &body))?;
        Ok(Some((sequence, body)))
    }

    fn write(&self, bytes: &[u8]) -> Result<(), DurableError> {
        // One after the other: at any moment one of them is whole. One sync of the folder makes both names certain.
        let [first, second] = [(self.kind)(Which::A), (self.kind)(Which::B)];
        replace(first, &self.copies[0], bytes)?;
        replace(second, &self.copies[1], bytes)?;
        sync_folder(Point(second, Operation::SyncFolder), &self.dir)
    }

    fn read(&self, copy: usize) -> Result<Copy, DurableError> {
        match read(&self.copies[copy], self.max + LINE_MAX) {
            Ok(None) => Ok(Copy::Missing),
            Ok(Some(bytes)) => Ok(decode(&bytes)),
            Err(DurableError::Damaged { why, .. }) => Ok(Copy::Bad(why)),
            Err(error) => Err(error),
        }
    }

    fn damaged(&self, why: String) -> DurableError {
        DurableError::Damaged { path: self.copies[0].with_extension(""), why }
    }

    fn newer(&self, copy: usize, found: u32) -> DurableError {
        DurableError::NewerFormat { path: self.copies[copy].clone(), found }
    }
}

fn encode(sequence: u64, body: &[u8]) -> Vec<u8> {
    let sum = checksum(&FORMAT.to_string(), &sequence.to_string(), body);
    let mut bytes = format!("{MAGIC} {FORMAT} {sequence} {sum}\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn decode(bytes: &[u8]) -> Copy {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        return Copy::Bad("it has no first line".to_owned());
    };
    let (line, body) = (String::from_utf8_lossy(&bytes[..end]), &bytes[end + 1..]);
    let [MAGIC, format, sequence, sum] = line.split(' ').collect::<Vec<_>>()[..] else {
        return Copy::Bad("its first line is not a record's".to_owned());
    };
    if checksum(format, sequence, body) != sum {
        return Copy::Bad("its checksum is wrong".to_owned());
    }
    match (format.parse(), sequence.parse()) {
        (Ok(FORMAT), Ok(sequence)) => Copy::Good { sequence, body: body.to_vec() },
        (Ok(found), _) if found > FORMAT => Copy::Newer(found),
        _ => Copy::Bad("its format or sequence is no number".to_owned()),
    }
}

fn checksum(format: &str, sequence: &str, body: &[u8]) -> String {
    let head = format!("{format} {sequence}\n");
    hex::encode(Sha256::new().chain_update(head).chain_update(body).finalize())
}

#[cfg(test)]
mod tests;
