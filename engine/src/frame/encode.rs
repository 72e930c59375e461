//! Encoding frames: [`NewFrame`] gathers, [`EncodedFrame`] is ready to be put into a block.
//!
//! Events are encoded when they are added, by the thread that has them, so that the leader of a group
//! commit only copies bytes.

use crate::width::{align8, to_u64};
use crate::{Error, Event, Lsn, Result, StreamName};

use super::{
    Events, FLAG_COMMITTED_AT, FLAG_ORIGIN, FLAG_PINNED, FLAG_VIA, FRAME_HEADER_LEN, FrameKind, Origin,
    Pinned, Via, event, sections,
};

/// Bytes that a transaction makes room for at first, so that one small event is one allocation.
const FIRST_ROOM: usize = 256;

/// A frame that is being put together.
#[derive(Clone)]
pub struct NewFrame {
    kind: FrameKind,
    origin: Option<Origin>,
    via: Option<Via>,
    pinned: Vec<Pinned>,
    committed_at: Option<i64>,
    /// The body, behind room for the fixed part: a frame without sections is encoded where it is.
    bytes: Vec<u8>,
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
            event_count: 0,
            stream_hashes: Vec::new(),
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
        self.bytes.len() - self.body_at()
    }

    /// Body so far: a transaction's events encoded, or the opaque bytes of another kind.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.bytes.get(self.body_at()..).unwrap_or_default()
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
        let (flags, sections) = self.encode_sections()?;
        let stood_at = self.body_at();
        let mut bytes = std::mem::take(&mut self.bytes);
        if !sections.is_empty() || stood_at != FRAME_HEADER_LEN {
            let body = bytes;
            bytes = Vec::with_capacity(announced);
            bytes.resize(FRAME_HEADER_LEN, 0);
            bytes.extend_from_slice(&sections);
            bytes.extend_from_slice(body.get(stood_at..).unwrap_or_default());
        }
        let body_at = FRAME_HEADER_LEN + sections.len();
        let len = align8(bytes.len());
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
        bytes.resize(len, 0);
        debug_assert_eq!(len, announced, "a frame is as long as it says before");
        let count = if self.kind == FrameKind::TRANSACTION {
            self.event_count
        } else {
            body_len
        };
        let mut head = Vec::with_capacity(FRAME_HEADER_LEN);
        head.extend_from_slice(&frame_len.to_le_bytes());
        head.extend_from_slice(&[self.kind.0, flags, 0, 0]);
        head.extend_from_slice(&time.to_le_bytes());
        head.extend_from_slice(&seq.to_le_bytes());
        head.extend_from_slice(&body_field.to_le_bytes());
        head.extend_from_slice(&count.to_le_bytes());
        let (fixed, _) = bytes.split_at_mut(FRAME_HEADER_LEN);
        fixed.copy_from_slice(&head);
        crate::block::keep_distinct(&mut self.stream_hashes);
        Ok(EncodedFrame {
            bytes,
            body_at,
            kind: self.kind,
            stream_hashes: self.stream_hashes,
            event_count: self.event_count,
            time,
        })
    }

    /// The sections, and the flags that name them.
    fn encode_sections(&self) -> Result<(u8, Vec<u8>)> {
        let (mut flags, mut bytes) = (0, Vec::new());
        if let Some(origin) = &self.origin {
            flags |= FLAG_ORIGIN;
            sections::encode_origin(&mut bytes, origin);
        }
        if let Some(via) = &self.via {
            flags |= FLAG_VIA;
            sections::encode_via(&mut bytes, via);
        }
        if !self.pinned.is_empty() {
            flags |= FLAG_PINNED;
            sections::encode_pinned(&mut bytes, &self.pinned)?;
        }
        if let Some(time) = self.committed_at {
            flags |= FLAG_COMMITTED_AT;
            bytes.extend_from_slice(&time.to_le_bytes());
        }
        Ok((flags, bytes))
    }
}

/// A frame's bytes, and what its block's header must know of it.
#[derive(Clone)]
pub struct EncodedFrame {
    bytes: Vec<u8>,
    body_at: usize,
    kind: FrameKind,
    stream_hashes: Vec<u64>,
    event_count: u32,
    time: i64,
}

impl EncodedFrame {
    /// The frame.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The events of a transaction; none of another kind.
    #[must_use]
    pub fn events(&self) -> Events<'_> {
        let body = if self.kind == FrameKind::TRANSACTION {
            self.bytes.get(self.body_at..)
        } else {
            None
        };
        Events::new(body.unwrap_or_default(), self.event_count, Lsn::ZERO)
    }

    /// Length in bytes as an offset.
    #[must_use]
    pub fn len(&self) -> u64 {
        to_u64(self.bytes.len())
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
