//! `milepost quarantine show`: one case with its transactions.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use milepost_engine::{SiteName, Store, StoreId};
use milepost_replication::keys::{PairKeys, keys_of};
use milepost_replication::message::{Carried, Item, Limits, decode, decode_header};
use milepost_replication::quarantine::read_held;
use milepost_replication::receive::read_message;
use serde::Serialize;

use super::facts::Facts;
use super::{Case, find};
use crate::commands::store_dir::StoreDir;
use crate::failure::{EXIT_CODES, Failure, Outcome};
use crate::output::{self, Out};
use crate::payload::PayloadText;
use crate::record::Headers;

/// Show one of them with its events.
#[derive(Args)]
#[command(after_long_help = format!(
    "Examples:\n  milepost quarantine show shop 40960 --json\n  milepost quarantine show shop 40960 --raw held.bin\n\n{EXIT_CODES}"
))]
pub struct Show {
    #[command(flatten)]
    store: StoreDir,
    /// Its name in `quarantine list`
    id: String,
    /// Write its bytes to this new file too: a transaction as it stands in a message (docs/replication.md), or the message
    #[arg(long, value_name = "FILE")]
    raw: Option<PathBuf>,
    /// Print one JSON object: what `list` prints, and transactions with origin, time and events
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    facts: Facts,
    /// Why they cannot be read, if they cannot.
    unreadable: Option<String>,
    transactions: Vec<serde_json::Value>,
}

/// A transaction in quarantine.
#[derive(Serialize)]
struct TransactionLine<'a> {
    origin: OriginLine,
    time: i64,
    events: Vec<EventLine<'a>>,
}

#[derive(Serialize)]
struct OriginLine {
    site: String,
    epoch: String,
    lsn: u64,
}

#[derive(Serialize)]
struct EventLine<'a> {
    ordinal: u32,
    stream: &'a str,
    kind: &'a str,
    headers: Headers<'a>,
    payload: PayloadText<'a>,
}

impl Show {
    pub fn run(self) -> Outcome {
        let store = self.store.open_site()?;
        let case = find(&store, &self.id)?;
        let facts = Facts::of(&case, &store);
        let (bytes, carried, unreadable) = contents(&store, &case)?;
        if let Some(path) = &self.raw {
            let file = OpenOptions::new().write(true).create_new(true).open(path);
            let written = file.and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()));
            written.map_err(|error| Failure::file("write", path, &error))?;
        }
        let lines: Vec<TransactionLine<'_>> = carried
            .iter()
            .map(|(one, from)| line(one, from))
            .collect::<Outcome<_>>()?;
        if !self.json {
            return print(&facts, &lines, unreadable.as_deref());
        }
        let transactions = lines.iter().map(serde_json::to_value).collect::<Result<_, _>>();
        let shown = Shown {
            facts,
            unreadable,
            transactions: transactions.map_err(|error| Failure::failed(error.to_string()))?,
        };
        output::tell(true, &shown, format_args!(""))
    }
}

/// A transaction, and who brought it.
type Brought = (Carried, (SiteName, StoreId));

/// Its bytes, its transactions, and why there are none to read.
fn contents(store: &Store, case: &Case) -> Outcome<(Vec<u8>, Vec<Brought>, Option<String>)> {
    match case {
        Case::Transaction(one) => {
            let carried = read_held(store, one.id)?;
            let mut bytes = Vec::new();
            carried.encode(&mut bytes)?;
            let from = (one.remote.clone(), one.record.sender);
            Ok((bytes, vec![(carried, from)], None))
        }
        Case::Message(one) => {
            let bytes = read_message(store, &one.file)?;
            let (mut found, mut unreadable) = (Vec::new(), None);
            let limits = Limits::default();
            let keys = match decode_header(&bytes, &limits) {
                Ok(header) => keys_of(store, &header.from.name)?,
                Err(_) => PairKeys::default(),
            };
            match decode(&bytes, &limits, &keys) {
                Ok(message) => {
                    let from = message.header.from;
                    let from = (from.name, from.id.unwrap_or_default());
                    for item in message.items {
                        match item {
                            Item::Transaction(carried) => found.push((carried, from.clone())),
                            Item::Part(part) => {
                                unreadable = Some(format!(
                                    "it is a part of a transaction: {} bytes of {}, from {} on",
                                    part.piece.len(),
                                    part.total,
                                    part.offset
                                ));
                            }
                        }
                    }
                }
                Err(fault) => unreadable = Some(fault.to_string()),
            }
            Ok((bytes, found, unreadable))
        }
    }
}

fn line<'a>(carried: &'a Carried, (name, id): &(SiteName, StoreId)) -> Outcome<TransactionLine<'a>> {
    let origin = carried.origin_from(name, *id);
    let mut events = Vec::new();
    for event in carried.events() {
        let event = event?;
        events.push(EventLine {
            ordinal: event.ordinal,
            stream: event.stream()?,
            kind: event.kind()?,
            headers: Headers(event.headers().read()?),
            payload: PayloadText::new(event.payload),
        });
    }
    Ok(TransactionLine {
        origin: OriginLine {
            site: origin.name.to_string(),
            epoch: origin.epoch.to_string(),
            lsn: origin.lsn.0,
        },
        time: carried.committed_at,
        events,
    })
}

fn print(facts: &Facts, lines: &[TransactionLine<'_>], unreadable: Option<&str>) -> Outcome {
    let mut out = Out::new();
    out.line(format_args!("{}", facts.text()))?;
    if let Some(why) = unreadable {
        out.line(format_args!("  {}", output::shown(why)))?;
    }
    for one in lines {
        let (site, lsn) = (&one.origin.site, one.origin.lsn);
        let when = crate::arguments::moment::text(one.time);
        out.line(format_args!("  transaction {lsn} of {site}, committed {when}"))?;
        for event in &one.events {
            out.line(format_args!(
                "    {} {} {}",
                output::shown(event.stream),
                output::shown(event.kind),
                output::shown(&event.payload.text())
            ))?;
        }
    }
    out.flush()
}
