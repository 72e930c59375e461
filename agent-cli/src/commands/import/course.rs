//! [`Course`]: from lines to commits, N of them to a sync.
//!
//! Guarantees: what stands before a line that is refused, or before the one at which a stop was asked for,
//! is committed, and nothing of that line is; a resumed course begins behind the last line whose events are
//! in the log, or not at all. When a course has ended, its progress bar is gone.

use milepost_engine::frame::NewFrame;
use milepost_engine::{Durability, ErrorKind, Store};
use serde::Serialize;

use super::feed::{Feed, Stop};
use super::lines::{Lines, Mark};
use super::resume::InputKey;
use super::shape::Shape;
use crate::failure::{Failure, Outcome};
use crate::progress::Progress;

/// Bytes of gathered transactions that are committed without waiting for more lines.
const BATCH_BYTES: usize = 8 << 20;

/// Body bytes up to which a transaction fits the smallest segment whatever else its frame holds. A
/// larger one is committed alone, so that a refusal concerns its line and no other.
const SURELY_FITS: usize = 256 << 10;

/// What an import did.
#[derive(Default, Serialize)]
pub struct Imported {
    /// Lines of the input, those of an earlier run included.
    pub lines: u64,
    /// Transactions committed.
    pub transactions: u64,
    /// Events in them.
    pub events: u64,
    /// Lines that an earlier run had committed.
    pub resumed_after: u64,
    /// LSN of the last transaction committed.
    pub last_lsn: Option<u64>,
    /// A line was read, so that earlier runs are known.
    #[serde(skip)]
    pub begun: bool,
}

impl Imported {
    /// How many lines of the input are done by now, and when.
    pub fn of_input(&self, name: &str, resume: bool) -> String {
        if resume && !self.begun {
            return format!("no line of {name} was read, so what earlier runs did is not counted");
        }
        let before = match self.resumed_after {
            0 => String::new(),
            before => format!(
                ": {before} before, {} in this run",
                self.lines.saturating_sub(before)
            ),
        };
        let are = if self.lines == 1 { "is" } else { "are" };
        format!("{} of {name} {are} done{before}", count(self.lines, "line"))
    }
}

/// Transactions that wait for their common sync.
#[derive(Default)]
struct Batch {
    frames: Vec<NewFrame>,
    bytes: usize,
    events: u64,
}

/// An import under way.
pub struct Course<'a> {
    store: &'a Store,
    lines: Lines<Feed>,
    stop: Stop,
    shape: Shape,
    batch: Batch,
    batch_lines: usize,
    /// Lines whose events are committed or in the batch.
    gathered: u64,
    progress: Progress,
    done: Imported,
}

impl<'a> Course<'a> {
    /// Begins at the first line of the input called `name`; `size` in bytes, where it is known.
    pub fn new(
        store: &'a Store,
        (feed, name): (Feed, String),
        shape: Shape,
        batch_lines: u32,
        size: Option<u64>,
    ) -> Course<'a> {
        Course {
            store,
            stop: feed.stop(),
            lines: Lines::new(feed, name),
            shape,
            batch: Batch::default(),
            batch_lines: milepost_engine::width::u32_to_usize(batch_lines),
            gathered: 0,
            progress: Progress::bytes("import", size),
            done: Imported::default(),
        }
    }

    /// Imports until the input ends, a line is refused or a stop is asked for; what stands before that is
    /// committed. Returns what was done and how it ended: exit 1 with input, line and reason, or what the
    /// store refused.
    pub fn run(mut self, resume: bool) -> (Imported, Outcome) {
        let read = self.read_all(resume);
        let committed = self.commit();
        // A feeding program that the same key has stopped leaves half a line, which is no mistake of the input.
        let stopped = self.stop.is_asked() && (read.is_ok() || self.lines.is_cut());
        let outcome = match committed {
            Ok(()) if stopped => Err(self.stopped()),
            Ok(()) => read,
            Err(failure) => Err(failure),
        };
        (self.done, outcome)
    }

    fn stopped(&self) -> Failure {
        let (done, name) = (&self.done, self.lines.name());
        Failure::failed(if done.transactions + done.resumed_after == 0 {
            format!("stopped before another line of {name} was committed; run the same command again")
        } else {
            format!(
                "stopped; {} of {name} committed: run again with --resume to go on",
                count(done.lines, "line")
            )
        })
    }

    /// Goes to the next line; false at the end of the input, and when a stop is asked for. A last line that
    /// has no end is then left for another time, as it may be half of one.
    fn advance(&mut self) -> Outcome<bool> {
        if self.stop.is_asked() {
            return Ok(false);
        }
        let advanced = self.lines.advance();
        if self.stop.is_asked() && (advanced.is_err() || self.lines.is_cut()) {
            return Ok(false);
        }
        advanced
    }

    fn read_all(&mut self, resume: bool) -> Outcome {
        if !self.advance()? {
            return Ok(());
        }
        self.done.begun = true;
        let key = InputKey::new(self.lines.mark());
        let stopped = if resume {
            key.stopped_at(self.store, &self.lines)?
        } else {
            None
        };
        if let Some(stopped) = stopped {
            let there = self.skip_to(stopped)?;
            // Also when it was stopped on the way there: they are done.
            (self.gathered, self.done.resumed_after) = (stopped.lines, stopped.lines);
            if !there {
                return Ok(());
            }
            if !self.advance()? {
                return Ok(());
            }
        }
        loop {
            self.gather(&key)?;
            if !self.advance()? {
                return Ok(());
            }
        }
    }

    /// Goes forward to the line after which the earlier run stopped; false when a stop was asked for before.
    fn skip_to(&mut self, stopped: Mark) -> Outcome<bool> {
        loop {
            let mark = self.lines.mark();
            if mark.lines == stopped.lines {
                if mark.digest == stopped.digest {
                    self.gathered = mark.lines;
                    return Ok(true);
                }
                return Err(self.lines.refuse(
                    "differs at or before here from the input whose import was begun; nothing was imported",
                ));
            }
            self.progress.reach(self.lines.bytes());
            if !self.advance()? {
                if self.stop.is_asked() {
                    return Ok(false);
                }
                let lines = stopped.lines;
                return Err(self.lines.refuse(&format!(
                    "is the last one, and {lines} lines of this input were imported before; nothing was imported"
                )));
            }
        }
    }

    /// Adds the line to the batch, and commits the batch when it is full.
    fn gather(&mut self, key: &InputKey) -> Outcome {
        let mut alone = false;
        if !self.lines.is_blank() {
            let read = self.shape.read(self.lines.text()?);
            let mut transaction = read.map_err(|reason| self.lines.refuse(&reason))?;
            if transaction.event_count() > 0 {
                transaction.pin(key.record(self.lines.mark(), self.lines.name()));
                let (frame, _) = transaction.into_parts();
                if frame.body_len() > SURELY_FITS {
                    self.commit()?;
                    alone = true;
                }
                self.batch.bytes += frame.body_len();
                self.batch.events += u64::from(frame.event_count());
                self.batch.frames.push(frame);
            }
        }
        self.gathered = self.lines.mark().lines;
        if alone || self.batch.frames.len() >= self.batch_lines || self.batch.bytes >= BATCH_BYTES {
            self.commit()?;
        }
        Ok(())
    }

    fn commit(&mut self) -> Outcome {
        let batch = std::mem::take(&mut self.batch);
        if batch.frames.is_empty() {
            self.done.lines = self.gathered;
            return Ok(());
        }
        let lines = std::mem::replace(&mut self.gathered, self.done.lines);
        let appended = self.store.append_frames(batch.frames, Durability::Synced);
        let committed = appended.map_err(|error| match error.kind() {
            ErrorKind::Invalid => self.lines.refuse(&error.to_string()),
            // The first lines of the batch may be in the log all the same.
            _ => Failure::from(error).then(
                "then run again with --resume: it knows which lines are in the log, also those that are not counted here",
            ),
        })?;
        (self.gathered, self.done.lines) = (lines, lines);
        self.done.transactions += milepost_engine::width::to_u64(committed.len());
        self.done.events += batch.events;
        self.done.last_lsn = committed.last().map(|last| last.lsn.0);
        self.progress.reach(self.lines.bytes());
        Ok(())
    }
}

/// A number with what it counts: 1 line, 2 lines.
pub fn count(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}
