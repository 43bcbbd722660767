//! Which tables are taken for one.
use super::*;
use fleetswap_plugin_abi as abi;

unsafe extern "C" fn describe(_: *const abi::Sink) -> Status {
    Status::OK
}
unsafe extern "C" fn create(
    _: *const abi::Host,
    _: abi::Bytes,
    _: *mut abi::Instance,
    _: *const abi::Sink,
) -> Status {
    Status::OK
}
unsafe extern "C" fn with_sink(_: abi::Instance, _: *const abi::Sink) -> Status {
    Status::OK
}
unsafe extern "C" fn call(
    _: abi::Instance,
    _: abi::Bytes,
    _: abi::Bytes,
    _: u64,
    _: *const abi::Sink,
) -> Status {
    Status::OK
}
unsafe extern "C" fn save(_: abi::Instance, _: u32, _: *const abi::Sink) -> Status {
    Status::OK
}
unsafe extern "C" fn restore(_: abi::Instance, _: u32, _: abi::Bytes, _: *const abi::Sink) -> Status {
    Status::OK
}
unsafe extern "C" fn destroy(_: abi::Instance) {}

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

fn examined(table: Table) -> Result<(), String> {
    // SAFETY: a leaked table lives for ever.
    unsafe { examine(Box::leak(Box::new(table))) }.map(drop)
}

#[test]
fn a_table_of_this_abi_is_taken_also_with_a_newer_minor_version_and_more_functions() {
    assert_eq!(examined(table()), Ok(()));
    assert_eq!(examined(Table { abi_minor: 9, size: 4096, ..table() }), Ok(()));
}

#[test]
fn no_table_another_major_version_and_a_short_table_are_refused_in_words() {
    // SAFETY: null is not followed.
    let none = unsafe { examine(std::ptr::null()) }.unwrap_err();
    assert!(none.contains("no table"), "{none}");
    let other = examined(Table { abi_major: 2, ..table() }).unwrap_err();
    assert!(other.contains("ABI 2.0, this host has 1"), "{other}");
    let short = examined(Table { size: 16, ..table() }).unwrap_err();
    assert!(short.contains("16 bytes"), "{short}");
}

#[test]
fn a_null_function_is_refused() {
    let table = Box::leak(Box::new(table()));
    let destroy = &raw mut table.destroy;
    // SAFETY: the address of the last function is replaced by zero and never called.
    unsafe { destroy.cast::<usize>().write(0) };
    // SAFETY: a leaked table lives for ever.
    let error = unsafe { examine(std::ptr::from_mut(table).cast_const()) }.unwrap_err();
    assert!(error.contains("function 8"), "{error}");
}
