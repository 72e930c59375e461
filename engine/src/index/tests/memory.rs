//! A folder of files in memory, and a log of blocks, for the tests of this module.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::block::{Block, BlockBuilder, BlockKind, Seal};
use crate::clock::Rng;
use crate::frame::EncodedFrame;
use crate::index::SegmentSource;
use crate::storage::{LockMode, Mapping, OpenMode, SharedCells, Storage, StorageFile, Window};
use crate::{Chain, Epoch, Lsn, Result, StoreId};

type Bytes = Arc<Mutex<Vec<u8>>>;

#[derive(Default)]
pub(super) struct Memory {
    pub(super) files: Mutex<BTreeMap<String, Bytes>>,
    /// Every write fails with "no space" while set.
    pub(super) full: Mutex<bool>,
}

impl Memory {
    pub(super) fn names(&self) -> Vec<String> {
        self.files.lock().unwrap().keys().cloned().collect()
    }

    pub(super) fn bytes(&self, name: &str) -> Vec<u8> {
        self.files.lock().unwrap()[name].lock().unwrap().clone()
    }

    pub(super) fn put(&self, name: &str, bytes: Vec<u8>) {
        self.files
            .lock()
            .unwrap()
            .insert(name.to_owned(), Arc::new(Mutex::new(bytes)));
    }
}

struct File {
    bytes: Bytes,
    full: bool,
}

struct Map(Vec<u8>);

struct Piece(Vec<u8>);

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Storage for Memory {
    fn root(&self) -> &Path {
        Path::new("/memory")
    }
    fn create_dir(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn open(&self, name: &str, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        let mut files = self.files.lock().unwrap();
        let bytes = match (files.get(name).cloned(), mode) {
            (Some(_), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (None, OpenMode::Read | OpenMode::ReadWrite) => return Err(io::ErrorKind::NotFound.into()),
            (Some(bytes), _) => bytes,
            (None, _) => files.entry(name.to_owned()).or_default().clone(),
        };
        Ok(Arc::new(File {
            bytes,
            full: *self.full.lock().unwrap(),
        }))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files.lock().unwrap();
        let bytes = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), bytes);
        Ok(())
    }
    fn unlink(&self, name: &str) -> io::Result<()> {
        self.files
            .lock()
            .unwrap()
            .remove(name)
            .map(drop)
            .ok_or(io::ErrorKind::NotFound.into())
    }
    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let prefix = format!("{folder}/");
        Ok(self
            .names()
            .iter()
            .filter_map(|name| Some(name.strip_prefix(&prefix)?.to_owned()))
            .collect())
    }
    fn sync_dir(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn cells(&self, _: &str, _: bool) -> io::Result<Arc<dyn SharedCells>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn refusal(&self) -> io::Result<Option<String>> {
        Ok(None)
    }
    fn process_id(&self) -> u32 {
        1
    }
    fn boot_id(&self) -> String {
        String::new()
    }
}

impl StorageFile for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.bytes.lock().unwrap();
        let rest = bytes.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
    /// Takes at most 1,000 bytes at a time, so that short writes are the rule.
    fn write_at(&self, pieces: &[&[u8]], offset: u64) -> io::Result<usize> {
        if self.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut bytes = self.bytes.lock().unwrap();
        let piece = &pieces[0][..pieces[0].len().min(1000)];
        let (start, end) = (offset as usize, offset as usize + piece.len());
        let len = bytes.len().max(end);
        bytes.resize(len, 0);
        bytes[start..end].copy_from_slice(piece);
        Ok(piece.len())
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.bytes.lock().unwrap().resize(len as usize, 0);
        Ok(())
    }
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
    fn map(&self) -> io::Result<Arc<dyn Mapping>> {
        Ok(Arc::new(Map(self.bytes.lock().unwrap().clone())))
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

impl Mapping for Map {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }
    fn window(&self, range: Range<u64>) -> io::Result<Window> {
        let piece = self.0.get(range.start as usize..range.end as usize);
        Ok(Window::new(Arc::new(Piece(
            piece.ok_or(io::ErrorKind::UnexpectedEof)?.to_vec(),
        ))))
    }
}

/// Segments of sealed blocks, by first LSN; the last one is active.
pub(super) struct FakeLog {
    pub(super) segments: Mutex<BTreeMap<Lsn, Vec<Vec<u8>>>>,
    pub(super) chain: Mutex<Chain>,
}

pub(super) const STORE: StoreId = StoreId(77);

impl FakeLog {
    pub(super) fn new() -> FakeLog {
        FakeLog {
            segments: Mutex::new([(Lsn(0), Vec::new())].into()),
            chain: Mutex::new(Chain::genesis(STORE)),
        }
    }

    pub(super) fn firsts(&self) -> Vec<Lsn> {
        self.segments.lock().unwrap().keys().copied().collect()
    }

    pub(super) fn end(&self) -> Lsn {
        let segments = self.segments.lock().unwrap();
        let (first, blocks) = segments.last_key_value().unwrap();
        first.plus(blocks.iter().map(|block| block.len() as u64).sum())
    }

    /// Appends a block to the last segment; returns the segment and the block.
    pub(super) fn append(&self, frames: &[EncodedFrame], nonce: u64) -> (Lsn, Vec<u8>) {
        let mut builder = BlockBuilder::new();
        frames.iter().for_each(|frame| builder.push(frame));
        let mut chain = self.chain.lock().unwrap();
        let seal = Seal {
            kind: BlockKind::Log,
            close: false,
            owner: STORE.into(),
            epoch: Epoch(1),
            lsn: self.end(),
            durable: Lsn(0),
            nonce,
            chain: *chain,
            aux: 0,
        };
        let sealed = builder.seal(&seal, 1);
        *chain = sealed.header.chain_after();
        let mut segments = self.segments.lock().unwrap();
        let (first, blocks) = segments.iter_mut().next_back().unwrap();
        blocks.push(sealed.bytes.clone());
        (*first, sealed.bytes)
    }

    pub(super) fn roll(&self) {
        let end = self.end();
        self.segments.lock().unwrap().insert(end, Vec::new());
    }

    /// The verified block that holds `lsn`, found by a walk from `from`.
    pub(super) fn block_at(&self, segment: Lsn, from: Lsn, lsn: Lsn) -> (Vec<u8>, usize) {
        let segments = self.segments.lock().unwrap();
        let mut at = segment;
        let mut walked = 0;
        for bytes in &segments[&segment] {
            let end = at.plus(bytes.len() as u64);
            if at >= from {
                walked += 1;
            }
            if lsn < end {
                assert!(from <= at, "the index points behind the block");
                return (bytes.clone(), walked);
            }
            at = end;
        }
        panic!("no block holds {lsn}");
    }
}

impl SegmentSource for FakeLog {
    fn chain_before(&self, segment: Lsn) -> Result<Option<Chain>> {
        let segments = self.segments.lock().unwrap();
        let first = segments[&segment].first();
        Ok(first.map(|bytes| Block::check(bytes).unwrap().header().chain))
    }
    fn walk(&self, segment: Lsn, visit: &mut dyn FnMut(&Block<'_>) -> Result<()>) -> Result<()> {
        let blocks = self.segments.lock().unwrap()[&segment].clone();
        blocks
            .iter()
            .try_for_each(|bytes| visit(&Block::check(bytes).unwrap()))
    }
}

/// Words of a counter, mixed.
pub(super) struct Counter(pub(super) Mutex<u64>);

impl Rng for Counter {
    fn next_u64(&self) -> u64 {
        let mut word = self.0.lock().unwrap();
        *word += 1;
        word.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}
