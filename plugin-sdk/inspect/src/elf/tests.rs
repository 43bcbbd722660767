//! Each rule of the lint, on libraries that break just that one.

use std::sync::LazyLock;

use object::elf::{
    DT_FLAGS, DT_GNU_HASH, DT_HASH, DT_NEEDED, DT_STRSZ, DT_STRTAB, DT_SYMENT, DT_SYMTAB, DT_TEXTREL,
    DT_VERNEED, DynamicTag, PT_DYNAMIC, PT_GNU_STACK, PT_LOAD, PT_NOTE,
};

use super::{
    fixture::{
        build, compile, compile_in, drop_section_headers, eight, entry_of, header_of, plugin, put, value_of,
    },
    *,
};
use crate::native_platform;

static PLUGIN: LazyLock<Vec<u8>> = LazyLock::new(plugin);
/// Needs `pthread_create` of glibc 2.34 and nothing newer.
static THREADED: LazyLock<Vec<u8>> = LazyLock::new(|| {
    build("int pthread_create(); int start(void) { return pthread_create(0, 0, 0, 0); }", &[])
});
const ANY: Rules = Rules { platform: None, glibc: None };

fn refused(bytes: &[u8]) -> (&'static str, String) {
    let error = lint(bytes, &ANY).unwrap_err();
    (error.code(), error.to_string())
}

fn code(bytes: &[u8]) -> &'static str {
    refused(bytes).0
}

/// The plugin with some bytes overwritten.
fn bent(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = PLUGIN.clone();
    change(&mut bytes);
    bytes
}

const fn host(minor: u32) -> Rules {
    Rules { platform: None, glibc: Some(Glibc { major: 2, minor }) }
}

#[test]
fn a_plain_plugin_passes_and_its_facts_are_read() {
    let elf = lint(&PLUGIN, &ANY).unwrap();
    assert_eq!(elf.platform, native_platform());
    assert_eq!(elf.size, PLUGIN.len() as u64);
    assert_eq!((elf.needed.as_slice(), elf.glibc), (&[][..], None));
    assert_eq!((elf.note.name.as_str(), elf.note.version.to_string().as_str()), ("clock", "1.2.3"));
    assert_eq!((elf.note.abi_major, elf.note.abi_minor), (1, 0));
}

#[test]
fn no_section_header_is_needed() {
    let bare = bent(|bytes| drop_section_headers(bytes));
    assert_eq!(lint(&bare, &ANY), lint(&PLUGIN, &ANY));
}

#[test]
fn the_place_of_the_bytes_in_memory_does_not_matter() {
    let shifted = [&[0], PLUGIN.as_slice()].concat();
    assert_eq!(lint(&shifted[1..], &ANY), lint(&PLUGIN, &ANY));
}

#[test]
fn libraries_of_the_preload_list_are_allowed() {
    let elf =
        lint(&build("double sin(double); double f(double x) { return sin(x); }", &["-lm"]), &ANY).unwrap();
    assert!(elf.needed.contains(&"libm.so.6".to_owned()), "{:?}", elf.needed);
}

#[test]
fn the_dynamic_linker_of_the_platform_is_allowed_and_no_other() {
    let linkers = ["ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"];
    for linker in linkers {
        let folder = tempfile::tempdir().unwrap();
        let name = format!("-Wl,-soname,{linker}");
        compile_in(folder.path(), "int helper(void) { return 1; }", &["-shared", "-nostdlib", &name]);
        std::fs::rename(folder.path().join("out.so"), folder.path().join("libhelper.so")).unwrap();
        let user = "void *fleetswap_plugin_v1(void) { return 0; } int helper(void); int f(void) { return helper(); }";
        let bytes = compile_in(folder.path(), user, &["-shared", "-nostdlib", "-L.", "-lhelper"]);
        let ours = linker == native_platform().dynamic_linker();
        assert_eq!(code(&bytes), if ours { "NOTE_MISSING" } else { "ELF_NEEDED" });
    }
}

#[test]
fn what_is_no_elf_file_is_malformed() {
    for bytes in [&b""[..], b"\x7fELF", b"#!/bin/sh\n", &PLUGIN[..63], &[0; 4096]] {
        assert_eq!(code(bytes), "ELF_MALFORMED");
    }
}

#[test]
fn a_library_of_more_than_256_mib_is_too_large() {
    let size = usize::try_from(ARTIFACT_MAX).unwrap() + 1;
    assert_eq!(code(&vec![0; size]), "ELF_TOO_LARGE");
}

#[test]
fn another_processor_or_system_is_refused() {
    let sparc = bent(|bytes| put(bytes, 18, &2_u16.to_le_bytes()));
    let narrow = bent(|bytes| bytes[4] = 1);
    let big_endian = bent(|bytes| bytes[5] = 2);
    let freebsd = bent(|bytes| bytes[7] = 9);
    for bytes in [sparc, narrow, big_endian, freebsd] {
        assert_eq!(code(&bytes), "ELF_ARCH");
    }
}

#[test]
fn a_supported_platform_that_is_not_the_wanted_one_is_refused() {
    for wanted in Platform::ALL {
        let rules = Rules { platform: Some(wanted), glibc: None };
        let found = lint(&PLUGIN, &rules).map(|elf| elf.platform).map_err(|error| error.code());
        assert_eq!(found, if wanted == native_platform() { Ok(wanted) } else { Err("ELF_ARCH") });
    }
}

#[test]
fn programs_are_no_libraries() {
    let executable = bent(|bytes| put(bytes, 16, &2_u16.to_le_bytes()));
    assert_eq!(code(&executable), "ELF_TYPE");
    let flags = ["-pie", "-nostdlib", "-Wl,--no-dynamic-linker", "-Wl,-e,fleetswap_plugin_v1"];
    let pie = compile("void *fleetswap_plugin_v1(void) { return 0; }", &flags);
    assert_eq!(code(&pie), "ELF_TYPE");
}

#[test]
fn a_writable_and_executable_segment_is_refused() {
    assert_eq!(
        code(&bent(|bytes| {
            let at = header_of(bytes, PT_LOAD);
            bytes[at + 4] = 7;
        })),
        "ELF_WX"
    );
}

#[test]
fn an_executable_stack_is_refused_asked_for_or_left_open() {
    assert_eq!(code(&build("", &["-nostdlib", "-Wl,-z,execstack"])), "ELF_EXECSTACK");
    let silent = bent(|bytes| {
        let at = header_of(bytes, PT_GNU_STACK);
        put(bytes, at, &0_u32.to_le_bytes());
    });
    assert_eq!(code(&silent), "ELF_EXECSTACK");
}

#[test]
fn an_interpreter_is_refused() {
    let code_with_interpreter = r#"const char path[] __attribute__((section(".interp"))) = "/lib/ld.so";"#;
    assert_eq!(code(&build(code_with_interpreter, &["-nostdlib"])), "ELF_INTERP");
}

#[test]
fn text_relocations_are_refused_by_entry_and_by_flag() {
    let code_with_address = r#"extern int elsewhere; __asm__(".text\n.quad elsewhere\n");"#;
    let entry = build(code_with_address, &["-nostdlib", "-Wl,-z,notext", "-Wl,-z,lazy"]);
    assert_eq!(code(&entry), "ELF_TEXTREL");
    for (tag, value) in [(DT_FLAGS, 4), (DT_TEXTREL, 0)] {
        assert_eq!(code(&bent(|bytes| retag(bytes, DT_GNU_HASH, tag, value))), "ELF_TEXTREL");
    }
}

#[test]
fn a_search_path_is_refused_under_its_old_and_its_new_name() {
    for (tags, name) in [("--disable-new-dtags", "RPATH"), ("--enable-new-dtags", "RUNPATH")] {
        let flags = ["-nostdlib", "-Wl,-rpath,$ORIGIN/plugins", &format!("-Wl,{tags}")];
        let mut bytes = build("", &flags);
        for _ in 0..2 {
            let (code, text) = refused(&bytes);
            assert_eq!(code, "ELF_RPATH");
            assert!(text.contains(&format!("{name} `$ORIGIN/plugins`")), "{text}");
            drop_section_headers(&mut bytes);
        }
    }
}

#[test]
fn audit_libraries_are_refused() {
    for flag in ["-Wl,--audit=spy.so", "-Wl,--depaudit=spy.so"] {
        assert_eq!(code(&build("", &["-nostdlib", flag])), "ELF_AUDIT", "{flag}");
    }
}

#[test]
fn filter_libraries_are_refused() {
    for flag in ["-Wl,-F,other.so", "-Wl,-f,other.so"] {
        assert_eq!(code(&build("", &["-nostdlib", flag])), "ELF_FILTER", "{flag}");
    }
}

#[test]
fn a_library_that_no_worker_has_is_named() {
    let folder = tempfile::tempdir().unwrap();
    compile_in(folder.path(), "int helper(void) { return 1; }", &["-shared", "-nostdlib"]);
    std::fs::rename(folder.path().join("out.so"), folder.path().join("libhelper.so")).unwrap();
    let flags = ["-shared", "-nostdlib", "-L.", "-lhelper"];
    let bytes = compile_in(folder.path(), "int helper(void); int f(void) { return helper(); }", &flags);
    let (code, text) = refused(&bytes);
    assert_eq!(code, "ELF_NEEDED");
    assert!(text.contains("`libhelper.so`"), "{text}");
}

#[test]
fn a_newer_glibc_than_the_host_has_is_refused() {
    let elf = lint(&THREADED, &host(34)).unwrap();
    assert_eq!(elf.glibc, Some(Glibc { major: 2, minor: 34 }));
    let error = lint(&THREADED, &host(33)).unwrap_err();
    assert_eq!(error.code(), "ELF_GLIBC");
    assert_eq!(error.to_string(), "the library needs glibc 2.34, and this host has glibc 2.33");
}

#[test]
fn a_weak_need_of_a_newer_glibc_is_no_need() {
    let mut weak = THREADED.clone();
    mark_versions_weak(&mut weak);
    assert_eq!(lint(&weak, &host(17)).unwrap().glibc, None);
}

#[test]
fn glibc_versions_are_compared_as_numbers() {
    assert!(Glibc::parse("2.9").unwrap() < Glibc::parse("2.10").unwrap());
    assert_eq!(Glibc::parse("2.36.9000"), Glibc::parse("2.36"));
    for bad in ["", "2", "2.", "2.x", "2.1.x", "2.1.2.3", "PRIVATE"] {
        assert_eq!(Glibc::parse(bad), None, "{bad}");
    }
}

#[test]
fn the_entry_function_must_be_there() {
    let library = compile("int other(void) { return 1; }", &["-shared", "-nostdlib"]);
    assert_eq!(code(&library), "ELF_NO_ENTRY");
}

#[test]
fn the_entry_function_is_found_by_either_hash_table() {
    for style in ["-Wl,--hash-style=sysv", "-Wl,--hash-style=gnu", "-Wl,--hash-style=both"] {
        assert!(lint(&build("", &["-nostdlib", style]), &ANY).is_ok(), "{style}");
    }
    let neither = bent(|bytes| retag(bytes, DT_GNU_HASH, DynamicTag(0x1234), 0));
    assert_eq!(code(&neither), "ELF_NO_ENTRY");
}

#[test]
fn the_entry_must_be_an_exported_function_of_the_library_itself() {
    let hidden = "__attribute__((visibility(\"hidden\"))) void *fleetswap_plugin_v1(void) { return 0; }";
    let undefined = "void *fleetswap_plugin_v1(void); void *f(void) { return fleetswap_plugin_v1(); }";
    let data = "int fleetswap_plugin_v1 = 7;";
    for text in [hidden, undefined, data] {
        assert_eq!(code(&compile(text, &["-shared", "-nostdlib"])), "ELF_NO_ENTRY", "{text}");
    }
}

#[test]
fn each_property_of_the_entry_symbol_counts() {
    let (kind, visibility, section, value) = (4, 5, 6, 8);
    let cases: [(&str, usize, &[u8]); 5] = [
        ("local", kind, &[2]),
        ("data", kind, &[0x11]),
        ("hidden", visibility, &[2]),
        ("undefined", section, &[0, 0]),
        ("not in code", value, &[0; 8]),
    ];
    for (case, field, bytes) in cases {
        let library = bent(|library| {
            let at = entry_symbol_of(library);
            put(library, at + field, bytes);
        });
        assert_eq!(code(&library), "ELF_NO_ENTRY", "{case}");
    }
}

#[test]
fn more_symbols_than_a_library_has_are_not_walked() {
    let mut library = build("", &["-nostdlib", "-Wl,--hash-style=sysv"]);
    let chains = value_of(&library, DT_HASH) + 4;
    put(&mut library, chains, &(1024 * 1024 + 1_u32).to_le_bytes());
    assert!(refused(&library).1.contains("1048577 symbols"), "{:?}", refused(&library));
}

#[test]
fn a_library_without_a_note_is_no_plugin() {
    let library = compile("void *fleetswap_plugin_v1(void) { return 0; }", &["-shared", "-nostdlib"]);
    assert_eq!(code(&library), "NOTE_MISSING");
}

#[test]
fn a_note_counts_only_when_a_program_header_points_to_it() {
    assert_eq!(
        code(&bent(|bytes| {
            let at = header_of(bytes, PT_NOTE);
            put(bytes, at, &0_u32.to_le_bytes());
        })),
        "NOTE_MISSING"
    );
}

#[test]
fn parts_that_contradict_each_other_are_malformed() {
    let header = |field: usize, wanted, value: u64| {
        bent(|bytes| {
            let at = header_of(bytes, wanted);
            put(bytes, at + field, &value.to_le_bytes());
        })
    };
    let dynamic_at = eight(&PLUGIN, header_of(&PLUGIN, PT_DYNAMIC) + 8) as u64;
    let cases = [
        ("dynamic table elsewhere in the file", header(8, PT_DYNAMIC, dynamic_at - 16)),
        ("dynamic table mapped nowhere", header(16, PT_DYNAMIC, 1 << 40)),
        ("dynamic table without end", header(32, PT_DYNAMIC, 16)),
        ("segment outside the file", header(32, PT_LOAD, 1 << 40)),
        ("segment larger in the file than in memory", header(40, PT_LOAD, 1)),
        ("segment beyond the address space", header(40, PT_LOAD, u64::MAX)),
        ("segments that overlap", header(40, PT_LOAD, 1 << 20)),
        ("segment that shares no page offset", header(16, PT_LOAD, 8)),
        ("segment without alignment", header(48, PT_LOAD, 0)),
        ("segment with an odd alignment", header(48, PT_LOAD, 3 * 4096)),
        ("segment aligned to less than a page", header(48, PT_LOAD, 16)),
        ("program headers outside the file", bent(|bytes| put(bytes, 32, &u64::MAX.to_le_bytes()))),
        ("unknown version", bent(|bytes| bytes[6] = 2)),
        ("unknown version, second place", bent(|bytes| bytes[20] = 2)),
        ("program headers of another size", bent(|bytes| put(bytes, 54, &32_u16.to_le_bytes()))),
        ("two string tables", bent(|bytes| retag(bytes, DT_GNU_HASH, DT_STRTAB, 0))),
        ("no string table", bent(|bytes| retag(bytes, DT_STRTAB, DynamicTag(0x1234), 0))),
        ("string table too long", bent(|bytes| retag(bytes, DT_STRSZ, DT_STRSZ, u64::MAX))),
        ("symbol table mapped nowhere", bent(|bytes| retag(bytes, DT_SYMTAB, DT_SYMTAB, 1 << 40))),
        ("hash table mapped nowhere", bent(|bytes| retag(bytes, DT_GNU_HASH, DT_GNU_HASH, 1 << 40))),
        ("needed name outside", bent(|bytes| retag(bytes, DT_GNU_HASH, DT_NEEDED, u64::MAX))),
        ("versions mapped nowhere", bent(|bytes| retag(bytes, DT_GNU_HASH, DT_VERNEED, 1 << 40))),
    ];
    for (case, bytes) in cases {
        assert_eq!(code(&bytes), "ELF_MALFORMED", "{case}");
    }
}

#[test]
fn more_than_64_program_headers_are_refused() {
    let count = usize::from(u16::from_le_bytes([PLUGIN[56], PLUGIN[57]]));
    let most = vec![[0; 56]; 64 - count];
    assert!(lint(&with_headers(&most), &ANY).is_ok());
    assert_eq!(code(&with_headers(&[most, vec![[0; 56]]].concat())), "ELF_MALFORMED");
}

#[test]
fn a_segment_must_have_the_same_place_in_its_page_in_file_and_memory() {
    let load = |offset: u64| {
        let mut header = [0; 56];
        put(&mut header, 0, &PT_LOAD.0.to_le_bytes());
        for (at, value) in [(8, offset), (16, 1 << 30), (32, 16), (40, 16), (48, 4096)] {
            put(&mut header, at, &value.to_le_bytes());
        }
        header
    };
    assert!(lint(&with_headers(&[load(0)]), &ANY).is_ok());
    assert_eq!(code(&with_headers(&[load(8)])), "ELF_MALFORMED");
}

#[test]
fn a_dynamic_table_of_more_than_1024_entries_is_refused() {
    let padded = build("char padding[40000] = {1};", &["-nostdlib"]);
    for (entries, accepted) in [(1024_u64, true), (1025, false)] {
        let mut bytes = padded.clone();
        let at = header_of(&bytes, PT_DYNAMIC);
        put(&mut bytes, at + 32, &(entries * 16).to_le_bytes());
        assert_eq!(lint(&bytes, &ANY).is_ok(), accepted);
    }
}

#[test]
fn a_list_of_versions_that_leaves_the_file_is_malformed() {
    let mut bytes = THREADED.clone();
    let at = value_of(&bytes, DT_VERNEED);
    put(&mut bytes, at + 12, &u32::MAX.to_le_bytes());
    assert_eq!(code(&bytes), "ELF_MALFORMED");
}

#[test]
fn lists_of_versions_are_followed_up_to_their_bounds() {
    for (files, versions, accepted) in [(64, 1, true), (65, 1, false), (1, 512, true), (1, 513, false)] {
        let found = lint(&with_versions(files, versions), &ANY);
        assert_eq!(found.is_ok(), accepted, "{files} files, {versions} versions: {found:?}");
    }
}

#[test]
fn ten_thousand_mutants_are_judged_without_a_panic() {
    let mut random = 0x5eed_u64;
    let mut passed = 0;
    for _ in 0..10_000 {
        let mut mutant = if next(&mut random, 2) == 0 { PLUGIN.clone() } else { THREADED.clone() };
        for _ in 0..=next(&mut random, 8) {
            mutate(&mut mutant, &mut random);
        }
        passed += usize::from(lint(&mutant, &host(30)).is_ok());
    }
    assert!(passed > 100, "mutants must reach the last rules, and only {passed} passed");
}

#[test]
fn every_beginning_of_a_library_is_judged_without_a_panic() {
    for end in 0..PLUGIN.len().min(8192) {
        assert!(lint(&PLUGIN[..end], &ANY).is_err());
    }
}

/// The plugin with more program headers; the table moves to the end of the file.
fn with_headers(more: &[[u8; 56]]) -> Vec<u8> {
    let count = usize::from(u16::from_le_bytes([PLUGIN[56], PLUGIN[57]]));
    let table = [&PLUGIN[64..64 + count * 56], &more.concat()].concat();
    let total = u16::try_from(count + more.len()).unwrap();
    let mut bytes = PLUGIN.clone();
    let end = bytes.len() as u64;
    put(&mut bytes, 32, &end.to_le_bytes());
    put(&mut bytes, 56, &total.to_le_bytes());
    [bytes, table].concat()
}

/// A plugin with a list of so many files, all of which share a list of so many versions without a name.
fn with_versions(files: usize, versions: usize) -> Vec<u8> {
    let mut bytes = build("const char table[16384] = \"a place for versions\";", &["-nostdlib"]);
    let marker = b"a place for versions";
    let start = bytes.windows(marker.len()).position(|window| window == marker).unwrap();
    let step = |last: bool| if last { 0 } else { 16_u32 };
    for file in 0..files {
        let to_versions = u32::try_from((files - file) * 16).unwrap();
        put(&mut bytes, start + file * 16, &[1, 0, 1, 0, 0, 0, 0, 0]);
        put(&mut bytes, start + file * 16 + 8, &to_versions.to_le_bytes());
        put(&mut bytes, start + file * 16 + 12, &step(file + 1 == files).to_le_bytes());
    }
    for version in 0..versions {
        let at = start + (files + version) * 16;
        put(&mut bytes, at, &[0; 12]);
        put(&mut bytes, at + 12, &step(version + 1 == versions).to_le_bytes());
    }
    retag(&mut bytes, DT_SYMENT, DT_VERNEED, start as u64);
    bytes
}

/// Turns one dynamic entry into another.
fn retag(bytes: &mut [u8], from: DynamicTag, to: DynamicTag, value: u64) {
    let at = entry_of(bytes, from);
    put(bytes, at, &to.0.to_le_bytes());
    put(bytes, at + 8, &value.to_le_bytes());
}

/// Place in the file of the entry symbol. The symbols lie in the first segment, where addresses are places in the
/// file.
fn entry_symbol_of(bytes: &[u8]) -> usize {
    let (symbols, strings) = (value_of(bytes, DT_SYMTAB), value_of(bytes, DT_STRTAB));
    (0..64)
        .map(|index| symbols + index * 24)
        .find(|&at| bytes[strings + word(bytes, at)..].starts_with(b"fleetswap_plugin_v1\0"))
        .unwrap()
}

/// Sets the weak flag of each needed version. The list lies in the first segment, where addresses are places in
/// the file.
fn mark_versions_weak(bytes: &mut [u8]) {
    let mut file = value_of(bytes, DT_VERNEED);
    loop {
        let mut version = file + word(bytes, file + 8);
        loop {
            put(bytes, version + 4, &2_u16.to_le_bytes());
            match word(bytes, version + 12) {
                0 => break,
                step => version += step,
            }
        }
        match word(bytes, file + 12) {
            0 => break,
            step => file += step,
        }
    }
}

fn word(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// One byte, one word or the length becomes another, mostly in the headers and the dynamic table.
fn mutate(bytes: &mut Vec<u8>, random: &mut u64) {
    let dynamic = bytes.len() * 2 / 3;
    let at = match next(random, 3) {
        0 => next(random, 1024),
        1 => dynamic.saturating_sub(2048) + next(random, 4096),
        _ => next(random, bytes.len()),
    };
    let interesting = [0, 1, 0x7f, 0x80, 0xff, u64::from(u32::MAX), u64::MAX, 1 << 63];
    let value = match next(random, 2) {
        0 => interesting[next(random, interesting.len())],
        _ => *random,
    };
    let width = [1, 2, 4, 8][next(random, 4)];
    if next(random, 64) == 0 {
        bytes.truncate(at.max(1));
    } else if let Some(place) = bytes.get_mut(at..at + width) {
        place.copy_from_slice(&value.to_le_bytes()[..width]);
    }
}

/// The next number below `bound` (a linear congruential generator with Knuth's constants).
fn next(random: &mut u64, bound: usize) -> usize {
    *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    usize::try_from(*random >> 33).unwrap() % bound
}
