//! What state a segment's sidecar file is in, for `verify`. Changes nothing: a sidecar is derived (E4)
//! and whoever needs it makes it again.

use crate::storage::Storage;
use crate::{Chain, Lsn, Result, StoreId};

use super::name;
use super::sidecar::{Fault, Sidecar};

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
