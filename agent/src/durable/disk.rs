//! The operations on the disk, one by one: each passes its failpoint, and tells the tests' model what it does.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::Path,
};

use super::points::{Kind, Operation, Point};

/// Notes the operation for the model of a disk; whether it is to be done. Always, outside of tests.
macro_rules! noted {
    ($point:expr, $operation:ident($($path:expr),+)) => {{
        #[cfg(test)]
        {
            use fleetswap_faults::disk::{Operation as Noted, note};
            note(&$point.name(), || Noted::$operation($($path.to_owned()),+))?
        }
        #[cfg(not(test))]
        true
    }};
}

/// Makes one folder, for its owner alone. One that is there is no error.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    let point = Point(Kind::Folder, Operation::Make);
    point.pass()?;
    noted!(point, MakeFolder(path));
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !path.is_dir() => Err(error),
        _ => Ok(()),
    }
}

/// Writes a whole new file.
pub(super) fn write(kind: Kind, path: &Path, bytes: &[u8]) -> io::Result<File> {
    noted!(Point(kind, Operation::Write), Create(path));
    let file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)?;
    write_at(kind, &file, path, (bytes, 0))?;
    Ok(file)
}

/// Opens a file that grows, with what it has.
pub(super) fn open(kind: Kind, path: &Path) -> io::Result<File> {
    let point = Point(kind, Operation::Open);
    point.pass()?;
    noted!(point, Open(path));
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)
}

/// Writes bytes from an offset on.
pub(super) fn write_at(kind: Kind, file: &File, path: &Path, (bytes, at): (&[u8], u64)) -> io::Result<()> {
    let point = Point(kind, Operation::Write);
    // A failpoint lets half of the bytes through first, as a disk does that fills up.
    let passed = point.pass();
    let mut most = if matches!(passed, Ok(false)) { bytes.len() } else { bytes.len() / 2 };
    let (mut left, mut at) = (bytes, at);
    // In tests alone is the path of use.
    let _ = path;
    #[cfg(test)]
    fleetswap_faults::disk::note(&point.name(), || {
        fleetswap_faults::disk::Operation::Write(path.to_owned(), at, bytes.to_owned())
    })?;
    while !left.is_empty() {
        match file.write_at(&left[..most.min(left.len())], at) {
            Ok(0) if most > 0 => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                left = &left[count..];
                at += count as u64;
                most = left.len();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if passed.is_err() {
            break;
        }
    }
    passed.map(drop)
}

/// Keeps only the first bytes of a file.
pub(super) fn cut(kind: Kind, file: &File, path: &Path, length: u64) -> io::Result<()> {
    let point = Point(kind, Operation::Cut);
    point.pass()?;
    let _ = path;
    #[cfg(test)]
    fleetswap_faults::disk::note(&point.name(), || {
        fleetswap_faults::disk::Operation::Cut(path.to_owned(), length)
    })?;
    file.set_len(length)
}

/// The bytes of a file are on disk when this returns.
pub(super) fn sync(kind: Kind, file: &File, path: &Path) -> io::Result<()> {
    let point = Point(kind, Operation::Sync);
    point.pass()?;
    let _ = path;
    if noted!(point, Sync(path)) { file.sync_all() } else { Ok(()) }
}

/// Gives a file another name, in the same folder.
pub(super) fn rename(kind: Kind, from: &Path, to: &Path) -> io::Result<()> {
    let point = Point(kind, Operation::Rename);
    point.pass()?;
    noted!(point, Rename(from, to));
    fs::rename(from, to)
}

/// The names in a folder are on disk when this returns.
pub(super) fn sync_folder(point: Point, folder: &Path) -> io::Result<()> {
    point.pass()?;
    if noted!(point, SyncFolder(folder)) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Removes a file.
pub(super) fn remove(kind: Kind, path: &Path) -> io::Result<()> {
    let point = Point(kind, Operation::Remove);
    point.pass()?;
    noted!(point, Remove(path));
    fs::remove_file(path)
}
