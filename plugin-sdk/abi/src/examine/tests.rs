//! Which tables are taken for one.

extern crate std;

use std::{boxed::Box, string::ToString};

use super::*;
use crate::Status;

unsafe extern "C" fn describe(_: *const crate::Sink) -> Status {
    Status::OK
}
unsafe extern "C" fn create(
    _: *const crate::Host,
    _: crate::Bytes,
    _: *mut crate::Instance,
    _: *const crate::Sink,
) -> Status {
    Status::OK
}
unsafe extern "C" fn with_sink(_: crate::Instance, _: *const crate::Sink) -> Status {
    Status::OK
}
unsafe extern "C" fn call(
    _: crate::Instance,
    _: crate::Bytes,
    _: crate::Bytes,
    _: u64,
    _: *const crate::Sink,
) -> Status {
    Status::OK
}
unsafe extern "C" fn save(_: crate::Instance, _: u32, _: *const crate::Sink) -> Status {
    Status::OK
}
unsafe extern "C" fn restore(_: crate::Instance, _: u32, _: crate::Bytes, _: *const crate::Sink) -> Status {
    Status::OK
}
unsafe extern "C" fn destroy(_: crate::Instance) {}

fn table() -> Table {
    Table {
        abi_major: ABI_MAJOR,
        abi_minor: 0,
        size: size_of::<Table>() as u32,
        describe,
        create,
        health: with_sink,
        call,
        activate: with_sink,
        deactivate: with_sink,
        save_state: save,
        restore_state: restore,
        destroy,
    }
}

fn examined(table: Table) -> Result<(), BadTable> {
    // SAFETY: a leaked table lives for ever.
    unsafe { examine(Box::leak(Box::new(table))) }.map(drop)
}

#[test]
fn a_table_of_this_abi_is_taken_also_with_a_newer_minor_version_and_more_functions() {
    assert_eq!(examined(table()), Ok(()));
    assert_eq!(examined(Table { abi_minor: 9, size: 4096, ..table() }), Ok(()));
}

#[test]
fn no_table_a_misplaced_one_another_major_version_and_a_short_one_are_refused_in_words() {
    // SAFETY: null is not followed.
    let none = unsafe { examine(core::ptr::null()) }.unwrap_err();
    assert_eq!(none.to_string(), "the entry point returned no table");
    // SAFETY: nor is an address that no table can have.
    let odd = unsafe { examine(core::ptr::without_provenance(1)) }.unwrap_err();
    assert_eq!(odd, BadTable::Misaligned);
    let other = examined(Table { abi_major: 2, ..table() }).unwrap_err();
    assert_eq!(other.to_string(), "the plugin has ABI 2.0, this host has 1");
    let short = examined(Table { size: 16, ..table() }).unwrap_err();
    assert_eq!(short, BadTable::Short { size: 16 });
}

#[test]
fn a_null_function_is_refused() {
    let table = Box::leak(Box::new(table()));
    let destroy = &raw mut table.destroy;
    // SAFETY: the address of the last function is replaced by zero and never called.
    unsafe { destroy.cast::<usize>().write(0) };
    // SAFETY: a leaked table lives for ever.
    let error = unsafe { examine(core::ptr::from_mut(table).cast_const()) }.unwrap_err();
    assert_eq!(error, BadTable::NoFunction { index: 8 });
}
