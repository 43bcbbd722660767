//! C: the header says what the ABI says, and the example in C is a plugin like any other.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fmt::Write;
use std::fs;
use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::process::Command;

use fleetswap_inspect::{Descriptor, Rules, lint};
use fleetswap_plugin_abi as abi;
use fleetswap_plugin_abi::{Function, Phase, Status, Table, Thread};
use plugin_sdk::testing::{Driver, Failure, json};
use tempfile::TempDir;

const STRICT: [&str; 5] = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic"];

fn sdk(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn compile(source: &Path, output: &Path, flags: &[&str]) {
    let done = Command::new("cc")
        .args(STRICT)
        .args(flags)
        .arg("-I")
        .arg(sdk("include"))
        .args([Path::new("-o"), output, source])
        .output()
        .expect("a C compiler, `cc`, is needed for this test");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// Pairs of a C expression and the number that Rust has for it.
macro_rules! offsets {
    ($c:literal, $rust:ty: $($field:ident)*) => {
        vec![
            (concat!("sizeof(struct ", $c, ")").to_owned(), size_of::<$rust>() as u64),
            $((concat!("offsetof(struct ", $c, ", ", stringify!($field), ")").to_owned(), offset_of!($rust, $field) as u64),)*
        ]
    };
}

fn layouts() -> Vec<(String, u64)> {
    [
        offsets!("fleetswap_bytes", abi::Bytes: data len),
        offsets!("fleetswap_sink", abi::Sink: context write),
        offsets!("fleetswap_host", abi::Host: size reserved context log),
        offsets!("fleetswap_table", Table: abi_major abi_minor size describe create health call activate
            deactivate save_state restore_state destroy),
    ]
    .concat()
}

fn constants() -> Vec<(String, u64)> {
    [
        ("ABI_MAJOR", u64::from(abi::ABI_MAJOR)),
        ("ABI_MINOR", u64::from(abi::ABI_MINOR)),
        ("NAME_MAX", abi::NAME_MAX as u64),
        ("FUNCTION_NAME_MAX", abi::FUNCTION_NAME_MAX as u64),
        ("VERSION_MAX", abi::VERSION_MAX as u64),
        ("CONCURRENCY_MAX", u64::from(abi::CONCURRENCY_MAX)),
        ("POOL_MAX", u64::from(abi::POOL_MAX)),
        ("BODY_MAX", abi::BODY_MAX as u64),
        ("WORDS_MAX", abi::WORDS_MAX as u64),
        ("STATE_MAX", abi::STATE_MAX as u64),
        ("DESCRIPTOR_MAX", abi::DESCRIPTOR_MAX as u64),
        ("NOTE_TYPE", u64::from(abi::NOTE_TYPE)),
        ("LOG_ERROR", u64::from(abi::LOG_ERROR)),
        ("LOG_WARN", u64::from(abi::LOG_WARN)),
        ("LOG_INFO", u64::from(abi::LOG_INFO)),
        ("LOG_DEBUG", u64::from(abi::LOG_DEBUG)),
        ("OK", Status::OK.0 as u64),
        ("ERROR", Status::ERROR.0 as u64),
        ("UNKNOWN_FUNCTION", Status::UNKNOWN_FUNCTION.0 as u64),
        ("BAD_INPUT", Status::BAD_INPUT.0 as u64),
        ("PANIC", Status::PANIC.0 as u64),
        ("ILLEGAL", Status::ILLEGAL.0 as u64),
        ("UNSUPPORTED", Status::UNSUPPORTED.0 as u64),
        ("TOO_LARGE", Status::TOO_LARGE.0 as u64),
    ]
    .map(|(name, number)| (format!("FLEETSWAP_{name}"), number))
    .to_vec()
}

#[test]
fn the_header_has_the_sizes_offsets_and_constants_of_the_abi() {
    let folder = TempDir::new().unwrap();
    let (source, program) = (folder.path().join("layout.c"), folder.path().join("layout"));
    let mut expected = [layouts(), constants()].concat();
    expected.push(("sizeof(fleetswap_status)".to_owned(), size_of::<Status>() as u64));
    expected.push(("sizeof(fleetswap_instance)".to_owned(), size_of::<abi::Instance>() as u64));
    expected.push(("sizeof FLEETSWAP_NOTE_OWNER".to_owned(), abi::NOTE_OWNER.len() as u64 + 1));

    let mut text = String::from("#include <stdio.h>\n#include \"fleetswap_plugin.h\"\nint main(void) {\n");
    for (expression, _) in &expected {
        writeln!(text, "printf(\"%llu\\n\", (unsigned long long)({expression}));").unwrap();
    }
    fs::write(&source, text + "return 0; }\n").unwrap();
    compile(&source, &program, &[]);
    let printed = String::from_utf8(Command::new(&program).output().unwrap().stdout).unwrap();
    let printed: Vec<u64> = printed.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(printed.len(), expected.len());
    for ((expression, rust), c) in expected.iter().zip(printed) {
        assert_eq!(*rust, c, "{expression}");
    }
}

/// How the header calls a row of the matrix.
fn row_name(function: Function) -> &'static str {
    match function {
        Function::Health => "health",
        Function::CallProbeSafe => "call (probe_safe functions)",
        Function::Call => "call (all other functions)",
        Function::Activate => "activate",
        Function::Deactivate => "deactivate",
        Function::SaveState => "save_state",
        Function::RestoreState => "restore_state",
        Function::Destroy => "destroy",
    }
}

#[test]
fn the_matrix_in_the_header_is_that_of_the_abi() {
    let header = fs::read_to_string(sdk("include/fleetswap_plugin.h")).unwrap();
    let rows: Vec<Vec<&str>> = header
        .lines()
        .map(|line| line.trim_start_matches(" *").split('|').map(str::trim).collect::<Vec<_>>())
        .filter(|cells| cells.len() == 6 && cells[0] != "function")
        .collect();
    let word = |yes: bool| if yes { "yes" } else { "no" };
    let expected = Function::ALL.map(|function| {
        let thread = match function.thread() {
            Thread::Control => "control",
            Thread::Health => "health",
            Thread::Pool => "pool",
        };
        let legal = |phase| word(function.legal_in(phase));
        let [created, active, deactivated] = [Phase::Created, Phase::Active, Phase::Deactivated].map(legal);
        vec![row_name(function), created, active, deactivated, word(function.concurrent()), thread]
    });
    assert_eq!(rows, expected);
}

/// The example in C, built as its comment says.
fn checksum(folder: &TempDir) -> PathBuf {
    let library = folder.path().join("libchecksum_1_0_0.so");
    compile(&sdk("examples/checksum/checksum.c"), &library, &["-shared", "-fPIC"]);
    library
}

#[test]
fn the_plugin_in_c_has_a_note_and_a_descriptor_that_agree() {
    let folder = TempDir::new().unwrap();
    let bytes = fs::read(checksum(&folder)).unwrap();
    let note = lint(&bytes, &Rules::default()).unwrap().note;
    assert_eq!(
        (note.abi_major, note.abi_minor, note.name.as_str()),
        (abi::ABI_MAJOR, abi::ABI_MINOR, "checksum")
    );

    let driver = load(&folder);
    let descriptor = Descriptor::parse(driver.descriptor().to_string().as_bytes()).unwrap();
    assert_eq!((descriptor.name, descriptor.version), (note.name, note.version));
}

#[test]
fn the_plugin_in_c_knows_the_checksum_of_every_test_vector() {
    let driver = load(&TempDir::new().unwrap());
    driver.health().unwrap();
    let of = |input: &[u8]| String::from_utf8(driver.call_raw("crc32", input).unwrap()).unwrap();
    assert_eq!(of(b"123456789"), r#"{"crc32":"cbf43926"}"#);
    assert_eq!(of(b""), r#"{"crc32":"00000000"}"#);
    assert_eq!(driver.call("md5", json!({})).unwrap_err(), Failure::UnknownFunction);
    driver.activate().unwrap();
    assert_eq!(driver.save_state(1).unwrap_err(), Failure::Unsupported);
}

fn load(folder: &TempDir) -> Driver {
    // SAFETY: the library is ours, keeps the contract, and is never unloaded.
    unsafe {
        let library: &'static libloading::Library =
            Box::leak(Box::new(libloading::Library::new(checksum(folder)).unwrap()));
        let entry = library.get::<abi::Entry>(abi::ENTRY_SYMBOL.as_bytes()).unwrap();
        Driver::load(*entry, b"").unwrap()
    }
}

/// A table as a plugin in C can make one: with a function left out.
#[repr(C)]
struct Holed {
    abi_major: u16,
    abi_minor: u16,
    size: u32,
    functions: [usize; 9],
}

unsafe extern "C" fn holed() -> *const Table {
    static HOLED: Holed = Holed {
        abi_major: abi::ABI_MAJOR,
        abi_minor: abi::ABI_MINOR,
        size: size_of::<Holed>() as u32,
        functions: [0; 9],
    };
    (&raw const HOLED).cast()
}

#[test]
fn a_table_with_a_hole_is_refused_before_anything_is_called() {
    // SAFETY: the table lives for ever; that its functions are null is what is tested.
    let refused = unsafe { Driver::load(holed, b"") }.unwrap_err();
    assert_eq!(refused, Failure::BadTable("function 0 of the table is null".to_owned()));
}
