//! [`SimCells`]: the shared words of a control page, as one simulated process sees them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use milepost_engine::storage::{Cell, SharedCells};

use super::director::OpKind;
use super::process::{SimProcess, lock};

/// One page. A killed process goes on in a world of its own: what it stores after its death it sees itself,
/// so that its own assertions hold on its way out, and nobody else does.
pub(super) struct SimCells {
    process: SimProcess,
    page: u64,
    after_death: Mutex<BTreeMap<Cell, u64>>,
}

impl SimCells {
    pub(super) fn new(process: SimProcess, page: u64) -> SimCells {
        SimCells {
            process,
            page,
            after_death: Mutex::default(),
        }
    }

    /// Uses a word while the process lives.
    fn word<T>(
        &self,
        kind: OpKind,
        cell: Cell,
        value: u64,
        use_word: impl FnOnce(&mut u64) -> T,
    ) -> Option<T> {
        // Who waits for it looks again after a while whatever it holds: no state of its own, and no step.
        if cell == Cell::WakeAgents {
            return None;
        }
        let name = format!("{cell:?}");
        let mut machine = self.process.whole(kind, &name, 0, value).ok()?;
        machine.word(self.page, cell).map(use_word)
    }

    /// The same for a killed one.
    fn last_words<T>(&self, cell: Cell, use_word: impl FnOnce(&mut u64) -> T) -> T {
        let left = self.process.machine().word(self.page, cell).copied();
        use_word(lock(&self.after_death).entry(cell).or_insert(left.unwrap_or(0)))
    }
}

fn exchange(word: &mut u64, current: u64, new: u64) -> Result<u64, u64> {
    if *word != current {
        return Err(*word);
    }
    *word = new;
    Ok(current)
}

impl SharedCells for SimCells {
    fn load(&self, cell: Cell) -> u64 {
        let seen = self.word(OpKind::CellLoad, cell, 0, |word| *word);
        seen.unwrap_or_else(|| self.last_words(cell, |word| *word))
    }

    fn store(&self, cell: Cell, value: u64) {
        let stored = self.word(OpKind::CellStore, cell, value, |word| *word = value);
        stored.unwrap_or_else(|| self.last_words(cell, |word| *word = value));
    }

    fn compare_exchange(&self, cell: Cell, current: u64, new: u64) -> Result<u64, u64> {
        let exchanged = self.word(OpKind::CellExchange, cell, new, |word| {
            exchange(word, current, new)
        });
        exchanged.unwrap_or_else(|| self.last_words(cell, |word| exchange(word, current, new)))
    }

    fn wait(&self, cell: Cell, seen: u64, limit: Duration) {
        if self.load(cell) == seen {
            self.process.pause(limit, true);
        }
    }

    fn wake(&self, cell: Cell) {
        self.word(OpKind::CellWake, cell, 0, |_| ());
    }
}
