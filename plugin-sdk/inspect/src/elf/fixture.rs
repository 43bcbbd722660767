//! Libraries for tests: built by `cc`, then bent byte by byte.

use std::{fs, path::Path, process::Command};

use object::elf::{DynamicTag, ProgramType};

/// Offset of the program headers of a file that `cc` built; they follow the file header.
const HEADERS_AT: usize = 64;
const HEADER_SIZE: usize = 56;
const DYNAMIC_SIZE: usize = 16;

/// A plugin as small as can be: an entry symbol and a note.
const PLUGIN: &str = r#"
void *fleetswap_plugin_v1(void) { return 0; }
__asm__(".pushsection .note.fleetswap,\"a\",%note\n.balign 4\n"
        ".long 10\n.long 2f-1f\n.long 1\n.asciz \"Fleetswap\"\n.balign 4\n"
        "1: .asciz \"1.0\"\n.asciz \"clock\"\n.asciz \"1.2.3\"\n2: .balign 4\n.popsection\n");
"#;

/// Builds the smallest plugin without any dependency.
pub(crate) fn plugin() -> Vec<u8> {
    build("", &["-nostdlib"])
}

/// Builds the smallest plugin with more code and flags.
pub(crate) fn build(code: &str, flags: &[&str]) -> Vec<u8> {
    compile(&format!("{PLUGIN}{code}"), &[&["-shared"], flags].concat())
}

/// Compiles any C text.
pub(crate) fn compile(code: &str, flags: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    compile_in(folder.path(), code, flags)
}

/// Compiles any C text in a folder that may already hold libraries; `-L.` finds them.
pub(crate) fn compile_in(folder: &Path, code: &str, flags: &[&str]) -> Vec<u8> {
    fs::write(folder.join("code.c"), code).unwrap();
    let output = Command::new("cc")
        .current_dir(folder)
        .args(["-fPIC", "-o", "out.so", "code.c"])
        .args(flags)
        .output()
        .expect("these tests need a C compiler, `cc`");
    assert!(output.status.success(), "cc: {}", String::from_utf8_lossy(&output.stderr));
    fs::read(folder.join("out.so")).unwrap()
}

/// Makes a file look like one without section headers, as hostile ones do.
pub(crate) fn drop_section_headers(bytes: &mut [u8]) {
    put(bytes, 40, &0_u64.to_le_bytes());
    put(bytes, 60, &[0; 4]);
}

/// Place in the file of the first program header of this type.
pub(crate) fn header_of(bytes: &[u8], wanted: ProgramType) -> usize {
    let count = usize::from(u16::from_le_bytes([bytes[56], bytes[57]]));
    (0..count)
        .map(|index| HEADERS_AT + index * HEADER_SIZE)
        .find(|&at| four(bytes, at) == wanted.0)
        .expect("the fixture has such a segment")
}

/// Place in the file of the first dynamic entry with this tag.
pub(crate) fn entry_of(bytes: &[u8], wanted: DynamicTag) -> usize {
    let header = header_of(bytes, object::elf::PT_DYNAMIC);
    let start = eight(bytes, header + 8);
    let count = eight(bytes, header + 32) / DYNAMIC_SIZE;
    (0..count)
        .map(|index| start + index * DYNAMIC_SIZE)
        .find(|&at| eight(bytes, at) as i64 == wanted.0)
        .expect("the fixture has such an entry")
}

/// The value of the first dynamic entry with this tag.
pub(crate) fn value_of(bytes: &[u8], tag: DynamicTag) -> usize {
    eight(bytes, entry_of(bytes, tag) + 8)
}

/// Overwrites bytes.
pub(crate) fn put(bytes: &mut [u8], at: usize, new: &[u8]) {
    bytes[at..at + new.len()].copy_from_slice(new);
}

/// Reads an address or a size.
pub(crate) fn eight(bytes: &[u8], at: usize) -> usize {
    usize::try_from(u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())).unwrap()
}

fn four(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}
