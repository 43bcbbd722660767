//! The table, called as C would: what the test kit itself never does.

use std::ptr::{null, null_mut};
use std::sync::{Arc, Mutex};

use fleetswap_plugin_abi::{Bytes, Instance, Status};

use crate::testing::recorder::{Buffer, Recorder, lend};
use crate::{Host, Level, Plugin, PluginError, plugin, table::table};

/// The host of the last instance, as a thread that the plugin forgot might keep it.
static KEPT: Mutex<Option<Host>> = Mutex::new(None);

struct Keeper(Host);

#[plugin(name = "keeper")]
impl Keeper {
    #[function]
    fn keep(&self) -> Result<(), PluginError> {
        *KEPT.lock().unwrap() = Some(self.0.clone());
        Ok(())
    }

    #[function]
    fn hum(&self) -> Result<(), PluginError> {
        Ok(())
    }
}

impl Plugin for Keeper {
    type Config = ();

    fn create(host: Host, (): ()) -> Result<Self, PluginError> {
        Ok(Self(host))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.log(Level::Info, "dropped");
        panic!("and not quietly");
    }
}

fn create(host: &Recorder) -> Instance {
    let mut instance = null_mut();
    // SAFETY: the host outlives the instance; a missing sink is allowed.
    let status = unsafe { (table::<Keeper>().create)(host.as_host(), lend(b""), &raw mut instance, null()) };
    assert_eq!(status, Status::OK);
    instance
}

fn lines(host: &Recorder) -> Vec<String> {
    host.lines().into_iter().map(|(_, line)| line).collect()
}

#[test]
fn an_active_instance_is_not_destroyed_and_says_so() {
    let (host, table) = (Arc::new(Recorder::default()), table::<Keeper>());
    let instance = create(&host);
    // SAFETY: the instance is destroyed by the last line only.
    unsafe {
        assert_eq!((table.activate)(instance, null()), Status::OK);
        (table.destroy)(instance);
        assert_eq!((table.health)(instance, null()), Status::OK, "it is still there");
        assert_eq!((table.deactivate)(instance, null()), Status::OK);
        (table.destroy)(instance);
    }
    let lines = lines(&host);
    assert!(lines[0].starts_with("destroy is refused"), "{lines:?}");
    assert_eq!(lines[1], "dropped");
    assert!(lines[2].contains("and not quietly"), "a panic in drop is caught: {lines:?}");
    assert_eq!(lines.len(), 3);
}

#[test]
fn a_host_that_is_kept_beyond_destroy_is_silent() {
    let (host, table) = (Arc::new(Recorder::default()), table::<Keeper>());
    let instance = create(&host);
    // SAFETY: the instance is destroyed by the last line only.
    unsafe {
        assert_eq!((table.activate)(instance, null()), Status::OK);
        assert_eq!((table.call)(instance, lend(b"keep"), lend(b"{}"), 0, null()), Status::OK);
        assert_eq!((table.deactivate)(instance, null()), Status::OK);
        (table.destroy)(instance);
    }
    let before = lines(&host).len();
    KEPT.lock().unwrap().take().unwrap().log(Level::Error, "is anybody there?");
    assert_eq!(lines(&host).len(), before);
}

#[test]
fn a_missing_instance_or_name_is_refused_and_a_sink_that_is_full_is_no_disaster() {
    let (host, table) = (Arc::new(Recorder::default()), table::<Keeper>());
    let nothing = Bytes { data: null(), len: 0 };
    // SAFETY: null is what the table must withstand; the sink's buffer lives to the end.
    unsafe {
        assert_eq!((table.health)(null_mut(), null()), Status::ILLEGAL);
        (table.destroy)(null_mut());
        let instance = create(&host);
        assert_eq!((table.call)(instance, nothing, nothing, 0, null()), Status::UNKNOWN_FUNCTION);
        (table.activate)(instance, null());
        let mut full = Buffer::new(3);
        let sink = full.as_sink();
        assert_eq!(
            (table.call)(instance, lend(b"hum"), lend(b"nope"), 0, &raw const sink),
            Status::BAD_INPUT
        );
        assert_eq!((table.call)(instance, lend(b"hum"), lend(b"{}"), 0, &raw const sink), Status::TOO_LARGE);
        (table.deactivate)(instance, null());
        (table.destroy)(instance);
    }
}
