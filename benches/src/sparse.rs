//! A large log that takes little space: valid segments of one block each, whose only event has a payload of
//! zeros that is a hole in the file. Headers, frames and checksums are real (`verify` would pass), so a store
//! that has them opens, makes sidecars, scans and goes on as any other.
//!
//! ```text
//! 0000000000000000.log   the blocks of a new store | one block up to the end
//! 0000000004000000.log   one block: header, filter, frame, event, and a hole of zeros
//! …
//! ```

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use milepost_engine::block::{BlockBuilder, BlockFault, BlockHeader, HEADER_LEN, Seal};
use milepost_engine::clock::{Rng, SystemRng};
use milepost_engine::frame::NewFrame;
use milepost_engine::width::{to_u64, to_usize, u32_to_usize};
use milepost_engine::{Chain, Lsn, Options};

use crate::Outcome;
use crate::limits::{header, segment_name};

/// Bytes of a block that are written; behind them it is zero.
const WRITTEN: usize = 4_096;

/// Makes a store in `dir` with so many bytes of sparse log, in whole segments.
///
/// # Errors
/// What the engine or the system says.
pub fn build(dir: &Path, bytes: u64) -> Outcome<()> {
    let store = Options::new().init(dir, "bench".parse()?)?;
    let segment_bytes = store.segment_bytes();
    store.close()?;
    let mut tail = Tail::read(dir)?;
    let room = segment_bytes - tail.header.end().0;
    tail.append(dir, Lsn::ZERO, &tail.block(room)?)?;
    let mut whole = tail.block(segment_bytes)?;
    while tail.header.end().0 < bytes {
        let at = tail.header.end();
        tail.place(&mut whole, at);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(dir.join(segment_name(at)))?;
        file.set_len(segment_bytes)?;
        tail.append(dir, at, &whole)?;
        file.sync_all()?;
    }
    Ok(())
}

/// The last block of the log so far.
struct Tail {
    header: BlockHeader,
}

impl Tail {
    /// Finds it in the first segment of a store that nobody has open.
    fn read(dir: &Path) -> Outcome<Tail> {
        let bytes = std::fs::read(dir.join(segment_name(Lsn::ZERO)))?;
        let (mut at, mut last) = (0, None);
        loop {
            match BlockHeader::parse(bytes.get(at..).unwrap_or_default()) {
                Ok(header) => {
                    at += u32_to_usize(header.block_len);
                    last = Some(header);
                }
                Err(BlockFault::Zero) => break,
                Err(fault) => return Err(fault.to_string().into()),
            }
        }
        Ok(Tail {
            header: last.ok_or("a new store has no block")?,
        })
    }

    /// A block of exactly so many bytes that follows it.
    fn block(&self, len: u64) -> Outcome<Vec<u8>> {
        // Header, filter of one stream, frame and event without payload take less than this.
        let (mut payload, mut sealed) = (to_usize(len) - 1_024, self.seal(0)?);
        while to_u64(sealed.len()) != len {
            sealed = self.seal(payload)?;
            payload += to_usize(len.saturating_sub(to_u64(sealed.len())));
        }
        Ok(sealed)
    }

    fn seal(&self, payload: usize) -> Outcome<Vec<u8>> {
        let mut frame = NewFrame::transaction();
        frame.push_raw(0, "sparse/zeros", "made", &[], &vec![0; payload])?;
        let mut block = BlockBuilder::new();
        block.push(&frame.encode(1, self.header.last_time)?);
        let seal = Seal {
            kind: self.header.kind,
            close: false,
            owner: self.header.owner,
            epoch: self.header.epoch,
            lsn: self.header.end(),
            durable: self.header.end(),
            nonce: SystemRng.next_u64(),
            chain: self.header.chain_after(),
            aux: 0,
        };
        Ok(block.seal(&seal, 1).bytes)
    }

    /// Makes a sealed block stand at `at`, behind this one: only its header changes (docs/format.md, "Block").
    fn place(&self, block: &mut [u8], at: Lsn) {
        let Chain(chain) = self.header.chain_after();
        for (offset, word) in [(56, at.0), (64, at.0), (72, SystemRng.next_u64()), (80, chain)] {
            put(block, offset, &word.to_le_bytes());
        }
        let sum = crc32fast::hash(block.get(..HEADER_LEN - 4).unwrap_or_default());
        put(block, HEADER_LEN - 4, &sum.to_le_bytes());
    }

    /// Writes what is not zero of a block, and stands behind it.
    fn append(&mut self, dir: &Path, segment: Lsn, block: &[u8]) -> Outcome<()> {
        let header = header(block)?;
        let (written, hole) = block.split_at(WRITTEN.min(block.len()));
        if hole.iter().any(|byte| *byte != 0) {
            return Err("a sparse block is not zero behind its first page".into());
        }
        let file = OpenOptions::new()
            .write(true)
            .open(dir.join(segment_name(segment)))?;
        file.write_all_at(written, header.lsn.since(segment))?;
        file.sync_data()?;
        self.header = header;
        Ok(())
    }
}

fn put(bytes: &mut [u8], offset: usize, word: &[u8]) {
    if let Some(place) = bytes.get_mut(offset..offset + word.len()) {
        place.copy_from_slice(word);
    }
}
