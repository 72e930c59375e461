//! `milepost import`: a file of transactions, one a line.
//!
//! ```text
//! input ─► lines (numbered, bounded, digested) ─► shape (line → transaction) ─► append_frames, N at a time
//!                                                     └ pinned record: lines so far (resume)
//! ```
//!
//! A line is committed whole or not at all. One that cannot be read stops the import with file, line
//! and reason; the lines before it are committed.

mod lines;
mod resume;
mod shape;

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use clap::Args;
use milepost_engine::frame::NewFrame;
use milepost_engine::{Durability, Store};
use serde::Serialize;

pub use self::lines::Lines;
use self::lines::Mark;
use self::resume::InputKey;
use self::shape::Shape;
use super::store_dir::StoreDir;
use crate::failure::{EXIT_CODES, Failure, Outcome};
use crate::output;
use crate::progress::Progress;

/// Bytes of gathered transactions that are committed without waiting for more lines.
const BATCH_BYTES: usize = 8 << 20;

/// Commit a file of transactions, one a line.
///
/// With --stream-field, a line is an object with a list of objects (--events-field). Each of them
/// becomes an event in the stream that its field names, and its JSON, exactly as it stands in the line,
/// becomes the payload. Without --stream-field, lines are those of `milepost export`; they become
/// commits of this store, so lsn, origin, time, ordinal and version of the line are not taken over.
///
/// One line is one transaction, committed whole or not at all; a line without events commits nothing,
/// and blank lines are skipped. A line that cannot be read stops the import with file, line and reason:
/// the lines before it are committed, nothing of it is. Mend the line and run again with --resume, which
/// goes on after the last committed line and refuses another file.
#[derive(Args)]
#[command(after_long_help = format!(
    "Examples:\n  milepost import shop --input history.ndjson --stream-field path --kind changed\n  \
     milepost export old | milepost import new --input -\n\n{EXIT_CODES}"
))]
pub struct Import {
    #[command(flatten)]
    store: StoreDir,
    /// File to read; - is standard input
    #[arg(long, value_name = "FILE|-")]
    input: String,
    /// Field of each event that names its stream
    #[arg(long, value_name = "FIELD")]
    stream_field: Option<String>,
    /// Field of the line that holds its events
    #[arg(long, value_name = "FIELD", default_value = "events", requires = "stream_field")]
    events_field: String,
    /// Kind of the events
    #[arg(long, value_name = "K", default_value = "imported", requires = "stream_field")]
    kind: String,
    /// Lines that share one sync; each is still a transaction of its own
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    batch_lines: u32,
    /// Go on after the last line that was committed
    #[arg(long)]
    resume: bool,
    /// Print the facts as one JSON object: lines, transactions, events, resumed_after, last_lsn
    #[arg(long)]
    json: bool,
}

/// What an import did.
#[derive(Default, Serialize)]
struct Imported {
    /// Lines of the input, those of an earlier run included.
    lines: u64,
    transactions: u64,
    events: u64,
    /// Lines that an earlier run had committed.
    resumed_after: u64,
    last_lsn: Option<u64>,
}

impl Import {
    /// Reads and commits.
    pub fn run(self) -> Outcome {
        let store = self.store.open()?;
        let (input, name, size): (Box<dyn BufRead>, _, _) = if self.input == "-" {
            (Box::new(io::stdin().lock()), "standard input".to_owned(), None)
        } else {
            let path = Path::new(&self.input);
            let file = File::open(path).map_err(|error| Failure::file("open", path, &error))?;
            let size = file.metadata().map_err(|error| Failure::file("read", path, &error))?.len();
            (Box::new(BufReader::with_capacity(256 << 10, file)), self.input.clone(), Some(size))
        };
        let mut course = Course {
            store: &store,
            lines: Lines::new(input, name),
            shape: self.shape(),
            batch: Batch::default(),
            batch_lines: usize::try_from(self.batch_lines).unwrap_or(usize::MAX),
            progress: Progress::bytes("import", size),
            done: Imported::default(),
        };
        let outcome = course.run(self.resume);
        let Course { lines, done, .. } = course;
        let name = lines.name();
        let text = format_args!(
            "imported {} transactions with {} events; {} lines of {name} are done",
            done.transactions, done.events, done.lines
        );
        output::tell(self.json, &done, text)?;
        store.close()?;
        outcome
    }

    fn shape(&self) -> Shape {
        match &self.stream_field {
            None => Shape::Exported,
            Some(field) => Shape::History {
                events_field: self.events_field.clone(),
                stream_field: field.clone(),
                kind: self.kind.clone(),
            },
        }
    }
}

/// Transactions that wait for their common sync.
#[derive(Default)]
struct Batch {
    frames: Vec<NewFrame>,
    bytes: usize,
    events: u64,
}

struct Course<'a> {
    store: &'a Store,
    lines: Lines<Box<dyn BufRead>>,
    shape: Shape,
    batch: Batch,
    batch_lines: usize,
    progress: Progress,
    done: Imported,
}

impl Course<'_> {
    /// Imports until the input ends or a line is refused; what stands before that line is committed.
    fn run(&mut self, resume: bool) -> Outcome {
        let outcome = self.read_all(resume);
        self.commit()?;
        outcome
    }

    fn read_all(&mut self, resume: bool) -> Outcome {
        if !self.lines.advance()? {
            return Ok(());
        }
        let key = InputKey::new(self.lines.mark());
        let stopped = if resume { key.stopped_at(self.store, &self.lines)? } else { None };
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
                    self.done.lines = mark.lines;
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
        if !self.lines.is_blank() {
            let read = self.shape.read(self.lines.text()?);
            let mut transaction = read.map_err(|reason| self.lines.refuse(&reason))?;
            if transaction.event_count() > 0 {
                transaction.pin(key.record(self.lines.mark(), self.lines.name()));
                let (frame, _) = transaction.into_parts();
                self.batch.bytes += frame.body_len();
                self.batch.events += u64::from(frame.event_count());
                self.batch.frames.push(frame);
            }
        }
        if self.batch.frames.len() >= self.batch_lines || self.batch.bytes >= BATCH_BYTES {
            self.commit()?;
        }
        self.done.lines = self.lines.mark().lines;
        Ok(())
    }

    fn commit(&mut self) -> Outcome {
        let batch = std::mem::take(&mut self.batch);
        if batch.frames.is_empty() {
            return Ok(());
        }
        let committed = self.store.append_frames(batch.frames, Durability::Synced)?;
        self.done.transactions += milepost_engine::width::to_u64(committed.len());
        self.done.events += batch.events;
        self.done.last_lsn = committed.last().map(|last| last.lsn.0);
        self.progress.reach(self.lines.bytes());
        Ok(())
    }
}
