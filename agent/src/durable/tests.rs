//! The state folder: lock, format, host id, files by SHA-256.

use std::{collections::BTreeSet, os::unix::fs::PermissionsExt};

use fleetswap_trust::Digest;

use super::*;

fn opened() -> (tempfile::TempDir, StateDir) {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(&dir.path().join("state")).unwrap();
    (dir, state)
}

#[test]
fn two_daemons_cannot_share_a_folder() {
    let (_dir, state) = opened();
    assert_eq!(StateDir::open(&state.root).unwrap_err().code(), "STATE_DIR_LOCKED");
    let root = state.root.clone();
    drop(state);
    StateDir::open(&root).unwrap();
}

#[test]
fn the_folder_is_for_its_owner_alone() {
    let (_dir, state) = opened();
    for path in ["", "records", "blobs"] {
        let mode = fs::metadata(state.root.join(path)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{path}");
    }
}

#[test]
fn a_folder_of_a_newer_agent_is_refused_and_left_untouched() {
    let (_dir, state) = opened();
    let (root, format) = (state.root.clone(), state.root.join("format"));
    drop(state);
    fs::write(&format, "2\n").unwrap();
    assert_eq!(StateDir::open(&root).unwrap_err().code(), "FORMAT_TOO_NEW");
    assert_eq!(fs::read_to_string(&format).unwrap(), "2\n");
    fs::write(&format, "one\n").unwrap();
    assert_eq!(StateDir::open(&root).unwrap_err().code(), "RECORD_DAMAGED");
}

#[test]
fn the_host_id_is_made_once() {
    let (_dir, state) = opened();
    let id = state.host_id().unwrap();
    assert_eq!(state.host_id().unwrap(), id);
    fs::write(state.root.join("host-id"), "nobody").unwrap();
    assert_eq!(state.host_id().unwrap_err().code(), "RECORD_DAMAGED");
}

#[test]
fn a_file_is_replaced_and_nothing_else_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    replace(Kind::Format, &path, b"one").unwrap();
    replace(Kind::Format, &path, b"two").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"two");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let error = replace(Kind::Format, &dir.path().join("none/x"), b"").unwrap_err();
    assert_eq!(error.code(), "STATE_DIR_FAILED");
}

#[test]
fn bytes_are_found_by_their_hash_and_damage_is_seen() {
    let (_dir, state) = opened();
    let manifests = state.manifests();
    let name = manifests.put(b"manifest 7").unwrap();
    assert_eq!(manifests.get(name).unwrap().as_deref(), Some(&b"manifest 7"[..]));
    assert_eq!(manifests.get(Digest::of(b"none")).unwrap(), None);
    fs::write(manifests.path(name), b"manifest 8").unwrap();
    assert_eq!(manifests.get(name).unwrap_err().code(), "RECORD_DAMAGED");
    manifests.put(b"manifest 7").unwrap();
    assert_eq!(manifests.get(name).unwrap().as_deref(), Some(&b"manifest 7"[..]));
    let big = vec![0; usize::try_from(MANIFEST_MAX).unwrap() + 1];
    assert_eq!(state.manifests().put(&big).unwrap_err().code(), "STATE_TOO_LARGE");
}

#[test]
fn a_part_becomes_a_blob_only_with_the_right_bytes() {
    let (_dir, state) = opened();
    let blobs = state.blobs();
    let name = state.manifests().put(b"artifact").unwrap();
    fs::write(blobs.part(name), b"artifice").unwrap();
    assert!(!blobs.finish(name, 8).unwrap());
    assert!(!blobs.part(name).exists() && !blobs.holds(name, 8).unwrap());
    fs::write(blobs.part(name), b"artifact").unwrap();
    assert!(blobs.finish(name, 8).unwrap());
    assert!(blobs.holds(name, 8).unwrap());
    fs::write(blobs.path(name), b"flipped!").unwrap();
    assert!(!blobs.holds(name, 8).unwrap(), "a blob that rotted is fetched again");
}

#[test]
fn only_named_files_are_kept() {
    let (_dir, state) = opened();
    let blobs = state.blobs();
    let (kept, dropped) = (blobs.put(b"kept").unwrap(), blobs.put(b"dropped").unwrap());
    fs::write(blobs.part(kept), b"").unwrap();
    fs::write(blobs.part(dropped), b"").unwrap();
    blobs.keep_only(&BTreeSet::from([kept])).unwrap();
    assert!(blobs.path(kept).exists() && blobs.part(kept).exists());
    assert!(!blobs.path(dropped).exists() && !blobs.part(dropped).exists());
}

#[test]
fn a_blob_that_would_fill_the_disk_is_refused_before_a_byte_is_written() {
    let (_dir, state) = opened();
    let (blobs, name) = (state.blobs(), Digest::of(b"huge"));
    let error = blobs.require_room(name, u64::MAX / 2).unwrap_err();
    assert_eq!(error.code(), "DISK_FULL");
    assert!(!blobs.part(name).exists());
    blobs.require_room(name, 1).unwrap();
}
