//! The lines of `export`, and of `import` without `--stream-field`.
//!
//! ```text
//! {"lsn":N,"origin":{"site":NAME,"epoch":HEX,"lsn":N},"time":MICROS,"events":[
//!   {"ordinal":N,"stream":NAME,"version":N,"kind":TEXT,"headers":{…},"payload":JSON}]}
//! ```
//!
//! One line is one transaction. `time` is when it was first committed, in microseconds since 1970; a local
//! commit is its own origin; `payload` as [`crate::payload`] says.

use std::borrow::Cow;
use std::collections::BTreeMap;

use milepost_engine::frame::{EventRef, FrameRef};
use milepost_engine::{Error, Result, Store};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::payload::PayloadText;

/// A transaction to print.
#[derive(Serialize)]
pub struct TransactionLine<'a> {
    /// Where it is in this store's log.
    pub lsn: u64,
    /// Where it was first committed.
    pub origin: OriginLine<'a>,
    /// When it was first committed, microseconds since 1970.
    pub time: i64,
    /// Its events, in order.
    pub events: Vec<EventLine<'a>>,
}

/// Where a transaction was first committed.
#[derive(Serialize)]
pub struct OriginLine<'a> {
    /// Name of the site.
    pub site: &'a str,
    /// Lineage there, hexadecimal.
    pub epoch: String,
    /// LSN there.
    pub lsn: u64,
}

/// An event to print.
#[derive(Serialize)]
pub struct EventLine<'a> {
    /// Number in its transaction at its origin.
    pub ordinal: u32,
    /// Its stream.
    pub stream: &'a str,
    /// Number in its stream here.
    pub version: u64,
    /// What happened.
    pub kind: &'a str,
    /// Headers by name.
    pub headers: Headers<'a>,
    /// The application's bytes.
    pub payload: PayloadText<'a>,
}

/// Headers, printed as an object.
pub struct Headers<'a>(pub Vec<(&'a str, &'a str)>);

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.collect_map(self.0.iter().copied())
    }
}

impl<'a> OriginLine<'a> {
    /// The origin of a frame of `store`: its own place when it was committed here first.
    ///
    /// # Errors
    /// `Corrupt` when the frame contradicts itself.
    pub fn of(frame: &FrameRef<'a>, store: &'a Store) -> Result<OriginLine<'a>> {
        let (site, epoch, lsn) = match frame.origin()? {
            Some(origin) => (origin.name, origin.epoch, origin.lsn),
            None => (store.site().as_str(), frame.epoch(), frame.lsn()),
        };
        Ok(OriginLine {
            site,
            epoch: epoch.to_string(),
            lsn: lsn.0,
        })
    }
}

impl<'a> EventLine<'a> {
    /// An event with its version here.
    ///
    /// # Errors
    /// `Corrupt` when the event contradicts itself.
    pub fn of(event: &EventRef<'a>, version: u64) -> Result<EventLine<'a>> {
        Ok(EventLine {
            ordinal: event.ordinal,
            stream: event.stream()?,
            version,
            kind: event.kind()?,
            headers: Headers(event.headers().read()?),
            payload: PayloadText::new(event.payload),
        })
    }
}

/// A line of an export to import. What only describes the old place is accepted and not taken over.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportedLine<'a> {
    #[serde(default, rename = "lsn")]
    _lsn: Option<IgnoredAny>,
    #[serde(default, rename = "origin")]
    _origin: Option<IgnoredAny>,
    /// When it was first committed, as it stands in the line.
    #[serde(default, borrow)]
    pub time: Option<&'a RawValue>,
    /// The transaction's events.
    #[serde(borrow)]
    pub events: Vec<ImportedEvent<'a>>,
}

/// An event of a line to import.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportedEvent<'a> {
    #[serde(default, rename = "ordinal")]
    _ordinal: Option<IgnoredAny>,
    #[serde(default, rename = "version")]
    _version: Option<IgnoredAny>,
    /// Its stream.
    #[serde(borrow)]
    pub stream: Cow<'a, str>,
    /// What happened.
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    /// Headers by name.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The payload as it stands in the line.
    #[serde(borrow)]
    pub payload: &'a RawValue,
}

impl ImportedEvent<'_> {
    /// The event to append.
    ///
    /// # Errors
    /// The reason why it cannot be one.
    pub fn to_event(&self) -> std::result::Result<milepost_engine::Event, String> {
        let payload = crate::payload::read(self.payload)?;
        let text = |error: Error| error.to_string();
        let mut event = milepost_engine::Event::new(&self.stream, &self.kind, payload).map_err(text)?;
        for (key, value) in &self.headers {
            event = event.header(key, value).map_err(text)?;
        }
        Ok(event)
    }
}
