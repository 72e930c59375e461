//! [`QueueEntries`]: the queue as the send phase reads it: once in order, to note what is in it, and
//! then entry by entry, wherever a remote's stream leads.

use milepost_engine::{Error, Lsn, QueueReader, Result, Store};

use crate::scan::Entry;

/// Entries that a reader steps over rather than be opened anew.
const STEPS_MAX: usize = 64;

/// Reads entries of the queue.
pub struct QueueEntries {
    store: Store,
    follower: QueueReader,
    reader: Option<QueueReader>,
}

impl QueueEntries {
    /// The queue from its oldest entry on.
    ///
    /// # Errors
    /// `Corrupt` for a damaged queue.
    pub fn open(store: &Store) -> Result<QueueEntries> {
        Ok(QueueEntries {
            store: store.clone(),
            follower: store.queue_reader(Lsn::ZERO)?,
            reader: None,
        })
    }

    /// Shows `note` every entry that was not shown before, with its place in the queue.
    ///
    /// # Errors
    /// `Corrupt` for a damaged queue.
    pub fn follow(&mut self, mut note: impl FnMut(&Entry<'_>, Lsn)) -> Result<()> {
        while let Some(frame) = self.follower.next()? {
            if let Some(entry) = Entry::read(&frame)? {
                note(&entry, frame.lsn());
            }
        }
        Ok(())
    }

    /// Reads the entry at a place in the queue.
    ///
    /// # Errors
    /// `Corrupt` when no entry begins there; what `read` returns.
    pub fn read<T>(&mut self, at: Lsn, read: impl FnOnce(&Entry<'_>) -> Result<T>) -> Result<T> {
        let missing = || Error::corrupt("the stable queue lost an entry that it had").at_lsn(at);
        let behind = self.reader.take().filter(|reader| reader.position() < at);
        let mut reader = match behind {
            Some(reader) => reader,
            None => self.store.queue_reader(Lsn(at.0.saturating_sub(1)))?,
        };
        let mut steps = 0;
        loop {
            let found = reader.next()?.ok_or_else(missing)?;
            if found.lsn() == at {
                let value = Entry::read(&found)?
                    .ok_or_else(missing)
                    .and_then(|entry| read(&entry));
                self.reader = Some(reader);
                return value;
            }
            if found.lsn() > at {
                return Err(missing());
            }
            steps += 1;
            if steps == STEPS_MAX {
                reader = self.store.queue_reader(Lsn(at.0.saturating_sub(1)))?;
            }
        }
    }

    /// Forgets where the last entry was read: segments before the next one may be gone, and a reader that
    /// stands in one of them could not walk on.
    pub fn forget_place(&mut self) {
        self.reader = None;
    }

    /// Waits until there is more to follow, or `limit`; true when there is.
    ///
    /// # Errors
    /// `Corrupt` for a damaged queue.
    pub fn wait(&mut self, limit: std::time::Duration) -> Result<bool> {
        self.follower.wait(limit)
    }
}
