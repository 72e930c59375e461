//! Lineage epochs: the record that begins one, and where the present one began.
//!
//! ```text
//! block of the new epoch: control frame, pins epoch/<16 hex> = parent epoch 8 | fork LSN 8 (both 0: the first)
//!                         after a repair lost/<16 hex> = end of what is lost from there on 8
//! ```
//!
//! A store whose log goes on from a copy of itself, or lost a part of itself, is another history from there on
//! (R5): its next block names a new epoch, and this record says which one it left and where. Everything before
//! the fork is the parent's. A fork before that block leaves open what lies between: it is in this log under the
//! parent's epoch, and who else has the parent's log may have something else there.

use crate::block::{Block, BlockBuilder, BlockKind, HEADER_LEN, Owner, Seal, SealedBlock};
use crate::frame::{FrameKind, NewFrame};
use crate::width::to_u64;
use crate::{Chain, Epoch, Lsn, Pinned, Result, Store};

/// Length of the record's value.
const VALUE_LEN: usize = 16;

/// Where a lineage goes on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fork {
    /// The epoch that is left; 0 for a new store.
    pub parent: Epoch,
    /// Everything before it is the parent's.
    pub at: Lsn,
    /// Position of the block that begins the new one: the fork, or behind it.
    pub begins: Lsn,
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

/// The record of what a repair lost: the LSNs from `at` to `end`.
pub(super) fn lost_record(at: Lsn, end: Lsn) -> Pinned {
    Pinned {
        key: format!("lost/{:016x}", at.0).into_bytes(),
        value: Some(end.0.to_le_bytes().to_vec()),
    }
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
        lsn: fork.begins,
        durable: fork.begins,
        nonce: beginning.nonce,
        chain: fork.chain,
        aux: 0,
    };
    Ok(builder.seal(&seal, beginning.pad_to))
}

/// True for the block that begins an epoch.
pub(super) fn begins(block: &Block<'_>, epoch: Epoch) -> bool {
    let first = block.frames().next();
    let pinned = first.and_then(|frame| frame.ok()?.pinned().ok());
    pinned.is_some_and(|pinned| pinned.iter().any(|record| record.key == key(epoch)))
}

impl Store {
    /// The epoch that the present lineage left and the LSN where it did: the log before that is the
    /// parent's. `None` for a store that was neither restored, repaired nor put back.
    ///
    /// # Errors
    /// `Corrupt` for damage in the log (E3).
    pub fn lineage(&self) -> Result<Option<(Epoch, Lsn)>> {
        self.parent_of(self.epoch())
    }

    /// Where the first block of the present lineage stands. What this log has of the parent's between the fork and this
    /// may be of a history of its own: a position there is ours only if its chain is.
    ///
    /// # Errors
    /// `Corrupt` for damage in the log (E3).
    pub fn lineage_begins(&self) -> Result<Lsn> {
        let record = self.pinned(&key(self.epoch()))?;
        // Its frame is the first of a block that has no filter.
        Ok(record.map_or(Lsn::ZERO, |(_, at)| Lsn(at.0.saturating_sub(to_u64(HEADER_LEN)))))
    }

    /// Where this log left an earlier lineage of its own: what that has from there on is not in it, unless a position says by
    /// its chain that it is. `None` for an epoch that is none of its earlier ones, the present one included, and for
    /// one whose record a cut took along.
    ///
    /// # Errors
    /// `Corrupt` for damage in the log (E3).
    pub fn left_at(&self, epoch: Epoch) -> Result<Option<Lsn>> {
        let mut child = self.epoch();
        while let Some((parent, fork)) = self.parent_of(child)? {
            if parent == epoch {
                return Ok(Some(fork));
            }
            child = parent;
        }
        Ok(None)
    }

    fn parent_of(&self, epoch: Epoch) -> Result<Option<(Epoch, Lsn)>> {
        let record = self.pinned(&key(epoch))?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StoreId;
    use crate::golden::{assert_laid_out, kept};

    /// The kept block that begins a lineage after a repair.
    fn kept_block() -> Vec<u8> {
        let beginning = Beginning {
            owner: Owner {
                id: StoreId(7),
                secret: 0x5ec2_e7f0_0dba_11ad,
            },
            epoch: Epoch(0xe90c),
            nonce: 0x0def_aced_0ddb_a115,
            time: 1_700_000_000_000_000,
            pad_to: 512,
        };
        let fork = Fork {
            parent: Epoch(0xe90b),
            at: Lsn(1 << 20),
            begins: Lsn(1 << 20),
            chain: Chain(0xc4a1),
        };
        let lost = lost_record(Lsn(4_096), Lsn(8_192));
        let written = first_block(&beginning, fork, vec![lost]).unwrap().bytes;
        let bytes = kept("epoch.block", &written);
        assert_eq!(written, bytes);
        bytes
    }

    #[test]
    fn a_lineage_of_format_1_begins_as_ever() {
        let bytes = kept_block();
        let block = Block::check(&bytes).unwrap();
        let header = block.header();
        assert_eq!(
            (header.epoch, header.lsn, header.durable, header.chain),
            (Epoch(0xe90c), Lsn(1 << 20), Lsn(1 << 20), Chain(0xc4a1))
        );
        let frame = block.frames().next().unwrap().unwrap();
        assert_eq!(
            (frame.kind(), frame.time()),
            (FrameKind::CONTROL, 1_700_000_000_000_000)
        );
        let pinned = frame.pinned().unwrap();
        let [epoch, lost] = pinned.as_slice() else {
            panic!("two records are pinned")
        };
        assert_eq!(epoch.key, b"epoch/000000000000e90c");
        assert_eq!(parse(epoch.value.unwrap()), Some((Epoch(0xe90b), Lsn(1 << 20))));
        assert_eq!(lost.key, b"lost/0000000000001000");
        assert_eq!(lost.value.unwrap(), 8_192u64.to_le_bytes());
    }

    #[test]
    fn the_records_of_a_lineage_are_laid_out_as_their_page_says() {
        // docs/format.md, "Frame". The block has no filter, so behind its header is the frame.
        assert_laid_out(
            "epoch.block",
            &kept_block()[128..],
            &[
                (0, &128u32.to_le_bytes()),
                (4, &[5, 4, 0, 0]),
                (8, &1_700_000_000_000_000_u64.to_le_bytes()),
                (16, &0u64.to_le_bytes()),
                (24, &128u32.to_le_bytes()),
                (28, &0u32.to_le_bytes()),
                // Pinned records: length of the section, count, then key_len, flags, value_len, key, value.
                (32, &96u32.to_le_bytes()),
                (36, &2u32.to_le_bytes()),
                (40, &22u16.to_le_bytes()),
                (42, &0u16.to_le_bytes()),
                (44, &16u32.to_le_bytes()),
                (48, b"epoch/000000000000e90c"),
                (70, &0xe90b_u64.to_le_bytes()),
                (78, &(1u64 << 20).to_le_bytes()),
                (86, &[0; 2]),
                (88, &21u16.to_le_bytes()),
                (90, &0u16.to_le_bytes()),
                (92, &8u32.to_le_bytes()),
                (96, b"lost/0000000000001000"),
                (117, &8_192u64.to_le_bytes()),
                (125, &[0; 3]),
                (128, &[0; 384 - 128]),
            ],
        );
    }
}
