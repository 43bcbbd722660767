//! Cgroup: memory, threads and processor time of workers, kept by the kernel where a part of its v2 tree was handed to
//! this program (systemd: `Delegate=yes`).
//!
//! The delegated folder becomes the parent of one leaf for this program and one per worker, since the kernel lets no
//! folder both hold processes and share controllers out. Without such a folder, the watch alone keeps the limits.
mod find;
mod group;

pub(crate) use group::Group;

use crate::Limits;
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// What the limits can't do without.
const NEEDED: [&str; 2] = ["memory", "pids"];
/// What is used where it is there.
const WELCOME: &str = "cpu";
/// The leaf of this program.
const OWN_LEAF: &str = "agent";
/// What the leaves of workers begin with; the process id follows.
const WORKER_LEAF: &str = "worker-";
/// Share of this program, where a worker has the kernel's default of 100: it looks after all of them.
const OWN_WEIGHT: u32 = 1000;

/// A part of the cgroup tree that is this program's to divide. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Cgroup(Arc<Tree>);

#[derive(Debug)]
struct Tree {
    folder: PathBuf,
    has_cpu: bool,
    /// Takes a leaf away. The kernel takes a folder with all its files; a folder on a disk needs another call.
    remove: fn(&Path) -> io::Result<()>,
}

/// Why the kernel does not keep the limits here.
#[derive(Debug, thiserror::Error)]
pub enum NoCgroup {
    /// This process is in no folder of the v2 tree that could be found.
    #[error("no v2 hierarchy is mounted")]
    NoHierarchy,
    /// The folder is not handed to this program.
    #[error("{} is not delegated to this program", .0.display())]
    NotDelegated(PathBuf),
    /// A controller that is needed is not in it.
    #[error("{} lacks the controller `{controller}`", .folder.display())]
    Lacks {
        /// The folder of this process.
        folder: PathBuf,
        /// The first that is missing.
        controller: &'static str,
    },
    /// The kernel refused a step.
    #[error("{what} failed: {error}")]
    Refused {
        /// What was tried.
        what: &'static str,
        /// The system's error.
        error: io::Error,
    },
}

impl Cgroup {
    /// Takes the folder that this process is in, if it was delegated and has what is needed: moves this process into a
    /// leaf of it, and removes what workers of an earlier run left. To be called once, before any worker.
    ///
    /// # Errors
    /// See [`NoCgroup`]. Whatever it is, workers can be started without one.
    pub fn claim() -> Result<Self, NoCgroup> {
        let folder = find::own_folder().ok_or(NoCgroup::NoHierarchy)?;
        if !find::is_delegated(&folder) {
            return Err(NoCgroup::NotDelegated(folder));
        }
        Self::take(&folder, &NEEDED, |leaf| fs::remove_dir(leaf))
    }

    /// Whether it shares out processor time.
    #[must_use]
    pub fn has_cpu(&self) -> bool {
        self.0.has_cpu
    }

    /// Claims this folder, whoever's it is.
    fn take(
        folder: &Path,
        needed: &[&'static str],
        remove: fn(&Path) -> io::Result<()>,
    ) -> Result<Self, NoCgroup> {
        let refused = |what| move |error| NoCgroup::Refused { what, error };
        let text = fs::read_to_string(folder.join("cgroup.controllers"))
            .map_err(refused("reading its controllers"))?;
        let there: Vec<&str> = text.split_whitespace().collect();
        if let Some(&controller) = needed.iter().find(|name| !there.contains(name)) {
            return Err(NoCgroup::Lacks { folder: folder.to_owned(), controller });
        }
        sweep(folder, remove);
        let own = folder.join(OWN_LEAF);
        make(&own).map_err(refused("making a leaf for this program"))?;
        put(&own, "cgroup.procs", std::process::id())
            .map_err(refused("moving this program into its leaf"))?;
        let has_cpu = there.contains(&WELCOME);
        let shared = needed.iter().copied().chain(has_cpu.then_some(WELCOME));
        let wanted: Vec<String> = shared.map(|name| format!("+{name}")).collect();
        put(folder, "cgroup.subtree_control", wanted.join(" "))
            .map_err(refused("sharing out controllers"))?;
        if has_cpu {
            put(&own, "cpu.weight", OWN_WEIGHT).map_err(refused("weighing this program"))?;
        }
        Ok(Self(Arc::new(Tree { folder: folder.to_owned(), has_cpu, remove })))
    }

    /// A leaf with these limits, and the process in it. The process has not been told to begin.
    pub(crate) fn hold(&self, pid: u32, limits: &Limits) -> io::Result<Group> {
        let leaf = self.0.folder.join(format!("{WORKER_LEAF}{pid}"));
        make(&leaf)?;
        let group = Group::new(leaf, self.0.remove);
        group.limit(limits, self.0.has_cpu)?;
        group.admit(pid)?;
        Ok(group)
    }
}

/// Takes away the leaves of workers that ended with an earlier run of this program.
fn sweep(folder: &Path, remove: fn(&Path) -> io::Result<()>) {
    let leaves = fs::read_dir(folder).into_iter().flatten().flatten();
    for leaf in leaves.filter(|leaf| leaf.file_name().to_string_lossy().starts_with(WORKER_LEAF)) {
        // One that still holds a process stays, and harms nobody: its name is that of a process that lives.
        let _ = remove(&leaf.path());
    }
}

fn make(leaf: &Path) -> io::Result<()> {
    match fs::create_dir(leaf) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Writes a value in one piece, as the kernel wants it.
fn put(folder: &Path, file: &str, value: impl ToString) -> io::Result<()> {
    fs::write(folder.join(file), value.to_string())
}

#[cfg(test)]
mod tests;
