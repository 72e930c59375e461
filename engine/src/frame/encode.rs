//! Encoding frames: [`NewFrame`] gathers, [`EncodedFrame`] is ready to be put into a block.
//!
//! Events are encoded when they are added, by the thread that has them, so that the leader of a group
//! commit only copies bytes. What is encoded already ([`EncodedEvents`]) is shared, and where it is long it is not copied before
//! the file is written.

use std::borrow::Cow;

use bytes::Bytes;

use crate::width::{align8, to_u64};
use crate::{Error, Event, Lsn, Result, StreamName};

use super::{
    EncodedEvents, Events, FLAG_COMMITTED_AT, FLAG_ORIGIN, FLAG_PINNED, FLAG_VIA, FRAME_HEADER_LEN,
    FrameKind, Origin, Pinned, Via, event, sections,
};

/// Bytes that a transaction makes room for at first, so that one small event is one allocation.
const FIRST_ROOM: usize = 256;
/// Bytes from which on a shared body stays where it is: below, one more piece to write costs as much as copying.
const LONG: usize = 4 << 10;
/// What a frame is padded with.
const ZEROS: [u8; 8] = [0; 8];

/// A frame that is being put together.
#[derive(Clone)]
pub struct NewFrame {
    kind: FrameKind,
    origin: Option<Origin>,
    via: Option<Via>,
    pinned: Vec<Pinned>,
    committed_at: Option<i64>,
    /// The body, or its first piece, in a transaction behind room for the fixed part: a frame without sections is encoded where
    /// it is.
    bytes: Vec<u8>,
    /// Its last piece, shared with whoever made it. A transaction has one piece only.
    rest: Bytes,
    event_count: u32,
    stream_hashes: Vec<u64>,
}

impl NewFrame {
    /// An empty transaction.
    #[must_use]
    pub fn transaction() -> NewFrame {
        NewFrame::of_kind(FrameKind::TRANSACTION, Vec::new())
    }

    /// A frame of another kind with an opaque body.
    ///
    /// # Panics
    /// For a transaction with a body: its events are counted as they are pushed.
    #[must_use]
    pub fn of_kind(kind: FrameKind, body: Vec<u8>) -> NewFrame {
        assert!(
            kind != FrameKind::TRANSACTION || body.is_empty(),
            "a transaction's body is its events"
        );
        let mut bytes = body;
        if kind == FrameKind::TRANSACTION {
            bytes.reserve(FIRST_ROOM);
            bytes.resize(FRAME_HEADER_LEN, 0);
        }
        NewFrame {
            kind,
            origin: None,
            via: None,
            pinned: Vec::new(),
            committed_at: None,
            bytes,
            rest: Bytes::new(),
            event_count: 0,
            stream_hashes: Vec::new(),
        }
    }

    /// A transaction with these events.
    #[must_use]
    pub fn of_events(events: &EncodedEvents) -> NewFrame {
        let mut stream_hashes = Vec::new();
        for event in events.events(Lsn::ZERO).flatten() {
            let hash = StreamName::hash_bytes(event.stream_bytes());
            if stream_hashes.last() != Some(&hash) {
                stream_hashes.push(hash);
            }
        }
        NewFrame {
            kind: FrameKind::TRANSACTION,
            origin: None,
            via: None,
            pinned: Vec::new(),
            committed_at: None,
            bytes: vec![0; FRAME_HEADER_LEN],
            rest: events.bytes().clone(),
            event_count: events.count(),
            stream_hashes,
        }
    }

    /// A frame of another kind whose body is in two pieces.
    ///
    /// # Panics
    /// For a transaction.
    #[must_use]
    pub fn of_kind_in_two(kind: FrameKind, front: Vec<u8>, rest: Bytes) -> NewFrame {
        assert!(
            kind != FrameKind::TRANSACTION,
            "a transaction's body is its events"
        );
        NewFrame {
            rest,
            ..NewFrame::of_kind(kind, front)
        }
    }

    /// Sets where the transaction was first committed.
    pub fn set_origin(&mut self, origin: Origin) {
        self.origin = Some(origin);
    }

    /// Sets the neighbour it was received from.
    pub fn set_via(&mut self, via: Via) {
        self.via = Some(via);
    }

    /// Sets when the transaction was first committed, microseconds since 1970, when that was not now and
    /// here. For people; decides nothing.
    pub fn set_committed_at(&mut self, time: i64) {
        self.committed_at = Some(time);
    }

    /// Adds a pinned record.
    pub fn pin(&mut self, record: Pinned) {
        self.pinned.push(record);
    }

    /// Kind of the frame.
    #[must_use]
    pub fn kind(&self) -> FrameKind {
        self.kind
    }

    /// Pinned records added so far.
    #[must_use]
    pub fn pinned(&self) -> &[Pinned] {
        &self.pinned
    }

    /// Events added so far.
    #[must_use]
    pub fn event_count(&self) -> u32 {
        self.event_count
    }

    /// Body length in bytes so far.
    #[must_use]
    pub fn body_len(&self) -> usize {
        self.bytes.len() - self.body_at() + self.rest.len()
    }

    /// Body so far: a transaction's events encoded, or the opaque bytes of another kind. Put together only where it is in two
    /// pieces.
    #[must_use]
    pub fn body(&self) -> Cow<'_, [u8]> {
        let front = self.bytes.get(self.body_at()..).unwrap_or_default();
        match (front, &*self.rest) {
            (front, []) => Cow::Borrowed(front),
            ([], rest) => Cow::Borrowed(rest),
            (front, rest) => Cow::Owned([front, rest].concat()),
        }
    }

    /// Where the body begins in `bytes`: only a transaction has the room, for others bring a body along.
    fn body_at(&self) -> usize {
        if self.kind == FrameKind::TRANSACTION {
            FRAME_HEADER_LEN
        } else {
            0
        }
    }

    /// Adds an event with an ordinal of its origin.
    ///
    /// # Errors
    /// `Invalid` when the event is too large for its length fields, or the frame is no transaction.
    pub fn push_event(&mut self, ordinal: u32, event: &Event) -> Result<()> {
        let headers = super::encode_headers(&event.headers);
        self.push_raw(
            ordinal,
            event.stream.as_str(),
            &event.kind,
            &headers,
            &event.payload,
        )
    }

    /// Adds an event from its parts; `headers` as [`super::encode_headers`] makes them.
    ///
    /// # Errors
    /// As [`NewFrame::push_event`], for a stream name that breaks its rule, and for headers that could
    /// not be read again: they may come from another site.
    pub fn push_raw(
        &mut self,
        ordinal: u32,
        stream: &str,
        kind: &str,
        headers: &[u8],
        payload: &[u8],
    ) -> Result<()> {
        StreamName::check(stream)?;
        event::check_headers(headers)?;
        if self.kind != FrameKind::TRANSACTION {
            return Err(Error::invalid("only a transaction holds events"));
        }
        let lengths = (
            u16::try_from(stream.len()),
            u16::try_from(kind.len()),
            u32::try_from(headers.len()),
            u32::try_from(payload.len()),
        );
        let (Ok(stream_len), Ok(kind_len), Ok(headers_len), Ok(payload_len)) = lengths else {
            return Err(Error::invalid(
                "an event's kind, headers or payload exceed their length fields",
            ));
        };
        let count = self.event_count.checked_add(1);
        self.event_count = count.ok_or_else(|| Error::invalid("a transaction of 2^32 events"))?;
        let (headers, payload) = ((headers, headers_len), (payload, payload_len));
        if !self.rest.is_empty() {
            self.bytes.extend_from_slice(&std::mem::take(&mut self.rest));
        }
        event::encode(
            &mut self.bytes,
            ordinal,
            (stream, stream_len),
            (kind, kind_len),
            headers,
            payload,
        );
        let hash = StreamName::hash(stream);
        if self.stream_hashes.last() != Some(&hash) {
            self.stream_hashes.push(hash);
        }
        Ok(())
    }

    /// Length of the frame in bytes, once encoded.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let origin = self.origin.as_ref().map_or(0, sections::origin_len);
        let via = self.via.as_ref().map_or(0, sections::via_len);
        let committed_at = self.committed_at.map_or(0, |_| 8);
        let sections = origin + via + sections::pinned_len(&self.pinned) + committed_at;
        align8(FRAME_HEADER_LEN + sections + self.body_len())
    }

    /// Hashes of the streams it has events of; neighbours differ, others may repeat.
    #[must_use]
    pub fn stream_hashes(&self) -> &[u64] {
        &self.stream_hashes
    }

    /// Encodes the frame; `seq` numbers it within its writing handle, `time` is for people.
    ///
    /// # Errors
    /// `Invalid` when the frame would exceed 4 GiB or a pinned record is malformed.
    pub fn encode(mut self, seq: u64, time: i64) -> Result<EncodedFrame> {
        let (announced, body_len) = (self.encoded_len(), self.body_len());
        let mut rest = std::mem::take(&mut self.rest);
        let shared = rest.len() >= LONG;
        let room = announced - if shared { rest.len() } else { 0 };
        let (mut bytes, flags, body_at) = self.encode_front(room)?;
        if !shared {
            bytes.reserve_exact(room.saturating_sub(bytes.len()));
            bytes.extend_from_slice(&std::mem::take(&mut rest));
        }
        let len = align8(bytes.len() + rest.len());
        let lengths = (
            u32::try_from(len),
            u32::try_from(body_at),
            u32::try_from(body_len),
        );
        let (Ok(frame_len), Ok(body_field), Ok(body_len)) = lengths else {
            return Err(Error::invalid(format!(
                "a frame of {len} bytes exceeds its length field"
            )));
        };
        let padding = len - bytes.len() - rest.len();
        if !shared {
            bytes.resize(len, 0);
        }
        debug_assert_eq!(len, announced, "a frame is as long as it says before");
        let count = if self.kind == FrameKind::TRANSACTION {
            self.event_count
        } else {
            body_len
        };
        let mut fixed = [0; FRAME_HEADER_LEN];
        fixed[..4].copy_from_slice(&frame_len.to_le_bytes());
        fixed[4..8].copy_from_slice(&[self.kind.0, flags, 0, 0]);
        fixed[8..16].copy_from_slice(&time.to_le_bytes());
        fixed[16..24].copy_from_slice(&seq.to_le_bytes());
        fixed[24..28].copy_from_slice(&body_field.to_le_bytes());
        fixed[28..].copy_from_slice(&count.to_le_bytes());
        bytes.split_at_mut(FRAME_HEADER_LEN).0.copy_from_slice(&fixed);
        crate::block::keep_distinct(&mut self.stream_hashes);
        Ok(EncodedFrame {
            bytes,
            padding: if shared { padding } else { 0 },
            rest,
            body_at,
            kind: self.kind,
            stream_hashes: self.stream_hashes,
            event_count: self.event_count,
            time,
        })
    }

    /// Room for the fixed part, the sections and what of the body is our own, in memory for `room` bytes; the flags, and where the body begins.
    fn encode_front(&mut self, room: usize) -> Result<(Vec<u8>, u8, usize)> {
        let stood_at = self.body_at();
        if !self.has_sections() && stood_at == FRAME_HEADER_LEN {
            return Ok((std::mem::take(&mut self.bytes), 0, FRAME_HEADER_LEN));
        }
        let mut bytes = Vec::with_capacity(room);
        bytes.resize(FRAME_HEADER_LEN, 0);
        let flags = self.encode_sections(&mut bytes)?;
        let body_at = bytes.len();
        bytes.extend_from_slice(self.bytes.get(stood_at..).unwrap_or_default());
        Ok((bytes, flags, body_at))
    }

    fn has_sections(&self) -> bool {
        let said = self.origin.is_some() || self.via.is_some() || self.committed_at.is_some();
        said || !self.pinned.is_empty()
    }

    /// Appends the sections; returns the flags that name them.
    fn encode_sections(&self, bytes: &mut Vec<u8>) -> Result<u8> {
        let mut flags = 0;
        if let Some(origin) = &self.origin {
            flags |= FLAG_ORIGIN;
            sections::encode_origin(bytes, origin);
        }
        if let Some(via) = &self.via {
            flags |= FLAG_VIA;
            sections::encode_via(bytes, via);
        }
        if !self.pinned.is_empty() {
            flags |= FLAG_PINNED;
            sections::encode_pinned(bytes, &self.pinned)?;
        }
        if let Some(time) = self.committed_at {
            flags |= FLAG_COMMITTED_AT;
            bytes.extend_from_slice(&time.to_le_bytes());
        }
        Ok(flags)
    }
}

/// A frame's bytes, and what its block's header must know of it.
#[derive(Clone)]
pub struct EncodedFrame {
    bytes: Vec<u8>,
    /// Its body, or the last piece of it, where that is long and shared.
    rest: Bytes,
    /// Zeros behind it.
    padding: usize,
    body_at: usize,
    kind: FrameKind,
    stream_hashes: Vec<u64>,
    event_count: u32,
    time: i64,
}

impl EncodedFrame {
    /// The frame, in pieces that follow each other; some may be empty.
    #[must_use]
    pub fn pieces(&self) -> [&[u8]; 3] {
        let padding = ZEROS.get(..self.padding).unwrap_or_default();
        [&self.bytes, &self.rest, padding]
    }

    /// The frame in one piece.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.pieces().concat()
    }

    /// The events of a transaction; none of another kind.
    #[must_use]
    pub fn events(&self) -> Events<'_> {
        let body = match self.kind {
            FrameKind::TRANSACTION if self.rest.is_empty() => self.bytes.get(self.body_at..),
            FrameKind::TRANSACTION => Some(&*self.rest),
            _ => None,
        };
        Events::new(body.unwrap_or_default(), self.event_count, Lsn::ZERO)
    }

    /// Length in bytes as an offset.
    #[must_use]
    pub fn len(&self) -> u64 {
        to_u64(self.bytes.len() + self.rest.len() + self.padding)
    }

    /// Never true; a frame has at least its fixed part.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Hashes of the streams it has events of, each once.
    #[must_use]
    pub fn stream_hashes(&self) -> &[u64] {
        &self.stream_hashes
    }

    /// Events of a transaction, else 0.
    #[must_use]
    pub fn event_count(&self) -> u32 {
        self.event_count
    }

    /// Its time.
    #[must_use]
    pub fn time(&self) -> i64 {
        self.time
    }
}
