//! `milepost import`: a file of transactions, one a line.
//!
//! ```text
//! input ─► feed (a thread that reads) ─► lines (numbered, bounded, digested) ─► shape (line → transaction)
//!                                           └ time                                 │
//!          pinned record: lines so far (resume) ─► append_frames, N at a time ◄────┘
//! ```
//!
//! A line is committed whole or not at all. One that cannot be read stops the import with file, line
//! and reason, and so does a signal after the batch in hand; the lines before it are committed. One import
//! into a store runs at a time (lock). The formats are written down in docs/import.md.

mod course;
mod feed;
mod lines;
mod lock;
mod resume;
mod shape;
mod time;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use clap::Args;

use self::course::{Course, count};
use self::feed::Feed;
pub use self::lines::Lines;
use self::shape::{EventsAt, History, Shape};
use self::time::TimeUnit;
use super::store_dir::{StoreDir, close};
use crate::failure::{EXIT_CODES, Failure, Outcome};
use crate::output;

/// Commit a file of transactions, one a line.
///
/// Without --stream-field, lines are those of `milepost export`; they become commits of this store that
/// keep their time, while lsn, origin, ordinal and version of the line are not taken over.
///
/// One line is one transaction, committed whole or not at all; a line without events commits nothing,
/// and blank lines are skipped. A line that cannot be read stops the import with file, line and reason:
/// the lines before it are committed, nothing of it is. Mend the line and run again with --resume. SIGINT
/// (Ctrl-C), SIGTERM and SIGHUP stop it likewise: what was read is committed, and --resume goes on. One import into
/// a store runs at a time; another one exits 3.
#[derive(Args)]
#[command(after_long_help = format!(
    "Examples:\n  milepost import shop --input history.ndjson --stream-field path --kind changed\n  \
     milepost import shop --input orders.ndjson --flat --stream-field order.id \\\n    \
     --stream-prefix orders/ --time-field placed_at\n  \
     milepost export old | milepost import new --input -\n  \
     gunzip -c history.ndjson.gz | milepost import shop --stream-field path --input -\n\n{EXIT_CODES}"
))]
pub struct Import {
    #[command(flatten)]
    store: StoreDir,
    /// File to read; - is standard input
    ///
    /// One line is one transaction, committed whole or not at all; lines without events commit nothing. A line
    /// that cannot be read stops the import with file, line and reason: the lines before it are committed,
    /// nothing of it is. SIGINT (Ctrl-C), SIGTERM and SIGHUP stop it likewise. One import into a store runs at a
    /// time; another one exits 3.
    #[arg(long, value_name = "FILE|-")]
    input: String,
    /// Field of each event that names its stream; without it, lines are those of `milepost export`
    ///
    /// The line is an object with a list of objects (--events-field), or itself the only one (--flat). Each
    /// becomes an event whose payload is its JSON exactly as it stands in the line. A field's name with dots
    /// (order.id) is a member of that name, or else the way into nested objects. A number or a truth value
    /// names a stream as it stands. Lines of `milepost export` become commits of this store that keep their
    /// time; their lsn, origin, ordinal and version are not taken over.
    #[arg(long, value_name = "FIELD")]
    stream_field: Option<String>,
    /// What stands before that name in the stream's, such as orders/
    #[arg(
        long,
        value_name = "P",
        default_value = "",
        hide_default_value = true,
        requires = "stream_field"
    )]
    stream_prefix: String,
    /// Field of the line that holds its events
    #[arg(
        long,
        value_name = "FIELD",
        default_value = "events",
        requires = "stream_field"
    )]
    events_field: String,
    /// The line itself is the one event of its transaction
    #[arg(long, requires = "stream_field", conflicts_with = "events_field")]
    flat: bool,
    /// Field of the line that says when it was committed
    ///
    /// RFC 3339 text with a distance from UTC, a date (midnight UTC), or a whole number since 1970
    /// (--time-unit). A line without such a value is refused.
    #[arg(long, value_name = "FIELD", requires = "stream_field")]
    time_field: Option<String>,
    /// What a number there counts; without this it is microseconds, refused where it might be others
    #[arg(long, value_name = "UNIT", requires = "time_field")]
    time_unit: Option<TimeUnit>,
    /// Kind of the events
    #[arg(long, value_name = "K", default_value = "imported", requires = "stream_field")]
    kind: String,
    /// Lines that share one sync; each is still a transaction of its own
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    batch_lines: u32,
    /// Go on after the last line that was committed; another input is refused
    #[arg(long)]
    resume: bool,
    /// Print the facts as one JSON object: lines, transactions, events, resumed_after, last_lsn
    #[arg(long)]
    json: bool,
}

impl Import {
    /// Reads and commits.
    pub fn run(self) -> Outcome {
        let store = self.store.open_site()?;
        let _alone = lock::take(&store)?;
        let (input, name, size) = self.open()?;
        let input = (Feed::begin(input)?, name.clone());
        let (resume, json, batch_lines) = (self.resume, self.json, self.batch_lines);
        let course = Course::new(&store, input, self.shape(), batch_lines, size);
        let (done, outcome) = course.run(resume);
        let text = format_args!(
            "imported {} with {}; {}",
            count(done.transactions, "transaction"),
            count(done.events, "event"),
            done.of_input(&name, resume),
        );
        let told = output::tell(json, &done, text);
        let closed = close(store);
        // Why it ended is what the operator has to hear first.
        outcome.and(told)?;
        closed
    }

    /// The input with its name, and its size where that is known before it is read.
    fn open(&self) -> Outcome<(Box<dyn Read + Send>, String, Option<u64>)> {
        if self.input == "-" {
            return Ok((Box::new(io::stdin()), "standard input".to_owned(), None));
        }
        let path = Path::new(&self.input);
        let file = File::open(path).map_err(|error| Failure::file("open", path, &error))?;
        let metadata = file.metadata();
        let metadata = metadata.map_err(|error| Failure::file("read", path, &error))?;
        let size = metadata.is_file().then_some(metadata.len());
        Ok((Box::new(file), self.input.clone(), size))
    }

    fn shape(self) -> Shape {
        let Some(stream_field) = self.stream_field else {
            return Shape::Exported;
        };
        Shape::History(History {
            events: if self.flat {
                EventsAt::Line
            } else {
                EventsAt::List(self.events_field)
            },
            stream_field,
            stream_prefix: self.stream_prefix,
            time: self.time_field.map(|field| (field, self.time_unit)),
            kind: self.kind,
        })
    }
}
