//! The tree as this program divides it: in a folder on a disk, and in the kernel's own where that can be had.
use super::*;
use crate::{
    Cause, POOL_MAX,
    limits::OWN_THREADS,
    process::{Child, Process},
};
use std::process::Command;

/// A folder with the files that the kernel would have put into it.
fn tree(controllers: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("cgroup.controllers"), controllers).unwrap();
    folder
}

fn take(folder: &Path) -> Result<Cgroup, NoCgroup> {
    Cgroup::take(folder, &NEEDED, |leaf| fs::remove_dir_all(leaf))
}

fn read(folder: &Path, file: &str) -> String {
    fs::read_to_string(folder.join(file)).unwrap_or_else(|error| error.to_string())
}

fn leaves(folder: &Path) -> Vec<String> {
    let all = fs::read_dir(folder).unwrap().flatten().filter(|entry| entry.path().is_dir());
    let mut names: Vec<_> = all.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn this_program_moves_into_a_leaf_and_shares_out_what_it_needs() {
    let folder = tree("cpuset cpu io memory pids");
    let cgroup = take(folder.path()).unwrap();
    let own = folder.path().join("agent");
    assert_eq!(read(&own, "cgroup.procs"), std::process::id().to_string());
    assert_eq!(read(folder.path(), "cgroup.subtree_control"), "+memory +pids +cpu");
    assert_eq!((read(&own, "cpu.weight").as_str(), cgroup.has_cpu()), ("1000", true));
}

#[test]
fn without_memory_or_pids_nothing_is_changed() {
    for (controllers, missing) in
        [("cpu pids", "memory"), ("memory cpu", "pids"), ("", "memory"), ("hugetlb", "memory")]
    {
        let folder = tree(controllers);
        let error = take(folder.path()).unwrap_err();
        assert!(matches!(error, NoCgroup::Lacks { controller, .. } if controller == missing), "{error}");
        assert_eq!(leaves(folder.path()), [""; 0]);
        assert!(!folder.path().join("cgroup.subtree_control").exists());
    }
}

#[test]
fn a_worker_has_a_leaf_with_its_limits_as_long_as_it_lives() {
    let folder = tree("memory pids cpu");
    let cgroup = take(folder.path()).unwrap();
    let limits = Limits { memory_bytes: 1 << 20, threads: 7, cpu_percent: Some(150), ..Limits::default() };
    let group = cgroup.hold(42, &limits).unwrap();
    let leaf = folder.path().join("worker-42");
    let most = (7 + OWN_THREADS + POOL_MAX).to_string();
    let expected = [
        ("memory.max", "1048576"),
        ("memory.swap.max", "0"),
        ("memory.oom.group", "1"),
        ("pids.max", most.as_str()),
        ("cpu.max", "150000 100000"),
        ("cgroup.procs", "42"),
    ];
    for (file, value) in expected {
        assert_eq!(read(&leaf, file), value, "{file}");
    }
    drop(group);
    assert_eq!(leaves(folder.path()), ["agent"]);
}

#[test]
fn processor_time_is_bounded_only_where_that_is_asked_and_can_be_had() {
    for (controllers, cpu_percent) in [("memory pids", Some(50)), ("memory pids cpu", None)] {
        let folder = tree(controllers);
        let group =
            take(folder.path()).unwrap().hold(42, &Limits { cpu_percent, ..Limits::default() }).unwrap();
        assert!(!group.folder().join("cpu.max").exists(), "{controllers}");
    }
}

#[test]
fn what_workers_of_an_earlier_run_left_is_taken_away() {
    let folder = tree("memory pids");
    for name in ["worker-7", "worker-8", "other"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    take(folder.path()).unwrap();
    assert_eq!(leaves(folder.path()), ["agent", "other"]);
}

#[test]
fn a_kill_for_memory_is_told_from_any_other() {
    let folder = tree("memory pids");
    let group = take(folder.path()).unwrap().hold(42, &Limits::default()).unwrap();
    assert_eq!(group.out_of_memory(), None, "no such file");
    let events = |kills: u32| format!("low 0\nhigh 0\nmax 9\noom 9\noom_kill {kills}\noom_group_kill 1\n");
    put(group.folder(), "memory.events", events(0)).unwrap();
    assert_eq!(group.out_of_memory(), None, "it came near its limit, and lived");
    put(group.folder(), "memory.events", events(1)).unwrap();
    assert_eq!(group.out_of_memory(), Some(512 << 20));
    put(group.folder(), "memory.peak", "9000").unwrap();
    assert_eq!(group.out_of_memory(), Some(9000));
}

/// A kill from outside, as the kernel's own is, of a process that is in a leaf where the kernel noted one for memory.
#[tokio::test]
async fn the_cause_of_a_death_is_read_before_the_leaf_goes() {
    let folder = tree("memory pids");
    let cgroup = take(folder.path()).unwrap();
    for (kills, cause) in [(0, Cause::Signal(9)), (1, Cause::Memory { seen: 512 << 20, limit: 512 << 20 })] {
        let pid = Command::new("sh").args(["-c", "kill -KILL $$"]).spawn().unwrap().id();
        let group = cgroup.hold(pid, &Limits::default()).unwrap();
        put(group.folder(), "memory.events", format!("oom_kill {kills}\n")).unwrap();
        let child = Child::adopt(pid).unwrap().held_by(group);
        let process = Process::watch(child, &Limits::default()).unwrap();
        assert_eq!(process.exited().await, cause);
        assert_eq!(leaves(folder.path()), ["agent"], "it went with the process");
    }
}

/// The kernel's own tree, in a folder of its own that goes afterwards. A child is the program to move.
#[test]
fn the_kernels_own_tree_is_divided_where_it_can_be_had() {
    let Some(top) = find::own_folder() else {
        return eprintln!("no v2 tree here: only the watch was exercised");
    };
    let folder = top.join(format!("fleetswap-test-{}", std::process::id()));
    if let Err(error) = fs::create_dir(&folder) {
        return eprintln!("no folder in {}: {error}; only the watch was exercised", top.display());
    }
    let there = read(&folder, "cgroup.controllers");
    let missing = NEEDED.iter().find(|name| !there.split_whitespace().any(|found| found == **name));
    let mut child = Command::new("sleep").arg("600").spawn().unwrap();
    let leaf = folder.join(format!("worker-{}", child.id()));
    if let Some(missing) = missing {
        eprintln!(
            "{} lacks the controller `{missing}`: of limits only the watch was exercised; here only that a process is \
             moved, and that its leaf goes with it",
            folder.display()
        );
        fs::create_dir(&leaf).unwrap();
        let group = Group::new(leaf.clone(), |leaf| fs::remove_dir(leaf));
        group.admit(child.id()).unwrap();
        assert_eq!(read(&leaf, "cgroup.procs").trim(), child.id().to_string());
        child.kill().unwrap();
        child.wait().unwrap();
        drop(group);
    } else {
        // This program stays where it is; only what a worker gets is tried.
        put(&folder, "cgroup.subtree_control", "+memory +pids").unwrap();
        let tree = Tree { folder: folder.clone(), has_cpu: false, remove: |leaf| fs::remove_dir(leaf) };
        let group = Cgroup(Arc::new(tree)).hold(child.id(), &Limits::default()).unwrap();
        assert_eq!(read(&leaf, "cgroup.procs").trim(), child.id().to_string());
        assert_eq!(read(&leaf, "memory.max").trim(), (512 << 20).to_string());
        assert_eq!(group.out_of_memory(), None);
        child.kill().unwrap();
        child.wait().unwrap();
        drop(group);
    }
    assert!(!leaf.exists(), "the leaf went with the process");
    fs::remove_dir(&folder).unwrap();
}
