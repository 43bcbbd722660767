//! The built programs and plugins, found beside the running executable, never built behind a test's back.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

/// What cargo is told to build the programs with failpoints, beside the others.
pub const FAILPOINTS_BUILD: [&str; 8] = [
    "build",
    "--workspace",
    "--features",
    "fleetswap-agent/failpoints,fleetswap-controller/failpoints",
    "--bin",
    "agent-failpoints",
    "--bin",
    "controller-failpoints",
];

/// Where the build put things.
#[derive(Clone, Debug)]
pub struct Binaries {
    dir: PathBuf,
}

/// A plugin library and what it says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plugin {
    /// The plugin's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The library.
    pub file: PathBuf,
}

impl Binaries {
    /// Finds what `cargo ci` or `cargo demo` has built.
    ///
    /// # Errors
    /// A program is missing.
    pub fn find() -> Result<Self> {
        let exe = env::current_exe().context("this executable's own path")?;
        let dir = exe
            .ancestors()
            .skip(1)
            .find(|dir| dir.join("controller").is_file() && dir.join("agent").is_file())
            .context("`controller` and `agent` are not built: run `cargo build --workspace` first")?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// The controller program.
    #[must_use]
    pub fn controller(&self) -> PathBuf {
        self.dir.join("controller")
    }

    /// The agent program.
    #[must_use]
    pub fn agent(&self) -> PathBuf {
        self.dir.join("agent")
    }

    /// The agent with failpoints.
    ///
    /// # Errors
    /// It is not built.
    pub fn agent_with_failpoints(&self) -> Result<PathBuf> {
        self.with_failpoints("agent-failpoints")
    }

    /// The controller with failpoints.
    ///
    /// # Errors
    /// It is not built.
    pub fn controller_with_failpoints(&self) -> Result<PathBuf> {
        self.with_failpoints("controller-failpoints")
    }

    fn with_failpoints(&self, name: &str) -> Result<PathBuf> {
        let file = self.dir.join(name);
        let command = FAILPOINTS_BUILD.join(" ");
        ensure!(file.is_file(), "{} is not built: run `cargo {command}` first", file.display());
        Ok(file)
    }

    /// An example plugin.
    ///
    /// # Errors
    /// The library is not built.
    pub fn example(&self, name: &str, version: &str) -> Result<Plugin> {
        let file = self.dir.join(format!("lib{name}_{}.so", version.replace('.', "_")));
        ensure!(file.is_file(), "{} is not built: run `cargo build --workspace` first", file.display());
        Ok(Plugin { name: name.to_owned(), version: version.to_owned(), file })
    }
}

/// Compiles one C plugin into `folder` with macros set, as a plugin's author would.
///
/// # Errors
/// The compiler is missing or refuses.
pub fn compile_c(
    source: &Path,
    name: &str,
    version: &str,
    defines: &[&str],
    folder: &Path,
) -> Result<Plugin> {
    let file = folder.join(format!("lib{name}_{}.so", version.replace('.', "_")));
    let include = repository().join("plugin-sdk/include");
    let output = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-pthread", "-I"])
        .arg(include)
        .args(defines.iter().map(|define| format!("-D{define}")))
        .arg("-o")
        .arg(&file)
        .arg(source)
        .output()
        .context("starting `cc`; a C compiler is needed")?;
    if !output.status.success() {
        bail!("cc refused {}: {}", source.display(), String::from_utf8_lossy(&output.stderr));
    }
    Ok(Plugin { name: name.to_owned(), version: version.to_owned(), file })
}

/// Builds every program and plugin of the workspace; cargo's own progress goes to standard error.
///
/// # Errors
/// The build fails.
pub fn build_workspace() -> Result<Binaries> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--workspace"])
        .current_dir(repository())
        .status()
        .context("starting cargo")?;
    ensure!(status.success(), "the build failed");
    let binaries = Binaries::find()?;
    build_c_examples(&binaries)?;
    Ok(binaries)
}

/// Builds the example plugins that are written in C, beside those in Rust.
///
/// # Errors
/// The compiler is missing or refuses.
pub fn build_c_examples(binaries: &Binaries) -> Result<()> {
    let source = repository().join("plugin-sdk/examples/checksum/checksum.c");
    compile_c(&source, "checksum", "1.0.0", &[], &binaries.dir).map(drop)
}

/// The root of the checkout that this package was built from.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_owned)
}
