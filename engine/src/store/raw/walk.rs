//! The walk of a [`RawLog`]: blocks and what lies between them, in log order.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::block::{Block, BlockHeader};
use crate::index::sidecar_segment;
use crate::log::away::Stub;
use crate::log::{Cursor, Found, SegmentDir};
use crate::{Chain, Epoch, Error, Lsn, Result};

use super::{Known, RawLog};

/// What is damaged about a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamageKind {
    /// A block's header is whole, what it holds is not.
    Contents,
    /// No header can be read; the range ends where the next one was found.
    Header,
    /// Nothing is there: a file is missing or too short, or zeros stand where more was durable.
    Missing,
    /// Not damaged itself: the whole block here does not continue the one before. Two histories meet.
    Parted,
    /// The log ends before what is known to have been durable. Where that ended is known at least.
    End,
}

/// A range of the log that is no block in line.
#[derive(Clone, Debug)]
pub struct Damage {
    /// What is damaged.
    pub kind: DamageKind,
    /// First byte.
    pub at: Lsn,
    /// Where the log goes on, or, at its end, up to where at least it went.
    pub end: Lsn,
    /// File that holds the first byte, or would.
    pub path: PathBuf,
    /// What was found there.
    pub reason: String,
    /// The block's header, when that is whole.
    pub header: Option<BlockHeader>,
    /// Chain before it, when the blocks before it are whole.
    pub(in crate::store) chain_before: Option<Chain>,
    /// Chain behind it, when that is known.
    pub(in crate::store) chain_after: Option<Chain>,
}

/// A piece of the log.
pub enum RawPiece<'a> {
    /// A whole block.
    Block(Block<'a>),
    /// Something else.
    Damage(&'a Damage),
}

/// Where the walk ended.
#[derive(Clone, Copy, Debug)]
pub struct RawEnd {
    /// Behind the last whole block or the last damage that something follows.
    pub at: Lsn,
    /// Up to where the log is known to have been durable.
    pub durable: Lsn,
    pub(in crate::store) chain: Option<Chain>,
    pub(in crate::store) epoch: Epoch,
}

/// A walk under way.
struct Walk<'a> {
    raw: &'a RawLog,
    known: Known,
    at: Lsn,
    chain: Option<Chain>,
    epoch: Epoch,
    /// Epochs that the log has left.
    left: Vec<Epoch>,
    /// Highest durable end that a header names.
    durable: Lsn,
    visit: &'a mut dyn FnMut(RawPiece<'_>) -> Result<()>,
}

impl RawLog {
    /// Shows every block and every damage in log order, and says where the log ends.
    ///
    /// # Errors
    /// `Internal` when a file cannot be read at all, which copying it to a disk that works may help against;
    /// `Corrupt` when there is no segment; what `visit` returns.
    pub fn walk(&self, visit: &mut dyn FnMut(RawPiece<'_>) -> Result<()>) -> Result<RawEnd> {
        let known = self.known()?;
        let bound = known.bound.unwrap_or(Lsn::MAX);
        let firsts: Vec<Lsn> = self
            .dir
            .list()?
            .into_iter()
            .filter(|first| *first >= known.oldest && *first < bound)
            .collect();
        let Some((last, sealed)) = firsts.split_last() else {
            let text = "the log has no segment: nothing of it can be read or repaired; restore a backup";
            return Err(Error::corrupt(text).at_path(self.storage.root().join("log")));
        };
        let mut walk = Walk {
            raw: self,
            at: known.oldest,
            chain: known.chain,
            epoch: Epoch::default(),
            left: Vec::new(),
            durable: known.floor,
            known,
            visit,
        };
        walk.gap_before(firsts.first().copied().unwrap_or_default())?;
        for (number, first) in sealed.iter().enumerate() {
            let end = firsts.get(number + 1).copied().unwrap_or(*last);
            walk.sealed(*first, end)?;
        }
        let ended = walk.last(*last)?;
        walk.witnesses(*last, ended)?;
        Ok(RawEnd {
            at: walk.at,
            durable: walk.durable.min(Lsn(bound.0)),
            chain: walk.chain,
            epoch: walk.epoch,
        })
    }
}

impl Walk<'_> {
    fn block(&mut self, block: Block<'_>) -> Result<()> {
        let header = *block.header();
        if self.left.contains(&header.epoch) && !header.lost {
            // Behind a gap no chain tells: but a log never goes back to an epoch that it left.
            let path = self.raw.storage.root().join("log");
            let reason = format!(
                "the log goes back to lineage epoch {} here: two histories meet",
                header.epoch
            );
            let parted = self.nothing(DamageKind::Parted, self.at, path, reason);
            self.left.retain(|left| *left != header.epoch);
            (self.visit)(RawPiece::Damage(&parted))?;
        }
        (self.visit)(RawPiece::Block(block))?;
        (self.at, self.chain) = (header.end(), Some(header.chain_after()));
        if !header.lost && header.epoch != self.epoch {
            self.left.push(std::mem::replace(&mut self.epoch, header.epoch));
        }
        self.durable = self.durable.max(header.durable);
        Ok(())
    }

    fn damage(&mut self, damage: &Damage) -> Result<()> {
        (self.visit)(RawPiece::Damage(damage))?;
        if damage.kind != DamageKind::End {
            (self.at, self.chain) = (damage.end, damage.chain_after);
        }
        if let Some(header) = &damage.header {
            self.durable = self.durable.max(header.durable);
        }
        Ok(())
    }

    fn nothing(&self, kind: DamageKind, end: Lsn, path: PathBuf, reason: String) -> Damage {
        Damage {
            kind,
            at: self.at,
            end,
            path,
            reason,
            header: None,
            chain_before: self.chain,
            chain_after: None,
        }
    }

    /// The first files of the log are missing.
    fn gap_before(&mut self, first: Lsn) -> Result<()> {
        if self.at >= first {
            return Ok(());
        }
        let name = crate::log::segment_name(self.raw.dir.kind(), self.at);
        let path = self.raw.storage.root().join(name);
        let hint = crate::log::away::hint(&*self.raw.storage, self.raw.identity.owner, self.at);
        let reason = format!("the first files of the log are missing{hint}");
        let mut damage = self.nothing(DamageKind::Missing, first, path, reason);
        damage.chain_after = self.chain_at(first)?;
        self.damage(&damage)
    }

    /// Chain that the first block of a segment names, when its header is whole.
    fn chain_at(&self, first: Lsn) -> Result<Option<Chain>> {
        let segment = match self.raw.dir.open(first) {
            Err(error) => {
                let (_, stub) = self.raw.passed_over(first, error)?;
                return Ok(stub.map(|stub| stub.chain_before));
            }
            segment => segment?,
        };
        let mut cursor = Cursor::new(&self.raw.dir, &segment);
        Ok(cursor.header_at(first)?.map(|header| header.chain))
    }

    /// A segment that ends where the next begins.
    fn sealed(&mut self, first: Lsn, end: Lsn) -> Result<()> {
        let segment = match self.raw.dir.open(first) {
            Err(error) => {
                let (error, stub) = self.raw.passed_over(first, error)?;
                return self.missing_in_archive(end, &error, stub);
            }
            segment => segment?,
        };
        let mut cursor = Cursor::new(&self.raw.dir, &segment);
        while self.at < end {
            let reason = match cursor.block(self.at, self.chain)? {
                Found::Block(block, _) if block.header().end() <= end => {
                    self.block(block)?;
                    continue;
                }
                Found::Block(..) => "a block reaches beyond the end of its segment".to_owned(),
                Found::Nothing(reason) => reason,
            };
            let damage = match self.between(&mut cursor, end, reason)? {
                Some(damage) => damage,
                None => self.up_to_next(&mut cursor, end)?,
            };
            self.damage(&damage)?;
        }
        Ok(())
    }

    /// A whole segment that is not in the archive, or whose archive is not there.
    fn missing_in_archive(&mut self, end: Lsn, error: &Error, stub: Option<Stub>) -> Result<()> {
        let path = error
            .path()
            .map_or_else(|| self.raw.storage.root().join("log"), Path::to_path_buf);
        let mut damage = self.nothing(DamageKind::Missing, end, path, error.to_string());
        damage.chain_after = match stub {
            Some(stub) if stub.end == end => Some(stub.chain_after),
            _ => self.chain_at(end)?,
        };
        self.damage(&damage)
    }

    /// What stands between here and the next header below `limit`; `None` when there is none.
    fn between(&self, cursor: &mut Cursor, limit: Lsn, reason: String) -> Result<Option<Damage>> {
        let path = cursor.path();
        if let Some(header) = cursor.header_at(self.at)? {
            let parted = self.chain.is_some_and(|chain| chain != header.chain);
            if parted {
                let reason = "the block here does not continue the one before: two histories meet".to_owned();
                return Ok(Some(self.nothing(DamageKind::Parted, self.at, path, reason)));
            }
            if header.end() <= limit {
                let mut damage = self.nothing(DamageKind::Contents, header.end(), path, reason);
                damage.header = Some(header);
                damage.chain_after = Some(header.chain_after());
                return Ok(Some(damage));
            }
        }
        let next = cursor.next_header(self.at.plus(8), limit)?;
        Ok(next.map(|next| {
            let mut damage = self.nothing(DamageKind::Header, next.lsn, path, reason);
            damage.chain_after = Some(next.chain);
            damage
        }))
    }

    /// The rest of a sealed segment holds no header.
    fn up_to_next(&self, cursor: &mut Cursor, end: Lsn) -> Result<Damage> {
        let dirty = cursor.dirty_behind(self.at)?;
        let (kind, reason) = if dirty {
            (DamageKind::Header, "no block begins here".to_owned())
        } else {
            let nothing = "nothing stands here".to_owned();
            (DamageKind::Missing, cursor.explained(self.at, nothing)?)
        };
        let mut damage = self.nothing(kind, end, cursor.path(), reason);
        damage.chain_after = self.chain_at(end)?;
        Ok(damage)
    }

    /// The segment that ends the log: behind what was durable anything may stand, and means nothing. Returns the damage
    /// that it ends with, which is not shown yet.
    fn last(&mut self, first: Lsn) -> Result<Option<Damage>> {
        let segment = self.raw.dir.open(first)?;
        let limit = segment.end().min(self.known.bound.unwrap_or(Lsn::MAX));
        let mut cursor = Cursor::new(&self.raw.dir, &segment);
        loop {
            let reason = match cursor.block(self.at, self.chain)? {
                Found::Block(block, _) if block.header().end() <= limit => {
                    self.block(block)?;
                    continue;
                }
                Found::Block(..) => "a block reaches beyond the end of the log".to_owned(),
                Found::Nothing(reason) => reason,
            };
            let behind = cursor.durable_behind(self.at)?;
            self.durable = self.durable.max(behind);
            // The first block was durable before the store had its name.
            let durable = self.durable.max(Lsn(u64::from(self.at == Lsn::ZERO)));
            if self.at >= durable {
                return Ok(None);
            }
            match self.between(&mut cursor, limit, reason.clone())? {
                Some(damage) => self.damage(&damage)?,
                None => {
                    return Ok(Some(self.nothing(
                        DamageKind::End,
                        durable,
                        cursor.path(),
                        reason,
                    )));
                }
            }
        }
    }

    /// Shows the damage that the log ends with, once: what the last segment shows of it, and what other files know of
    /// more than that holds.
    fn witnesses(&mut self, last: Lsn, ended: Option<Damage>) -> Result<()> {
        let damage = match self.witness(last)? {
            Some((path, reason)) => self.nothing(DamageKind::End, self.durable.max(self.at), path, reason),
            None => match ended {
                Some(ended) => ended,
                None => return Ok(()),
            },
        };
        self.damage(&damage)
    }

    /// Why the log went on behind its last segment, or the rest of that is gone, with the file.
    fn witness(&mut self, last: Lsn) -> Result<Option<(PathBuf, String)>> {
        if self.known.bound.is_some() {
            return Ok(None);
        }
        let segment = self.raw.dir.open(last)?;
        let path = self.raw.dir.path(&segment);
        let (len, full) = (segment.len(), self.raw.identity.segment_bytes);
        let names = self.raw.storage.list("log");
        let names = names.map_err(|error| Error::io("list the segments", &path, error))?;
        let sealed = names.iter().any(|name| sidecar_segment(name) == Some(last));
        let reason = if let Some(newest) = self.known.newest.filter(|newest| *newest > last) {
            self.durable = self.durable.max(newest);
            format!("the log went on in later files, which are missing; one began at {newest}")
        } else if sealed {
            "the log went on in later files, which are missing".to_owned()
        } else if len < full {
            format!(
                "the file has {len} bytes of at least {full}: it was cut, and what stood in the rest is gone"
            )
        } else {
            return Ok(None);
        };
        Ok(Some((path, reason)))
    }
}

/// `aux` of the last whole block of a queue's last segment.
pub(super) fn last_aux(queue: &Arc<SegmentDir>, last: Option<Lsn>) -> Result<Lsn> {
    let Some(first) = last else {
        return Ok(Lsn::ZERO);
    };
    let mut cursor = Cursor::new(queue, &queue.open(first)?);
    let (mut at, mut chain, mut aux) = (first, None, 0);
    while let Ok(Found::Block(block, _)) = cursor.block(at, chain) {
        aux = block.header().aux;
        (at, chain) = (block.header().end(), Some(block.chain_after()));
    }
    Ok(Lsn(aux))
}
