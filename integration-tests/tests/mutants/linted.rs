//! The lint over ten thousand mutants: it always answers, soon, and with little memory.

use std::{collections::BTreeMap, time::Duration};

use fleetswap_inspect::{Rules, lint};
use rustix::time::{ClockId, clock_gettime};

use crate::{
    allocations::peak_of,
    generator::{MUTANTS_PER_SEED, Mutable, Random, SEEDS},
    libraries,
};

/// All mutants together may take so many times what the library takes that they are mutants of.
const TOTAL_RATIO_MAX: u32 = 3;
/// One mutant may take so many times what its library takes on average.
const ONE_RATIO_MAX: u32 = 200;
/// Longest time is the shortest of so many tries: a try is disturbed by whatever else the machine does.
const TRIES: usize = 5;
/// A mutant may hold so many times the memory that its library takes to judge: most of that is the dynamic table.
const MEMORY_RATIO_MAX: usize = 32;

pub(crate) fn ten_thousand_mutants_are_judged_without_a_panic_or_much_work() {
    assert_eq!(SEEDS.len() * MUTANTS_PER_SEED, 10_000);
    let mut verdicts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut libraries: Vec<Mutable> = libraries::real().into_iter().map(Mutable::new).collect();
    for (seed, turn) in SEEDS.into_iter().zip(0..) {
        let kinds = libraries.len();
        judge(&mut libraries[turn % kinds], seed, &mut verdicts);
    }
    println!("verdicts: {verdicts:?}");
    assert_eq!(verdicts.values().sum::<usize>(), 10_000);
    assert!(verdicts["passes"] > 500, "mutants must reach the last rule: {verdicts:?}");
    assert!(verdicts.len() > 8, "mutants must break many rules: {verdicts:?}");
}

fn judge(library: &mut Mutable, seed: u64, verdicts: &mut BTreeMap<&str, usize>) {
    let mut random = Random::new(seed);
    let (mut clean, mut mutants) = (Duration::ZERO, Duration::ZERO);
    let (_, memory) = peak_of(|| lint(library.original(), &Rules::default()));
    let mut slowest = (Duration::ZERO, None);
    for _ in 0..MUTANTS_PER_SEED {
        clean += time(|| drop(lint(library.original(), &Rules::default())));
        let mutation = library.draw(&mut random);
        let (taken, verdict, peak) = library.with(&mutation, |mutant| {
            let mut verdict = None;
            let taken = time(|| verdict = Some(peak_of(|| lint(mutant, &Rules::default()))));
            let (verdict, peak) = verdict.unwrap();
            (taken, verdict.map_or_else(|error| error.code(), |_| "passes"), peak)
        });
        *verdicts.entry(verdict).or_default() += 1;
        assert!(peak <= memory * MEMORY_RATIO_MAX, "{verdict} took {peak} bytes, the library {memory}");
        mutants += taken;
        if taken > slowest.0 {
            slowest = (taken, Some(mutation));
        }
    }
    assert!(
        mutants <= clean * TOTAL_RATIO_MAX,
        "seed {seed}: the mutants took {mutants:?}, the library as often {clean:?}"
    );
    let average = clean / u32::try_from(MUTANTS_PER_SEED).unwrap();
    let again = |bytes: &[u8]| time(|| drop(lint(bytes, &Rules::default())));
    let slowest =
        library.with(&slowest.1.unwrap(), |mutant| (0..TRIES).map(|_| again(mutant)).min().unwrap());
    assert!(
        slowest <= average * ONE_RATIO_MAX,
        "seed {seed}: one mutant took {slowest:?}, its library {average:?}"
    );
}

/// Time of this thread on a processor: waiting for one doesn't count.
fn time(work: impl FnOnce()) -> Duration {
    let now = || {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(now.tv_sec.cast_unsigned(), u32::try_from(now.tv_nsec).unwrap())
    };
    let started = now();
    work();
    now() - started
}
