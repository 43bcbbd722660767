//! Real processes: harness, demo, ci and the tests that keep the promises.
