//! Keeping the memory busy while a log is walked: what is needed next is asked for before it is needed. A body is
//! checked as fast as it comes in, and the memory would be idle while its events are visited; it brings in the next
//! block meanwhile (docs/performance.md has the figures).
//!
//! ```text
//! checked:  | page, checked | page, asked for | ...      the processor itself asks no further than the end of a page
//! visited:  | event | event | ... | end of the block | asked for with the last page | asked for with the events |
//! ```
//!
//! Hints, all of it: nothing is read here, and whatever stands there is verified when its turn comes.

use crate::Lsn;
use crate::storage::{CACHE_LINE, prefetch};
use crate::width::u32_to_usize;

use super::BlockHeader;

/// Bytes that are checked at a time, while as many behind them are asked for.
const PAGE: usize = 4096;
/// Larger bodies are checked at once: over so long a stretch the processor's own guesses are better.
const MOST_IN_PAGES: usize = 96 << 10;
/// Events shorter than this go with one line of the next block, others with two.
const SHORT: usize = 2 * CACHE_LINE;

/// CRC-32 of a body.
pub(super) fn checksum(body: &[u8]) -> u32 {
    if !is_checked_in_pages(body.len()) {
        return crc32fast::hash(body);
    }
    let mut hasher = crc32fast::Hasher::new();
    for page in body.chunks(PAGE) {
        prefetch(page, PAGE, PAGE);
        hasher.update(page);
    }
    hasher.finalize()
}

const fn is_checked_in_pages(body_len: usize) -> bool {
    PAGE < body_len && body_len <= MOST_IN_PAGES
}

/// What is asked for with each event that is visited.
#[derive(Clone, Copy, Default)]
pub(crate) struct Ahead {
    /// Distance to it from the next event; 0 for nothing.
    distance: usize,
}

impl Ahead {
    /// For events that begin at `at` in a block.
    #[inline]
    pub(crate) fn of(block: &BlockHeader, at: Lsn) -> Ahead {
        let passed = usize::try_from(at.since(block.lsn)).unwrap_or_default();
        let left = u32_to_usize(block.block_len).saturating_sub(passed);
        let asked_for = if is_checked_in_pages(u32_to_usize(block.body_len)) {
            PAGE
        } else {
            0
        };
        // How many events were passed is not known here; of middle-sized ones so much was asked for.
        Ahead {
            distance: left + asked_for + passed / 4 * 3,
        }
    }

    /// Asks for what goes with this event, and passes it.
    #[inline]
    pub(crate) fn visit(&mut self, event: &[u8]) {
        if self.distance == 0 {
            return;
        }
        prefetch(event, self.distance, 1);
        let mut asked_for = CACHE_LINE;
        if event.len() >= SHORT {
            prefetch(event, self.distance + CACHE_LINE, 1);
            asked_for += CACHE_LINE;
        }
        self.distance = (self.distance + asked_for).saturating_sub(event.len());
    }
}
