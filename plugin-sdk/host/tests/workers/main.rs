//! Real workers, good and bad. This program is also the worker, so it has a `main` of its own instead of the
//! usual test harness.
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking; clippy knows only those of the usual harness"
)]

mod agents;
mod calls;
mod crashes;
mod deaths;
mod levels;
mod life;
mod loading;
mod masks;
mod plugin;
mod prison;

use std::{future::Future, panic::AssertUnwindSafe, pin::Pin, process::ExitCode, time::Instant};

/// A test with its name.
type Test = (&'static str, fn() -> Pin<Box<dyn Future<Output = ()>>>);

/// Lists tests as modules and their functions.
macro_rules! tests {
    ($($module:ident: $($name:ident),+;)+) => {
        const TESTS: &[Test] = &[$($((
            concat!(stringify!($module), "::", stringify!($name)),
            || Box::pin($module::$name()),
        ),)+)+];
    };
}

tests! {
    loading: a_good_plugin_loads_and_says_what_it_is,
        a_line_of_a_constructor_reaches_the_log,
        bytes_that_are_no_library_are_refused_in_the_loaders_words,
        a_library_that_was_not_preloaded_is_missed_in_the_loaders_words,
        a_system_library_that_is_too_old_is_the_hosts_lack,
        a_library_without_the_entry_point_is_refused,
        another_abi_and_no_table_are_refused,
        a_descriptor_that_is_none_is_refused,
        a_descriptor_other_than_the_signed_one_is_refused,
        a_constructor_that_crashes_is_a_crash_of_the_release,
        a_constructor_that_does_not_end_runs_out_of_time,
        a_host_too_slow_to_lock_a_worker_in_blames_itself,
        a_constructor_that_eats_memory_is_ended_for_it,
        a_constructor_that_claims_a_lack_of_the_host_is_blamed_itself,
        a_launch_that_nobody_waits_for_leaves_nothing;
    calls: a_call_answers_and_many_run_at_once,
        the_plugins_answers_reach_the_caller_as_what_they_are,
        a_call_past_its_deadline_is_told_so_and_its_late_reply_is_dropped,
        a_call_that_is_too_late_when_its_turn_comes_is_not_executed,
        a_call_whose_deadline_passes_behind_a_control_function_is_not_executed,
        an_instance_that_is_null_is_an_error_of_create,
        words_of_health_have_the_bound_that_the_header_names,
        bodies_of_a_mebibyte_pass_and_larger_ones_do_not,
        the_matrix_is_enforced,
        health_answers_while_all_call_threads_are_busy,
        a_state_of_64_mib_goes_out_and_in_again,
        a_state_beyond_its_bound_is_refused,
        log_lines_carry_their_source,
        a_flood_of_lines_is_bounded,
        a_storm_of_calls_is_answered_one_by_one;
    deaths: each_way_to_die_is_told_from_the_others,
        a_fault_signal_from_outside_ends_the_worker_at_once,
        a_death_says_which_calls_the_worker_had_seen,
        a_death_in_create_or_health_is_seen,
        a_worker_that_breaks_the_protocol_is_ended,
        a_worker_with_too_much_memory_is_ended,
        a_worker_with_too_many_threads_is_ended,
        a_worker_whose_main_thread_ended_is_ended,
        calls_after_a_death_know_that_they_were_not_written;
    crashes: each_deadly_signal_leaves_a_record,
        the_frames_of_a_crash_are_those_of_the_library,
        a_call_of_nothing_is_told_by_its_caller,
        an_abort_is_told_with_the_frame_that_gave_up,
        a_rust_plugin_that_aborts_at_a_panic_leaves_a_record,
        a_stack_overflow_of_a_call_leaves_a_record,
        every_thread_that_runs_the_plugin_has_room_for_the_handler,
        a_crash_while_loading_and_in_a_control_function_leaves_a_record,
        a_crash_in_a_thread_of_the_plugin_names_it,
        a_thread_of_the_plugin_that_overflows_its_stack_ends_the_worker,
        a_stack_that_can_not_be_walked_ends_the_worker_with_the_head_of_a_record,
        many_threads_that_crash_at_once_leave_one_record,
        a_plugin_that_handles_its_signals_itself_leaves_no_record,
        a_record_without_a_crash_is_no_death,
        a_worker_that_says_that_it_crashed_and_goes_on_is_ended,
        a_crash_behind_a_flood_of_lines_still_leaves_its_record,
        a_record_reaches_the_log_of_the_worker;
    prison: what_is_forbidden_is_refused,
        neither_the_host_nor_another_worker_can_be_looked_into,
        a_worker_leaves_no_core_dump,
        a_files_metadata_is_seen_only_where_the_c_library_can_not_do_without_the_call,
        old_ways_to_call_the_kernel_end_the_worker,
        what_an_honest_plugin_needs_works,
        a_rust_plugin_works,
        a_worker_has_five_descriptors_and_no_environment,
        what_a_plugin_may_need_is_loaded_before_it,
        every_thread_of_a_worker_yields_to_its_host;
    levels: every_level_of_this_host_holds_and_lets_honest_plugins_work,
        memory_that_was_written_becomes_code_at_no_strict_level,
        an_older_kernel_gives_standard_and_says_what_strict_lacks,
        without_landlock_a_host_refuses_until_its_operator_lowers_the_level,
        without_a_filter_no_level_is_reached;
    life: closing_runs_destroy_and_ends_the_process,
        a_worker_that_hangs_in_destroy_is_killed,
        signals_to_the_whole_service_are_the_hosts_to_handle,
        dropping_the_last_handle_ends_the_worker,
        a_worker_ends_with_its_socket,
        fifty_launches_leave_no_descriptor_and_no_zombie,
        two_releases_in_turn_are_each_themselves,
        a_runtime_that_ends_takes_its_workers_along,
        a_worker_outlives_the_threads_of_an_idle_runtime,
        a_worker_is_the_child_of_the_one_thread_that_starts_them;
    agents: workers_die_with_a_host_that_is_killed,
        a_worker_of_an_ordinary_user_is_locked_in_as_well,
        a_host_out_of_threads_does_not_blame_the_release,
        a_worker_gets_no_more_descriptors_than_its_host,
        another_build_is_told_apart_before_anything_else,
        a_worker_whose_host_is_not_its_parent_ends,
        a_worker_whose_host_says_nothing_ends_with_the_socket;
}

fn main() -> ExitCode {
    fleetswap_host::run_worker_if_asked();
    if agents::run_if_asked() || levels::run_if_asked() {
        plugin::clean_up();
        return ExitCode::SUCCESS;
    }
    let wanted = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let (mut passed, mut failed) = (0, 0);
    for (name, test) in TESTS.iter().filter(|(name, _)| name.contains(&wanted)) {
        let started = Instant::now();
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| run(*test)));
        let word = if result.is_ok() { "ok" } else { "FAILED" };
        println!("test {name} ... {word} ({} ms)", started.elapsed().as_millis());
        if result.is_ok() { passed += 1 } else { failed += 1 }
    }
    plugin::clean_up();
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(test: fn() -> Pin<Box<dyn Future<Output = ()>>>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(test());
}
