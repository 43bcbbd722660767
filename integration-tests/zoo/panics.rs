//! Panics where C calls it. The test builds it by itself, once for unwinding and once with `panic = "abort"`, and links
//! it to `hostile.c`.

/// Panics: what unwinds goes over C into whatever called that.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn zoo_panic() {
    panic!("the zoo panics");
}
