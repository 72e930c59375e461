//! [`Publication`]: a named set of articles, and by what its subscribers choose.

use bincode::{Decode, Encode};
use milepost_engine::frame::EventRef;
use milepost_engine::{Error, Lsn, Result, StreamName, StreamPattern};
use serde::Serialize;

/// Longest name of a publication in bytes.
const NAME_MAX: usize = 64;

/// A named set of articles. What is not in an article is never sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Publication {
    /// Its name: 1 to 64 characters of `a-z A-Z 0-9 . _ -`.
    pub name: String,
    /// Counts the changes of the publication under this name, from 1.
    pub version: u32,
    /// In force for transactions behind this LSN.
    #[serde(serialize_with = "crate::catalog::record::lsn_as_number")]
    pub since: Lsn,
    /// Which events it has: those of any article.
    pub articles: Vec<Article>,
    /// What a subscriber's value is compared with; `None`: every subscriber gets all.
    pub by: Option<SubscribeBy>,
}

/// Events of the streams that a pattern selects, of all kinds or of some.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Article {
    /// Pattern of stream names: `*` one segment, `**` any number.
    pub streams: String,
    /// Kinds of events; empty for all.
    pub kinds: Vec<String>,
}

/// Where an event carries the value that a subscriber chooses by.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SubscribeBy {
    /// A segment of the stream's name, counted from 1.
    Segment(u16),
    /// A header.
    Header(String),
}

impl SubscribeBy {
    /// The value of an event, if it has one.
    ///
    /// # Errors
    /// `Corrupt` when the event's name or headers cannot be read.
    pub fn value_of<'a>(&self, event: &EventRef<'a>) -> Result<Option<&'a str>> {
        match self {
            SubscribeBy::Segment(number) => Ok(StreamName::segment(event.stream()?, usize::from(*number))),
            SubscribeBy::Header(key) => event.headers().get(key),
        }
    }
}

/// Checks what people typed.
///
/// # Errors
/// `Invalid` with the rule that is broken.
pub(super) fn check(name: &str, articles: &[Article], by: Option<&SubscribeBy>) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if !(1..=NAME_MAX).contains(&name.len()) || !name.bytes().all(allowed) {
        return Err(Error::invalid(format!(
            "publication name {name:?} is not 1 to {NAME_MAX} characters of a-z A-Z 0-9 . _ -"
        )));
    }
    if articles.is_empty() {
        return Err(Error::invalid(format!(
            "publication {name} has no stream pattern; give at least one"
        )));
    }
    for article in articles {
        StreamPattern::new(article.streams.as_str())?;
    }
    match by {
        Some(SubscribeBy::Segment(0)) => Err(Error::invalid("segments of a stream name are counted from 1")),
        Some(SubscribeBy::Header(key)) if key.is_empty() => Err(Error::invalid("the header's name is empty")),
        _ => Ok(()),
    }
}
