//! Mutants: a library with a few bytes changed, mostly where the loader looks. A seed always gives the same one.

use std::ops::Range;

/// The fixed seeds of `cargo ci`, and how many mutants each gives. Together ten thousand.
pub(crate) const SEEDS: [u64; 8] = [1, 20_261_124, 0x5eed, 0xe1f, 0xbad, 4_096, 77, 0xffff_ffff];
/// Mutants of each seed.
pub(crate) const MUTANTS_PER_SEED: usize = 1_250;

/// Most changes of one mutant.
const CHANGES_MAX: usize = 4;
/// One in so many mutants is cut short.
const CUT_ONE_IN: usize = 24;
/// Values that break arithmetic.
const INTERESTING: [u64; 12] =
    [0, 1, 7, 0x7f, 0x80, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 40, 1 << 63, u64::MAX];

/// Bytes that become a mutant and back again; copying a large library each time would take longer than judging it.
pub(crate) struct Mutable {
    bytes: Vec<u8>,
    places: Vec<Range<usize>>,
}

/// What makes a mutant of a library.
#[derive(Clone, Debug)]
pub(crate) struct Mutation {
    changes: Vec<(usize, Vec<u8>)>,
    length: usize,
}

impl Mutable {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        let places = places(&bytes);
        Self { bytes, places }
    }

    /// The library as it was built.
    pub(crate) fn original(&self) -> &[u8] {
        &self.bytes
    }

    /// Draws a mutation.
    pub(crate) fn draw(&self, random: &mut Random) -> Mutation {
        let changes = (0..=random.below(CHANGES_MAX)).filter_map(|_| self.change(random)).collect();
        let is_cut = random.below(CUT_ONE_IN) == 0;
        let length = if is_cut { self.somewhere(random) } else { self.bytes.len() };
        Mutation { changes, length }
    }

    /// Looks at a mutant, and takes its changes back.
    pub(crate) fn with<T>(&mut self, mutation: &Mutation, look: impl FnOnce(&[u8]) -> T) -> T {
        let mut undo = Vec::new();
        for (at, new) in &mutation.changes {
            let place = &mut self.bytes[*at..at + new.len()];
            undo.push((*at, place.to_vec()));
            place.copy_from_slice(new);
        }
        let seen = look(&self.bytes[..mutation.length]);
        for (at, old) in undo.into_iter().rev() {
            self.bytes[at..at + old.len()].copy_from_slice(&old);
        }
        seen
    }

    fn somewhere(&self, random: &mut Random) -> usize {
        let place = &self.places[random.below(self.places.len())];
        place.start + random.below(place.len())
    }

    fn change(&self, random: &mut Random) -> Option<(usize, Vec<u8>)> {
        let at = self.somewhere(random);
        let old = |width: usize| self.bytes.get(at..at + width);
        match random.below(4) {
            0 => Some((at, vec![self.bytes[at] ^ (1 << random.below(8))])),
            1 => Some((at, vec![random.byte()])),
            2 => {
                let width = [1, 2, 4, 8][random.below(4)];
                let at = at - at % width;
                let value = INTERESTING[random.below(INTERESTING.len())].to_le_bytes();
                old(width).map(|_| (at, value[..width].to_vec()))
            }
            // A field that holds what another one holds.
            _ => {
                let width = [2, 4, 8, 16][random.below(4)];
                let from = self.somewhere(random);
                let other = self.bytes.get(from..from + width)?.to_vec();
                old(width).map(|_| (at, other))
            }
        }
    }
}

/// File header, program headers, dynamic table, notes, symbols, names, hashes, versions, relocations, and the whole.
fn places(bytes: &[u8]) -> Vec<Range<usize>> {
    const DYNAMIC: u64 = 2;
    const NOTE: u64 = 4;
    /// DT_HASH, DT_STRTAB, DT_SYMTAB, DT_RELA, DT_JMPREL, DT_INIT_ARRAY, DT_GNU_HASH, DT_VERSYM, DT_VERNEED.
    const TABLES: [u64; 9] = [4, 5, 6, 7, 23, 25, 0x6fff_fef5, 0x6fff_fff0, 0x6fff_fffe];
    /// So much of a table is aimed at.
    const TABLE: usize = 512;
    let (at, count) = (number(bytes, 32, 8), number(bytes, 56, 2));
    let headers = at..at + count * 56;
    let mut places = vec![0..64, headers.clone(), headers.clone()];
    for header in headers.step_by(56) {
        let start = number(bytes, header + 8, 8);
        let segment = start..start + number(bytes, header + 32, 8);
        match number(bytes, header, 4) as u64 {
            DYNAMIC => {
                let tables = segment.clone().step_by(16).filter(|at| TABLES.contains(&eight(bytes, *at)));
                // In the first segment an address is a place in the file.
                let tables = tables.map(|at| number(bytes, at + 8, 8)).filter(|at| at + TABLE < bytes.len());
                places.extend(tables.map(|at| at..at + TABLE));
                places.extend([segment.clone(), segment]);
            }
            NOTE => places.push(segment),
            _ => {}
        }
    }
    places.push(0..bytes.len());
    places.retain(|place| !place.is_empty() && place.end <= bytes.len());
    places
}

fn eight(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn number(bytes: &[u8], at: usize, width: usize) -> usize {
    let mut value = [0; 8];
    value[..width].copy_from_slice(&bytes[at..at + width]);
    usize::try_from(u64::from_le_bytes(value)).unwrap()
}

/// A linear congruential generator with Knuth's constants.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }
}
