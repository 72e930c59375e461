//! Copying blocks of one log to another file, each verified on the way.
//!
//! ```text
//! source ─ pread ─► header, filter, body, LSN, store, chain ─► 1 MiB pieces ─► pwrite
//! ```
//!
//! What is not a block that continues the log is not copied: the error names segment and LSN, and nothing
//! behind it is touched.

use std::sync::Arc;

use crate::log::{Cursor, Found, SegmentDir};
use crate::storage::StorageFile;
use crate::storage::write_all;
use crate::width::to_u64;
use crate::{Chain, Epoch, Error, Lsn, Result};

/// Bytes written at a time: 1 MiB.
const PIECE: usize = 1 << 20;

/// A block boundary and what a block that begins there must name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Boundary {
    pub at: Lsn,
    /// `None`: whatever the first block names.
    pub chain: Option<Chain>,
    /// Epoch of the block before, if one was read.
    pub epoch: Option<Epoch>,
}

impl Boundary {
    /// Before the block at `at`.
    pub(in crate::store) fn new(at: Lsn, chain: Option<Chain>) -> Boundary {
        Boundary {
            at,
            chain,
            epoch: None,
        }
    }
}

/// A file that takes a segment's bytes.
pub(in crate::store) struct Target<'a> {
    pub file: &'a dyn StorageFile,
    /// LSN of its first byte.
    pub first: Lsn,
    /// For messages.
    pub path: std::path::PathBuf,
}

impl Target<'_> {
    fn write(&self, bytes: &[u8], at: Lsn) -> Result<()> {
        write_all(self.file, &[bytes], at.since(self.first))
            .map_err(|error| Error::io("write a copy of a segment", &self.path, error).at_lsn(at))
    }
}

/// Copies the blocks of [from, end) of the segment that begins at `first`, both block boundaries. `told` is
/// told bytes as they are read.
pub(in crate::store) fn blocks(
    source: &Arc<SegmentDir>,
    first: Lsn,
    from: Boundary,
    end: Lsn,
    to: &Target<'_>,
    told: &mut dyn FnMut(u64),
) -> Result<Boundary> {
    let segment = source.open(first)?;
    let mut cursor = Cursor::new(source, &segment);
    let (mut here, mut piece, mut piece_at) = (from, Vec::with_capacity(PIECE), from.at);
    while here.at < end {
        let reason = match cursor.block(here.at, here.chain)? {
            Found::Block(block, bytes) if block.header().end() <= end => {
                piece.extend_from_slice(bytes);
                here = Boundary {
                    at: block.header().end(),
                    chain: Some(block.chain_after()),
                    epoch: Some(block.header().epoch),
                };
                told(to_u64(bytes.len()));
                None
            }
            Found::Block(..) => {
                Some("a block reaches beyond the end of its segment or of the log".to_owned())
            }
            Found::Nothing(reason) => Some(reason),
        };
        if let Some(reason) = reason {
            let reason = cursor.explained(here.at, reason)?;
            return Err(cursor.corrupt(here.at, &reason));
        }
        if piece.len() >= PIECE || here.at >= end {
            to.write(&piece, piece_at)?;
            piece.clear();
            piece_at = here.at;
        }
    }
    Ok(here)
}

/// Walks the blocks of [from, end) as far as they are whole and continue each other.
pub(in crate::store) fn whole(
    dir: &Arc<SegmentDir>,
    first: Lsn,
    from: Boundary,
    end: Lsn,
    told: &mut dyn FnMut(u64),
) -> Result<Boundary> {
    let segment = dir.open(first)?;
    let mut cursor = Cursor::new(dir, &segment);
    let mut here = from;
    while here.at < end {
        match cursor.block(here.at, here.chain)? {
            Found::Block(block, bytes) if block.header().end() <= end => {
                told(to_u64(bytes.len()));
                here = Boundary {
                    at: block.header().end(),
                    chain: Some(block.chain_after()),
                    epoch: Some(block.header().epoch),
                };
            }
            _ => break,
        }
    }
    Ok(here)
}
