//! Find: which folder of the v2 tree this process is in, and whether it is this program's to divide.
use rustix::fs::getxattr;
use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// The mark that systemd puts on a delegated folder; the first is for everybody's eyes, the second for root's.
const MARKS: [&str; 2] = ["user.delegate", "trusted.delegate"];

/// The folder of this process.
pub(super) fn own_folder() -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    folder(&own, &mounts)
}

/// Puts the path that the process has in the tree behind the place where that part of the tree is mounted.
fn folder(own: &str, mounts: &str) -> Option<PathBuf> {
    let path = Path::new(own.lines().find_map(|line| line.strip_prefix("0::"))?);
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        kind.starts_with("cgroup2 ").then_some(())?;
        let mut fields = mount.split(' ').skip(3);
        let (root, place) = (fields.next()?, fields.next()?);
        Some(Path::new(place).join(path.strip_prefix(root).ok()?))
    })
}

/// Being able to write says nothing about root. So the folder must bear the service manager's mark, or belong to the
/// ordinary user that this program runs as. The root of the whole tree belongs to nobody but the system.
pub(super) fn is_delegated(folder: &Path) -> bool {
    let user = rustix::process::geteuid();
    let theirs = !user.is_root() && fs::metadata(folder).is_ok_and(|found| found.uid() == user.as_raw());
    folder.join("cgroup.type").exists() && (theirs || MARKS.iter().any(|mark| is_marked(folder, mark)))
}

fn is_marked(folder: &Path, mark: &str) -> bool {
    let mut value = [0; 8];
    getxattr(folder, mark, &mut value[..]).is_ok_and(|length| &value[..length] == b"1")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
        30 23 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755\n\
        31 30 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        32 30 0:28 /machine/box /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn the_own_folder_is_found_where_that_part_of_the_tree_is_mounted() {
        let of = |own: &str| folder(own, MOUNTS);
        let own = "4:memory:/x\n0::/machine/box/agent.service\n";
        assert_eq!(of(own).unwrap(), Path::new("/sys/fs/cgroup/unified/agent.service"));
        assert_eq!(of("0::/machine/box").unwrap(), Path::new("/sys/fs/cgroup/unified/"));
        assert_eq!(of("0::/elsewhere"), None, "that part is not mounted here");
        assert_eq!(of("4:memory:/machine/box\n"), None, "only v1");
        assert_eq!(folder("0::/", "31 30 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"), None);
    }

    #[test]
    fn what_is_only_writable_is_not_delegated() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("cgroup.type"), "domain").unwrap();
        let ordinary = !rustix::process::geteuid().is_root();
        assert_eq!(is_delegated(folder.path()), ordinary);
        let mark = rustix::fs::setxattr(folder.path(), MARKS[0], b"1", rustix::fs::XattrFlags::empty());
        match mark {
            Ok(()) => assert!(is_delegated(folder.path())),
            Err(error) => eprintln!("the mark was not exercised: {error}"),
        }
        fs::remove_file(folder.path().join("cgroup.type")).unwrap();
        assert!(!is_delegated(folder.path()), "the root of the tree has no type");
    }
}
