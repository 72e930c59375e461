//! [`PackedSegment`]: a packed segment as the rest of the log sees it: a file of the raw segment's length, to be read.
//!
//! ```text
//! read_at, window, head ─► which pieces ─► pread ─► CRC-32 ─► zstd into a buffer of the table's length ─► cached
//! ```
//!
//! Guarantees: what is read has the lengths that the table names, each bounded before anything is allocated, and
//! comes of bytes whose checksum matched; a fault is `InvalidData`, with where in the file (E3). At most a piece is
//! held beside what is asked for, and the last few. Refuses to be written.
//!
//! Read *leniently*, for who looks at damage, a piece that is damaged reads as zeros, and so does a file without a
//! header that can be read.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use zstd::bulk::Decompressor;

use crate::block::{BlockHeader, HEADER_LEN};
use crate::storage::{LockMode, Mapping, StorageFile, Window};
use crate::sync::Mutex;
use crate::width::{to_u64, to_usize, u32_to_usize};
use crate::{Lsn, StoreId};

use super::layout::{Entry, Fault, HEADER, Header, Part};

/// Pieces kept as they came out, for who reads on.
const KEPT: usize = 4;

/// An open packed segment. Clones share what is cached.
#[derive(Clone)]
pub(crate) struct PackedSegment {
    inner: Arc<Packed>,
}

struct Packed {
    file: Arc<dyn StorageFile>,
    header: Header,
    pieces: Vec<Piece>,
    lenient: bool,
    kept: Mutex<VecDeque<(usize, Arc<Vec<u8>>)>>,
    kept_heads: Mutex<Option<(usize, Arc<Heads>)>>,
}

/// A piece and where it lies.
struct Piece {
    entry: Entry,
    /// Offset of its first byte in the segment.
    raw_at: u64,
    /// Offset of its heads in the file.
    at: u64,
}

/// The heads of a piece.
struct Heads {
    bytes: Arc<Vec<u8>>,
    /// Offset of each block in the piece, and of its head in `bytes`.
    blocks: Vec<(usize, usize)>,
}

/// A range of bytes that are shared.
struct Shared {
    bytes: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(self.range.clone()).unwrap_or_default()
    }
}

/// What is wrong with the file, for people.
fn damaged(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("this compressed segment is damaged: {what}"),
    )
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> io::Error {
        match fault {
            Fault::Damaged(what) => damaged(what),
            Fault::Newer(version) => io::Error::new(
                io::ErrorKind::Unsupported,
                format!("compressed segments of version {version} need a newer program"),
            ),
        }
    }
}

impl PackedSegment {
    /// Opens the segment of `store` that begins at `first`; reads header and table.
    pub(crate) fn open(file: Arc<dyn StorageFile>, store: StoreId, first: Lsn) -> io::Result<PackedSegment> {
        let file_len = file.len()?;
        let mut bytes = vec![0; HEADER];
        let read = file.read_at(&mut bytes, 0)?;
        bytes.truncate(read);
        let header = Header::decode(&bytes, file_len)?;
        if header.store != store || header.first != first {
            return Err(damaged("it is of another store or another place of the log"));
        }
        let mut table = vec![0; header.table_len()];
        let read = file.read_at(&mut table, header.table_at)?;
        table.truncate(read);
        let entries = header.decode_table(&table)?;
        let (mut raw_at, mut at) = (0, to_u64(HEADER));
        let mut pieces = Vec::with_capacity(entries.len());
        for entry in entries {
            pieces.push(Piece { entry, raw_at, at });
            raw_at += u64::from(entry.raw_len);
            at += entry.packed_len();
        }
        Ok(PackedSegment::of(file, header, pieces, false))
    }

    /// As [`PackedSegment::open`], for who looks at damage. Where the file cannot be read at all, it is `used` zeros.
    pub(crate) fn open_damaged(
        file: Arc<dyn StorageFile>,
        store: StoreId,
        first: Lsn,
        used: u64,
    ) -> io::Result<PackedSegment> {
        match PackedSegment::open(Arc::clone(&file), store, first) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let header = Header {
                    store,
                    first,
                    end: first,
                    raw_file_len: used,
                    blocks: 0,
                    table_at: 0,
                    pieces: 0,
                    table_crc: 0,
                };
                Ok(PackedSegment::of(file, header, Vec::new(), true))
            }
            Err(error) => Err(error),
            Ok(opened) => {
                let packed = Arc::into_inner(opened.inner);
                let packed = packed.ok_or_else(|| damaged("it is in use"))?;
                Ok(PackedSegment::of(packed.file, packed.header, packed.pieces, true))
            }
        }
    }

    fn of(file: Arc<dyn StorageFile>, header: Header, pieces: Vec<Piece>, lenient: bool) -> PackedSegment {
        PackedSegment {
            inner: Arc::new(Packed {
                file,
                header,
                pieces,
                lenient,
                kept: Mutex::default(),
                kept_heads: Mutex::default(),
            }),
        }
    }

    /// What the file says of itself.
    pub(crate) fn header(&self) -> Header {
        self.inner.header
    }

    /// The bytes from `from` on, at least to `until`, both offsets in the segment, and no further than their piece.
    pub(crate) fn window_to(&self, from: u64, until: u64) -> io::Result<Window> {
        let packed = &self.inner;
        if let Some((number, piece)) = packed.piece_at(from) {
            let end = piece.raw_at + u64::from(piece.entry.raw_len);
            if until <= end {
                let range = to_usize(from - piece.raw_at)..u32_to_usize(piece.entry.raw_len);
                let bytes = packed.piece(number)?;
                return Ok(Window::new(Arc::new(Shared { bytes, range })));
            }
        }
        let mut bytes = vec![0; to_usize(until.saturating_sub(from))];
        packed.read(&mut bytes, from)?;
        Ok(Window::new(Arc::new(bytes)))
    }

    /// Header and filter of the block that begins at `from`, alone; `None` where they are not kept apart.
    pub(crate) fn head(&self, from: u64) -> io::Result<Option<Window>> {
        let packed = &self.inner;
        let Some((number, piece)) = packed.piece_at(from) else {
            return Ok(None);
        };
        if piece.entry.head_len == 0 || packed.lenient {
            return Ok(None);
        }
        let heads = packed.heads(number)?;
        let inside = to_usize(from - piece.raw_at);
        let Ok(found) = heads.blocks.binary_search_by_key(&inside, |block| block.0) else {
            return Ok(None);
        };
        let start = heads.blocks.get(found).map_or(0, |block| block.1);
        let end = heads
            .blocks
            .get(found + 1)
            .map_or(heads.bytes.len(), |block| block.1);
        Ok(Some(Window::new(Arc::new(Shared {
            bytes: Arc::clone(&heads.bytes),
            range: start..end,
        }))))
    }
}

impl Packed {
    /// The piece that holds an offset of the segment, with its number.
    fn piece_at(&self, offset: u64) -> Option<(usize, &Piece)> {
        let number = self
            .pieces
            .partition_point(|piece| piece.raw_at <= offset)
            .checked_sub(1)?;
        let piece = self.pieces.get(number)?;
        (offset < piece.raw_at + u64::from(piece.entry.raw_len)).then_some((number, piece))
    }

    /// Fills `buffer` from an offset of the segment on; returns how much lies within the raw file.
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let room = to_usize(self.header.raw_file_len.saturating_sub(offset));
        let wanted = buffer.len().min(room);
        let buffer = buffer.get_mut(..wanted).unwrap_or_default();
        let mut done = 0;
        while done < wanted {
            let at = offset + to_u64(done);
            let rest = buffer.get_mut(done..).unwrap_or_default();
            let Some((number, piece)) = self.piece_at(at) else {
                rest.fill(0);
                return Ok(wanted);
            };
            let piece_at = piece.raw_at;
            let bytes = self.piece(number)?;
            let from = bytes.get(to_usize(at - piece_at)..).unwrap_or_default();
            let count = from.len().min(rest.len());
            let (place, _) = rest.split_at_mut(count);
            place.copy_from_slice(from.get(..count).unwrap_or_default());
            done += count;
        }
        Ok(wanted)
    }

    /// A piece as it was in the segment.
    fn piece(&self, number: usize) -> io::Result<Arc<Vec<u8>>> {
        let found = |kept: &VecDeque<(usize, Arc<Vec<u8>>)>| {
            kept.iter()
                .find(|(other, _)| *other == number)
                .map(|(_, bytes)| Arc::clone(bytes))
        };
        if let Some(bytes) = found(&self.kept.lock()) {
            return Ok(bytes);
        }
        let piece = self
            .pieces
            .get(number)
            .ok_or_else(|| damaged("a piece is missing"))?;
        let bytes = Arc::new(self.unpacked(piece)?);
        let mut kept = self.kept.lock();
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back((number, Arc::clone(&bytes)));
        Ok(bytes)
    }

    /// Takes a piece out of the file.
    fn unpacked(&self, piece: &Piece) -> io::Result<Vec<u8>> {
        let entry = &piece.entry;
        let raw_len = u32_to_usize(entry.raw_len);
        let zeros = |error: io::Error, len: u32| {
            // A disk that cannot be read is told as it is; a checksum that does not match is what this is for.
            let damaged = self.lenient && error.kind() == io::ErrorKind::InvalidData;
            if damaged {
                Ok(vec![0; u32_to_usize(len)])
            } else {
                Err(error)
            }
        };
        let bodies = self.part(
            piece.at + u64::from(entry.heads.packed_len),
            entry.bodies,
            entry.body_len(),
        );
        let bodies = bodies.or_else(|error| zeros(error, entry.body_len()))?;
        if entry.head_len == 0 {
            return Ok(bodies);
        }
        let rebuilt = self
            .part(piece.at, entry.heads, entry.head_len)
            .and_then(|heads| rebuilt(&heads, &bodies, raw_len));
        rebuilt.or_else(|error| zeros(error, entry.raw_len))
    }

    /// Bytes of one part, `len` of them.
    fn part(&self, at: u64, part: Part, len: u32) -> io::Result<Vec<u8>> {
        let mut packed = vec![0; u32_to_usize(part.packed_len)];
        let read = self.file.read_at(&mut packed, at)?;
        if read != packed.len() || crc32fast::hash(&packed) != part.crc {
            return Err(damaged(&format!(
                "the checksum of what stands {at} bytes into it does not match"
            )));
        }
        if part.packed_len == len {
            return Ok(packed);
        }
        unpack(&packed, u32_to_usize(len))
            .ok_or_else(|| damaged(&format!("what stands {at} bytes into it does not decompress")))
    }

    /// The heads of a piece that keeps them apart.
    fn heads(&self, number: usize) -> io::Result<Arc<Heads>> {
        if let Some((kept, heads)) = &*self.kept_heads.lock()
            && *kept == number
        {
            return Ok(Arc::clone(heads));
        }
        let piece = self
            .pieces
            .get(number)
            .ok_or_else(|| damaged("a piece is missing"))?;
        let bytes = self.part(piece.at, piece.entry.heads, piece.entry.head_len)?;
        let (mut raw, mut at, mut blocks) = (0, 0, Vec::new());
        while at < bytes.len() {
            let header = header_at(&bytes, at)?;
            blocks.push((raw, at));
            raw += u32_to_usize(header.block_len);
            at += header.body_range().start;
        }
        let heads = Arc::new(Heads {
            bytes: Arc::new(bytes),
            blocks,
        });
        *self.kept_heads.lock() = Some((number, Arc::clone(&heads)));
        Ok(heads)
    }
}

thread_local! {
    /// A context takes longer to make than a piece to read.
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Exactly `len` bytes of a compressed part, or nothing.
fn unpack(packed: &[u8], len: usize) -> Option<Vec<u8>> {
    DECOMPRESSOR.with_borrow_mut(|slot| {
        let context = match slot {
            Some(context) => context,
            None => slot.insert(Decompressor::new().ok()?),
        };
        // The length is the buffer's: what would decompress to more is refused by it.
        let mut bytes = Vec::with_capacity(len);
        context.decompress_to_buffer(packed, &mut bytes).ok()?;
        (bytes.len() == len).then_some(bytes)
    })
}

fn header_at(heads: &[u8], at: usize) -> io::Result<BlockHeader> {
    let header = BlockHeader::parse(heads.get(at..).unwrap_or_default());
    header.map_err(|fault| damaged(&format!("a header in it: {fault}")))
}

/// Puts heads and bodies together as they were.
fn rebuilt(heads: &[u8], bodies: &[u8], raw_len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(raw_len);
    let (mut at, mut rest) = (0, bodies);
    while at < heads.len() {
        let header = header_at(heads, at)?;
        let head_len = header.body_range().start;
        let head = heads.get(at..at + head_len);
        bytes.extend_from_slice(head.ok_or_else(|| damaged("a head in it is cut"))?);
        let body_len = u32_to_usize(header.block_len).saturating_sub(head_len);
        // The last block of a piece may go on in the next.
        let (body, later) = rest.split_at(body_len.min(rest.len()));
        bytes.extend_from_slice(body);
        rest = later;
        at += head_len;
    }
    if bytes.len() != raw_len || !rest.is_empty() {
        return Err(damaged("heads and bodies of a piece do not fit each other"));
    }
    Ok(bytes)
}

fn read_only() -> io::Error {
    io::Error::new(
        io::ErrorKind::ReadOnlyFilesystem,
        "a compressed segment is not written; `milepost compress` with --undo makes it an ordinary one",
    )
}

impl StorageFile for PackedSegment {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read(buffer, offset)
    }

    fn write_at(&self, _pieces: &[&[u8]], _offset: u64) -> io::Result<usize> {
        Err(read_only())
    }

    fn allocate(&self, _len: u64) -> io::Result<()> {
        Err(read_only())
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        Err(read_only())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.inner.header.raw_file_len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.file.sync_data()
    }

    fn map(&self) -> io::Result<Arc<dyn Mapping>> {
        Ok(Arc::new(self.clone()))
    }

    fn try_lock(&self, at: u64, mode: LockMode) -> io::Result<bool> {
        self.inner.file.try_lock(at, mode)
    }

    fn is_locked(&self, at: u64) -> io::Result<bool> {
        self.inner.file.is_locked(at)
    }

    fn unlock(&self, at: u64) -> io::Result<()> {
        self.inner.file.unlock(at)
    }
}

impl Mapping for PackedSegment {
    fn len(&self) -> u64 {
        self.inner.header.raw_file_len
    }

    fn window(&self, range: Range<u64>) -> io::Result<Window> {
        if range.start > range.end || range.end > self.inner.header.raw_file_len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; to_usize(range.end - range.start)];
        self.inner.read(&mut bytes, range.start)?;
        Ok(Window::new(Arc::new(bytes)))
    }
}

/// A header fits in any head.
const _: () = assert!(HEADER_LEN < super::layout::MOST_PIECE);
