//! Landlock: rules that allow nothing. An image that is already open loads all the same: a memfd lies in no file
//! hierarchy.
use super::{Level, SandboxError};
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreated,
    RulesetError, Scope,
};
use std::io;

/// What the pieces are called in errors.
pub(super) const FILES: &str = "landlock";
const NETWORK: &str = "landlock network";
const SCOPES: &str = "landlock scopes";

/// The flag of `landlock_create_ruleset` that asks for the version.
const VERSION_QUERY: u32 = 1;
/// The newest version of Landlock of which all is handled, where the kernel has it.
const NEWEST: ABI = ABI::V10;

/// A ruleset that handles every access that the level must have handled and, of the rest, what this kernel knows.
/// It is made and not yet enforced.
pub(super) fn ruleset(level: Level) -> Result<RulesetCreated, SandboxError> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .map_err(needs(level, FILES, 1))?;
    if level >= Level::Strict {
        rules = rules
            .handle_access(AccessNet::from_all(ABI::V4))
            .map_err(needs(level, NETWORK, 4))?
            .scope(Scope::from_all(ABI::V6))
            .map_err(needs(level, SCOPES, 6))?
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessNet::from_all(NEWEST))
            .and_then(|rules| rules.scope(Scope::from_all(NEWEST)))
            .map_err(|e| SandboxError::at(level, FILES)(&e))?;
    }
    rules
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|rules| rules.set_compatibility(CompatLevel::HardRequirement).create())
        .map_err(|e| SandboxError::at(level, FILES)(&e))
}

/// A piece that came with this version of Landlock. What the kernel has says more than what could not be asked of it.
fn needs(level: Level, piece: &'static str, version: i64) -> impl Fn(RulesetError) -> SandboxError {
    move |error| match kernels_version() {
        Ok(has) if has < version => {
            let words =
                format!("it came with version {version} of Landlock, and this kernel has version {has}");
            SandboxError { level, piece: piece.into(), words }
        }
        Ok(_) => SandboxError::at(level, piece)(&error),
        // Not built in, switched off, or kept from this process.
        Err(error) => SandboxError::at(level, piece)(&error),
    }
}

fn kernels_version() -> io::Result<i64> {
    let (no_rules, no_size) = (std::ptr::null::<u8>(), 0_usize);
    // SAFETY: asked for its version the kernel reads nothing of ours.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, no_rules, no_size, VERSION_QUERY) };
    if version < 0 { Err(io::Error::last_os_error()) } else { Ok(version) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::{
        net::{AddressFamily, SocketAddrUnix, SocketType, bind, connect, listen, socket},
        process::{Pid, test_kill_process},
    };
    use std::{
        io::ErrorKind,
        net::{TcpListener, TcpStream},
        thread,
    };

    /// What a thread that is locked in at this level may still do outside. Landlock binds the thread alone.
    fn reach(level: Level) -> [bool; 5] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let name = format!("fleetswap-test-{}-{level}", std::process::id());
        let abstract_name = SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap();
        let unix = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        bind(&unix, &abstract_name).unwrap();
        listen(&unix, 1).unwrap();
        let mut other = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let pid = Pid::from_child(&other);
        let reached = thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).unwrap();
            ruleset(level).unwrap().restrict_self().unwrap();
            let own = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
            [
                std::fs::read("/etc/passwd").is_ok(),
                TcpListener::bind("127.0.0.1:0").is_ok(),
                TcpStream::connect(address)
                    .map_err(|e| assert_eq!(e.kind(), ErrorKind::PermissionDenied))
                    .is_ok(),
                connect(&own, &abstract_name).is_ok(),
                test_kill_process(pid).is_ok(),
            ]
        });
        let reached = reached.join().unwrap();
        other.kill().unwrap();
        other.wait().unwrap();
        reached
    }

    #[test]
    fn strict_closes_tcp_abstract_sockets_and_signals_even_without_the_filter() {
        assert_eq!(reach(Level::Standard), [false, true, true, true, true], "the test can tell a success");
        match ruleset(Level::Strict) {
            Ok(_) => assert_eq!(reach(Level::Strict), [false; 5]),
            Err(error) => eprintln!("only standard was exercised: {error}"),
        }
    }
}
