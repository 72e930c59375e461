//! [`Streams`]: the built-in projection behind `milepost streams`: every stream with its version and
//! what happened last.

use bincode::{Decode, Encode};

use crate::{Error, Lsn, RecordedEvent, Result, StreamName, StreamVersion, codec};

use super::open::View;
use super::projection::{Projection, ViewWriter};

/// Keeps the last event of every stream, without its payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams;

/// A stream and its last event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamSummary {
    /// Name of the stream.
    pub stream: StreamName,
    /// Version of its last event.
    pub version: StreamVersion,
    /// Kind of its last event.
    pub kind: String,
    /// When its last event was first committed, microseconds since 1970.
    pub time: i64,
    /// LSN of its last event's transaction.
    pub lsn: Lsn,
}

/// As kept, under the stream's name.
#[derive(Encode, Decode)]
struct Last {
    version: u64,
    lsn: Lsn,
    time: i64,
    kind: String,
}

impl Projection for Streams {
    fn name(&self) -> &str {
        "streams"
    }

    fn version(&self) -> u32 {
        1
    }

    /// Every stream has its own last event; those whose events were all freed are not there.
    fn may_begin_late(&self) -> bool {
        true
    }

    fn apply(&self, event: &RecordedEvent, out: &mut ViewWriter<'_>) -> Result<()> {
        let kind = event.kind.clone();
        let last = Last {
            version: event.version.0,
            lsn: event.lsn,
            time: event.time,
            kind,
        };
        out.put(event.stream.as_str().as_bytes(), codec::encode(&last)?);
        Ok(())
    }
}

impl View<Streams> {
    /// The streams whose name begins with `prefix`, by name.
    ///
    /// # Errors
    /// `Internal` when the database cannot read; the view is made again when next opened.
    pub fn streams(&self, prefix: &str) -> Result<Vec<StreamSummary>> {
        let mut streams = Vec::new();
        for (key, value) in self.with_prefix(prefix.as_bytes())? {
            let Last {
                version,
                lsn,
                time,
                kind,
            } = codec::decode(&value)?;
            let name = String::from_utf8(key)
                .map_err(|error| Error::internal("a view holds a name that is not UTF-8").caused_by(error))?;
            let (stream, version) = (StreamName::new(name)?, StreamVersion(version));
            streams.push(StreamSummary {
                stream,
                version,
                kind,
                time,
                lsn,
            });
        }
        Ok(streams)
    }

    /// The stream of this name, if it has events.
    ///
    /// # Errors
    /// As [`View::streams`].
    pub fn stream(&self, name: &str) -> Result<Option<StreamSummary>> {
        let Some(value) = self.get(name.as_bytes())? else {
            return Ok(None);
        };
        let Last {
            version,
            lsn,
            time,
            kind,
        } = codec::decode(&value)?;
        let (stream, version) = (StreamName::new(name)?, StreamVersion(version));
        Ok(Some(StreamSummary {
            stream,
            version,
            kind,
            time,
            lsn,
        }))
    }
}
