//! [`Beginning`]: where the log begins and with which version each stream does, as of one moment. Whoever numbers
//! events on a walk needs both from the same moment: another process may free meanwhile.

use crate::index::Base;
use crate::{Lsn, Position, Result, Store, StreamVersion};

/// Where the log began when it was asked for. It stays what it is when more is freed later: a walk from there is then
/// told `Behind`, or goes on with files that it has open.
pub struct Beginning {
    base: Option<Base>,
}

impl Beginning {
    /// The oldest position that was retained; what is scanned after it is complete.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.base.as_ref().map_or(Lsn::ZERO, Base::end)
    }

    /// Whether a position stands right before it: nothing that was freed came after.
    pub(crate) fn follows(&self, position: &Position) -> bool {
        let base = self.base.as_ref();
        base.is_some_and(|base| position.lsn < base.end() && position.chain == base.end_chain())
    }

    /// Version of a stream's first event behind it, if there is one; 0 where nothing of the stream was freed.
    ///
    /// # Errors
    /// `Corrupt` when the base is damaged.
    pub fn stream_start(&self, stream: &str) -> Result<StreamVersion> {
        let freed = self.base.as_ref().map_or(Ok(0), |base| base.freed_of(stream));
        freed.map(StreamVersion)
    }
}

impl Store {
    /// Where the log begins at this moment, with what was freed before.
    ///
    /// # Errors
    /// `Corrupt` when the base is missing or damaged.
    pub fn beginning(&self) -> Result<Beginning> {
        self.shared().follow_freed()?;
        Ok(Beginning {
            base: self.shared().streams.index.base(),
        })
    }
}
