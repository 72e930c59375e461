//! [`Model`]: what a witness outside the simulated processes knows of a store.
//!
//! Every transaction has a tag, written at the head of each of its payloads, and a [`Fate`] that says
//! what its writer or a reader was told. The model is copied with each snapshot of the disk, so that it
//! says what was known at that operation.

use std::sync::Arc;

use milepost_engine::{Event, ExpectedVersion, Retention, Transaction};

use crate::SimRng;

use super::kept::Kept;

/// Streams that the workload writes.
pub const STREAMS: [&str; 4] = ["orders/1", "orders/2", "stock", "till/3"];
/// Keys that the workload pins.
pub const KEYS: [&str; 2] = ["catalog", "neighbour/hq"];

/// What a frame of the workload holds.
#[derive(Debug)]
pub enum Content {
    /// Events that commit together.
    Transaction {
        /// The events.
        events: Vec<Event>,
        /// A pinned record's key and value.
        pinned: Option<(Vec<u8>, Vec<u8>)>,
        /// What one stream must look like before.
        expected: Option<(&'static str, ExpectedVersion)>,
    },
    /// A frame of a kind that the engine does not know, and its body.
    Frame(u8, Vec<u8>),
    /// A marker.
    Marker,
}

/// What is known of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Handed in, and no answer: whole or absent.
    Submitted,
    /// Handed in, and failed with the word that it may exist there.
    Maybe(u64),
    /// Acknowledged before it was on disk: there or absent.
    Buffered(u64),
    /// Acknowledged as on disk, or seen by a reader: there for ever (E1, E2).
    Durable(u64),
    /// Refused, or lost in a crash: never there again.
    Absent,
    /// Freed or never there, nobody knows: not there any more.
    Gone,
}

/// One frame of the workload.
#[derive(Clone, Debug)]
pub struct Known {
    /// What it holds.
    pub content: Arc<Content>,
    /// What is known of it.
    pub fate: Fate,
    /// The version told for the stream it expected something of.
    pub version: Option<u64>,
    /// It stands behind this LSN, if anywhere.
    pub after: u64,
}

impl Known {
    /// True for a marker, which has no tag to be found by.
    #[must_use]
    pub fn is_marker(&self) -> bool {
        matches!(*self.content, Content::Marker)
    }
}

/// All that the witness knows.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Frames by tag.
    pub known: Vec<Known>,
    /// The highest durable watermark that anybody saw.
    pub durable: u64,
    /// True after a write-back was lost and the cache showed it: un-synced frames may go one by one.
    pub cache_lost: bool,
    /// What keeps the log, and what of it may be gone.
    pub kept: Kept,
    /// The highest LSN of a frame that is known to be durable.
    newest: u64,
    /// Whose the event of each version of a stream is, as far as somebody was told.
    versions: [Vec<Option<u64>>; STREAMS.len()],
}

impl Model {
    /// Of a store that was made with this retention.
    #[must_use]
    pub fn kept_by(retention: Retention) -> Model {
        Model {
            kept: Kept::by(retention),
            ..Model::default()
        }
    }

    /// Notes a frame before it is handed in; returns its tag.
    pub fn submit(&mut self, make: impl FnOnce(u64) -> Content) -> u64 {
        let tag = self.known.len() as u64;
        self.known.push(Known {
            content: Arc::new(make(tag)),
            fate: Fate::Submitted,
            version: None,
            after: self.newest,
        });
        tag
    }

    /// Notes what became of a frame. A fate never becomes weaker.
    ///
    /// # Errors
    /// What contradicts what was known of it.
    pub fn settle(&mut self, tag: u64, fate: Fate) -> Result<(), String> {
        let known = &mut self.known[tag as usize];
        match (known.fate, fate) {
            (Fate::Absent | Fate::Gone, Fate::Durable(lsn)) => {
                return Err(format!(
                    "transaction {tag} is at LSN {lsn}, and was surely absent before"
                ));
            }
            (
                Fate::Durable(told) | Fate::Buffered(told) | Fate::Maybe(told),
                Fate::Durable(lsn) | Fate::Buffered(lsn),
            ) if told != lsn => {
                return Err(format!(
                    "transaction {tag} is at LSN {lsn}, and was told to be at {told}"
                ));
            }
            (Fate::Durable(_), _) => {}
            (_, fate) => known.fate = fate,
        }
        if let Fate::Durable(lsn) = known.fate {
            self.newest = self.newest.max(lsn);
        }
        Ok(())
    }

    /// A frame was read where only what is durable is read.
    ///
    /// # Errors
    /// What contradicts what was known of it.
    pub fn see(&mut self, tag: u64, lsn: u64) -> Result<(), String> {
        if tag >= self.known.len() as u64 {
            return Err(format!("nobody wrote transaction {tag}"));
        }
        self.settle(tag, Fate::Durable(lsn))
    }

    /// An event of a transaction was read as a version of its stream, which it stays, whatever is freed before it.
    ///
    /// # Errors
    /// Another was told before.
    pub fn see_version(&mut self, stream: &str, version: u64, tag: u64) -> Result<(), String> {
        let Some(number) = STREAMS.iter().position(|known| *known == stream) else {
            return Err(format!("nobody writes to {stream}"));
        };
        let (told, at) = (&mut self.versions[number], version as usize);
        if told.len() <= at {
            told.resize(at + 1, None);
        }
        match told[at].replace(tag) {
            Some(other) if other != tag => Err(format!(
                "version {version} of {stream} is of transaction {tag}, and was of {other}"
            )),
            _ => Ok(()),
        }
    }
}

/// Draws the content of a transaction with this tag; no payload is longer than `largest` bytes, or 1,500.
#[must_use]
pub fn draw_transaction(rng: &SimRng, tag: u64, largest: u64) -> Content {
    let kinds = ["placed", "paid", "sent"];
    let count = 1 + rng.below(4);
    let mut events = Vec::new();
    for _ in 0..count {
        let len = match rng.below(8) {
            0 => rng.below(largest + 1),
            1..=3 => rng.below(1500),
            _ => rng.below(100),
        };
        let event = Event::new(STREAMS[rng.index(4)], kinds[rng.index(3)], payload(rng, tag, len)).unwrap();
        events.push(if rng.chance(1, 4) {
            event.header("shop", "bern").unwrap()
        } else {
            event
        });
    }
    let pinned = rng
        .chance(1, 6)
        .then(|| (rng.pick(&KEYS).as_bytes().to_vec(), tag.to_le_bytes().to_vec()));
    Content::Transaction {
        events,
        pinned,
        expected: None,
    }
}

/// Draws the content of an unknown frame with this tag.
#[must_use]
pub fn draw_frame(rng: &SimRng, tag: u64) -> Content {
    Content::Frame(64 + rng.below(64) as u8, payload(rng, tag, rng.below(300)))
}

/// The tag at the head of a payload.
pub fn tag_of(payload: &[u8]) -> Option<u64> {
    payload.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

fn payload(rng: &SimRng, tag: u64, len: u64) -> Vec<u8> {
    let mut bytes = tag.to_le_bytes().to_vec();
    let noise = rng.word().to_le_bytes();
    // Zeros are the hard case: they look like what was never written.
    let zeros = rng.chance(1, 3);
    bytes.extend((0..len as usize).map(|at| if zeros { 0 } else { noise[at % 8] ^ (at / 8) as u8 }));
    bytes
}

impl Content {
    /// The transaction to commit; for [`Content::Transaction`].
    #[must_use]
    pub fn transaction(&self) -> Transaction {
        let Content::Transaction {
            events,
            pinned,
            expected,
        } = self
        else {
            panic!("only a transaction is committed");
        };
        let mut transaction = Transaction::new();
        for event in events {
            transaction.push(event).unwrap();
        }
        if let Some((key, value)) = pinned {
            transaction.pin(milepost_engine::Pinned {
                key: key.clone(),
                value: Some(value.clone()),
            });
        }
        if let Some((stream, expected)) = expected {
            transaction.expect(stream, *expected).unwrap();
        }
        transaction
    }
}
