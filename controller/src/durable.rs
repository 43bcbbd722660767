//! Durable files: the only place of this program that syncs and renames.
//!
//! A write is: new file, its bytes, fsync, rename over the name, fsync of the folder. A crash leaves the old file or
//! the new one, never a part.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Ends the name of a file that is not yet whole; one that a crash left behind is overwritten by the next write.
const PART: &str = ".new";

/// Replaces the file at `path` by `bytes` with permission bits `mode`; durable when it returns.
pub(crate) fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(PART);
    let part = path.with_file_name(name);
    match fs::remove_file(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&part)?;
    file.write_all(bytes)?;
    commit(&file, &part, path)
}

/// Makes a fully written file durable under its final name.
pub(crate) fn commit(file: &File, from: &Path, to: &Path) -> io::Result<()> {
    file.sync_all()?;
    fs::rename(from, to)?;
    sync_folder(to)
}

/// Makes what was written to a file durable; its name stays.
pub(crate) fn sync(file: &File) -> io::Result<()> {
    file.sync_data()
}

/// Makes a folder (and the ones above it that are missing) durably, with permission bits `mode`.
pub(crate) fn create_folder(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
        create_folder(above, mode)?;
    }
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !path.is_dir() => Err(error),
        _ => sync_folder(path),
    }
}

/// Makes the removal of a file durable; one that is gone already is fine.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_folder(path),
    }
}

/// Syncs the folder in which `path` stands.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder =
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_replaces_the_file_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("timestamp.json");
        write(&path, b"old", 0o600).unwrap();
        write(&path, b"new", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_part_that_a_crash_left_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("timestamp.json");
        fs::write(dir.path().join("timestamp.json.new"), b"half").unwrap();
        write(&path, b"whole", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
    }

    #[test]
    fn a_failed_write_keeps_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("timestamp.json");
        write(&path, b"old", 0o600).unwrap();
        fs::create_dir(dir.path().join("timestamp.json.new")).unwrap();
        assert!(write(&path, b"new", 0o600).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }

    #[test]
    fn a_folder_is_made_with_those_above_it_and_not_over_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        create_folder(&deep, 0o700).unwrap();
        create_folder(&deep, 0o700).unwrap();
        fs::write(dir.path().join("file"), b"").unwrap();
        assert!(create_folder(&dir.path().join("file"), 0o700).is_err());
        assert!(create_folder(&dir.path().join("file/below"), 0o700).is_err());
    }

    #[test]
    fn removing_what_is_gone_is_fine() {
        let dir = tempfile::tempdir().unwrap();
        assert!(remove(&dir.path().join("gone")).is_ok());
    }
}
