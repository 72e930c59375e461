//! [`HeldRecord`]: the pinned record of a transaction in quarantine, and the frame that keeps its bytes.
//!
//! ```text
//! frame of kind 66   body: the transaction, encoded as the item of a message
//!                    pins: held/<remote>/<16 hex>   HeldRecord        received/<remote>   the position moves (R1)
//! frame of kind 67   body: LSN of the held frame 8 | why it was dropped, UTF-8
//!                    pins: held/<remote>/<16 hex>   nothing any more
//! ```
//!
//! The record is the state and the frame the bytes: who applies a held transaction removes the record in the very frame that
//! applies it, so it is applied once, whenever the process dies. The number in the key tells those of a remote apart; people
//! name a held transaction by the LSN of its frame.

use bincode::{Decode, Encode};
use milepost_engine::frame::{FrameKind, NewFrame};
use milepost_engine::{
    Epoch, Error, ErrorKind, Lsn, Origin, Pinned, Result, SiteName, Store, StoreId, codec,
};

use crate::message::{Carried, Point, cut};
use crate::tracking::Case;

/// Kind of a frame that keeps a transaction in quarantine. Due to nobody, and never counted as applied (R6).
pub const HELD: FrameKind = FrameKind(FrameKind::REPLICATION_FIRST + 2);
/// Kind of a frame that says that one was dropped.
pub const DROPPED: FrameKind = FrameKind(FrameKind::REPLICATION_FIRST + 3);
/// Key prefix of [`HeldRecord`].
pub const HELD_PREFIX: &str = "held/";
/// Longest reason that is kept, in bytes.
pub const MAX_REASON: usize = 1024;

/// Prefix of the keys of all that is held of a remote.
#[must_use]
pub fn held_prefix(remote: &SiteName) -> Vec<u8> {
    format!("{HELD_PREFIX}{remote}/").into_bytes()
}

/// Which of those that are held.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeldKey {
    /// The neighbour that brought it.
    pub remote: SiteName,
    /// Its number among what is held of that one.
    pub number: u64,
}

impl HeldKey {
    /// The key of the pinned record.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        format!("{HELD_PREFIX}{}/{:016x}", self.remote, self.number).into_bytes()
    }

    /// Reads one.
    fn read(bytes: &[u8]) -> Option<HeldKey> {
        let text = std::str::from_utf8(bytes).ok()?.strip_prefix(HELD_PREFIX)?;
        let (remote, number) = text.split_once('/')?;
        Some(HeldKey {
            remote: SiteName::new(remote).ok()?,
            number: u64::from_str_radix(number, 16).ok()?,
        })
    }
}

/// Why a transaction is held.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum HeldCause {
    /// The application vetoed it, with this reason.
    Vetoed(String),
    /// It may have been received before, and nobody knows any more.
    Forgotten(String),
    /// It has events of a stream of which another one is held.
    Behind,
}

impl HeldCause {
    /// The reason, cut to what is kept.
    #[must_use]
    pub fn short(self) -> HeldCause {
        let short = |text: String| cut(&text, MAX_REASON).to_owned();
        match self {
            HeldCause::Vetoed(why) => HeldCause::Vetoed(short(why)),
            HeldCause::Forgotten(why) => HeldCause::Forgotten(short(why)),
            HeldCause::Behind => HeldCause::Behind,
        }
    }
}

impl std::fmt::Display for HeldCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HeldCause::Vetoed(why) => write!(f, "vetoed: {why}"),
            HeldCause::Forgotten(why) => write!(f, "may have been received before: {why}"),
            HeldCause::Behind => f.write_str("shares a stream with one that is held"),
        }
    }
}

/// What is known of a held transaction without its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct HeldRecord {
    /// LSN of the frame that keeps it; 0 in that frame itself.
    pub at: Lsn,
    /// Generation of the pair over which it came.
    pub generation: u32,
    /// Id of the neighbour's store.
    pub sender: StoreId,
    /// Where it stands in that one's stream.
    pub point: Point,
    /// Where it was committed first: the site's id,
    pub origin: StoreId,
    /// its name,
    pub origin_name: String,
    /// its lineage,
    pub origin_epoch: Epoch,
    /// and the LSN there.
    pub origin_lsn: Lsn,
    /// When it was first held, microseconds since 1970; for people.
    pub since: i64,
    /// Bytes of its encoding.
    pub bytes: u64,
    /// Its events.
    pub events: u32,
    /// How often it was refused.
    pub refusals: u32,
    /// Why it is held, as of the last time.
    pub cause: HeldCause,
}

impl HeldRecord {
    /// Of a transaction that is about to be held.
    ///
    /// # Errors
    /// Those of encoding it.
    pub(super) fn of(case: &Case<'_>, cause: HeldCause, since: i64) -> Result<(HeldRecord, Vec<u8>)> {
        let mut body = Vec::with_capacity(case.carried.encoded_len());
        case.carried.encode(&mut body)?;
        let record = HeldRecord {
            at: Lsn::ZERO,
            generation: case.generation,
            sender: case.sender,
            point: case.carried.point,
            origin: case.origin.site,
            origin_name: case.origin.name.to_string(),
            origin_epoch: case.origin.epoch,
            origin_lsn: case.origin.lsn,
            since,
            bytes: milepost_engine::width::to_u64(body.len()),
            events: case.carried.event_count(),
            refusals: u32::from(!matches!(cause, HeldCause::Behind)),
            cause: cause.short(),
        };
        Ok((record, body))
    }

    /// Where it was committed first.
    ///
    /// # Errors
    /// `Corrupt` for what is no name of a site.
    pub fn origin(&self) -> Result<Origin> {
        let name = SiteName::new(&self.origin_name)
            .map_err(|error| Error::corrupt("a held transaction has no origin").caused_by(error))?;
        Ok(Origin {
            site: self.origin,
            name,
            epoch: self.origin_epoch,
            lsn: self.origin_lsn,
        })
    }

    /// The record to pin.
    ///
    /// # Errors
    /// `Invalid` when it is larger than a value may be.
    pub fn pin(&self, key: &HeldKey) -> Result<Pinned> {
        Ok(Pinned {
            key: key.bytes(),
            value: Some(codec::encode(self)?),
        })
    }

    /// The frame that keeps it.
    ///
    /// # Errors
    /// As [`HeldRecord::pin`].
    pub(super) fn frame(&self, key: &HeldKey, body: Vec<u8>) -> Result<NewFrame> {
        let mut frame = NewFrame::of_kind(HELD, body);
        frame.pin(self.pin(key)?);
        Ok(frame)
    }
}

/// Records of all that is held, or of one remote, in the order of their frames. Their [`HeldRecord::at`] is that of the frame.
///
/// # Errors
/// `Corrupt` for a record that is none; those of the store.
pub(crate) fn records(store: &Store, remote: Option<&SiteName>) -> Result<Vec<(HeldKey, HeldRecord)>> {
    let prefix = remote.map_or_else(|| HELD_PREFIX.as_bytes().to_vec(), held_prefix);
    let mut found = Vec::new();
    for (key, value, at) in store.pinned_with_prefix(&prefix)? {
        let bad = || Error::corrupt("a record of a held transaction cannot be read").at_lsn(at);
        let known = HeldKey::read(&key).ok_or_else(bad)?;
        let mut record: HeldRecord = codec::decode(&value).map_err(|error| bad().caused_by(error))?;
        if record.at == Lsn::ZERO {
            record.at = at;
        }
        found.push((known, record));
    }
    found.sort_by_key(|(_, record)| record.at);
    Ok(found)
}

/// The transaction that a frame keeps.
///
/// # Errors
/// `Behind` when it was freed; `Corrupt` when there is none, or it cannot be read.
pub fn read_held(store: &Store, at: Lsn) -> Result<Carried> {
    let body = store.read_frame(at, |frame| {
        Ok((frame.kind() == HELD).then(|| frame.body().to_vec()))
    });
    let body = body.map_err(|error| match error.kind() {
        ErrorKind::Behind => Error::new(
            ErrorKind::Behind,
            "what was held was freed, because the hold `quarantine` on the log was dropped: it can only be dropped now",
        )
        .at_lsn(at),
        _ => error,
    })?;
    let body = body.flatten();
    let body = body.ok_or_else(|| Error::corrupt("no transaction is kept in quarantine there").at_lsn(at))?;
    Carried::decode(&body).map_err(|fault| {
        Error::corrupt(format!(
            "the transaction kept in quarantine cannot be read: {fault}"
        ))
        .at_lsn(at)
    })
}

/// The frame that says that a held transaction was dropped.
pub(super) fn dropped(key: &HeldKey, at: Lsn, why: &str) -> NewFrame {
    let mut body = at.0.to_le_bytes().to_vec();
    body.extend_from_slice(cut(why, MAX_REASON).as_bytes());
    let mut frame = NewFrame::of_kind(DROPPED, body);
    frame.pin(gone(key));
    frame
}

/// What removes a record.
pub(super) fn gone(key: &HeldKey) -> Pinned {
    Pinned {
        key: key.bytes(),
        value: None,
    }
}
