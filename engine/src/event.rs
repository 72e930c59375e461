//! Events as the application sees them: to append ([`Event`]) and as stored ([`RecordedEvent`]).

use std::collections::BTreeMap;

use crate::{Error, Lsn, Origin, Result, StreamName, StreamVersion};

/// An event to append.
///
/// ```
/// use milepost_engine::Event;
/// let sale = Event::new("sales/till-3", "sold", br#"{"article":17,"count":2}"#)?.header("shop", "bern")?;
/// assert_eq!(sale.stream.as_str(), "sales/till-3");
/// # Ok::<(), milepost_engine::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The stream it is appended to.
    pub stream: StreamName,
    /// What happened, in the application's words; at most 65,535 bytes.
    pub kind: String,
    /// Small facts for routing and tracing; at most 65,535 in number, each key and value at most
    /// 65,535 bytes.
    pub headers: BTreeMap<String, String>,
    /// The application's bytes; never decoded here. At most 4 GiB, and a transaction fits a segment.
    pub payload: Vec<u8>,
}

impl Event {
    /// An event without headers.
    ///
    /// # Errors
    /// `Invalid` when the stream name breaks its rule or the kind is too long.
    pub fn new(stream: &str, kind: &str, payload: impl Into<Vec<u8>>) -> Result<Event> {
        short(kind, "kind")?;
        let stream = StreamName::new(stream)?;
        Ok(Event {
            stream,
            kind: kind.to_owned(),
            headers: BTreeMap::new(),
            payload: payload.into(),
        })
    }

    /// The event with one header more.
    ///
    /// # Errors
    /// `Invalid` when key or value is too long or there are too many.
    pub fn header(mut self, key: impl Into<String>, value: impl Into<String>) -> Result<Event> {
        let (key, value) = (key.into(), value.into());
        short(&key, "header name")?;
        short(&value, "header value")?;
        self.headers.insert(key, value);
        if self.headers.len() > usize::from(u16::MAX) {
            return Err(Error::invalid("an event has more than 65,535 headers"));
        }
        Ok(self)
    }
}

fn short(text: &str, what: &str) -> Result<()> {
    if text.len() > usize::from(u16::MAX) {
        return Err(Error::invalid(format!(
            "an event's {what} of {} bytes exceeds 65,535",
            text.len()
        )));
    }
    Ok(())
}

/// An event as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedEvent {
    /// Its stream.
    pub stream: StreamName,
    /// Its number in the stream at this site, from 0.
    pub version: StreamVersion,
    /// LSN of its transaction at this site.
    pub lsn: Lsn,
    /// Its number in its transaction at its origin, from 0.
    pub ordinal: u32,
    /// When it was first committed, by the clock there, microseconds since 1970; for people.
    pub time: i64,
    /// Where it was first committed, when that was elsewhere.
    pub origin: Option<Origin>,
    /// What happened.
    pub kind: String,
    /// Headers.
    pub headers: BTreeMap<String, String>,
    /// The application's bytes.
    pub payload: Vec<u8>,
}
