//! Packed segments: sealed segments whose blocks are compressed, still read by position and checked.
//!
//! ```text
//! log/0000000003ff9c40.mpz
//! | header 128 | heads | bodies | heads | bodies | … | table: what each piece is, 24 bytes each |
//!                └── piece ──────┘ a range of the segment, compressed by itself
//! ```
//!
//! A piece holds whole blocks, up to 64 KiB of them together; headers and filters are compressed apart from bodies, so
//! that a scan for one stream reads the heads alone. A block longer than 256 KiB goes over several pieces.
//!
//! Guarantees: the bytes that come out are those of the raw segment, compared before that is removed; every byte of
//! the file is under a checksum, so that damage is told as such and never read (E3); no length is believed before it
//! is bounded. Whoever reads blocks verifies them as ever, checksum and chain.

mod file;
mod layout;
mod make;
mod write;

pub(crate) use file::PackedSegment;
pub(crate) use make::{Meanwhile, pack, remove_unfinished, unpack, unpack_beside};
pub(super) use make::{STEP, TEMPORARY, remove};

#[cfg(test)]
mod tests;
