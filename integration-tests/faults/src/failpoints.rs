//! Failpoints: named places at which a program fails when its environment says so.
//!
//! `FLEETSWAP_TEST_FAILPOINT=NAME:ACTION[:NTH[:AFTER]]` arms one of them. ACTION is `kill` (SIGKILL to itself), `eio`,
//! `enospc`, `erofs`, `emfile`, `short` (the write takes half of the bytes) or `hold` (the step never ends). NTH is the
//! pass that fails, from 1; `2+` means the second and every later one. AFTER is another failpoint that has to be passed
//! before passes count. What is hit is told on standard error.

use std::{
    collections::BTreeSet,
    env, io,
    sync::{Mutex, OnceLock, PoisonError},
};

use rustix::{
    io::Errno,
    process::{Signal, getpid, kill_process},
};

/// Arms a failpoint.
const ARMED: &str = "FLEETSWAP_TEST_FAILPOINT";
/// The boot id that the program believes.
const BOOT_ID: &str = "FLEETSWAP_TEST_BOOT_ID";
/// Makes the controller renew its timestamp at its start.
const RENEW: &str = "FLEETSWAP_TEST_RENEW";
/// Makes the program print its failpoints and end.
const LIST: &str = "FLEETSWAP_TEST_LIST";

/// What a place is told to do.
#[derive(Debug)]
pub enum Fault {
    /// The operation fails.
    Error(io::Error),
    /// The write takes only half of the bytes.
    Short,
    /// The step never ends.
    Hold,
}

/// A failpoint as the environment armed it.
#[derive(Debug, PartialEq, Eq)]
struct Armed {
    name: String,
    action: Action,
    nth: u64,
    and_later: bool,
    after: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Kill,
    Error(Errno),
    Short,
    Hold,
}

/// Passes of the armed failpoint, and whether the one before it was passed.
#[derive(Debug, Default)]
struct Passes {
    count: u64,
    is_open: bool,
}

/// Passes a failpoint: does what the environment wants of it.
///
/// # Panics
/// The variable that arms failpoints has no such form.
pub fn hit(name: &str) -> Option<Fault> {
    static STATE: OnceLock<Option<(Armed, Mutex<Passes>)>> = OnceLock::new();
    let state = STATE.get_or_init(|| {
        let text = env::var(ARMED).ok()?;
        let armed = parse(&text).unwrap_or_else(|| panic!("{ARMED}={text} has no such form"));
        Some((armed, Mutex::default()))
    });
    let (armed, passes) = state.as_ref()?;
    let is_hit = armed.pass(name, &mut passes.lock().unwrap_or_else(PoisonError::into_inner));
    if !is_hit {
        return None;
    }
    eprintln!("failpoint {name} is hit");
    match armed.action {
        Action::Kill => {
            // It can't fail for oneself, and if it did, going on would be the lie.
            let _ = kill_process(getpid(), Signal::KILL);
            std::process::abort()
        }
        Action::Error(errno) => Some(Fault::Error(errno.into())),
        Action::Short => Some(Fault::Short),
        Action::Hold => Some(Fault::Hold),
    }
}

/// Passes a failpoint that is not about an operation; whether the step must never end.
pub fn is_held(name: &str) -> bool {
    matches!(hit(name), Some(Fault::Hold))
}

/// The boot id that the environment wants to be believed.
#[must_use]
pub fn boot_id() -> Option<String> {
    env::var(BOOT_ID).ok()
}

/// Whether the environment wants the timestamp to count as old.
#[must_use]
pub fn is_renewal_due() -> bool {
    env::var_os(RENEW).is_some()
}

/// Prints each failpoint with the actions that mean something there, if the environment asks for it; whether it did.
#[must_use]
pub fn list(points: impl IntoIterator<Item = (String, &'static str)>) -> bool {
    let asked = env::var_os(LIST).is_some();
    if asked {
        let mut names = BTreeSet::new();
        for (name, actions) in points {
            println!("{name} {actions}");
            assert!(names.insert(name.clone()), "{name} is there twice");
        }
    }
    asked
}

impl Armed {
    fn pass(&self, name: &str, passes: &mut Passes) -> bool {
        if self.after.as_deref() == Some(name) {
            passes.is_open = true;
        }
        if name != self.name || !(passes.is_open || self.after.is_none()) {
            return false;
        }
        passes.count += 1;
        passes.count == self.nth || (self.and_later && passes.count > self.nth)
    }
}

fn parse(text: &str) -> Option<Armed> {
    let mut parts = text.split(':');
    let (name, action) = (parts.next()?.to_owned(), action(parts.next()?)?);
    let nth = parts.next().unwrap_or("1");
    let after = parts.next().map(str::to_owned);
    let (nth, and_later) = nth.strip_suffix('+').map_or((nth, false), |nth| (nth, true));
    let nth = nth.parse().ok()?;
    parts.next().is_none().then_some(Armed { name, action, nth, and_later, after })
}

fn action(word: &str) -> Option<Action> {
    Some(match word {
        "kill" => Action::Kill,
        "eio" => Action::Error(Errno::IO),
        "enospc" => Action::Error(Errno::NOSPC),
        "erofs" => Action::Error(Errno::ROFS),
        "emfile" => Action::Error(Errno::MFILE),
        "short" => Action::Short,
        "hold" => Action::Hold,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(text: &str, names: &[&str]) -> Vec<bool> {
        let (armed, mut passes) = (parse(text).unwrap(), Passes::default());
        names.iter().map(|name| armed.pass(name, &mut passes)).collect()
    }

    #[test]
    fn only_the_named_pass_is_hit() {
        assert_eq!(passes("a:kill", &["b", "a", "a"]), [false, true, false]);
        assert_eq!(passes("a:eio:2", &["a", "a", "a"]), [false, true, false]);
        assert_eq!(passes("a:enospc:2+", &["a", "a", "a"]), [false, true, true]);
    }

    #[test]
    fn passes_count_only_after_the_other_failpoint() {
        assert_eq!(passes("a:short:1:b", &["a", "b", "a", "a"]), [false, false, true, false]);
        assert_eq!(passes("a:hold:1:a", &["a", "a"]), [true, false], "it may be its own");
    }

    #[test]
    fn another_form_is_no_failpoint() {
        for text in ["a", "a:", "a:burn", "a:kill:x", "a:kill:1:b:c", ""] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
