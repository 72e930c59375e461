//! `milepost export`: transactions as JSON, one a line, in log order.

use std::collections::HashMap;

use clap::Args;
use milepost_engine::frame::{EventRef, FrameKind, FrameRef};
use milepost_engine::{Beginning, Lsn, Result, SiteName, Store, StreamPattern};

use super::store_dir::StoreDir;
use crate::arguments::start::{self, Start};
use crate::failure::{EXIT_CODES, Outcome};
use crate::output::Out;
use crate::progress::Progress;
use crate::record::{EventLine, OriginLine, TransactionLine};

/// Print committed transactions as JSON, one a line, in log order, up to what is durable now.
///
/// {"lsn","origin":{"site","epoch","lsn"},"time","events":[{"ordinal","stream","version","kind",
/// "headers","payload"}]}. A local commit is its own origin; time is when it was first committed, at its
/// origin, in microseconds since 1970; epoch is hexadecimal. A payload that is one JSON text without line
/// breaks or outer blanks stands as it is, down to its last digit; every other payload stands as
/// {"base64":"…"}, and so does a payload that is itself an object with the only member base64.
/// `milepost import` reverses this byte for byte.
#[derive(Args)]
#[command(after_long_help = format!(
    "Examples:\n  milepost export shop --streams 'orders/**' > orders.ndjson\n  \
     milepost export hq --origin shop1 --from 81920\n\n{EXIT_CODES}"
))]
pub struct Export {
    #[command(flatten)]
    store: StoreDir,
    /// Only events of these streams (* one segment, ** any number); transactions without any are left out
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    streams: Vec<StreamPattern>,
    /// Only transactions from this LSN on, which the log must still have and not end before; oldest: wherever it begins. Without it, all that the
    /// log has, with a warning when that is not all that ever was
    #[arg(long, value_name = "LSN", value_parser = start::parse)]
    from: Option<Start>,
    /// Only transactions that were first committed at this site
    #[arg(long, value_name = "SITE")]
    origin: Option<SiteName>,
    /// Accepted for uniformity: lines are always JSON
    #[arg(long)]
    json: bool,
}

impl Export {
    /// Prints the lines.
    pub fn run(self) -> Outcome {
        let store = self.store.open()?;
        let beginning = store.beginning()?;
        let start = beginning.lsn();
        match self.from {
            Some(from) => from.refuse_behind(start)?,
            None => {
                if let Some(text) = Start::At(Lsn::ZERO).behind(start) {
                    tracing::warn!("{text}, where the export begins");
                }
            }
        }
        let end = store.watermarks().durable;
        if let Some(from) = self.from {
            from.refuse_beyond(end)?;
        }
        let mut progress = Progress::bytes("export", Some(end.since(start)));
        let mut versions = Versions::new(beginning);
        let mut out = Out::new();
        let mut scan = store.scan(start)?;
        while let Some(frame) = scan.next()? {
            if frame.lsn() >= end {
                break;
            }
            if frame.kind() == FrameKind::TRANSACTION {
                let line = self.line(&store, &frame, &mut versions)?;
                if !line.events.is_empty() {
                    out.json(&line)?;
                }
                progress.reach(frame.lsn().since(start));
            }
        }
        out.flush()
    }

    /// The transaction with the events that are asked for, and none when it is not asked for itself.
    /// Every event is counted, because versions are numbers in the whole stream.
    fn line<'a>(
        &self,
        store: &'a Store,
        frame: &FrameRef<'a>,
        versions: &mut Versions,
    ) -> Outcome<TransactionLine<'a>> {
        let origin = OriginLine::of(frame, store)?;
        let asked = self.from.is_none_or(|from| frame.lsn() >= from.lsn())
            && self
                .origin
                .as_ref()
                .is_none_or(|site| site.as_str() == origin.site);
        let mut events = Vec::new();
        for event in frame.events() {
            let event = event?;
            let version = versions.next(&event)?;
            if asked && self.selects(&event)? {
                events.push(EventLine::of(&event, version)?);
            }
        }
        Ok(TransactionLine {
            lsn: frame.lsn().0,
            origin,
            time: frame.committed_at()?,
            events,
        })
    }

    fn selects(&self, event: &EventRef<'_>) -> Result<bool> {
        let stream = event.stream()?;
        Ok(self.streams.is_empty() || self.streams.iter().any(|pattern| pattern.matches(stream)))
    }
}

fn pattern(text: &str) -> Result<StreamPattern> {
    StreamPattern::new(text)
}

/// Counts streams' events on a walk from where the log begins.
struct Versions {
    beginning: Beginning,
    next: HashMap<Box<str>, u64>,
}

impl Versions {
    fn new(beginning: Beginning) -> Versions {
        Versions {
            beginning,
            next: HashMap::new(),
        }
    }

    fn next(&mut self, event: &EventRef<'_>) -> Result<u64> {
        let stream = event.stream()?;
        if let Some(next) = self.next.get_mut(stream) {
            let version = *next;
            *next += 1;
            return Ok(version);
        }
        let version = self.beginning.stream_start(stream)?.0;
        self.next.insert(stream.into(), version + 1);
        Ok(version)
    }
}
