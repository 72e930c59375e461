//! [`LogScan`]: frames in log order up to what is durable (E2). `None` now may be `Some` later, so a
//! scan that waits is a tail.

use std::sync::Arc;
use std::time::Duration;

use crate::block::Block;
use crate::clock::Clock;
use crate::frame::FrameRef;
use crate::storage::Cell;
use crate::store::Orphans;
use crate::{Chain, Error, Lsn, Result, Store};

use super::control::{Control, LOOK_AGAIN, LOOK_WHEN_IDLE};
use super::segment::SegmentDir;
use super::walk::{BlockWalk, InPlace};

/// Frames of one log up to a shared word: what is under [`LogScan`] and the queue's reader.
pub(crate) struct FrameScan {
    control: Control,
    end: Cell,
    wake: Cell,
    walk: BlockWalk,
    /// Frames at or below this LSN are not given.
    after: Lsn,
    /// Where the next frame of the current block begins; `None` between blocks.
    inside: Option<Lsn>,
    /// Chain after the block of the frame or block given last. A block without frames behind it (a clean
    /// close) must not move it: it belongs to the position that is told to others.
    given: Option<Chain>,
    /// How long the next sleep of a wait may be: they grow while nothing comes.
    sleep: Duration,
}

impl FrameScan {
    /// Starts behind `after`.
    pub(crate) fn new(
        dir: &Arc<SegmentDir>,
        control: &Control,
        end: Cell,
        wake: Cell,
        after: Lsn,
    ) -> Result<Self> {
        let walk = BlockWalk::before(dir, after, control.lsn(end))?;
        Ok(FrameScan {
            control: control.clone(),
            end,
            wake,
            walk,
            after,
            inside: None,
            given: None,
            sleep: LOOK_AGAIN,
        })
    }

    pub(crate) fn next(&mut self) -> Result<Option<FrameRef<'_>>> {
        let (at, frame_end) = loop {
            let Some(at) = self.inside else {
                if !self.enter_block()? {
                    return Ok(None);
                }
                continue;
            };
            let Some(frame) = self.block()?.frame_from(at)? else {
                self.inside = None;
                continue;
            };
            let (at, end) = (frame.lsn(), frame.end());
            self.inside = Some(end);
            if at > self.after {
                break (at, end);
            }
        };
        self.after = at;
        self.give_chain();
        self.inside = Some(frame_end);
        self.block()?.frame_from(at)
    }

    pub(crate) fn next_block(&mut self) -> Result<Option<Block<'_>>> {
        if !self.enter_block()? {
            return Ok(None);
        }
        self.pass_block()
    }

    /// The next block that may have events of the stream of this hash; without one, everything up to
    /// [`FrameScan::reached`] was passed.
    fn next_block_of(&mut self, stream_hash: u64) -> Result<Option<Block<'_>>> {
        let end = self.control.lsn(self.end);
        if !self.walk.advance_to_stream(stream_hash, end)? {
            return Ok(None);
        }
        self.pass_block()
    }

    /// The block that was entered, all of it given at once.
    fn pass_block(&mut self) -> Result<Option<Block<'_>>> {
        self.inside = None;
        self.after = self.walk.at();
        self.give_chain();
        self.block().map(Some)
    }

    #[inline]
    fn give_chain(&mut self) {
        if let Some(chain) = self.walk.chain() {
            self.given = Some(chain);
        }
    }

    fn enter_block(&mut self) -> Result<bool> {
        if !self.walk.advance(self.control.lsn(self.end))? {
            return Ok(false);
        }
        self.inside = self.walk.first_frame_lsn();
        Ok(true)
    }

    fn block(&self) -> Result<Block<'_>> {
        self.walk
            .block()
            .ok_or_else(|| Error::internal("a scan lost its block").at_lsn(self.walk.at()))
    }

    pub(crate) fn position(&self) -> Lsn {
        self.after
    }

    /// The frame given last, and the first LSNs of its segment and block.
    pub(crate) fn given_last(&self) -> Result<(FrameRef<'_>, (Lsn, Lsn))> {
        let block = self.block()?;
        let place = (self.walk.segment_first(), block.header().lsn);
        Ok((block.frame_known_at(self.after)?, place))
    }

    pub(crate) fn reached(&self) -> Lsn {
        self.walk.at()
    }

    pub(crate) fn chain(&self) -> Chain {
        self.given.or_else(|| self.walk.chain()).unwrap_or_default()
    }

    pub(crate) fn wait(&mut self, clock: &dyn Clock, limit: Duration) -> Result<bool> {
        let started = clock.monotonic();
        let cells = self.control.cells();
        loop {
            let seen = cells.load(self.wake);
            if self.inside.is_some() || self.control.lsn(self.end) > self.walk.at() {
                self.sleep = LOOK_AGAIN;
                return Ok(true);
            }
            let waited = clock.monotonic().saturating_sub(started);
            let Some(left) = limit.checked_sub(waited).filter(|left| !left.is_zero()) else {
                return Ok(false);
            };
            cells.wait(self.wake, seen, left.min(self.sleep));
            self.sleep = self.sleep.saturating_mul(2).min(LOOK_WHEN_IDLE);
        }
    }
}

/// Reads frames in log order up to what is durable. `None` now may be `Some` later: wait with
/// [`LogScan::wait`], then go on. Every block is verified before its first frame is given.
///
/// ```
/// use std::time::Duration;
/// use milepost_engine::{Lsn, Options, Transaction};
/// # let dir = tempfile::tempdir().unwrap();
/// # let store = Options::new().init(dir.path().join("s"), "bern".parse()?)?;
/// let mut sale = Transaction::new();
/// sale.push_parts("till-3", "sold", b"17")?;
/// store.commit(sale)?.committed()?;
///
/// let mut tail = store.scan(Lsn::ZERO)?;         // from the beginning; a later start is any LSN seen before
/// let mut seen = Vec::new();
/// while seen.is_empty() && tail.wait(Duration::from_secs(10))? {
///     while let Some(frame) = tail.next()? {     // events, and what agents note for each other
///         for event in frame.events() {
///             let event = event?;
///             seen.push(format!("{} {}", event.stream()?, event.kind()?));
///         }
///     }
/// }
/// assert_eq!(seen, ["till-3 sold"]);
/// # Ok::<(), milepost_engine::Error>(())
/// ```
pub struct LogScan {
    frames: FrameScan,
    store: Store,
}

impl LogScan {
    pub(crate) fn new(store: &Store, after: Lsn) -> Result<LogScan> {
        let log = store.log();
        let end = log.control.appended();
        if after > end {
            return Err(Error::invalid(format!(
                "the log ends at {end} and has no position {after}: what was seen there was lost before it was \
                 durable, or belongs to another store; start at an earlier one"
            ))
            .at_path(store.root())
            .at_lsn(after));
        }
        let frames = FrameScan::new(&log.dir, &log.control, Cell::Durable, Cell::WakeDurable, after)?;
        Ok(LogScan {
            frames,
            store: store.clone(),
        })
    }

    /// The next frame above the position, or `None` at the durable end.
    ///
    /// # Errors
    /// `Corrupt` with segment, offset and LSN when damage is met (E3); `Behind` when retention has
    /// overtaken the scan.
    #[expect(
        clippy::should_implement_trait,
        reason = "a frame borrows from the scan that gives it"
    )]
    pub fn next(&mut self) -> Result<Option<FrameRef<'_>>> {
        self.frames.next()
    }

    /// The next block, or `None` at the durable end. On the first call its first frames may lie at or
    /// below the position that the scan was started with; mixed with [`LogScan::next`], the rest of a
    /// block that `next` has entered is passed over.
    ///
    /// # Errors
    /// As [`LogScan::next`].
    pub fn next_block(&mut self) -> Result<Option<Block<'_>>> {
        self.frames.next_block()
    }

    /// The next block that may have events of the stream of this hash, or `None` at the durable end.
    pub(super) fn next_block_of(&mut self, stream_hash: u64) -> Result<Option<Block<'_>>> {
        self.frames.next_block_of(stream_hash)
    }

    /// The block given last.
    ///
    /// # Errors
    /// `Internal` before the first, and behind the end.
    pub fn block(&self) -> Result<Block<'_>> {
        self.frames.block()
    }

    /// Where the block given last stands, from where its bytes can be shared.
    #[must_use]
    pub fn in_place(&self) -> InPlace<'_> {
        self.frames.walk.in_place()
    }

    /// LSN of the last frame given, or where the scan began.
    #[must_use]
    pub fn position(&self) -> Lsn {
        self.frames.position()
    }

    /// End of the block that was entered last.
    #[must_use]
    pub fn reached(&self) -> Lsn {
        self.frames.reached()
    }

    /// Chain after the block of the last frame given.
    #[must_use]
    pub fn chain(&self) -> Chain {
        self.frames.chain()
    }

    /// Waits until more is durable than was given, or `limit`; true when there is more. What a dead
    /// process left buffered is synced on the way.
    ///
    /// # Errors
    /// `Closed` when that sync failed or the handle is dead.
    pub fn wait(&mut self, limit: Duration) -> Result<bool> {
        let clock = Arc::clone(self.store.clock());
        let (started, mut orphans) = (clock.monotonic(), Orphans::watch(&self.store));
        loop {
            let left = limit.saturating_sub(clock.monotonic().saturating_sub(started));
            if self.frames.wait(
                &*clock,
                left.min(Orphans::pause(&self.store).max(self.frames.sleep)),
            )? {
                return Ok(true);
            }
            orphans.look(&self.store)?;
            if clock.monotonic().saturating_sub(started) >= limit {
                return self.frames.wait(&*clock, Duration::ZERO);
            }
        }
    }
}
