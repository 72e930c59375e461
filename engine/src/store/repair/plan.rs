//! The file `repair`: every step of a repair, durable before the first of them (docs/format.md, "Repair").
//!
//! While it is there the store is not opened; whoever runs the repair again does the same steps once more, each of
//! which may be done twice. It goes last.

use std::io;

use crate::block::HEADER_LEN;
use crate::storage::{OpenMode, Storage};
use crate::{Chain, Epoch, Error, Lsn, Result, StoreId};

use super::super::whole_file::{self, take};
use super::RepairHow;

/// Name of the file.
pub(in crate::store) const REPAIR_FILE: &str = "repair";
const NEW_FILE: &str = "repair.new";
const MAGIC: [u8; 8] = *b"MPREPAIR";
const VERSION: u32 = 1;
/// Bytes before the ranges, and of one range.
const FIXED_LEN: usize = 112;
const RANGE_LEN: usize = 40;
/// Most bytes that are read of the file.
const MOST: usize = 64 << 20;

/// What becomes of a lost range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Becomes {
    /// It lies behind the new end.
    Nothing,
    /// Lost blocks in the file that holds it.
    Blocks,
    /// Lost blocks in a file of its own.
    File,
}

/// A lost range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LostRange {
    pub at: Lsn,
    pub end: Lsn,
    pub chain_before: Chain,
    pub chain_after: Chain,
    pub becomes: Becomes,
}

/// The steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub how: RepairHow,
    pub store: StoreId,
    pub epoch: Epoch,
    pub parent: Epoch,
    pub nonce: u64,
    pub time: i64,
    /// Where the log ends afterwards and the new epoch begins.
    pub end: Lsn,
    pub chain: Chain,
    /// First LSN of the segment that holds `end`.
    pub last: Lsn,
    /// First LSN of the first damaged segment.
    pub damaged: Lsn,
    /// The log was known to be durable up to here.
    pub durable: Lsn,
    pub ranges: Vec<LostRange>,
}

impl Plan {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let mode: u32 = match self.how {
            RepairHow::Cut => 1,
            RepairHow::Isolate => 2,
        };
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&mode.to_le_bytes());
        bytes.extend_from_slice(&self.store.0.to_le_bytes());
        let mut words = vec![
            self.epoch.0,
            self.parent.0,
            self.nonce,
            u64::from_le_bytes(self.time.to_le_bytes()),
        ];
        words.extend([
            self.end.0,
            self.chain.0,
            self.last.0,
            self.damaged.0,
            self.durable.0,
        ]);
        // The count, and four reserved bytes.
        words.push(crate::width::to_u64(self.ranges.len()));
        for range in &self.ranges {
            let becomes = match range.becomes {
                Becomes::Nothing => 0,
                Becomes::Blocks => 1,
                Becomes::File => 2,
            };
            words.extend([
                range.at.0,
                range.end.0,
                range.chain_before.0,
                range.chain_after.0,
                becomes,
            ]);
        }
        words
            .iter()
            .for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Plan> {
        let (covered, crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
        if crc != crc32fast::hash(covered).to_le_bytes() {
            return None;
        }
        let (fixed, ranges) = covered.split_at_checked(FIXED_LEN)?;
        let mut rest = fixed.strip_prefix(&MAGIC)?;
        let (version, mode) = (
            u32::from_le_bytes(take(&mut rest)?),
            u32::from_le_bytes(take(&mut rest)?),
        );
        let how = match (version, mode) {
            (VERSION, 1) => RepairHow::Cut,
            (VERSION, 2) => RepairHow::Isolate,
            _ => return None,
        };
        let store = StoreId(u128::from_le_bytes(take(&mut rest)?));
        let mut word = || take(&mut rest).map(u64::from_le_bytes);
        let (epoch, parent, nonce) = (Epoch(word()?), Epoch(word()?), word()?);
        let time = i64::from_le_bytes(word()?.to_le_bytes());
        let (end, chain, last) = (Lsn(word()?), Chain(word()?), Lsn(word()?));
        let (damaged, durable, count) = (Lsn(word()?), Lsn(word()?), word()?);
        let ranges = ranges.chunks(RANGE_LEN).map(range).collect::<Option<Vec<_>>>()?;
        (crate::width::to_u64(ranges.len()) == count).then_some(Plan {
            how,
            store,
            epoch,
            parent,
            nonce,
            time,
            end,
            chain,
            last,
            damaged,
            durable,
            ranges,
        })
    }

    /// Reads the file; `None` when there is none.
    pub(super) fn read(storage: &dyn Storage, store: StoreId) -> Result<Option<Plan>> {
        let path = storage.root().join(REPAIR_FILE);
        let failed = |error| Error::io("read the plan of a repair", &path, error);
        let file = match storage.open(REPAIR_FILE, OpenMode::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let len = crate::width::to_usize(file.len().map_err(failed)?);
        let mut bytes = vec![0; len.min(MOST)];
        let read = file.read_at(&mut bytes, 0).map_err(failed)?;
        bytes.truncate(read);
        match Plan::decode(&bytes).filter(|plan| plan.store == store) {
            Some(plan) => Ok(Some(plan)),
            None => Err(Error::corrupt(
                "the plan of an interrupted repair is damaged, so the repair cannot go on: restore a backup; what \
                 was taken out of the log is in `damaged`",
            )
            .at_path(path)),
        }
    }

    /// Makes the plan durable: from here on the repair has begun.
    pub(super) fn write(&self, storage: &dyn Storage) -> Result<()> {
        let path = storage.root().join(REPAIR_FILE);
        let written = whole_file::replace(storage, NEW_FILE, REPAIR_FILE, &self.encode());
        written.map_err(|error| Error::io("write the plan of the repair", path, error))
    }

    /// The repair is done.
    pub(super) fn remove(storage: &dyn Storage) -> Result<()> {
        let gone = storage.unlink(REPAIR_FILE).and_then(|()| storage.sync_dir(""));
        gone.map_err(|error| Error::io("end the repair", storage.root().join(REPAIR_FILE), error))
    }
}

fn range(mut raw: &[u8]) -> Option<LostRange> {
    let mut word = || take(&mut raw).map(u64::from_le_bytes);
    let range = LostRange {
        at: Lsn(word()?),
        end: Lsn(word()?),
        chain_before: Chain(word()?),
        chain_after: Chain(word()?),
        becomes: match word()? {
            0 => Becomes::Nothing,
            1 => Becomes::Blocks,
            2 => Becomes::File,
            _ => return None,
        },
    };
    // Lost blocks are made of it, each at least a header.
    let len = range.end.0.checked_sub(range.at.0)?;
    let fits = len.is_multiple_of(8) && len >= crate::width::to_u64(HEADER_LEN);
    (fits || range.becomes == Becomes::Nothing).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::{assert_laid_out, kept};

    /// The trap: a plan whose checksum is right and whose ranges no block fills.
    #[test]
    fn a_range_that_no_lost_blocks_fill_is_no_plan() {
        let fill = crate::width::to_u64(HEADER_LEN);
        for (len, becomes, is_plan) in [
            (fill, 1u64, true),
            (fill + 4, 1, false),
            (fill - 8, 2, false),
            (0, 0, true),
        ] {
            let words = [64, 64 + len, 1, 2, becomes];
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            assert_eq!(range(&bytes).is_some(), is_plan, "{len}");
        }
        let backwards: Vec<u8> = [64u64, 8, 1, 2, 1]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        assert!(range(&backwards).is_none());
    }

    #[test]
    fn a_plan_reads_as_it_was_written_and_every_changed_bit_is_seen() {
        let lost = |at: u64, becomes| LostRange {
            at: Lsn(at),
            end: Lsn(at + 512),
            chain_before: Chain(at + 1),
            chain_after: Chain(at + 2),
            becomes,
        };
        let plan = Plan {
            how: RepairHow::Isolate,
            store: StoreId(7),
            epoch: Epoch(8),
            parent: Epoch(9),
            nonce: 10,
            time: -11,
            end: Lsn(8192),
            chain: Chain(12),
            last: Lsn(4096),
            damaged: Lsn(0),
            durable: Lsn(8000),
            ranges: vec![
                lost(512, Becomes::Blocks),
                lost(4096, Becomes::File),
                lost(8192, Becomes::Nothing),
            ],
        };
        let bytes = plan.encode();
        assert_eq!(bytes.len(), FIXED_LEN + 3 * RANGE_LEN + 4);
        assert_eq!(kept("repair", &bytes), bytes);
        // docs/format.md, "Repair".
        let words = |words: &[i64]| {
            words
                .iter()
                .flat_map(|word| word.to_le_bytes())
                .collect::<Vec<_>>()
        };
        let fields: &[(usize, &[u8])] = &[
            (0, b"MPREPAIR"),
            (8, &1u32.to_le_bytes()),
            (12, &2u32.to_le_bytes()),
            (16, &7u128.to_le_bytes()),
            (32, &words(&[8, 9, 10, -11, 8_192, 12, 4_096, 0, 8_000])),
            (104, &[3, 0, 0, 0, 0, 0, 0, 0]),
            (112, &words(&[512, 1_024, 513, 514, 1])),
            (152, &words(&[4_096, 4_608, 4_097, 4_098, 2])),
            (192, &words(&[8_192, 8_704, 8_193, 8_194, 0])),
            (232, &crc32fast::hash(&bytes[..232]).to_le_bytes()),
        ];
        assert_laid_out("repair", &bytes, fields);
        assert_eq!(Plan::decode(&bytes), Some(plan));
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Plan::decode(&changed), None);
        }
        (0..bytes.len()).for_each(|len| assert_eq!(Plan::decode(&bytes[..len]), None));
    }
}
