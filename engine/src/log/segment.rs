//! Segments: the files of a log, and the folder that holds them.
//!
//! ```text
//! log/0000000000000000.log   first LSN in 16 hex digits
//! log/0000000003ff9c40.log   begins where its predecessor's last block ends
//! log/spare-9f3a….ready      zero-filled and synced ahead of need
//! log/spare-77b0….making     one that is being made
//! queue/0000000000000000.mpq the stable queue, in the same form
//! ```
//!
//! A segment keeps the length it was made with; what lies behind its last block reads as zeros.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::block::{BlockKind, Owner};
use crate::storage::{Mapping, OpenMode, Storage, StorageFile, Window};
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::{Error, Lsn, Result};

/// Most files of one log that a handle keeps open and mapped.
const MOST_OPEN: usize = 64;

/// The files of one log.
pub(crate) struct SegmentDir {
    storage: Arc<dyn Storage>,
    kind: BlockKind,
    owner: Owner,
    /// How files are opened: to read alone where nothing is written and the place may not allow it.
    mode: OpenMode,
    advice: &'static str,
    /// How far bytes may have been written by anybody, asked after a file was opened (S1).
    written: Box<dyn Fn() -> Lsn + Send + Sync>,
    known: Mutex<Known>,
    /// What was listed last. A segment that has a successor there has it for ever.
    listed: Mutex<Vec<Lsn>>,
    /// How often it was listed: who keeps an answer of [`SegmentDir::known_end`] asks again when this moves.
    listings: AtomicU64,
}

/// Open files, each with the number of its last use.
#[derive(Default)]
struct Known {
    open: BTreeMap<Lsn, (Arc<Segment>, u64)>,
    uses: u64,
}

impl Known {
    fn get(&mut self, first: Lsn) -> Option<Arc<Segment>> {
        self.uses += 1;
        let (segment, used) = self.open.get_mut(&first)?;
        *used = self.uses;
        Some(Arc::clone(segment))
    }

    /// Keeps a segment, and closes the one that was used longest ago when there are many. The newest two
    /// stay: what is not durable yet lies in them, and only a descriptor that was there before hears of a
    /// failed write (S1).
    fn adopt(&mut self, segment: Segment) -> Arc<Segment> {
        self.uses += 1;
        let first = segment.first;
        let (kept, _) = self
            .open
            .entry(first)
            .or_insert_with(|| (Arc::new(segment), self.uses));
        let kept = Arc::clone(kept);
        let older = self.open.len().saturating_sub(2);
        if self.open.len() > MOST_OPEN {
            let stale = self.open.iter().take(older).filter(|(other, _)| **other != first);
            if let Some(stale) = stale.min_by_key(|(_, (_, used))| *used).map(|(first, _)| *first) {
                self.open.remove(&stale);
            }
        }
        kept
    }
}

/// One open file of a log.
pub(crate) struct Segment {
    /// LSN of its first byte.
    pub first: Lsn,
    /// Its length in bytes. It only grows, and only while nothing is written in it.
    len: AtomicU64,
    /// Opened for reading and writing, because only such a descriptor is told of failed write-back.
    pub file: Arc<dyn StorageFile>,
    /// S1: every byte at or above this LSN was written after the descriptor was opened.
    pub safe_from: Lsn,
    name: String,
    mapping: Mutex<Option<Arc<dyn Mapping>>>,
}

/// Folder and ending of a log's files.
const fn place(kind: BlockKind) -> (&'static str, &'static str) {
    match kind {
        BlockKind::Log => ("log", ".log"),
        BlockKind::Queue => ("queue", ".mpq"),
    }
}

/// Name of the file that begins at `first`, with its folder: the one place that prints it.
pub(crate) fn segment_name(kind: BlockKind, first: Lsn) -> String {
    let (folder, ending) = place(kind);
    format!("{folder}/{:016x}{ending}", first.0)
}

/// First LSN of the file called `name` within its folder: the one place that parses it.
pub(crate) fn parse_segment_name(kind: BlockKind, name: &str) -> Option<Lsn> {
    let digits = name.strip_suffix(place(kind).1)?;
    let plain = digits.len() == 16 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    plain
        .then(|| u64::from_str_radix(digits, 16).ok().map(Lsn))
        .flatten()
}

impl SegmentDir {
    pub(crate) fn new(
        storage: Arc<dyn Storage>,
        kind: BlockKind,
        owner: Owner,
        written: impl Fn() -> Lsn + Send + Sync + 'static,
    ) -> SegmentDir {
        SegmentDir {
            storage,
            kind,
            owner,
            mode: OpenMode::ReadWrite,
            advice: match kind {
                BlockKind::Log => {
                    "nothing was changed: keep the files and restore a backup, or see what `milepost repair` can save"
                }
                BlockKind::Queue => {
                    "nothing is lost: end every process that has the store open and remove all files of its folder \
                     queue; the next scan makes them again from the log"
                }
            },
            written: Box::new(written),
            known: Mutex::default(),
            listed: Mutex::default(),
            listings: AtomicU64::new(0),
        }
    }

    /// The copied log of a backup, to be read alone.
    pub(crate) fn of_backup(storage: Arc<dyn Storage>, owner: Owner) -> SegmentDir {
        SegmentDir {
            mode: OpenMode::Read,
            advice: "the store is untouched: `milepost backup` with --check copies again what is damaged in a backup",
            ..SegmentDir::new(storage, BlockKind::Log, owner, || Lsn::ZERO)
        }
    }

    /// Folder of the files.
    pub(crate) fn folder(&self) -> &'static str {
        place(self.kind).0
    }

    pub(crate) fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    pub(crate) fn kind(&self) -> BlockKind {
        self.kind
    }

    /// Whose files they are.
    pub(crate) fn owner(&self) -> Owner {
        self.owner
    }

    /// First LSNs of all files, ascending.
    pub(crate) fn list(&self) -> Result<Vec<Lsn>> {
        let folder = self.folder();
        let names = self.storage.list(folder);
        let names =
            names.map_err(|error| Error::io("list the segments", self.storage.root().join(folder), error))?;
        let mut firsts: Vec<Lsn> = names
            .iter()
            .filter_map(|name| parse_segment_name(self.kind, name))
            .collect();
        firsts.sort_unstable();
        self.listed.lock().clone_from(&firsts);
        self.listings.fetch_add(1, Ordering::AcqRel);
        Ok(firsts)
    }

    /// Number of the last listing.
    pub(crate) fn listings(&self) -> u64 {
        self.listings.load(Ordering::Acquire)
    }

    /// Where the segment that begins at `first` is known to end: at its successor's first LSN. What
    /// stands there in its own file means nothing, whatever a crash has put there.
    pub(crate) fn known_end(&self, first: Lsn) -> Result<Option<Lsn>> {
        let next = |firsts: &[Lsn]| firsts.iter().find(|other| **other > first).copied();
        {
            let listed = self.listed.lock();
            if !listed.is_empty() {
                return Ok(next(&listed));
            }
        }
        Ok(next(&self.list()?))
    }

    /// True when the last listing begins behind a segment: it was freed since it was opened.
    pub(crate) fn is_unlisted(&self, first: Lsn) -> bool {
        self.listed.lock().first().is_some_and(|oldest| *oldest > first)
    }

    /// The open segment that begins at `first`.
    pub(crate) fn open(&self, first: Lsn) -> Result<Arc<Segment>> {
        if let Some(segment) = self.known.lock().get(first) {
            return Ok(segment);
        }
        let name = segment_name(self.kind, first);
        let path = self.storage.root().join(&name);
        let file = self.storage.open(&name, self.mode);
        let file = match file {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(self.gone(first)?.at_path(path));
            }
            Err(error) => return Err(Error::io("open a segment", &path, error).at_lsn(first)),
        };
        let len = file
            .len()
            .map_err(|error| Error::io("read a segment's length", &path, error))?;
        let segment = Segment {
            first,
            len: AtomicU64::new(len),
            file,
            safe_from: (self.written)(),
            name,
            mapping: Mutex::new(None),
        };
        Ok(self.known.lock().adopt(segment))
    }

    /// The first LSN of the segment that holds position `at`, or of the last one before it; `None`
    /// when every segment begins later.
    pub(crate) fn first_at_or_before(&self, at: Lsn) -> Result<Option<Lsn>> {
        Ok(self.list()?.into_iter().take_while(|first| *first <= at).last())
    }

    /// True when what stood at a position was freed: it lies before the oldest file of a queue, or before a base of
    /// a log, which is there before anything is freed.
    pub(crate) fn has_freed(&self, at: Lsn) -> Result<bool> {
        match self.kind {
            BlockKind::Queue => Ok(self.list()?.first().is_none_or(|oldest| *oldest > at)),
            BlockKind::Log => Ok(self.begins()? > at),
        }
    }

    /// Where a log begins as its newest base says; 0 without one.
    fn begins(&self) -> Result<Lsn> {
        Ok(crate::index::base::ends(&*self.storage)?
            .last()
            .copied()
            .unwrap_or_default())
    }

    /// Lets go of what lies before `end`: its space is given back when nobody has it open any more.
    pub(crate) fn forget_before(&self, end: Lsn) {
        let mut known = self.known.lock();
        known.open = known.open.split_off(&end);
    }

    /// Why no file holds the position `at`.
    pub(crate) fn gone(&self, at: Lsn) -> Result<Error> {
        let error = if self.has_freed(at)? {
            let oldest = match self.kind {
                BlockKind::Queue => self.list()?.first().copied().unwrap_or_default(),
                BlockKind::Log => self.begins()?,
            };
            Error::behind(format!(
                "what stood here was freed; the oldest retained position is {oldest}: start there"
            ))
        } else {
            Error::corrupt(format!(
                "the file that holds this position is missing; {}",
                self.advice()
            ))
        };
        Ok(error.at_path(self.storage.root().join(self.folder())).at_lsn(at))
    }

    /// What is wrong when nothing stands at `at`, behind the blocks of the segment that begins at `first`, though
    /// there are later files; `None` when there are none.
    pub(crate) fn gap(&self, first: Lsn, at: Lsn) -> Result<Option<String>> {
        let later = self.known_end(first)?.is_some_and(|next| next > at);
        Ok(later.then(|| {
            let name = segment_name(self.kind, at);
            format!(
                "no block begins here, and there is no file {name} that would go on from here: it is missing, or \
                 this one is damaged"
            )
        }))
    }

    /// Forgets an open segment.
    pub(crate) fn forget(&self, first: Lsn) {
        self.known.lock().open.remove(&first);
    }

    /// What an operator does about damage in these files: the queue is derived from the log, which is truth.
    pub(crate) fn advice(&self) -> &'static str {
        self.advice
    }

    /// Full path of a segment, for messages.
    pub(crate) fn path(&self, segment: &Segment) -> std::path::PathBuf {
        self.storage.root().join(&segment.name)
    }
}

impl Segment {
    /// Length in bytes when it was last looked at.
    pub(crate) fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    /// Looks again how long the file is, for a block that reaches beyond what was known.
    pub(crate) fn look_again(&self) -> std::io::Result<()> {
        let len = self.file.len()?;
        if self.len.swap(len, Ordering::AcqRel) != len {
            *self.mapping.lock() = None;
        }
        Ok(())
    }

    /// Position after the file's last byte.
    pub(crate) fn end(&self) -> Lsn {
        self.first.plus(self.len())
    }

    /// Offset of a position in the file.
    pub(crate) fn offset(&self, at: Lsn) -> u64 {
        at.since(self.first)
    }

    /// Bytes of the mapped file, brought into memory.
    pub(crate) fn window(&self, range: Range<u64>) -> std::io::Result<Window> {
        let mapping = {
            let mut slot = self.mapping.lock();
            match &*slot {
                Some(mapping) => Arc::clone(mapping),
                None => Arc::clone(slot.insert(self.file.map()?)),
            }
        };
        mapping.window(range)
    }
}
