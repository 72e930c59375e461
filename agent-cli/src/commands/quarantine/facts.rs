//! [`Facts`]: one line of `quarantine list`.

use milepost_engine::Store;
use milepost_replication::receive::Quarantined;
use serde::Serialize;

use super::Case;
use crate::arguments::moment;
use crate::output;

/// What is known of one case.
#[derive(Serialize)]
pub struct Facts {
    id: String,
    r#type: &'static str,
    remote: String,
    since: Option<i64>,
    reason: String,
    what: String,
    bytes: u64,
    events: Option<u32>,
    refusals: Option<u32>,
    behind: Option<u64>,
    holds: usize,
}

/// A message's name, from that of its file.
pub fn name_of(file: &str) -> &str {
    let name = file.rsplit_once('/').map_or(file, |(_, name)| name);
    name.strip_suffix(".mp").unwrap_or(name)
}

/// What kind of message was set aside.
pub fn kind_of(one: &Quarantined) -> &'static str {
    if one.damaged { "damaged" } else { "message" }
}

impl Facts {
    pub fn of(case: &Case, store: &Store) -> Facts {
        match case {
            Case::Transaction(one) => {
                let record = &one.record;
                Facts {
                    id: one.id.0.to_string(),
                    r#type: "transaction",
                    remote: one.remote.to_string(),
                    since: Some(record.since),
                    reason: record.cause.to_string(),
                    what: format!("transaction {} of {}", record.origin_lsn, record.origin_name),
                    bytes: record.bytes,
                    events: Some(record.events),
                    refusals: Some(record.refusals),
                    behind: one.behind.map(|lsn| lsn.0),
                    holds: one.holds,
                }
            }
            Case::Message(one) => Facts {
                id: name_of(&one.file).to_owned(),
                r#type: kind_of(one),
                remote: one.sender.clone(),
                since: written_at(&store.storage().root().join(&one.file)),
                reason: one.reason.clone(),
                what: match one.damaged {
                    true => "damaged message".to_owned(),
                    false => "message".to_owned(),
                },
                bytes: one.bytes,
                events: None,
                refusals: None,
                behind: None,
                holds: 0,
            },
        }
    }

    /// The facts for people.
    pub fn text(&self) -> String {
        let since = self
            .since
            .map_or_else(String::new, |at| format!(", since {}", moment::text(at)));
        let events = match self.events {
            Some(1) => "1 event, ".to_owned(),
            Some(events) => format!("{events} events, "),
            None => String::new(),
        };
        let waits = self
            .behind
            .map_or_else(String::new, |lsn| format!("; behind {lsn}"));
        let holds = match self.holds {
            0 => String::new(),
            1 => "; 1 waits for it".to_owned(),
            many => format!("; {many} wait for it"),
        };
        format!(
            "{}  {}, from {}: {events}{} bytes{since}: {}{waits}{holds}",
            self.id,
            self.what,
            self.remote,
            self.bytes,
            output::shown(&self.reason)
        )
    }
}

/// When a file was written, microseconds since 1970.
fn written_at(path: &std::path::Path) -> Option<i64> {
    let written = std::fs::metadata(path).and_then(|facts| facts.modified()).ok()?;
    let since = written.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_micros()).ok()
}
