//! Lineage epochs: the record that begins one, and where the present one began.
//!
//! ```text
//! block of the new epoch: control frame, pins epoch/<16 hex> = parent epoch 8 | fork LSN 8 (both 0: the first)
//! ```
//!
//! A store whose log goes on from a copy of itself, or lost a part of itself, is another history from there on
//! (R5): its next block names a new epoch, and this record says which one it left and where. Everything before
//! the fork is the parent's.

use crate::block::{BlockBuilder, BlockKind, Owner, Seal, SealedBlock};
use crate::frame::{FrameKind, NewFrame};
use crate::{Chain, Epoch, Lsn, Pinned, Result, Store};

/// Length of the record's value.
const VALUE_LEN: usize = 16;

/// Where a lineage goes on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fork {
    /// The epoch that is left; 0 for a new store.
    pub parent: Epoch,
    /// Position of the block that begins the new one: everything before it is the parent's.
    pub at: Lsn,
    /// Chain before that block.
    pub chain: Chain,
}

/// Random and other words of a block that begins an epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beginning {
    pub owner: Owner,
    pub epoch: Epoch,
    pub nonce: u64,
    /// Microseconds since 1970.
    pub time: i64,
    pub pad_to: usize,
}

/// Key of the record of an epoch.
fn key(epoch: Epoch) -> Vec<u8> {
    format!("epoch/{epoch}").into_bytes()
}

/// The block that begins an epoch at `fork`; further records are pinned with it.
pub(crate) fn first_block(beginning: &Beginning, fork: Fork, pinned: Vec<Pinned>) -> Result<SealedBlock> {
    let mut frame = NewFrame::of_kind(FrameKind::CONTROL, Vec::new());
    let mut value = fork.parent.0.to_le_bytes().to_vec();
    value.extend_from_slice(&fork.at.0.to_le_bytes());
    frame.pin(Pinned {
        key: key(beginning.epoch),
        value: Some(value),
    });
    pinned.into_iter().for_each(|record| frame.pin(record));
    let mut builder = BlockBuilder::new();
    builder.push(&frame.encode(0, beginning.time)?);
    let seal = Seal {
        kind: BlockKind::Log,
        close: false,
        owner: beginning.owner,
        epoch: beginning.epoch,
        lsn: fork.at,
        durable: fork.at,
        nonce: beginning.nonce,
        chain: fork.chain,
        aux: 0,
    };
    Ok(builder.seal(&seal, beginning.pad_to))
}

impl Store {
    /// The epoch that the present lineage left and the LSN where it did: the log before that is the
    /// parent's. `None` for a store that was neither restored nor repaired.
    ///
    /// # Errors
    /// `Corrupt` for damage in the log (E3).
    pub fn lineage(&self) -> Result<Option<(Epoch, Lsn)>> {
        let record = self.pinned(&key(self.epoch()))?;
        Ok(record.and_then(|(value, _)| parse(&value)))
    }
}

fn parse(value: &[u8]) -> Option<(Epoch, Lsn)> {
    let value: &[u8; VALUE_LEN] = value.try_into().ok()?;
    let (parent, fork) = value.split_at(VALUE_LEN / 2);
    let word = |half: &[u8]| half.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    let (parent, fork) = (word(parent)?, word(fork)?);
    (parent != 0).then_some((Epoch(parent), Lsn(fork)))
}
