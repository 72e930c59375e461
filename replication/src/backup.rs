//! What the last backup covers, so that agents with `-u` send and confirm no more than that.
//!
//! ```text
//! back_up: what was received of each neighbour is read ─► Store::backup ─► one note frame: backup, covered/<remote> …
//! send -u: backup ─► nothing behind `through` is sent      covered/<remote> ─► nothing behind its point is confirmed
//! ```
//!
//! Why: a store that is lost and made again of its backup then knows all that anybody else has of it, and is sent all that
//! it had received since, because its neighbours still keep that. Without `-u` those who hold more of it than it does itself
//! stop the pair (R5), and what they had let go is gone.
//!
//! | key | value | written |
//! |---|---|---|
//! | `backup` | LSN of the last frame that the last backup holds | behind a backup that holds more than the former one did, notes and markers aside |
//! | `covered/<remote>` | generation; the place up to which the neighbour's commits are in the backup | with it, where it changed |
//!
//! Points are read before the backup begins, so that it holds all of them. Of two backups at once the one that ends last is
//! noted, perhaps the lesser: then less is sent, and the next one mends that. The note stands behind all that it speaks of, so
//! a log that was restored or cut and still has it has that too.

use std::path::Path;
use std::sync::Arc;

use bincode::{Decode, Encode};
use milepost_engine::frame::{FrameKind, NewFrame};
use milepost_engine::storage::Storage;
use milepost_engine::{BackedUp, Durability, ErrorKind, Lsn, Pinned, Result, SiteName, Store, codec};

use crate::catalog::Catalog;
use crate::message::Point;
use crate::tracking::{NOTE, Neighbour, PairRecords, PairState};

/// Key of [`BackupRecord`].
pub const BACKUP_KEY: &str = "backup";
/// Key prefix of [`CoveredRecord`].
pub const COVERED_PREFIX: &str = "covered/";
/// How far before its end the last frame of a log is looked for at first, in bytes; then four times as far each time.
const LAST_LOOK: u64 = 64 << 10;

/// The last backup, as the log knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct BackupRecord {
    /// LSN of the last frame that it holds.
    pub through: Lsn,
}

impl BackupRecord {
    /// The record to pin.
    ///
    /// # Errors
    /// `Invalid` when it is larger than a value may be.
    pub fn pin(&self) -> Result<Pinned> {
        Ok(Pinned {
            key: BACKUP_KEY.into(),
            value: Some(codec::encode(self)?),
        })
    }
}

/// What it holds of a neighbour's commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CoveredRecord {
    /// Generation of the pair.
    pub generation: u32,
    /// The last place.
    pub point: Point,
}

impl PairState for CoveredRecord {
    const PREFIX: &'static str = COVERED_PREFIX;
}

/// Backs up as [`Store::backup`] does, and notes in the log what agents with `-u` may send and confirm from now on. A site
/// without remotes notes nothing. Where the note fails (the disk is full), the backup is whole all the same: a warning is
/// logged, agents go on by the former note, and the next run makes up for it.
///
/// # Errors
/// As [`Store::backup`].
pub fn back_up(
    store: &Store,
    to: impl AsRef<Path>,
    thorough: bool,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<BackedUp> {
    noted(store, || store.backup(to, thorough, progress))
}

/// [`back_up`] to any storage.
///
/// # Errors
/// As [`back_up`].
pub fn back_up_in(
    store: &Store,
    to: Arc<dyn Storage>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<BackedUp> {
    noted(store, || store.backup_in(to, false, progress))
}

fn noted(store: &Store, back_up: impl FnOnce() -> Result<BackedUp>) -> Result<BackedUp> {
    let received = received_so_far(store)?;
    let done = back_up()?;
    if !received.is_empty()
        && let Err(error) = note(store, &done, received)
    {
        tracing::warn!(%error, "the backup is whole, but could not be noted: agents with -u go by the former one");
    }
    Ok(done)
}

/// What of each neighbour's commits is in our log now.
fn received_so_far(store: &Store) -> Result<Vec<(SiteName, CoveredRecord)>> {
    let catalog = Catalog::load(store)?;
    let remotes = catalog.remotes().map(|remote| {
        let neighbour = Neighbour {
            name: remote.site.clone(),
            generation: remote.generation,
        };
        let find = |key: &[u8]| Ok(store.pinned(key)?.map(|(value, _)| value));
        let received = PairRecords::load(&neighbour, find)?.received;
        let covered = CoveredRecord {
            generation: received.generation,
            point: received.point,
        };
        Ok((neighbour.name, covered))
    });
    remotes.collect()
}

fn note(store: &Store, done: &BackedUp, received: Vec<(SiteName, CoveredRecord)>) -> Result<()> {
    let Some(through) = last_before(store, done.end)? else {
        return Ok(());
    };
    let former = read(store)?;
    let mut note = NewFrame::of_kind(NOTE, Vec::new());
    for (name, covered) in received {
        let known = store.pinned(&CoveredRecord::key(&name))?;
        let known = known.map(|(value, _)| CoveredRecord::read(&value)).transpose()?;
        if known != Some(covered) && !(known.is_none() && covered.point.is_none()) {
            note.pin(covered.pin(&name)?);
        }
    }
    if let Some(former) = former.filter(|former| former.through <= through)
        && note.pinned().is_empty()
        && !has_news(store, former.through, done.end)?
    {
        return Ok(());
    }
    note.pin(BackupRecord { through }.pin()?);
    store.append_frames(vec![note], Durability::Synced).map(|_| ())
}

fn read(store: &Store) -> Result<Option<BackupRecord>> {
    let record = store.pinned(BACKUP_KEY.as_bytes())?;
    record.map(|(value, _)| codec::decode(&value)).transpose()
}

/// LSN of the last frame before `end`.
fn last_before(store: &Store, end: Lsn) -> Result<Option<Lsn>> {
    let (mut back, begins) = (LAST_LOOK, store.beginning()?.lsn());
    loop {
        let from = begins.max(Lsn(end.0.saturating_sub(back)));
        let (mut scan, mut last) = (store.scan(from)?, None);
        while let Some(frame) = scan.next()?.filter(|frame| frame.lsn() < end) {
            last = Some(frame.lsn());
        }
        if last.is_some() || from == begins {
            return Ok(last);
        }
        back = back.saturating_mul(4);
    }
}

/// True when more than what phases tell each other stands between two positions, or nobody can say.
fn has_news(store: &Store, after: Lsn, end: Lsn) -> Result<bool> {
    let mut scan = match store.scan(after) {
        Err(error) if error.kind() == ErrorKind::Behind => return Ok(true),
        scan => scan?,
    };
    while let Some(frame) = scan.next()?.filter(|frame| frame.lsn() < end) {
        if ![NOTE, FrameKind::MARKER].contains(&frame.kind()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What the last backup covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// Everything of our log at or below; 0 without a backup.
    pub through: Lsn,
}

impl Coverage {
    /// As the log knows it now.
    ///
    /// # Errors
    /// Those of the store.
    pub fn of(store: &Store) -> Result<Coverage> {
        let through = read(store)?.map_or(Lsn::ZERO, |record| record.through);
        Ok(Coverage { through })
    }

    /// The same; `None` without a backup.
    #[must_use]
    pub fn backed_up(&self) -> Option<Lsn> {
        Some(self.through).filter(|through| *through > Lsn::ZERO)
    }

    /// What of a neighbour's commits may be confirmed.
    ///
    /// # Errors
    /// Those of the store.
    pub fn received(store: &Store, neighbour: &SiteName, generation: u32) -> Result<Point> {
        let record = store.pinned(&CoveredRecord::key(neighbour))?;
        let record = record.map(|(value, _)| CoveredRecord::read(&value)).transpose()?;
        let counts = record.filter(|record| record.generation == generation);
        Ok(counts.map_or(Point::NONE, |record| record.point))
    }
}
