//! Entries of the stable queue (docs/format.md, "Queue entry"): what is due of one transaction, and
//! to which topics, so that send filters nothing twice.
//!
//! ```text
//! frame of kind 160 in the queue; origin and via are sections of the frame, as in the log
//! body  0 version 2 | topic_count 2 | event_count 4 | match_count 4 | reserved 4
//!      16 lsn 8 | epoch 8 | chain 8 | time 8
//!      48 topics: publication_len 2 | value_len 2 (0xffff: none) | reserved 4 | publication | value, padded to 8
//!         matches: for each event topic_count 2, then that many topics, 2 each; all padded to 8
//!         events as in a transaction frame
//! ```
//!
//! Only events that match a topic somebody is due are in it; they keep their ordinals. Refuses: other
//! versions, lengths beyond the body, topics that are not in the table.

use std::borrow::Cow;

use bytes::Bytes;
use milepost_engine::frame::{
    EncodedEvents, EventRef, Events, FrameKind, FrameRef, NewFrame, OriginRef, ViaRef,
};
use milepost_engine::width::{align8, u32_to_usize};
use milepost_engine::{Chain, Error, InPlace, Lsn, Position, Result};

use crate::catalog::Topic;

/// Kind of the frames that are entries.
pub const ENTRY_FRAME: FrameKind = FrameKind(FrameKind::QUEUE_FIRST);

const VERSION: u16 = 1;
const FIXED_LEN: usize = 48;
const TOPIC_FIXED: usize = 8;
const NO_VALUE: u16 = u16::MAX;
/// Bytes from which on events are shared and not copied: what is shared keeps a piece of a file mapped.
const LONG: usize = 64 << 10;

/// An entry that is being put together from one transaction of the log.
pub struct NewEntry<'a> {
    position: Position,
    time: i64,
    topics: Vec<u8>,
    topic_count: u16,
    matches: Vec<u8>,
    match_count: u32,
    /// The transaction.
    frame: FrameRef<'a>,
    /// Events shown so far.
    shown: u32,
    /// Those that are due, where some are not.
    chosen: Option<NewFrame>,
}

impl<'a> NewEntry<'a> {
    /// An empty entry for the transaction `frame`, which stands in a block with this chain behind it.
    ///
    /// # Errors
    /// `Corrupt` when the frame cannot be read.
    pub fn new(frame: FrameRef<'a>, chain: Chain) -> Result<NewEntry<'a>> {
        let position = Position {
            epoch: frame.epoch(),
            lsn: frame.lsn(),
            chain,
        };
        Ok(NewEntry::at(position, frame.committed_at()?, frame))
    }

    /// An empty entry for a transaction that has the events of `frame`.
    pub(crate) fn at(position: Position, time: i64, frame: FrameRef<'a>) -> NewEntry<'a> {
        NewEntry {
            position,
            time,
            topics: Vec::new(),
            topic_count: 0,
            matches: Vec::new(),
            match_count: 0,
            frame,
            shown: 0,
            chosen: None,
        }
    }

    /// Adds a topic; returns its number in the entry.
    ///
    /// # Errors
    /// `Invalid` when there are too many or one is too long.
    pub fn add_topic(&mut self, topic: &Topic) -> Result<u16> {
        let number = self.topic_count;
        let value = topic.value.as_deref();
        let lengths = (
            u16::try_from(topic.publication.len()),
            value.map_or(Ok(NO_VALUE), |v| u16::try_from(v.len())),
        );
        let next = number.checked_add(1);
        let (Some(next), (Ok(publication_len), Ok(value_len))) = (next, lengths) else {
            return Err(Error::invalid(
                "a transaction is due under too many topics, or one is too long",
            ));
        };
        let start = self.topics.len();
        self.topics.extend_from_slice(&publication_len.to_le_bytes());
        self.topics.extend_from_slice(&value_len.to_le_bytes());
        self.topics.extend_from_slice(&[0; 4]);
        self.topics.extend_from_slice(topic.publication.as_bytes());
        self.topics
            .extend_from_slice(value.unwrap_or_default().as_bytes());
        self.topics.resize(start + align8(self.topics.len() - start), 0);
        self.topic_count = next;
        Ok(number)
    }

    /// Shows the next event of the transaction, with the numbers of its topics; it is in the entry if it has any.
    ///
    /// # Errors
    /// `Corrupt` when the event cannot be read.
    pub fn add_event(&mut self, event: &EventRef<'_>, topics: &[u16]) -> Result<()> {
        let before = self.shown;
        self.shown += 1;
        if topics.is_empty() {
            if self.chosen.is_none() {
                // All before it are due.
                let mut chosen = NewFrame::transaction();
                for event in self.frame.events().take(u32_to_usize(before)) {
                    push(&mut chosen, &event?)?;
                }
                self.chosen = Some(chosen);
            }
            return Ok(());
        }
        if let Some(chosen) = &mut self.chosen {
            push(chosen, event)?;
        }
        let count = u16::try_from(topics.len())
            .map_err(|_| Error::invalid("an event is due under too many topics"))?;
        self.matches.extend_from_slice(&count.to_le_bytes());
        for topic in topics {
            self.matches.extend_from_slice(&topic.to_le_bytes());
        }
        let total = self.match_count.checked_add(u32::from(count));
        self.match_count = total.ok_or_else(|| Error::invalid("a transaction of 2^32 matches"))?;
        Ok(())
    }

    /// True when none of the events shown is due.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.match_count == 0
    }

    /// Bytes of its events.
    #[must_use]
    pub fn events_len(&self) -> usize {
        match &self.chosen {
            Some(chosen) => chosen.body_len(),
            None => self.frame.body().len(),
        }
    }

    /// What its events are due under.
    pub fn topics(&self) -> impl Iterator<Item = Topic> {
        let mut rest = Front(&self.topics);
        std::iter::from_fn(move || (!rest.0.is_empty()).then(|| rest.topic()).flatten())
    }

    /// The frame for the queue, once all events were shown. A long transaction of which all is due is shared where it stands.
    ///
    /// # Errors
    /// `Corrupt` when the frame cannot be read, `Invalid` when origin or via break a rule of names.
    pub fn into_frame(mut self, place: InPlace<'_>) -> Result<NewFrame> {
        let (count, events) = match &self.chosen {
            Some(chosen) => (chosen.event_count(), chosen.body()),
            None => (self.frame.event_count(), Cow::Borrowed(self.frame.body())),
        };
        self.matches.resize(align8(self.matches.len()), 0);
        let is_long = self.chosen.is_none() && events.len() >= LONG;
        let front = FIXED_LEN + self.topics.len() + self.matches.len();
        let mut body = Vec::with_capacity(front + if is_long { 0 } else { events.len() });
        body.extend_from_slice(&VERSION.to_le_bytes());
        body.extend_from_slice(&self.topic_count.to_le_bytes());
        body.extend_from_slice(&count.to_le_bytes());
        body.extend_from_slice(&self.match_count.to_le_bytes());
        body.extend_from_slice(&[0; 4]);
        let Position { epoch, lsn, chain } = self.position;
        [lsn.0, epoch.0, chain.0]
            .iter()
            .for_each(|word| body.extend_from_slice(&word.to_le_bytes()));
        body.extend_from_slice(&self.time.to_le_bytes());
        body.extend_from_slice(&self.topics);
        body.extend_from_slice(&self.matches);
        let mut frame = if is_long {
            NewFrame::of_kind_in_two(ENTRY_FRAME, body, place.share(&events))
        } else {
            body.extend_from_slice(&events);
            NewFrame::of_kind(ENTRY_FRAME, body)
        };
        if let Some(origin) = self.frame.origin()? {
            frame.set_origin(origin.to_owned()?);
        }
        if let Some(via) = self.frame.via()? {
            frame.set_via(via.to_owned()?);
        }
        Ok(frame)
    }
}

fn push(into: &mut NewFrame, event: &EventRef<'_>) -> Result<()> {
    let (stream, kind, headers) = (event.stream()?, event.kind()?, event.headers().bytes());
    into.push_raw(event.ordinal, stream, kind, headers, event.payload)
}

/// An entry readable in place.
pub struct Entry<'a> {
    /// Where the transaction is in the log, and the chain after its block.
    pub position: Position,
    /// When it was first committed, microseconds since 1970; for people.
    pub time: i64,
    /// When it was put into the queue, by the clock here.
    pub queued_at: i64,
    /// Where it was first committed, when that was elsewhere.
    pub origin: Option<OriginRef<'a>>,
    /// The neighbour it was received from.
    pub via: Option<ViaRef<'a>>,
    /// What its events are due under.
    pub topics: Vec<Topic>,
    matches: &'a [u8],
    events: &'a [u8],
    event_count: u32,
    at: Lsn,
}

impl<'a> Entry<'a> {
    /// Reads a frame of the queue; `None` when it is of another kind.
    ///
    /// # Errors
    /// `Corrupt` when it is an entry and contradicts itself, or of another version.
    pub fn read(frame: &FrameRef<'a>) -> Result<Option<Entry<'a>>> {
        if frame.kind() != ENTRY_FRAME {
            return Ok(None);
        }
        let at = frame.lsn();
        let bad = || Error::corrupt("a queue entry contradicts its bounds").at_lsn(at);
        let mut rest = Front(frame.body());
        let version = rest.u16().ok_or_else(bad)?;
        if version != VERSION {
            let text = format!("a queue entry is of version {version}; this program reads version {VERSION}");
            return Err(Error::corrupt(text).at_lsn(at));
        }
        let mut fixed = || {
            let (topic_count, event_count, match_count) = (rest.u16()?, rest.u32()?, rest.u32()?);
            rest.take(4)?;
            let position = Position {
                lsn: Lsn(rest.u64()?),
                epoch: milepost_engine::Epoch(rest.u64()?),
                chain: rest.chain()?,
            };
            let time = i64::from_le_bytes(rest.array()?);
            // The smallest topic takes 8 bytes, so the table is no larger than the body.
            let mut topics = Vec::new();
            for _ in 0..topic_count {
                topics.push(rest.topic()?);
            }
            let words = u32_to_usize(event_count).checked_add(u32_to_usize(match_count))?;
            let matches = rest.take(align8(words.checked_mul(2)?))?;
            Some((topics, event_count, position, time, matches))
        };
        let (topics, event_count, position, time, matches) = fixed().ok_or_else(bad)?;
        let (origin, via) = (frame.origin()?, frame.via()?);
        let events = rest.0;
        Ok(Some(Entry {
            position,
            time,
            queued_at: frame.time(),
            origin,
            via,
            topics,
            matches,
            events,
            event_count,
            at,
        }))
    }

    /// Bytes of the events.
    #[must_use]
    pub fn events_len(&self) -> usize {
        self.events.len()
    }

    /// All events, shared where they stand if they are long.
    ///
    /// # Errors
    /// `Corrupt` or `Invalid` when one is not what our writer would have written.
    pub fn all(&self, place: InPlace<'_>) -> Result<EncodedEvents> {
        let bytes = if self.events.len() >= LONG {
            place.share(self.events)
        } else {
            Bytes::copy_from_slice(self.events)
        };
        EncodedEvents::check(bytes, self.event_count, self.at)
    }

    /// True when each event is due under at least one topic that `wanted` (one flag per topic of the entry) names.
    ///
    /// # Errors
    /// `Corrupt` when its matches contradict its topics.
    pub fn all_under(&self, wanted: &[bool]) -> Result<bool> {
        let mut matches = Front(self.matches);
        for _ in 0..self.event_count {
            match matches.any_of(wanted) {
                Some(true) => {}
                Some(false) => return Ok(false),
                None => return Err(contradiction(self.at)),
            }
        }
        Ok(true)
    }

    /// Events that are due under at least one topic that `wanted` (one flag per topic of the entry)
    /// names, in order.
    pub fn events_under<'w>(
        &self,
        wanted: &'w [bool],
    ) -> impl Iterator<Item = Result<EventRef<'a>>> + use<'a, 'w> {
        let mut matches = Front(self.matches);
        let at = self.at;
        let events = Events::new(self.events, self.event_count, self.at);
        events.filter_map(move |event| {
            let event = match event {
                Ok(event) => event,
                Err(error) => return Some(Err(error)),
            };
            match matches.any_of(wanted) {
                Some(true) => Some(Ok(event)),
                Some(false) => None,
                None => Some(Err(contradiction(at))),
            }
        })
    }
}

fn contradiction(at: Lsn) -> Error {
    Error::corrupt("a queue entry's matches contradict its topics").at_lsn(at)
}

/// Takes fields off the front of a slice.
struct Front<'a>(&'a [u8]);

impl<'a> Front<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (first, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(first)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn chain(&mut self) -> Option<milepost_engine::Chain> {
        self.u64().map(milepost_engine::Chain)
    }

    fn topic(&mut self) -> Option<Topic> {
        let (publication_len, value_len) = (usize::from(self.u16()?), self.u16()?);
        self.take(4)?;
        let value_bytes = if value_len == NO_VALUE {
            0
        } else {
            usize::from(value_len)
        };
        let mut own = Front(self.take(align8(TOPIC_FIXED + publication_len + value_bytes) - TOPIC_FIXED)?);
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).map(str::to_owned).ok();
        let publication = text(own.take(publication_len)?)?;
        let value = text(own.take(value_bytes)?)?;
        Some(Topic {
            publication,
            value: (value_len != NO_VALUE).then_some(value),
        })
    }

    /// Moves over the matches of one event; true when one of them is wanted.
    fn any_of(&mut self, wanted: &[bool]) -> Option<bool> {
        let mut found = false;
        for _ in 0..self.u16()? {
            found |= wanted.get(usize::from(self.u16()?))?;
        }
        Some(found)
    }
}

const _: () = assert!(
    FIXED_LEN == 16 + 4 * 8,
    "the fixed part of an entry is what the table says"
);
