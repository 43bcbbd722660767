//! Rings: the last lines of each plugin, bounded for each and for all together.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::Kept;

/// Most lines kept of one plugin.
pub(crate) const LINES_MAX: usize = 1_000;
/// Most bytes kept of one plugin.
pub(super) const BYTES_MAX: usize = 256 * 1024;
/// Most bytes kept of all plugins. Beyond that the plugin that has most loses its oldest lines.
pub(super) const TOTAL_MAX: usize = 16 * 1024 * 1024;
/// Bytes that a line counts beside its text.
const LINE_COST: usize = 128;
/// Most plugins of which lines are kept; beyond that the one that was silent longest is forgotten.
pub(super) const PLUGINS_MAX: usize = 1_024;

/// The lines of all plugins.
#[derive(Debug, Default)]
pub(super) struct Rings {
    rings: BTreeMap<String, Ring>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<Arc<Kept>>,
    bytes: usize,
}

impl Rings {
    pub(super) fn push(&mut self, plugin: &str, line: Arc<Kept>) {
        if self.rings.len() >= PLUGINS_MAX && !self.rings.contains_key(plugin) {
            self.forget_the_silent();
        }
        let ring = self.rings.entry(plugin.to_owned()).or_default();
        let before = ring.bytes;
        ring.push(line);
        self.bytes = self.bytes + ring.bytes - before;
        while self.bytes > TOTAL_MAX {
            let Some(largest) = self.rings.values_mut().max_by_key(|ring| ring.bytes) else { return };
            self.bytes -= largest.pop();
        }
    }

    /// The last `count` lines of a plugin, oldest first; None if none ever came.
    pub(super) fn last(&self, plugin: &str, count: usize) -> Option<Vec<Arc<Kept>>> {
        let lines = &self.rings.get(plugin)?.lines;
        Some(lines.iter().skip(lines.len().saturating_sub(count)).cloned().collect())
    }

    fn forget_the_silent(&mut self) {
        let last = |ring: &Ring| ring.lines.back().map_or(0, |line| line.unix_ms);
        let silent = self.rings.iter().min_by_key(|(_, ring)| last(ring)).map(|(plugin, _)| plugin.clone());
        if let Some(ring) = silent.and_then(|silent| self.rings.remove(&silent)) {
            self.bytes -= ring.bytes;
        }
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize) {
        let bytes = self.rings.values().flat_map(|ring| &ring.lines).map(|line| cost(line)).sum();
        assert_eq!(self.bytes, bytes, "the count is right");
        (self.rings.len(), bytes)
    }
}

impl Ring {
    fn push(&mut self, line: Arc<Kept>) {
        self.bytes += cost(&line);
        self.lines.push_back(line);
        while self.lines.len() > LINES_MAX || self.bytes > BYTES_MAX {
            self.pop();
        }
    }

    /// Drops the oldest line, and returns what it counted.
    fn pop(&mut self) -> usize {
        let bytes = self.lines.pop_front().map_or(0, |line| cost(&line));
        self.bytes -= bytes;
        bytes
    }
}

fn cost(line: &Kept) -> usize {
    LINE_COST + line.text.len()
}
