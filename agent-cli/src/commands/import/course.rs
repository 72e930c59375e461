//! [`Course`]: from lines to commits, N of them to a sync.
//!
//! Guarantees: what stands before a line that is refused is committed, and nothing of that line is; a
//! resumed course begins behind the last line whose events are in the log, or not at all.

use std::io::BufRead;

use milepost_engine::frame::NewFrame;
use milepost_engine::{Durability, ErrorKind, Store};
use serde::Serialize;

use super::lines::{Lines, Mark};
use super::resume::InputKey;
use super::shape::Shape;
use crate::failure::Outcome;
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
    lines: Lines<Box<dyn BufRead>>,
    shape: Shape,
    batch: Batch,
    batch_lines: usize,
    /// Lines whose events are committed or in the batch.
    gathered: u64,
    progress: Progress,
    done: Imported,
}

impl<'a> Course<'a> {
    /// Begins at the first line; `size` of the input in bytes, where it is known.
    pub fn new(
        store: &'a Store,
        lines: Lines<Box<dyn BufRead>>,
        shape: Shape,
        batch_lines: u32,
        size: Option<u64>,
    ) -> Course<'a> {
        Course {
            store,
            lines,
            shape,
            batch: Batch::default(),
            batch_lines: milepost_engine::width::u32_to_usize(batch_lines),
            gathered: 0,
            progress: Progress::bytes("import", size),
            done: Imported::default(),
        }
    }

    /// Imports until the input ends or a line is refused; what stands before that line is committed.
    ///
    /// # Errors
    /// Exit 1 with input, line and reason, or what the store refused.
    pub fn run(&mut self, resume: bool) -> Outcome {
        let outcome = self.read_all(resume);
        self.commit()?;
        outcome
    }

    /// What was done, and what the input is called.
    pub fn done(&self) -> (&Imported, &str) {
        (&self.done, self.lines.name())
    }

    fn read_all(&mut self, resume: bool) -> Outcome {
        if !self.lines.advance()? {
            return Ok(());
        }
        let key = InputKey::new(self.lines.mark());
        let stopped = if resume {
            key.stopped_at(self.store, &self.lines)?
        } else {
            None
        };
        if let Some(stopped) = stopped {
            self.skip_to(stopped)?;
            self.done.resumed_after = stopped.lines;
            if !self.lines.advance()? {
                return Ok(());
            }
        }
        loop {
            self.gather(&key)?;
            if !self.lines.advance()? {
                return Ok(());
            }
        }
    }

    /// Goes forward to the line after which the earlier run stopped.
    fn skip_to(&mut self, stopped: Mark) -> Outcome {
        loop {
            let mark = self.lines.mark();
            if mark.lines == stopped.lines {
                if mark.digest == stopped.digest {
                    self.gathered = mark.lines;
                    return Ok(());
                }
                return Err(self.lines.refuse(
                    "differs at or before here from the input whose import was begun; nothing was imported",
                ));
            }
            self.progress.reach(self.lines.bytes());
            if !self.lines.advance()? {
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
            _ => error.into(),
        })?;
        (self.gathered, self.done.lines) = (lines, lines);
        self.done.transactions += milepost_engine::width::to_u64(committed.len());
        self.done.events += batch.events;
        self.done.last_lsn = committed.last().map(|last| last.lsn.0);
        self.progress.reach(self.lines.bytes());
        Ok(())
    }
}
