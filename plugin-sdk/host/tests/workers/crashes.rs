//! Workers that crash, and what they still say of it.
use crate::plugin::{HONEST, LAUNCHER, PATIENCE, active, ask, launch, rusty_with, spec, specimen};
use bytes::Bytes;
use fleetswap_host::{
    CallError, Cause, CrashRecord, Death, Frame, Image, LoadError, LogSink, LogSource, WorkerSpec,
};
use object::{Object, ObjectSegment, ObjectSymbol};
use std::sync::{Arc, Mutex};

/// How a worker of the specimen ends that is told to crash in a call.
async fn crash(how: &'static str) -> Arc<Death> {
    let worker = active().await;
    let said = worker.call("crash", Bytes::from_static(how.as_bytes()), PATIENCE).await;
    assert!(matches!(said, Err(CallError::Died { .. })), "{how}: {said:?}");
    worker.ended().await
}

fn record(death: &Death) -> &CrashRecord {
    death.crash.as_ref().unwrap_or_else(|| panic!("no record: {death}; {}", death.log_tail))
}

/// The specimen's functions that the frames lie in, from the top; other modules are left out.
fn functions(image: &Image, frames: &[Frame]) -> Vec<String> {
    let library = object::File::parse(image.bytes()).unwrap();
    let own = frames.iter().filter(|frame| frame.module.as_deref() == Some("specimen"));
    own.map(|frame| {
        let holds = |symbol: &object::Symbol<'_, '_>| {
            (symbol.address()..symbol.address() + symbol.size()).contains(&frame.offset)
        };
        let symbol = library.symbols().find(holds);
        symbol.map_or_else(|| format!("{frame}"), |symbol| symbol.name().unwrap().to_owned())
    })
    .collect()
}

/// So many bytes of the library's code at an address.
#[cfg(target_arch = "x86_64")]
fn code(image: &Image, address: u64, count: u64) -> Vec<u8> {
    let library = object::File::parse(image.bytes()).unwrap();
    let found = library.segments().find_map(|segment| segment.data_range(address, count).unwrap());
    found.unwrap().to_vec()
}

fn build_id(image: &Image) -> String {
    use std::fmt::Write;
    let library = object::File::parse(image.bytes()).unwrap();
    let id = library.build_id().unwrap().expect("the linker of the tests writes one");
    id.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn is_call_thread(name: &str) -> bool {
    name.strip_prefix("call-").is_some_and(|number| ["1", "2", "3", "4"].contains(&number))
}

pub(crate) async fn each_deadly_signal_leaves_a_record() {
    for (how, signal, function, address) in [
        ("segv", libc::SIGSEGV, "touch_nothing", Some(16)),
        ("fpe", libc::SIGFPE, "divide", None),
        ("abort", libc::SIGABRT, "give_up", None),
        ("ill", libc::SIGILL, "crash", None),
        ("bus", libc::SIGBUS, "raise_it", None),
        ("trap", libc::SIGTRAP, "raise_it", None),
        ("sys", libc::SIGSYS, "raise_it", None),
    ] {
        if how == "fpe" && cfg!(not(target_arch = "x86_64")) {
            // There a division by zero is no fault.
            continue;
        }
        let death = crash(how).await;
        assert_eq!(death.cause, Cause::Signal(signal), "{how}");
        let record = record(&death);
        assert_eq!(record.signal, signal, "{how}");
        assert!(is_call_thread(&record.thread) && record.tid > 1, "{how}: {record:?}");
        assert_eq!(record.build_id, Some(build_id(&HONEST)), "{how}");
        assert_eq!(functions(&HONEST, &record.frames)[0], function, "{how}: {record:?}");
        if let Some(address) = address {
            assert_eq!((record.code, record.address), (1, Some(address)), "{how}");
        }
        // An instruction at fault has its own address; a signal that was sent has none.
        let at_fault = ["fpe", "ill"].contains(&how);
        assert_eq!(record.address.is_some(), address.is_some() || at_fault, "{how}: {record:?}");
    }
}

pub(crate) async fn the_frames_of_a_crash_are_those_of_the_library() {
    let death = crash("segv").await;
    let frames = &record(&death).frames;
    assert_eq!(functions(&HONEST, frames), ["touch_nothing", "crash", "call"]);
    #[cfg(target_arch = "x86_64")]
    {
        // `movl $1, 16`, and the end of the call that led there.
        assert_eq!(code(&HONEST, frames[0].offset, 5), [0xc7, 0x04, 0x25, 16, 0]);
        assert_eq!(code(&HONEST, frames[1].offset - 4, 1), [0xe8]);
    }
    // The worker's own frames are below it, down to where the thread began.
    let program = std::env::current_exe().unwrap();
    let program = program.file_name().unwrap().to_string_lossy();
    let mut below = frames.iter().filter_map(|frame| frame.module.as_deref());
    assert!(below.clone().any(|module| module.starts_with(&program[..8])), "{frames:?}");
    assert_eq!(below.next_back(), Some("libc.so.6"), "{frames:?}");
}

pub(crate) async fn a_call_of_nothing_is_told_by_its_caller() {
    let death = crash("null call").await;
    let record = record(&death);
    assert_eq!((record.signal, record.address), (libc::SIGSEGV, Some(0)));
    assert_eq!(record.frames[0], Frame { module: None, offset: 0 });
    assert_eq!(functions(&HONEST, &record.frames), ["call_nothing", "crash", "call"]);
}

pub(crate) async fn an_abort_is_told_with_the_frame_that_gave_up() {
    let death = crash("abort").await;
    let record = record(&death);
    assert_eq!(record.frames[0].module.as_deref(), Some("libc.so.6"));
    assert_eq!(functions(&HONEST, &record.frames), ["give_up", "crash", "call"]);
    let own = record.frames.iter().find(|frame| frame.module.as_deref() == Some("specimen")).unwrap();
    let words = death.to_string();
    assert!(words.contains("signal 6 (SIGABRT) while it ran call crash, in thread call-"), "{words}");
    assert!(words.ends_with(&format!(", called from {own}")), "{words}");
}

pub(crate) async fn a_rust_plugin_that_aborts_at_a_panic_leaves_a_record() {
    let image = rusty_with(&["-C", "panic=abort"]);
    let worker = LAUNCHER.launch(&image, spec()).await.unwrap();
    worker.create(Bytes::new()).await.unwrap();
    worker.activate().await.unwrap();
    let said = worker.call("work", Bytes::from_static(b"panic"), PATIENCE).await;
    assert!(matches!(said, Err(CallError::Died { .. })), "{said:?}");
    let death = worker.ended().await;
    let record = record(&death);
    assert_eq!(record.signal, libc::SIGABRT);
    let functions = functions(&image, &record.frames);
    assert!(functions.iter().any(|name| name.contains("call")), "{functions:?}");
    assert!(death.log_tail.contains("on purpose, and nothing catches it"), "{}", death.log_tail);
}

pub(crate) async fn a_stack_overflow_of_a_call_leaves_a_record() {
    let death = crash("overflow").await;
    let record = record(&death);
    assert_eq!((record.signal, record.frames.len()), (libc::SIGSEGV, 64));
    assert!(functions(&HONEST, &record.frames).iter().all(|name| name == "overflow"), "{record:?}");
    assert!(death.log_tail.ends_with("crash: 32 more frames\n"), "{}", death.log_tail);
}

pub(crate) async fn every_thread_that_runs_the_plugin_has_room_for_the_handler() {
    let worker = active().await;
    for _ in 0..8 {
        let room = ask(&worker, "crash", "room").await;
        assert!(room.parse::<u64>().unwrap() >= 64 * 1024, "{room} bytes");
    }
}

pub(crate) async fn a_crash_while_loading_and_in_a_control_function_leaves_a_record() {
    let image = specimen(&["ON_LOAD=touch_nothing()"]);
    let error = LAUNCHER.launch(&image, spec()).await.unwrap_err();
    assert_eq!(error.code(), "LOAD_CRASHED");
    let LoadError::Crashed(death) = &error else { panic!("{error:?}") };
    assert_eq!(functions(&image, &record(death).frames), ["touch_nothing", "on_load"]);
    assert_eq!(record(death).thread, "fs-specimen");
    assert!(error.log_tail().contains("crash: SIGSEGV (MAPERR at 0x10)"), "{}", error.log_tail());

    let image = specimen(&["ON_CREATE=overflow((char[]){0})"]);
    let worker = LAUNCHER.launch(&image, spec()).await.unwrap();
    assert!(worker.create(Bytes::new()).await.is_err());
    assert_eq!(functions(&image, &record(&*worker.ended().await).frames)[0], "overflow");

    let image = specimen(&["ON_HEALTH=touch_nothing()"]);
    let worker = LAUNCHER.launch(&image, spec()).await.unwrap();
    worker.create(Bytes::new()).await.unwrap();
    assert!(worker.health(PATIENCE).await.is_err());
    let death = worker.ended().await;
    assert_eq!(functions(&image, &record(&death).frames), ["touch_nothing", "health"]);
    assert_eq!(record(&death).thread, "health");
}

pub(crate) async fn a_crash_in_a_thread_of_the_plugin_names_it() {
    let death = crash("thread").await;
    let record = record(&death);
    assert_eq!(functions(&HONEST, &record.frames), ["touch_nothing", "crash_there"]);
    // A thread has the name of the one that started it, until it takes another.
    assert!(is_call_thread(&record.thread), "{record:?}");
    let named = specimen(&["ON_ACTIVATE=prctl(PR_SET_NAME,\"my \\001own\");touch_nothing()"]);
    let worker = LAUNCHER.launch(&named, spec()).await.unwrap();
    worker.create(Bytes::new()).await.unwrap();
    worker.activate().await.unwrap_err();
    assert_eq!(worker.ended().await.crash.as_ref().unwrap().thread, "my ?own");
}

/// There the handler has no stack to run on: the kernel ends the worker, as it should.
pub(crate) async fn a_thread_of_the_plugin_that_overflows_its_stack_ends_the_worker() {
    let death = crash("thread overflow").await;
    assert_eq!(death.cause, Cause::Signal(libc::SIGSEGV));
    assert_eq!(death.crash, None);
}

pub(crate) async fn a_stack_that_can_not_be_walked_ends_the_worker_with_the_head_of_a_record() {
    let death = crash("lost stack").await;
    assert!(matches!(death.cause, Cause::Signal(libc::SIGILL | libc::SIGSEGV)), "{death}");
    let record = record(&death);
    assert_eq!(record.signal, libc::SIGILL);
    let functions = functions(&HONEST, &record.frames);
    assert!(functions.is_empty() || functions == ["lose_the_stack"], "{record:?}");
}

pub(crate) async fn many_threads_that_crash_at_once_leave_one_record() {
    for _ in 0..5 {
        let death = crash("twice").await;
        assert_eq!(death.cause, Cause::Signal(libc::SIGSEGV));
        assert_eq!(functions(&HONEST, &record(&death).frames), ["touch_nothing", "crash_there"]);
        assert_eq!(death.log_tail.matches("crash: SIGSEGV").count(), 1, "{}", death.log_tail);
    }
}

pub(crate) async fn a_plugin_that_handles_its_signals_itself_leaves_no_record() {
    let death = crash("own handler").await;
    assert_eq!((&death.cause, &death.crash), (&Cause::Exited(42), &None));
}

pub(crate) async fn a_record_without_a_crash_is_no_death() {
    let death = crash("lie and exit").await;
    assert_eq!((&death.cause, &death.crash), (&Cause::Exited(0), &None));
    assert!(!death.log_tail.contains("crash:"), "{}", death.log_tail);
}

/// A handler that hangs must not keep a worker that can't go on.
pub(crate) async fn a_worker_that_says_that_it_crashed_and_goes_on_is_ended() {
    let worker = active().await;
    let said = worker.call("crash", Bytes::from_static(b"lie"), PATIENCE).await;
    assert_eq!(said.as_deref(), Ok(&b"alive"[..]));
    let death = worker.ended().await;
    assert_eq!(death.cause, Cause::Signal(libc::SIGSEGV), "{death}");
}

pub(crate) async fn a_crash_behind_a_flood_of_lines_still_leaves_its_record() {
    let death = crash("flood").await;
    let flood = ["touch_nothing", "flood_and_fall", "crash", "call"];
    assert_eq!(functions(&HONEST, &record(&death).frames), flood);
    assert!(death.log_tail.contains("lines were dropped"), "the flood was none");
}

pub(crate) async fn a_record_reaches_the_log_of_the_worker() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let taken = Arc::clone(&lines);
    let log = LogSink::to(move |line| taken.lock().unwrap().push(line));
    let image = specimen(&["ON_CREATE=abort()"]);
    let worker = LAUNCHER.launch(&image, WorkerSpec { log, ..spec() }).await.unwrap();
    worker.create(Bytes::new()).await.unwrap_err();
    let death = worker.ended().await;
    let said = lines.lock().unwrap().clone();
    let crash: Vec<_> = said.iter().filter(|line| line.text.starts_with("crash: ")).collect();
    assert_eq!(crash.len(), record(&death).frames.len() + 1);
    assert!(crash.iter().all(|line| line.source == LogSource::Host), "{crash:?}");
    assert!(crash[0].text.ends_with(&format!("build id {}", build_id(&image))), "{crash:?}");
    assert!(launch(&[]).await.is_ok(), "the next worker is none the worse for it");
}
