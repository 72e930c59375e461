//! `milepost read`: a stream's events, and those to come.

use std::time::Duration;

use clap::Args;
use milepost_engine::frame::FrameKind;
use milepost_engine::{RecordedEvent, Store, StreamName, StreamVersion};
use serde::Serialize;

use super::store_dir::StoreDir;
use crate::arguments::moment;
use crate::failure::{EXIT_CODES, Failure, Outcome};
use crate::output::{Out, shown};
use crate::payload::PayloadText;
use crate::record::{Headers, OriginLine};

const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Print the durable events of a stream in order.
///
/// Each with its version, LSN, time, kind and payload (in the form that `milepost export` describes).
/// With --follow the command goes on printing events as they become durable, until it is interrupted. A
/// stream without events exits 1, unless it is followed.
#[derive(Args)]
#[command(after_long_help = format!(
    "Examples:\n  milepost read shop orders/7\n  milepost read shop orders/7 --from 12 --follow --json\n\n{EXIT_CODES}"
))]
pub struct Read {
    #[command(flatten)]
    store: StoreDir,
    /// Stream to read
    stream: String,
    /// First version to print, counted from 0; without it, the first that the log still has
    #[arg(long, value_name = "VERSION")]
    from: Option<u64>,
    /// Go on with events as they come
    #[arg(long)]
    follow: bool,
    /// Print one JSON object a line: stream, version, lsn, ordinal, time, origin, kind, headers, payload
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct EventFacts<'a> {
    stream: &'a str,
    version: u64,
    lsn: u64,
    ordinal: u32,
    time: i64,
    origin: OriginLine<'a>,
    kind: &'a str,
    headers: Headers<'a>,
    payload: PayloadText<'a>,
}

impl Read {
    /// Prints the events.
    pub fn run(self) -> Outcome {
        StreamName::check(&self.stream).map_err(Failure::of_words)?;
        let store = self.store.open()?;
        let mut out = Out::new();
        let mut scan = store.scan(store.watermarks().durable)?;
        let start = match self.from {
            Some(from) => StreamVersion(from),
            None => store.stream_start(&self.stream)?,
        };
        let mut next = self.print_from(&store, start, &mut out)?;
        out.flush()?;
        if !self.follow {
            if next > start {
                return Ok(());
            }
            match store.stream_version(&self.stream)? {
                None => return Err(Failure::failed(format!("stream {} has no event", self.stream))),
                Some(last) if self.from.is_none() => {
                    return Err(Failure::failed(format!(
                        "all events of stream {} were freed; the next one will be version {}",
                        self.stream,
                        last.0 + 1
                    )));
                }
                Some(_) => {}
            }
            return Ok(());
        }
        loop {
            let mut touched = false;
            while let Some(frame) = scan.next()? {
                if frame.kind() == FrameKind::TRANSACTION {
                    for event in frame.events() {
                        touched |= event?.stream_bytes() == self.stream.as_bytes();
                    }
                }
            }
            if touched {
                next = self.print_from(&store, next, &mut out)?;
                out.flush()?;
            }
            scan.wait(LOOK_AGAIN)?;
        }
    }

    fn print_from(&self, store: &Store, from: StreamVersion, out: &mut Out) -> Outcome<StreamVersion> {
        let mut next = from;
        for event in store.read_stream(&self.stream, from)? {
            let event = event?;
            next = StreamVersion(event.version.0 + 1);
            if self.json {
                out.json(&facts(store, &event))?
            } else {
                print(&event, out)?
            }
        }
        Ok(next)
    }
}

fn facts<'a>(store: &'a Store, event: &'a RecordedEvent) -> EventFacts<'a> {
    let (site, epoch, lsn) = match &event.origin {
        Some(origin) => (origin.name.as_str(), origin.epoch, origin.lsn),
        None => (store.site().as_str(), store.epoch(), event.lsn),
    };
    EventFacts {
        stream: event.stream.as_str(),
        version: event.version.0,
        lsn: event.lsn.0,
        ordinal: event.ordinal,
        time: event.time,
        origin: OriginLine {
            site,
            epoch: epoch.to_string(),
            lsn: lsn.0,
        },
        kind: &event.kind,
        headers: Headers(
            event
                .headers
                .iter()
                .map(|(name, value)| (&**name, &**value))
                .collect(),
        ),
        payload: PayloadText::new(&event.payload),
    }
}

fn print(event: &RecordedEvent, out: &mut Out) -> Outcome {
    let origin = event
        .origin
        .as_ref()
        .map_or_else(String::new, |origin| format!("  from {}", origin.name));
    let headers: String = event
        .headers
        .iter()
        .map(|(name, value)| format!("  {}={}", shown(name), shown(value)))
        .collect();
    let payload = PayloadText::new(&event.payload);
    out.line(format_args!(
        "{:>6}  {}  LSN {}  {}{origin}{headers}\n        {}",
        event.version.0,
        moment::text(event.time),
        event.lsn,
        shown(&event.kind),
        payload.text()
    ))
}
