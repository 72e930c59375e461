//! What a copy still holds of what the store has lost: a segment that is copied again keeps it.
//!
//! ```text
//! store │ good │ lost ──────── │ good │        copy │ BAD │ good │ good │ good │
//! new   │ good (store) │ good, good (copy: they fill the place and continue the chain) │ good (store) │
//! ```
//!
//! Where the copy holds a part of it only, the run is refused: no lost block takes the place of a good one.

use crate::block::BlockKind;
use crate::log::{Cursor, Found, segment_name};
use crate::storage::OpenMode;
use crate::{Chain, Error, Lsn, Result};

use super::{Boundary, Run, Target, blocks, whole};

/// A range that is lost in the store.
pub(super) struct Lost {
    at: Lsn,
    end: Lsn,
    before: Chain,
    after: Chain,
}

impl Run<'_> {
    /// Walks what the copy holds from a boundary on as far as it is whole. What is one file of the store after a repair
    /// may be several here.
    pub(super) fn copied(&mut self, from: Boundary, end: Lsn) -> Result<Boundary> {
        let mut here = from;
        while let Some(first) = self.copies.first_at_or_before(here.at)?
            && here.at < end
        {
            self.copies.forget(first);
            let reached = whole(&self.copies, first, here, end, self.told)?;
            if reached.at == here.at {
                break;
            }
            here = reached;
        }
        Ok(here)
    }

    /// First LSNs of the copy's files that begin in [first, end).
    pub(super) fn pieces(&self, first: Lsn, end: Lsn) -> Result<Vec<Lsn>> {
        let mut pieces = self.copies.list()?;
        pieces.retain(|piece| *piece >= first && *piece < end);
        Ok(pieces)
    }

    /// What the store has lost of [first, end) and the copy holds whole.
    ///
    /// # Errors
    /// `Conflict` when the copy holds a part of such a range.
    pub(super) fn held_alone(&mut self, first: Lsn, end: Lsn) -> Result<Vec<Lost>> {
        let mut held = Vec::new();
        for lost in self.lost(first, end)? {
            let reached = self.copied(Boundary::new(lost.at, Some(lost.before)), lost.end)?;
            if reached.at == lost.end && reached.chain == Some(lost.after) {
                held.push(lost);
            } else if let Some((piece, at)) = self.good_in(first, &lost)? {
                let text = "the copy of this segment is damaged, and holds blocks that a repair took out of the store: copied \
                            again from there they would be gone, so nothing of it was changed; keep this backup, see with \
                            `milepost dump` what it holds, and begin a new one in another folder";
                let path = self.to.root().join(segment_name(BlockKind::Log, piece));
                return Err(Error::conflict(text).at_path(path).at_lsn(at));
            }
        }
        Ok(held)
    }

    /// Ranges of [first, end) that are lost in the store, neighbours as one.
    fn lost(&self, first: Lsn, end: Lsn) -> Result<Vec<Lost>> {
        let mut all: Vec<Lost> = Vec::new();
        let mut cursor = Cursor::new(self.source, &self.source.open(first)?);
        let mut at = first;
        // What is damaged there is told by who copies it.
        while at < end
            && let Found::Block(block, _) = cursor.block(at, None)?
        {
            let header = *block.header();
            at = header.end();
            match all.last_mut().filter(|last| last.end == header.lsn) {
                _ if !header.lost => {}
                Some(last) => (last.end, last.after) = (at, header.chain_after()),
                None => all.push(Lost {
                    at: header.lsn,
                    end: at,
                    before: header.chain,
                    after: header.chain_after(),
                }),
            }
        }
        Ok(all)
    }

    /// File and LSN of the first whole block that the copy holds in the range, itself no lost one.
    fn good_in(&self, first: Lsn, lost: &Lost) -> Result<Option<(Lsn, Lsn)>> {
        for piece in self.pieces(first, lost.end)? {
            let mut cursor = Cursor::new(&self.copies, &self.copies.open(piece)?);
            let mut at = lost.at.max(piece);
            while let Some(header) = cursor.next_header(at, lost.end)? {
                if !header.lost && matches!(cursor.block(header.lsn, None)?, Found::Block(..)) {
                    return Ok(Some((piece, header.lsn)));
                }
                at = header.lsn.plus(8);
            }
        }
        Ok(None)
    }

    /// Writes what the copy alone holds into the file `name`, which takes the copy's place; synced.
    pub(super) fn put_back(&mut self, first: Lsn, held: &[Lost], name: &str) -> Result<()> {
        let path = self.to.root().join(name);
        let failed = |error| Error::io("keep what the copy alone holds", &path, error).at_lsn(first);
        let file = self.to.open(name, OpenMode::OpenOrCreate).map_err(failed)?;
        let to = Target {
            file: &*file,
            first,
            path: path.clone(),
        };
        for lost in held {
            let mut here = Boundary::new(lost.at, Some(lost.before));
            let mut ends = self.pieces(lost.at.plus(1), lost.end)?;
            ends.push(lost.end);
            for end in ends {
                let piece = self.copies.first_at_or_before(here.at)?.unwrap_or(first);
                here = blocks(&self.copies, piece, here, end, &to, self.told)?;
            }
        }
        file.sync_data().map_err(failed)
    }
}
