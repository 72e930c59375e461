//! What state a segment's sidecar file is in, for `verify`. Changes nothing: a sidecar is derived (E4)
//! and whoever needs it makes it again.

use crate::storage::Storage;
use crate::width::to_u64;
use crate::{Chain, Lsn, Result, StoreId};

use super::Totals;
use super::layout::HEADER_LEN;
use super::name;
use super::sidecar::{Fault, Sidecar};

/// What a whole sidecar file says of its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SidecarFacts {
    /// First LSN of the next segment.
    pub end: Lsn,
    /// Chain before the segment's first block.
    pub chain_before: Chain,
    /// Chain after its last block.
    pub end_chain: Chain,
    /// Counts and times of the segment.
    pub totals: Totals,
    /// Streams with events in the segment.
    pub streams: u64,
    /// Pinned records as of its end.
    pub pinned: u64,
    /// Length of the file.
    pub bytes: u64,
}

/// What the sidecar of the segment at `first` says, every section verified; `None` when it is missing or damaged.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn sidecar_facts(storage: &dyn Storage, first: Lsn) -> Result<Option<SidecarFacts>> {
    let found = Sidecar::open(storage, first).and_then(|sidecar| {
        sidecar.verify()?;
        let header = sidecar.header();
        let sections = header.extents.iter().map(|extent| extent.len).sum::<u64>();
        Ok(SidecarFacts {
            end: header.end,
            chain_before: header.chain_before,
            end_chain: header.end_chain,
            totals: header.totals,
            streams: header.streams,
            pinned: header.pinned,
            bytes: sections + to_u64(HEADER_LEN),
        })
    });
    match found {
        Ok(facts) => Ok(Some(facts)),
        Err(Fault::Damaged(_)) => Ok(None),
        Err(Fault::Failed(error)) => Err(error),
    }
}

/// State of a sealed segment's sidecar file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SidecarState {
    /// Every section verified, and of this history.
    Whole,
    /// Not there yet.
    Missing,
    /// Not what was written, or of another history.
    Damaged,
}

/// The state of the sidecar of the segment [first, end) whose chains are known from its blocks.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn sidecar_state(
    storage: &dyn Storage,
    store_id: StoreId,
    (first, chain_before): (Lsn, Chain),
    (end, end_chain): (Lsn, Chain),
) -> Result<SidecarState> {
    let names = storage.list(name::FOLDER);
    let names = names.map_err(|error| crate::Error::io("list the segments", storage.root(), error))?;
    if !names
        .iter()
        .any(|file| name::sidecar_segment(file) == Some(first))
    {
        return Ok(SidecarState::Missing);
    }
    let found = Sidecar::open(storage, first).and_then(|sidecar| {
        sidecar.verify()?;
        let header = sidecar.header();
        Ok(header.store_id == store_id
            && header.end == end
            && header.chain_before == chain_before
            && header.end_chain == end_chain)
    });
    match found {
        Ok(true) => Ok(SidecarState::Whole),
        Ok(false) | Err(Fault::Damaged(_)) => Ok(SidecarState::Damaged),
        Err(Fault::Failed(error)) => Err(error),
    }
}
