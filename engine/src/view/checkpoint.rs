//! [`Checkpoint`]: what a view is complete to, kept inside it under its first key.
//!
//! ```text
//! key 00          Checkpoint, bincode
//! key 01 stream   number of the stream's events so far, 8 bytes little endian
//! key 02 ...      the projection's own keys
//! key 03          LSN where the log began when the view did, 8 bytes little endian; none: it has seen all
//! ```

use bincode::{Decode, Encode};

use crate::{Position, StoreId};

/// What a view is complete to, and of what.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Checkpoint {
    /// The store.
    pub store_id: StoreId,
    /// Name of the projection.
    pub projection: String,
    /// Its version.
    pub version: u32,
    /// Last frame that was folded in, with the chain after its block. LSN 0: nothing yet.
    pub position: Position,
}

pub(super) const CHECKPOINT_KEY: &[u8] = &[0];
pub(super) const COUNT_PREFIX: u8 = 1;
pub(super) const OWN_PREFIX: u8 = 2;
pub(super) const BEGINS_KEY: &[u8] = &[3];

/// `rest` behind a prefix byte.
pub(super) fn key(prefix: u8, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + rest.len());
    key.push(prefix);
    key.extend_from_slice(rest);
    key
}
