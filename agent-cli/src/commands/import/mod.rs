//! `milepost import`: a file of transactions, one a line.
//!
//! ```text
//! input ─► lines (numbered, bounded, digested) ─► shape (line → transaction) ─► append_frames, N at a time
//!                                                     └ pinned record: lines so far (resume)
//! ```
//!
//! A line is committed whole or not at all. One that cannot be read stops the import with file, line
//! and reason; the lines before it are committed.

mod course;
mod lines;
mod resume;
mod shape;

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use clap::Args;

use self::course::Course;
pub use self::lines::Lines;
use self::shape::Shape;
use super::store_dir::StoreDir;
use crate::failure::{EXIT_CODES, Failure, Outcome};
use crate::output;

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
    #[arg(
        long,
        value_name = "FIELD",
        default_value = "events",
        requires = "stream_field"
    )]
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

impl Import {
    /// Reads and commits.
    pub fn run(self) -> Outcome {
        let store = self.store.open()?;
        let (input, name, size): (Box<dyn BufRead>, _, _) = if self.input == "-" {
            (Box::new(io::stdin().lock()), "standard input".to_owned(), None)
        } else {
            let path = Path::new(&self.input);
            let file = File::open(path).map_err(|error| Failure::file("open", path, &error))?;
            let size = file
                .metadata()
                .map_err(|error| Failure::file("read", path, &error))?
                .len();
            (
                Box::new(BufReader::with_capacity(256 << 10, file)),
                self.input.clone(),
                Some(size),
            )
        };
        let lines = Lines::new(input, name);
        let mut course = Course::new(&store, lines, self.shape(), self.batch_lines, size);
        let outcome = course.run(self.resume);
        let (done, name) = course.done();
        let text = format_args!(
            "imported {} transactions with {} events; {} lines of {name} are done",
            done.transactions, done.events, done.lines
        );
        output::tell(self.json, done, text)?;
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
