//! Advisory locks on single bytes of the file `store`, and who holds them, as text.
//!
//! ```text
//! byte 2^40      presence   shared by every open handle, exclusive while recovering
//! byte 2^40 + 1  append     held for one write
//! byte 2^40 + 2  receive    held while the phase runs; 3 scan, 4 send
//! byte 2^40 + 5  space      held while what is kept is said, and while segments are freed
//! byte 2^40 + 6  arrange    held by who gives sealed segments another form, and while segments are freed
//! ```
//!
//! The kernel drops them with the holder (E5). They lie far behind the file's contents, so that they
//! conflict with nothing.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::storage::{Cell, LockMode, StorageFile};
use crate::{Error, Result};

use super::control::{Control, LOOK_AGAIN};

const BASE: u64 = 1 << 40;
/// Presence of an open handle.
pub(crate) const PRESENCE: u64 = BASE;
/// Right to append.
pub(crate) const APPEND: u64 = BASE + 1;
/// First of the phases' locks.
pub(crate) const FIRST_PHASE: u64 = BASE + 2;
/// Right to say what the log keeps.
pub(crate) const SPACE: u64 = BASE + 5;
/// Right to give sealed segments another form.
pub(crate) const ARRANGE: u64 = BASE + 6;

/// The append lock, taken. Dropping gives it back.
pub(crate) struct AppendLock<'a> {
    file: &'a Arc<dyn StorageFile>,
    control: &'a Control,
}

impl<'a> AppendLock<'a> {
    /// Takes the append lock; at most one thread of a handle calls this at a time.
    ///
    /// # Errors
    /// `Unavailable` naming the last holder when `limit` passes.
    pub(crate) fn take(
        file: &'a Arc<dyn StorageFile>,
        control: &'a Control,
        clock: &dyn Clock,
        limit: Duration,
        process: u32,
    ) -> Result<AppendLock<'a>> {
        let cells = control.cells();
        let started = clock.monotonic();
        let try_once = || -> Result<bool> {
            let taken = file.try_lock(APPEND, LockMode::Exclusive);
            taken.map_err(|error| Error::internal("cannot take the append lock").caused_by(error))
        };
        loop {
            let seen = cells.load(Cell::WakeAppend);
            // Asked again after saying so: a holder that left in between woke nobody.
            let taken = try_once()? || {
                cells.store(Cell::AppendWaiters, 1);
                try_once()?
            };
            if taken {
                cells.store(Cell::AppendHolder, u64::from(process));
                cells.store(Cell::AppendSince, u64::try_from(clock.wall_micros()).unwrap_or(0));
                return Ok(AppendLock { file, control });
            }
            if clock.monotonic().saturating_sub(started) > limit {
                return Err(stalled(control, limit));
            }
            cells.wait(Cell::WakeAppend, seen, LOOK_AGAIN);
        }
    }
}

fn stalled(control: &Control, limit: Duration) -> Error {
    let (holder, since) = (
        control.cells().load(Cell::AppendHolder),
        control.cells().load(Cell::AppendSince),
    );
    let since = i64::try_from(since)
        .ok()
        .and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok());
    let since = since.map_or_else(String::new, |since| format!(" since {since}"));
    // Between taking the lock and writing its number here a holder has no name yet.
    let holder = match holder {
        0 => "a process that has not told its number".to_owned(),
        holder => format!("process {holder} (the last to have told its number), holding it{since}"),
    };
    Error::unavailable(format!(
        "the append lock was not free within {limit:?}: {holder} is stalled or stopped; \
         nothing was written: let that process go on or end it, then try again"
    ))
}

impl Drop for AppendLock<'_> {
    fn drop(&mut self) {
        // A failure leaves the lock to the end of the process; others then get Unavailable.
        if let Err(error) = self.file.unlock(APPEND) {
            tracing::warn!(%error, "cannot give the append lock back");
        }
        // Who began to wait between the two words looks again after LOOK_AGAIN.
        if self.control.cells().load(Cell::AppendWaiters) != 0 {
            self.control.cells().store(Cell::AppendWaiters, 0);
            self.control.bump(Cell::WakeAppend);
        }
    }
}
