//! Packed bytes against the raw ones they were made of, and against a disk that changes them.

use std::io;
use std::sync::Arc;

use crate::block::{BlockBuilder, BlockKind, HEADER_LEN, Seal};
use crate::frame::NewFrame;
use crate::storage::{LockMode, Mapping, StorageFile};
use crate::{Chain, Epoch, Event, Lsn, StoreId};

use super::PackedSegment;
use super::layout::{ENTRY, Entry, HEADER, Header, MOST_PIECE};
use super::write::Packer;

const STORE: StoreId = StoreId(77);

/// A file in memory, to be read.
struct Bytes(Vec<u8>);

impl StorageFile for Bytes {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = self.0.get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
    fn write_at(&self, _: &[&[u8]], _: u64) -> io::Result<usize> {
        unreachable!("nothing is written")
    }
    fn allocate(&self, _: u64) -> io::Result<()> {
        unreachable!("nothing is written")
    }
    fn set_len(&self, _: u64) -> io::Result<()> {
        unreachable!("nothing is written")
    }
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
    fn map(&self) -> io::Result<Arc<dyn Mapping>> {
        unreachable!("read by pread")
    }
    fn try_lock(&self, _: u64, _: LockMode) -> io::Result<bool> {
        Ok(true)
    }
    fn is_locked(&self, _: u64) -> io::Result<bool> {
        Ok(false)
    }
    fn unlock(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
}

/// Blocks of a segment that begins at LSN 800, one for each payload, and where each begins.
fn segment(payloads: &[Vec<u8>]) -> (Vec<u8>, Vec<usize>) {
    let (mut raw, mut starts, mut chain) = (Vec::new(), Vec::new(), Chain(9));
    for (number, payload) in payloads.iter().enumerate() {
        let mut frame = NewFrame::transaction();
        let event = Event::new(&format!("s/{number}"), "k", payload.clone()).unwrap();
        frame.push_event(0, &event).unwrap();
        let mut builder = BlockBuilder::new();
        builder.push(&frame.encode(number as u64, 5).unwrap());
        let seal = Seal {
            kind: BlockKind::Log,
            close: false,
            owner: STORE.into(),
            epoch: Epoch(1),
            lsn: Lsn(800 + raw.len() as u64),
            durable: Lsn(0),
            nonce: 4,
            chain,
            aux: 0,
        };
        let block = builder.seal(&seal, 1);
        starts.push(raw.len());
        chain = block.header.chain_after();
        raw.extend_from_slice(&block.bytes);
    }
    (raw, starts)
}

/// The packed file of a segment whose raw file is 1,000 bytes longer than its blocks.
fn packed(raw: &[u8], starts: &[usize]) -> Vec<u8> {
    let mut packer = Packer::new().unwrap();
    for (number, start) in starts.iter().enumerate() {
        let end = starts.get(number + 1).copied().unwrap_or(raw.len());
        let bytes = &raw[*start..end];
        packer
            .take(&crate::block::BlockHeader::parse(bytes).unwrap(), bytes)
            .unwrap();
    }
    let (entries, blocks, ready) = packer.end().unwrap();
    file(raw, &entries, blocks, &ready)
}

fn file(raw: &[u8], entries: &[Entry], blocks: u64, ready: &[u8]) -> Vec<u8> {
    let table: Vec<u8> = entries.iter().flat_map(Entry::encode).collect();
    let header = Header {
        store: STORE,
        first: Lsn(800),
        end: Lsn(800 + raw.len() as u64),
        raw_file_len: raw.len() as u64 + 1_000,
        blocks,
        table_at: (HEADER + ready.len()) as u64,
        pieces: (table.len() / ENTRY) as u32,
        table_crc: crc32fast::hash(&table),
    };
    [&header.encode(), ready, &table[..]].concat()
}

fn open(bytes: Vec<u8>) -> io::Result<PackedSegment> {
    PackedSegment::open(Arc::new(Bytes(bytes)), STORE, Lsn(800))
}

fn all(file: &PackedSegment) -> io::Result<Vec<u8>> {
    let mut bytes = vec![1; StorageFile::len(file)? as usize];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Small blocks together, one that is alone, ones over several pieces, and what does not compress.
fn mixed() -> (Vec<u8>, Vec<usize>) {
    let mut payloads: Vec<Vec<u8>> = (0..300)
        .map(|number| vec![number as u8; 30 + number * 5])
        .collect();
    payloads.push(vec![3; 200_000]);
    payloads.push(vec![4; 700_000]);
    let mut state = 88u64;
    let noise = std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u8
    });
    payloads.push(noise.take(300_000).collect());
    payloads.push(b"last".to_vec());
    segment(&payloads)
}

#[test]
fn what_comes_out_is_what_went_in_by_every_way_of_reading() {
    let (raw, starts) = mixed();
    let bytes = packed(&raw, &starts);
    assert!(bytes.len() < raw.len() / 2, "{} of {}", bytes.len(), raw.len());
    let file = open(bytes).unwrap();
    let padded = [&raw[..], &[0; 1_000]].concat();
    assert_eq!(all(&file).unwrap(), padded);
    // Pieces of all lengths at all kinds of offsets, beyond the end too.
    for (from, len) in [
        (0, 1),
        (7, 64 << 10),
        (65_000, 500_000),
        (raw.len() - 5, 10),
        (padded.len() - 3, 10),
    ] {
        let mut part = vec![9; len];
        let read = file.read_at(&mut part, from as u64).unwrap();
        assert_eq!(part[..read], padded[from..(from + len).min(padded.len())]);
        let until = (from + len).min(padded.len()) as u64;
        let window = file.window_to(from as u64, until).unwrap();
        assert!(window.len() as u64 >= until - from as u64);
        assert_eq!(window[..], padded[from..from + window.len()]);
        assert_eq!(
            file.window(from as u64..until).unwrap()[..],
            padded[from..until as usize]
        );
    }
}

#[test]
fn heads_are_read_alone_and_are_those_of_the_blocks() {
    let (raw, starts) = mixed();
    let file = open(packed(&raw, &starts)).unwrap();
    for start in starts {
        let header = crate::block::BlockHeader::parse(&raw[start..]).unwrap();
        let head = file.head(start as u64).unwrap().unwrap();
        assert_eq!(head[..], raw[start..start + header.body_range().start]);
    }
    assert!(file.head(8).unwrap().is_none(), "no block begins there");
    assert!(file.head(raw.len() as u64).unwrap().is_none());
}

#[test]
fn every_flipped_bit_and_every_cut_is_told_and_nothing_else_is_read() {
    // E3: every byte of the file is under a checksum.
    let payloads: Vec<Vec<u8>> = (0..40).map(|number| vec![number as u8; 60 + number]).collect();
    let (raw, starts) = segment(&payloads);
    let bytes = packed(&raw, &starts);
    for at in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[at / 8] ^= 1 << (at % 8);
        let read = open(changed).and_then(|file| all(&file));
        assert_eq!(
            read.err().map(|error| error.kind()),
            Some(io::ErrorKind::InvalidData),
            "bit {at}"
        );
    }
    for len in 0..bytes.len() {
        let read = open(bytes[..len].to_vec()).and_then(|file| all(&file));
        assert_eq!(
            read.err().map(|error| error.kind()),
            Some(io::ErrorKind::InvalidData),
            "{len} bytes"
        );
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(open(longer).is_err(), "a byte more is not passed over either");
}

#[test]
fn a_damaged_piece_hides_no_other_and_reads_as_zeros_where_damage_is_looked_at() {
    let (raw, starts) = mixed();
    let mut bytes = packed(&raw, &starts);
    bytes[HEADER + 3] ^= 1;
    let strict = open(bytes.clone()).unwrap();
    let mut part = vec![0; 100];
    assert!(strict.read_at(&mut part, 0).is_err());
    assert_eq!(strict.read_at(&mut part, 200_000).unwrap(), 100);
    assert_eq!(part, raw[200_000..200_100]);
    let lenient = |bytes| {
        PackedSegment::open_damaged(Arc::new(Bytes(bytes)), STORE, Lsn(800), raw.len() as u64).unwrap()
    };
    let seen = all(&lenient(bytes.clone())).unwrap();
    assert!(seen[..HEADER_LEN].iter().all(|byte| *byte == 0));
    assert_eq!(seen[200_000..raw.len()], raw[200_000..]);
    // Without a header nothing is known but how long it was.
    bytes[20] ^= 1;
    assert_eq!(all(&lenient(bytes)).unwrap(), vec![0; raw.len()]);
}

#[test]
fn a_file_that_promises_more_than_it_may_is_refused_before_anything_is_allocated() {
    // Checksums are right: the file was forged, or made by a broken program.
    let raw = vec![0; 4 << 20];
    let mut compressor = zstd::bulk::Compressor::new(3).unwrap();
    let bomb = compressor.compress(&raw).unwrap();
    let part = super::layout::Part {
        packed_len: bomb.len() as u32,
        crc: crc32fast::hash(&bomb),
    };
    let entry = |raw_len| Entry {
        raw_len,
        head_len: 0,
        heads: Default::default(),
        bodies: part,
    };
    // One piece of 4 MiB, a piece that says 256 KiB and holds 4 MiB, a piece longer packed than raw.
    for raw_len in [raw.len(), MOST_PIECE, bomb.len() - 1] {
        let forged = file(&raw[..raw_len], &[entry(raw_len as u32)], 1, &bomb);
        let error = open(forged).and_then(|file| all(&file)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
    // A raw file of more than any segment, and tables that promise other lengths than the header.
    let whole = file(&raw[..MOST_PIECE], &[entry(MOST_PIECE as u32)], 1, &bomb);
    for (at, value) in [
        (40, u64::MAX),
        (40, 2 << 30),
        (40, 5),
        (32, 4),
        (56, 3),
        (56, u64::MAX),
    ] {
        let mut forged = whole.clone();
        forged[at..at + 8].copy_from_slice(&value.to_le_bytes());
        let crc = crc32fast::hash(&forged[..HEADER - 4]).to_le_bytes();
        forged[HEADER - 4..HEADER].copy_from_slice(&crc);
        assert!(open(forged).is_err(), "{at} {value}");
    }
    let mut newer = whole;
    newer[4] = 2;
    let crc = crc32fast::hash(&newer[..HEADER - 4]).to_le_bytes();
    newer[HEADER - 4..HEADER].copy_from_slice(&crc);
    assert_eq!(open(newer).err().unwrap().kind(), io::ErrorKind::Unsupported);
}

/// The segment of the golden file: blocks that share a piece, one over two pieces of which the second does not
/// compress, and one that is alone.
fn golden_segment() -> (Vec<u8>, Vec<usize>) {
    let mut payloads: Vec<Vec<u8>> = (1..4).map(|number| vec![number; 100]).collect();
    let mut state = 5u64;
    let noise = std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u8
    });
    let long = std::iter::repeat_n(7, MOST_PIECE - 1_000).chain(noise.take(1_500));
    payloads.push(long.collect());
    payloads.push(b"last".to_vec());
    segment(&payloads)
}

/// Compares header and table, byte by byte, with what docs/format.md says ("Packed segment") of a file that holds
/// `raw` in pieces of these lengths: of the segment, and of their heads. Returns how long each part is in the file.
fn assert_laid_out(bytes: &[u8], raw: &[u8], blocks: u64, pieces: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let table_at = bytes.len() - 24 * pieces.len();
    let (mut at, mut table, mut lengths) = (128, Vec::new(), Vec::new());
    for (number, (raw_len, head_len)) in pieces.iter().enumerate() {
        let entry = table_at + 24 * number;
        let packed = (word(entry + 8), word(entry + 16));
        let heads = &bytes[at..at + packed.0 as usize];
        let bodies = &bytes[at + heads.len()..][..packed.1 as usize];
        at += heads.len() + bodies.len();
        let crc = |part: &[u8]| if part.is_empty() { 0 } else { crc32fast::hash(part) };
        for field in [*raw_len, *head_len, packed.0, crc(heads), packed.1, crc(bodies)] {
            table.extend_from_slice(&field.to_le_bytes());
        }
        lengths.push(packed);
    }
    assert_eq!(at, table_at, "pieces follow one another, and the table the last");
    assert_eq!(bytes[table_at..], table, "the table");
    let mut header = b"MPZ1".to_vec();
    header.extend_from_slice(&[1, 0, 0, 0]);
    header.extend_from_slice(&77u128.to_le_bytes());
    let raw_len = raw.len() as u64;
    for field in [800, 800 + raw_len, raw_len + 1_000, blocks, table_at as u64] {
        header.extend_from_slice(&field.to_le_bytes());
    }
    header.extend_from_slice(&(pieces.len() as u32).to_le_bytes());
    header.extend_from_slice(&crc32fast::hash(&table).to_le_bytes());
    header.extend_from_slice(&[0; 52]);
    header.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
    assert_eq!(bytes[..128], header, "the header");
    lengths
}

#[test]
fn a_packed_segment_of_format_1_is_read_and_laid_out_as_ever() {
    // What is written today is not compared with the kept file as a whole: another version of zstd may compress the
    // same bytes to others, which every version reads. So the kept one is read, and of both all else is compared.
    let (raw, starts) = golden_segment();
    let new = packed(&raw, &starts);
    let kept = crate::golden::kept("packed", &new);
    let first = starts[3] as u32;
    let last = (raw.len() - starts[4]) as u32;
    let most = MOST_PIECE as u32;
    let head = |number: usize| {
        let header = crate::block::BlockHeader::parse(&raw[starts[number]..]).unwrap();
        header.body_range().start as u32
    };
    let rest = (starts[4] - starts[3]) as u32 - most;
    let pieces = [
        (first, head(0) + head(1) + head(2)),
        (most, head(3)),
        (rest, 0),
        (last, head(4)),
    ];
    for (name, bytes) in [("kept", &kept), ("new", &new)] {
        let lengths = assert_laid_out(bytes, &raw, 5, &pieces);
        assert!(lengths[1].1 < 2_000, "{name}: a part is compressed");
        assert_eq!(lengths[2], (0, rest), "{name}: a part is as it was");
    }
    let file = open(kept).unwrap();
    assert_eq!(all(&file).unwrap(), [&raw[..], &[0; 1_000]].concat());
    for start in starts {
        let head = file.head(start as u64).unwrap().unwrap();
        assert_eq!(head[..], raw[start..start + head.len()]);
        assert!(head.len() >= HEADER_LEN);
    }
}
