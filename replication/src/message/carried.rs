//! [`Carried`]: a transaction as it travels, and its encoding, which parts are cut from.
//!
//! ```text
//! 0   len 4 | kind 1 | flags 1 | reserved 2      item head; len counts all of the item, a multiple of 8
//! 8   epoch 8 | at 8 | back 8 | chain 8          point
//! 40  event_count 4 | reserved 4 | committed_at 8
//! 56  origin, when flag 1 is set: site 16 | epoch 8 | lsn 8 | name_len 2 | reserved 6 | name, padded to 8
//!     events, exactly as in a frame of the log (docs/format.md, "Event")
//! ```
//!
//! Without an origin the sender itself is the origin, and the point says where. Everything is checked when
//! it is decoded: what [`Carried::frame`] makes of it is what our own writer would have written.

use bytes::Bytes;
use milepost_engine::frame::{EncodedEvents, EventRef, Events, NewFrame};
use milepost_engine::width::{align8, to_u64};
use milepost_engine::{Epoch, Lsn, Origin, Result, SiteName, StoreId};

use super::bytes::{Front, Put};
use super::{MessageFault, Point};

/// Length of an item's head in bytes.
pub(super) const ITEM_HEAD: usize = 8;
/// Kind of an item: a whole transaction.
pub(super) const KIND_TRANSACTION: u8 = 1;
/// Flag of an item of a kind that is not known: the reader may skip it.
pub(super) const FLAG_OPTIONAL: u8 = 0x80;
const FLAG_ORIGIN: u8 = 1;

/// A transaction as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// Where it is in the sender's stream to this remote.
    pub point: Point,
    /// Where it was first committed; `None` when that is the sender, at `point`.
    pub origin: Option<Origin>,
    /// When it was first committed, by the clock there, microseconds since 1970; for people.
    pub committed_at: i64,
    /// Shared with the message, the file or the queue that they came out of.
    events: EncodedEvents,
}

impl Carried {
    /// A transaction without events.
    #[must_use]
    pub fn new(point: Point, origin: Option<Origin>) -> Carried {
        Carried::whole(point, origin, EncodedEvents::none())
    }

    /// A transaction with these events.
    #[must_use]
    pub fn whole(point: Point, origin: Option<Origin>, events: EncodedEvents) -> Carried {
        Carried {
            point,
            origin,
            committed_at: 0,
            events,
        }
    }

    /// A transaction with the events of `frame`.
    #[must_use]
    pub fn with_events_of(point: Point, origin: Option<Origin>, frame: &NewFrame) -> Carried {
        Carried::whole(point, origin, EncodedEvents::of(frame))
    }

    /// A transaction whose events are the given ones, in order.
    ///
    /// # Errors
    /// `Invalid` when an event is not what our writer would have written.
    pub fn of<'a>(
        point: Point,
        origin: Option<Origin>,
        events: impl IntoIterator<Item = EventRef<'a>>,
    ) -> Result<Carried> {
        let mut frame = NewFrame::transaction();
        for event in events {
            let headers = event.headers();
            frame.push_raw(
                event.ordinal,
                event.stream()?,
                event.kind()?,
                headers.bytes(),
                event.payload,
            )?;
        }
        Ok(Carried::with_events_of(point, origin, &frame))
    }

    /// Number of events.
    #[must_use]
    pub fn event_count(&self) -> u32 {
        self.events.count()
    }

    /// Bytes of the events.
    #[must_use]
    pub fn events_len(&self) -> usize {
        self.events.bytes().len()
    }

    /// The events, in order.
    #[must_use]
    pub fn events(&self) -> Events<'_> {
        self.events.events(self.point.place().commit_lsn())
    }

    /// Where it was first committed, when `sender` sent it.
    #[must_use]
    pub fn origin_from(&self, sender: &SiteName, id: StoreId) -> Origin {
        self.origin.clone().unwrap_or_else(|| Origin {
            site: id,
            name: sender.clone(),
            epoch: self.point.position.epoch,
            lsn: self.point.place().commit_lsn(),
        })
    }

    /// A transaction frame with its events and the time of their commit, without origin, via and pinned
    /// records. The events are shared, not copied.
    #[must_use]
    pub fn frame(&self) -> NewFrame {
        let mut frame = NewFrame::of_events(&self.events);
        frame.set_committed_at(self.committed_at);
        frame
    }

    /// As [`Carried::frame`], with the events alone whose ordinals are wanted.
    ///
    /// # Errors
    /// `Invalid` or `Corrupt` when an event is not what our writer would have written.
    pub fn frame_with(&self, wanted: impl Fn(u32) -> bool) -> Result<NewFrame> {
        let mut frame = NewFrame::transaction();
        frame.set_committed_at(self.committed_at);
        for event in self.events() {
            let event = event?;
            if !wanted(event.ordinal) {
                continue;
            }
            event.headers().read()?;
            let headers = event.headers().bytes();
            frame.push_raw(
                event.ordinal,
                event.stream()?,
                event.kind()?,
                headers,
                event.payload,
            )?;
        }
        Ok(frame)
    }

    /// Length of its encoding in bytes.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let origin = self
            .origin
            .as_ref()
            .map_or(0, |origin| 40 + align8(origin.name.as_str().len()));
        ITEM_HEAD + Point::LEN + 16 + origin + self.events_len()
    }

    /// Appends its encoding, which must be shorter than 4 GiB.
    ///
    /// # Errors
    /// `Invalid` when it is not.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<()> {
        self.encode_head(out)?;
        out.extend_from_slice(self.events.bytes());
        Ok(())
    }

    /// The events as they are encoded, behind the head.
    pub(super) fn encoded_events(&self) -> &Bytes {
        self.events.bytes()
    }

    /// Appends what stands before the events.
    pub(super) fn encode_head(&self, out: &mut Vec<u8>) -> Result<()> {
        let len = self.encoded_len();
        let field = u32::try_from(len).map_err(|_| {
            milepost_engine::Error::invalid(format!("a transaction of {len} bytes exceeds 4 GiB"))
        })?;
        let start = out.len();
        out.put_u32(field);
        out.extend_from_slice(&[
            KIND_TRANSACTION,
            if self.origin.is_some() { FLAG_ORIGIN } else { 0 },
            0,
            0,
        ]);
        self.point.put(out);
        out.put_u32(self.event_count());
        out.put_u32(0);
        out.extend_from_slice(&self.committed_at.to_le_bytes());
        if let Some(origin) = &self.origin {
            put_origin(out, origin);
        }
        assert!(
            out.len() - start == len - self.events_len(),
            "the length field counts what was written"
        );
        Ok(())
    }

    /// Decodes one that fills `bytes` exactly, head included, and copies its events.
    ///
    /// # Errors
    /// `Contradiction` when the bytes are no transaction that our writer would have written.
    pub fn decode(bytes: &[u8]) -> Result<Carried, MessageFault> {
        Carried::decode_shared(&Bytes::copy_from_slice(bytes))
    }

    /// As [`Carried::decode`]; the events stay where they are.
    ///
    /// # Errors
    /// As [`Carried::decode`].
    pub fn decode_shared(bytes: &Bytes) -> Result<Carried, MessageFault> {
        let bad = MessageFault::Contradiction("a transaction cannot be read");
        let (mut carried, flags, (events, count)) = Carried::take(bytes).ok_or(bad)?;
        if flags & !(FLAG_ORIGIN | FLAG_OPTIONAL) != 0 {
            let what = format!("a transaction with flags {flags:#x}");
            return Err(MessageFault::NeedsNewer {
                version: super::VERSION,
                what,
            });
        }
        let lsn = carried.point.place().commit_lsn();
        match EncodedEvents::check(bytes.slice_ref(events), count, lsn) {
            Ok(events) if count > 0 => carried.events = events,
            _ => {
                return Err(MessageFault::Contradiction(
                    "a transaction has no event, or one that cannot be read",
                ));
            }
        }
        Ok(carried)
    }

    /// What stands before the events, its flags, and the events with their number, which are not checked yet.
    fn take(bytes: &[u8]) -> Option<(Carried, u8, (&[u8], u32))> {
        let mut front = Front(bytes);
        let len = front.u32()?;
        let [kind, flags, 0, 0] = front.array()? else {
            return None;
        };
        if u64::from(len) != to_u64(bytes.len()) || kind != KIND_TRANSACTION || !bytes.len().is_multiple_of(8)
        {
            return None;
        }
        let point = Point::take(&mut front).filter(|point| !point.is_none())?;
        let event_count = front.u32()?;
        front.u32().filter(|reserved| *reserved == 0)?;
        let committed_at = i64::from_le_bytes(front.array()?);
        let origin = if flags & FLAG_ORIGIN != 0 {
            Some(take_origin(&mut front)?)
        } else {
            None
        };
        Some((
            Carried {
                committed_at,
                ..Carried::new(point, origin)
            },
            flags,
            (front.0, event_count),
        ))
    }
}

fn put_origin(out: &mut Vec<u8>, origin: &Origin) {
    let name = origin.name.as_str().as_bytes();
    let Ok(name_len) = u16::try_from(name.len()) else {
        unreachable!("a site name is at most 64 bytes")
    };
    out.put_site(origin.site);
    out.put_u64(origin.epoch.0);
    out.put_u64(origin.lsn.0);
    out.put_u16(name_len);
    out.extend_from_slice(&[0; 6]);
    out.put_padded(name);
}

fn take_origin(front: &mut Front<'_>) -> Option<Origin> {
    let (site, epoch, lsn) = (front.site()?, Epoch(front.u64()?), Lsn(front.u64()?));
    let name_len = usize::from(front.u16()?);
    front.array::<6>().filter(|reserved| *reserved == [0; 6])?;
    let name = std::str::from_utf8(front.padded(name_len)?).ok()?;
    Some(Origin {
        site,
        name: SiteName::new(name).ok()?,
        epoch,
        lsn,
    })
}
