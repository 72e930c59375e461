//! Views: derived state of one process, kept in a sled database under `views/<name>`.
//!
//! ```text
//! views/<name>/lock       held by the process that has the view open
//! views/<name>/closed     the clean-close mark: every file of sled with its length and CRC-32
//! views/<name>/sled/      sled's own files
//!
//!            mark and files agree           checkpoint fits the log
//!   open ───────────────────────► sled opens ─────────────────────► catch up ──► use ──► close: mark
//!     └── anything else ──► all files removed ──► fold the log from its oldest position ──┘
//! ```
//!
//! - A [`Projection`] folds the log's transactions in order; its state and the [`Checkpoint`] that it is
//!   complete to change in one batch.
//! - Nothing in a view is believed (E4). sled 0.34 was seen to reopen empty without an error after power
//!   cuts, to panic while opening, and to read a damaged file until the damaged place is asked for. So a
//!   view is used only if the last process closed it cleanly, synced every file, and each still has the
//!   bytes it had then; everything else means: made again, with progress. The mark is removed before
//!   sled opens the files, so that a killed process leaves none.
//! - Where the log's beginning was freed, a view that has to be made again begins later if its projection may, with the
//!   versions that events have; otherwise it is refused as `Behind`, and nothing is removed.
//! - One process at a time; a second gets `Conflict` with the holder's number.
//!
//! Knows the log only through [`Store`](crate::Store)'s public calls.

mod checkpoint;
mod files;
mod fold;
mod open;
mod projection;
mod streams;

pub use checkpoint::Checkpoint;
pub use open::{RebuildCause, View, ViewProgress};
pub use projection::{Projection, ViewWriter};
pub use streams::{StreamSummary, Streams};

use crate::Error;

/// Runs sled code that may panic on files it did not expect.
fn caught<T>(action: &str, call: impl FnOnce() -> sled::Result<T>) -> crate::Result<T> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Error::internal(format!(
            "a view's database cannot {action}; it is made again when next opened"
        ))
        .caused_by(error)),
        Err(_) => Err(Error::internal(format!(
            "a view's database gave up trying to {action}; it is made again when next opened"
        ))),
    }
}

#[cfg(test)]
mod tests;
