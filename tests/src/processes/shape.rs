//! [`Tag`]: names a transaction, and decides every byte of it.

use std::fmt;
use std::str::FromStr;

use milepost_engine::frame::{EventRef, FrameKind, FrameRef, NewFrame};
use milepost_engine::{Event, Transaction};

use crate::{SimRng, mix};

/// Names one transaction of a run: `writer 8 | incarnation 16 | thread 8 | number 32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u64);

/// How a transaction is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Synced, with an expectation on the thread's own stream, which nobody else writes.
    Expecting,
    /// Synced, blind.
    Blind,
    /// Buffered, and acknowledged when it is seen to be durable.
    Buffered,
    /// Together with the next two in one append.
    Group,
    /// Synced, with an expectation on a stream that all writers write: it may lose.
    Contended,
}

impl Tag {
    /// The first tag of a thread of an incarnation of a writer.
    #[must_use]
    pub fn first(writer: u64, incarnation: u64, thread: u64) -> Tag {
        Tag((writer << 56) | (incarnation << 40) | (thread << 32))
    }

    /// The tag after this one.
    #[must_use]
    pub fn next(self) -> Tag {
        Tag(self.0 + 1)
    }

    /// Whose commits follow one another: writer, incarnation and thread.
    #[must_use]
    pub fn author(self) -> u64 {
        self.0 >> 32
    }

    /// How the transaction is committed.
    #[must_use]
    pub fn mode(self) -> Mode {
        match mix(self.0 ^ 1) % 16 {
            0..=4 => Mode::Expecting,
            5..=8 => Mode::Blind,
            9..=11 => Mode::Buffered,
            12..=13 => Mode::Group,
            _ => Mode::Contended,
        }
    }

    /// Stream of the first event.
    #[must_use]
    pub fn stream(self) -> String {
        if self.mode() == Mode::Contended {
            format!("contended/{}", mix(self.0 ^ 2) % 4)
        } else {
            format!("own/{:x}", self.author())
        }
    }

    /// All events. The first one's payload begins with the tag.
    #[must_use]
    pub fn events(self) -> Vec<Event> {
        let rng = SimRng::new(self.0);
        let mut events = Vec::new();
        for number in 0..=rng.below(4) {
            let stream = if number == 0 {
                self.stream()
            } else {
                format!("shared/{}", rng.below(16))
            };
            let len = if rng.chance(1, 60) {
                rng.below(90_000)
            } else {
                rng.below(300)
            };
            let mut payload = self.0.to_le_bytes().to_vec();
            payload.extend((0..len / 8).flat_map(|_| rng.word().to_le_bytes()));
            let event = Event::new(&stream, &format!("kind-{number}"), payload).unwrap();
            events.push(event.header("tag", self.to_string()).unwrap());
        }
        events
    }

    /// The transaction, without expectations.
    #[must_use]
    pub fn transaction(self) -> Transaction {
        let mut transaction = Transaction::new();
        for event in self.events() {
            transaction.push(&event).unwrap();
        }
        transaction
    }

    /// The transaction as a frame.
    #[must_use]
    pub fn frame(self) -> NewFrame {
        self.transaction().into_parts().0
    }

    /// The tag of a transaction in a log, after comparing every event with what was submitted. `None`
    /// for frames that are no transactions of a worker.
    ///
    /// # Panics
    /// When the transaction differs from what its tag says.
    #[must_use]
    pub fn of(frame: &FrameRef<'_>) -> Option<Tag> {
        Tag::compared(frame).unwrap_or_else(|torn| panic!("{torn}"))
    }

    /// [`Tag::of`], with a sentence when the transaction differs from what its tag says.
    ///
    /// # Errors
    /// The sentence, which names the LSN.
    pub fn compared(frame: &FrameRef<'_>) -> Result<Option<Tag>, String> {
        if frame.kind() != FrameKind::TRANSACTION {
            return Ok(None);
        }
        let read = |event: milepost_engine::Result<EventRef<'_>>| event.and_then(|event| event.to_event());
        let events: Vec<Event> = match frame.events().map(read).collect() {
            Ok(events) => events,
            Err(error) => return Err(format!("E1: the transaction at {} is torn: {error}", frame.lsn())),
        };
        let first = events.first().and_then(|event| event.payload.first_chunk());
        let Some(tag) = first.map(|bytes| Tag(u64::from_le_bytes(*bytes))) else {
            return Ok(None);
        };
        if events != tag.events() {
            let lsn = frame.lsn();
            return Err(format!(
                "E1: the transaction at {lsn} differs from what was submitted as {tag}"
            ));
        }
        Ok(Some(tag))
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Tag {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Tag, Self::Err> {
        u64::from_str_radix(text, 16).map(Tag)
    }
}
