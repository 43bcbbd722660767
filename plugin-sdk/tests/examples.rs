//! What the example plugins promise to each other: which swap is compatible, and what state survives it.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use fleetswap_inspect::{Descriptor, Diff, compare};
use plugin_sdk::testing::{Driver, json};

/// The sources of the examples; their own unit tests run here too.
macro_rules! examples {
    ($($name:ident = $path:literal),* $(,)?) => { $(
        #[expect(unreachable_pub, reason = "the root of a library there, a module here")]
        #[path = $path]
        mod $name;
    )* };
}

examples! {
    clock_1_0_0 = "../examples/clock-1.0.0/src/lib.rs",
    clock_1_1_0 = "../examples/clock-1.1.0/src/lib.rs",
    clock_1_2_0 = "../examples/clock-1.2.0/src/lib.rs",
    clock_1_3_0 = "../examples/clock-1.3.0/src/lib.rs",
    counter_1_0_0 = "../examples/counter-1.0.0/src/lib.rs",
    counter_2_0_0 = "../examples/counter-2.0.0/src/lib.rs",
}

fn diff(old: &Driver, new: &Driver) -> Diff {
    let descriptor = |driver: &Driver| Descriptor::parse(driver.descriptor().to_string().as_bytes()).unwrap();
    compare(&descriptor(old), &descriptor(new))
}

#[test]
fn the_wrong_clock_looks_just_like_the_right_one() {
    let right = Driver::new::<clock_1_0_0::Clock>("").unwrap();
    let wrong = Driver::new::<clock_1_1_0::Clock>("").unwrap();
    assert!(diff(&right, &wrong).is_empty());
}

#[test]
fn the_friendlier_clock_is_compatible_and_the_one_that_lacks_a_field_is_not() {
    let first = Driver::new::<clock_1_0_0::Clock>("").unwrap();
    let friendly = Driver::new::<clock_1_2_0::Clock>("").unwrap();
    let lacking = Driver::new::<clock_1_3_0::Clock>("").unwrap();
    let change = diff(&first, &friendly);
    assert!(!change.is_empty() && !change.is_breaking(), "{change:?}");
    assert!(diff(&first, &lacking).is_breaking());
    assert!(diff(&friendly, &lacking).is_breaking());
}

#[test]
fn the_count_survives_the_way_to_2_0_0_and_back() {
    let before = Driver::new::<counter_1_0_0::Counter>("").unwrap();
    let upgraded = Driver::new::<counter_2_0_0::Counter>("").unwrap();
    let back = Driver::new::<counter_1_0_0::Counter>("").unwrap();
    assert!(!diff(&before, &upgraded).one_way());

    before.activate().unwrap();
    before.call("increment", json!({"by": 40})).unwrap();
    before.hand_over(&upgraded).unwrap();
    assert_eq!(upgraded.call("increment", json!({})).unwrap(), json!({"value": 41, "calls": 1}));
    upgraded.hand_over(&back).unwrap();
    assert_eq!(back.call("increment", json!({})).unwrap(), json!({"value": 42}));
}
