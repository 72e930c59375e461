//! What can still be read of damaged bytes: which frames they held.
//!
//! ```text
//! header whole ─► frames of the body, one after another, until one contradicts its bounds   (uncertain)
//! header damaged ─► the one bit whose change makes it whole ─► body's CRC fits              (certain)
//! neither ─► nothing is known but the length
//! ```
//!
//! Nothing of it is believed: it is a list for people of what they have to look for elsewhere.

use std::collections::BTreeMap;
use std::fmt;

use crate::block::{Block, BlockHeader, HEADER_LEN, Owner};
use crate::frame::{FrameKind, FrameRef};
use crate::width::to_u64;
use crate::{Lsn, Result, TransactionId};

use super::{Damage, DamageKind, RawLog};

/// A frame that is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostFrame {
    /// Its LSN.
    pub lsn: Lsn,
    /// Its kind.
    pub kind: FrameKind,
    /// Its id.
    pub id: TransactionId,
    /// When it was appended, microseconds since 1970.
    pub time: i64,
    /// Number of events that it says it holds.
    pub events: u32,
    /// Streams of the events that can be read, each with how many.
    pub streams: BTreeMap<String, u32>,
    /// Site and LSN it was committed at first, when that is another site.
    pub origin: Option<(String, Lsn)>,
    /// Keys of its pinned records.
    pub pinned: Vec<Vec<u8>>,
    /// It was read from bytes whose checksum fits.
    pub certain: bool,
}

/// What a damaged range held, as far as it can be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Frames that can be read.
    pub frames: Vec<LostFrame>,
    /// Numbers of frames and events that the block's header names, when that can be read.
    pub named: Option<(u32, u32)>,
    /// All that was lost is listed in `frames`.
    pub complete: bool,
}

impl LostFrame {
    pub(in crate::store) fn of(frame: &FrameRef<'_>, certain: bool) -> LostFrame {
        let mut streams = BTreeMap::new();
        for event in frame.events() {
            let Ok(event) = event else { break };
            let Ok(stream) = event.stream() else { break };
            *streams.entry(stream.to_owned()).or_insert(0) += 1;
        }
        let origin = frame.origin().ok().flatten();
        let pinned = frame.pinned().unwrap_or_default();
        LostFrame {
            lsn: frame.lsn(),
            kind: frame.kind(),
            id: frame.id(),
            time: frame.time(),
            events: frame.event_count(),
            streams,
            origin: origin.map(|origin| (origin.name.to_owned(), origin.lsn)),
            pinned: pinned.into_iter().map(|record| record.key.to_vec()).collect(),
            certain,
        }
    }
}

impl fmt::Display for LostFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = jiff::Timestamp::from_microsecond(self.time);
        let time = time.map_or_else(|_| self.time.to_string(), |time| time.to_string());
        let (kind, lsn, id, events) = (self.kind.name(), self.lsn, self.id, self.events);
        write!(f, "{kind} at LSN {lsn}, id {id}, {time}, {events} events")?;
        for (stream, count) in &self.streams {
            // Names come from applications and other sites.
            write!(f, ", {count} of {}", stream.escape_debug())?;
        }
        if let Some((site, lsn)) = &self.origin {
            write!(f, ", first committed at {} as {lsn}", site.escape_debug())?;
        }
        for key in &self.pinned {
            write!(f, ", pinned {}", key.escape_ascii())?;
        }
        if !self.certain {
            f.write_str(", as far as damaged bytes can be read")?;
        }
        Ok(())
    }
}

impl RawLog {
    /// What a damaged range held.
    ///
    /// # Errors
    /// `Internal` when its file cannot be read.
    pub fn loss(&self, damage: &Damage) -> Result<Loss> {
        if !matches!(damage.kind, DamageKind::Contents | DamageKind::Header) {
            return Ok(Loss::default());
        }
        let bytes = self.read(damage.at, damage.end)?;
        Ok(read(&bytes, damage, self.identity.owner))
    }
}

fn read(bytes: &[u8], damage: &Damage, owner: Owner) -> Loss {
    let mended = || mended_header(bytes, damage.at, owner);
    let Some(header) = damage.header.or_else(mended) else {
        return Loss::default();
    };
    let whole = Block::check_body(header, bytes).is_ok();
    let frames = frames(bytes, &header, whole);
    let events = frames.iter().map(|frame| u64::from(frame.events)).sum::<u64>();
    let all =
        to_u64(frames.len()) == u64::from(header.frame_count) && events == u64::from(header.event_count);
    Loss {
        named: Some((header.frame_count, header.event_count)),
        // A range of several blocks says nothing of those behind the first.
        complete: all && whole && header.end() == damage.end,
        frames,
    }
}

fn frames(bytes: &[u8], header: &BlockHeader, certain: bool) -> Vec<LostFrame> {
    let mut rest = bytes.get(header.body_range()).unwrap_or_default();
    let mut lsn = header.lsn.plus(to_u64(header.body_range().start));
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let Ok((frame, behind)) = FrameRef::parse(rest, lsn, header) else {
            break;
        };
        frames.push(LostFrame::of(&frame, certain));
        lsn = frame.end();
        rest = behind;
    }
    frames
}

/// The header at the start of `bytes`, when one flipped bit is all that is wrong with it. Its checksum tells two
/// such bits apart at this length, so there is at most one.
fn mended_header(bytes: &[u8], at: Lsn, owner: Owner) -> Option<BlockHeader> {
    let raw: [u8; HEADER_LEN] = *bytes.first_chunk()?;
    (0..HEADER_LEN * 8).find_map(|bit| {
        let mut changed = raw;
        if let Some(byte) = changed.get_mut(bit / 8) {
            *byte ^= 1 << (bit % 8);
        }
        let header = BlockHeader::parse(&changed).ok()?;
        (header.lsn == at && header.owner == owner).then_some(header)
    })
}
