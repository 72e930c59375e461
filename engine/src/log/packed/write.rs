//! [`Packer`]: blocks in, pieces out. Touches no files: what is ready lies in a buffer until it is taken.

use std::io;

use zstd::bulk::Compressor;

use crate::block::{BlockHeader, HEADER_LEN};
use crate::width::u32_to_usize;

use super::layout::{Entry, MOST_PIECE, Part};

/// Blocks are taken together up to so many bytes: 64 KiB.
const PIECE: usize = 64 << 10;
/// zstd's own default: 3.
const LEVEL: i32 = 3;

/// Compresses the blocks of one segment, one after another.
pub(super) struct Packer {
    compressor: Compressor<'static>,
    heads: Vec<u8>,
    bodies: Vec<u8>,
    entries: Vec<Entry>,
    blocks: u64,
    ready: Vec<u8>,
}

impl Packer {
    pub(super) fn new() -> io::Result<Packer> {
        Ok(Packer {
            compressor: Compressor::new(LEVEL)?,
            heads: Vec::new(),
            bodies: Vec::new(),
            entries: Vec::new(),
            blocks: 0,
            ready: Vec::new(),
        })
    }

    /// Takes the next block, whose bytes were verified.
    pub(super) fn take(&mut self, header: &BlockHeader, bytes: &[u8]) -> io::Result<()> {
        let len = u32_to_usize(header.block_len);
        assert_eq!(bytes.len(), len, "a block is taken whole");
        self.blocks += 1;
        if self.heads.len() + self.bodies.len() + len > PIECE {
            self.end_piece()?;
        }
        let (head, rest) = bytes.split_at(header.body_range().start);
        if len <= MOST_PIECE {
            self.heads.extend_from_slice(head);
            self.bodies.extend_from_slice(rest);
            return Ok(());
        }
        // A head as long as that is not worth reading apart.
        let (head, mut rest) = if head.len() <= PIECE {
            (head, rest)
        } else {
            bytes.split_at(0)
        };
        self.heads.extend_from_slice(head);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(MOST_PIECE - self.heads.len()));
            self.bodies.extend_from_slice(now);
            self.end_piece()?;
            rest = later;
        }
        Ok(())
    }

    /// Ends the piece under way.
    pub(super) fn end_piece(&mut self) -> io::Result<()> {
        let raw_len = self.heads.len() + self.bodies.len();
        if raw_len == 0 {
            return Ok(());
        }
        assert!(raw_len <= MOST_PIECE, "a piece is bounded, for its readers");
        assert!(self.heads.is_empty() || self.heads.len() >= HEADER_LEN);
        let heads = add(&mut self.compressor, &self.heads, &mut self.ready)?;
        let bodies = add(&mut self.compressor, &self.bodies, &mut self.ready)?;
        self.entries.push(Entry {
            raw_len: short(raw_len),
            head_len: short(self.heads.len()),
            heads,
            bodies,
        });
        self.heads.clear();
        self.bodies.clear();
        Ok(())
    }

    /// Bytes that can be written.
    pub(super) fn ready(&self) -> &[u8] {
        &self.ready
    }

    /// They were written.
    pub(super) fn written(&mut self) {
        self.ready.clear();
    }

    /// The pieces and the number of blocks, behind the last block.
    pub(super) fn end(mut self) -> io::Result<(Vec<Entry>, u64, Vec<u8>)> {
        self.end_piece()?;
        Ok((self.entries, self.blocks, self.ready))
    }
}

/// Compresses one part; as it is where that is no shorter.
fn add(compressor: &mut Compressor<'_>, bytes: &[u8], ready: &mut Vec<u8>) -> io::Result<Part> {
    if bytes.is_empty() {
        return Ok(Part::default());
    }
    let packed = compressor.compress(bytes)?;
    let part: &[u8] = if packed.len() < bytes.len() {
        &packed
    } else {
        bytes
    };
    ready.extend_from_slice(part);
    Ok(Part {
        packed_len: short(part.len()),
        crc: crc32fast::hash(part),
    })
}

/// A length within a piece.
fn short(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
