//! The #[plugin] attribute.
//!
//! The code it writes is small on purpose: a list of functions, the exported symbol and the ELF note. All the
//! rest are ordinary generic functions of `plugin_sdk`, which are easier to read and to test.

mod args;
mod expand;
mod function;

use proc_macro::TokenStream;

/// Makes a plugin of an inherent `impl` block.
///
/// Arguments:
/// - `name = "clock"` (required): `[a-z][a-z0-9_-]*`, at most 64 bytes.
/// - `version = "1.0.0"`: semver, at most 64 bytes; without it, the version of the package.
/// - `concurrency = 8`: how many calls may run at once, 1 to 256, of which a host runs at most 64; without it, 4.
/// - `background`: the plugin works between `activate` and `deactivate` without being called.
/// - `default`: instances are made by `Default`, without config; the `Plugin` trait is implemented for you.
///
/// Methods marked `#[function]` can be called from outside, under their own name. Marks: `idempotent` (calling it
/// twice is as good as once) and `probe_safe` (it changes nothing, and may be called before `activate`). Such a
/// method is `fn(&self, input: I, deadline: Deadline) -> Result<O, PluginError>`; `input` and `deadline` may be
/// left out. `I` and `O` are JSON, with serde and schemars; if both are `Bytes`, the function is raw.
#[proc_macro_attribute]
pub fn plugin(args: TokenStream, block: TokenStream) -> TokenStream {
    expand::expand(args.into(), block.into()).into()
}
