//! [`QueueEntries`]: the queue as the send phase reads it: once in order, to note what is in it, and
//! then entry by entry, wherever a remote's stream leads.

use milepost_engine::{Error, InPlace, Lsn, QueueLookup, QueuePlace, QueueReader, Result, Store};

use crate::scan::Entry;

/// Reads entries of the queue.
pub struct QueueEntries {
    follower: QueueReader,
    lookup: QueueLookup,
}

impl QueueEntries {
    /// The queue from its oldest entry on.
    ///
    /// # Errors
    /// `Corrupt` for a damaged queue.
    pub fn open(store: &Store) -> Result<QueueEntries> {
        Ok(QueueEntries {
            follower: store.queue_reader(Lsn::ZERO)?,
            lookup: store.queue_lookup(),
        })
    }

    /// Shows `note` every entry that was not shown before, with its place in the queue.
    ///
    /// # Errors
    /// `Corrupt` for a damaged queue.
    pub fn follow(&mut self, mut note: impl FnMut(&Entry<'_>, QueuePlace)) -> Result<()> {
        while let Some((frame, place)) = self.follower.next_with_place()? {
            if let Some(entry) = Entry::read(&frame)? {
                note(&entry, place);
            }
        }
        Ok(())
    }

    /// Reads the entry at a place in the queue, from where its bytes can be shared.
    ///
    /// # Errors
    /// `Corrupt` when no entry begins there; what `read` returns.
    pub fn read<T>(
        &mut self,
        at: QueuePlace,
        read: impl FnOnce(&Entry<'_>, InPlace<'_>) -> Result<T>,
    ) -> Result<T> {
        let missing = || Error::corrupt("the stable queue lost an entry that it had").at_lsn(at.lsn);
        self.lookup.read(at, |frame, place| {
            read(&Entry::read(frame)?.ok_or_else(missing)?, place)
        })
    }

    /// Lets go of where the last entry was read: its segment may be gone.
    pub fn forget_place(&mut self) {
        self.lookup.forget();
    }

    /// Waits until there is more to follow, or `limit`; true when there is.
    ///
    /// # Errors
    /// `Corrupt` for a damaged queue.
    pub fn wait(&mut self, limit: std::time::Duration) -> Result<bool> {
        self.follower.wait(limit)
    }
}
