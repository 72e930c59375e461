//! Segments: the files of a log, and the folder that holds them.
//!
//! ```text
//! log/0000000000000000.log   first LSN in 16 hex digits; other forms: see `form`
//! log/0000000003ff9c40.log   begins where its predecessor's last block ends
//! log/spare-9f3a….ready      zero-filled and synced ahead of need
//! log/spare-51d2….room       the same of space that is only allocated, where much is written at once
//! log/spare-77b0….making     one that is being made
//! queue/0000000000000000.mpq the stable queue, in the same form
//! ```
//!
//! A segment keeps the length it was made with; what lies behind its last block reads as zeros. It has one form or,
//! for a moment and after a crash, two with the same blocks; then the raw one counts.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::block::{BlockKind, Owner};
use crate::storage::{Mapping, OpenMode, Storage, StorageFile, Window};
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::width::to_usize;
use crate::{Error, Lsn, Result};

use super::away::{self, Stub};
use super::form::{Form, away_name, packed_name, parse_segment_name, place, segment_name};
use super::packed::PackedSegment;

/// Most files of one log that a handle keeps open and mapped.
const MOST_OPEN: usize = 64;
/// How often a file is looked for that another process may be giving another form.
const LOOKS: usize = 3;

/// The files of one log.
pub(crate) struct SegmentDir {
    storage: Arc<dyn Storage>,
    kind: BlockKind,
    owner: Owner,
    /// How files are opened: to read alone where nothing is written and the place may not allow it.
    mode: OpenMode,
    advice: &'static str,
    /// Damage is looked at: what cannot be decompressed reads as zeros.
    lenient: bool,
    /// How far bytes may have been written by anybody, asked after a file was opened (S1).
    written: Box<dyn Fn() -> Lsn + Send + Sync>,
    /// A counter that moves before any process takes away a form of a segment that has another.
    arranged: Box<dyn Fn() -> u64 + Send + Sync>,
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
    /// Its file, for messages.
    path: PathBuf,
    form: Form,
    packed: Option<PackedSegment>,
    mapping: Mutex<Option<Arc<dyn Mapping>>>,
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
            lenient: false,
            written: Box::new(written),
            arranged: Box::new(|| 0),
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

    /// Says how a process sees that another is about to take a form of a segment away.
    pub(crate) fn arranged_by(mut self, arranged: impl Fn() -> u64 + Send + Sync + 'static) -> SegmentDir {
        self.arranged = Box::new(arranged);
        self
    }

    /// For who looks at damage: what cannot be decompressed reads as zeros, and is found to be no block.
    pub(crate) fn lenient(mut self) -> SegmentDir {
        self.lenient = true;
        self
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

    /// First LSNs of all segments, ascending.
    pub(crate) fn list(&self) -> Result<Vec<Lsn>> {
        let forms = self.forms()?;
        let mut firsts: Vec<Lsn> = forms.iter().map(|(first, _)| *first).collect();
        firsts.dedup();
        // Who keeps a file open that has another form by now keeps its space from being given back.
        self.known.lock().open.retain(|first, (segment, _)| {
            forms.binary_search(&(*first, segment.form())).is_ok() || firsts.binary_search(first).is_err()
        });
        self.listed.lock().clone_from(&firsts);
        self.listings.fetch_add(1, Ordering::AcqRel);
        Ok(firsts)
    }

    /// Every segment with every form that it has, ascending.
    pub(crate) fn forms(&self) -> Result<Vec<(Lsn, Form)>> {
        let folder = self.folder();
        loop {
            let arranged = (self.arranged)();
            let names = self.storage.list(folder);
            let names = names
                .map_err(|error| Error::io("list the segments", self.storage.root().join(folder), error))?;
            // A name that comes and one that goes meanwhile may both be missing in a listing (E3).
            if (self.arranged)() != arranged {
                continue;
            }
            let parsed = names
                .iter()
                .filter_map(|name| parse_segment_name(self.kind, name));
            let mut forms: Vec<(Lsn, Form)> = parsed.collect();
            forms.sort_unstable();
            return Ok(forms);
        }
    }

    /// Bytes that segments take less in the folder than their blocks do, because they were compressed or moved.
    pub(crate) fn saved(&self) -> Result<u64> {
        let forms = self.forms()?;
        let mut saved = 0;
        for (number, (first, form)) in forms.iter().enumerate() {
            let (before, next) = (number.checked_sub(1), forms.get(number + 1));
            let alone = before
                .and_then(|before| forms.get(before))
                .is_none_or(|before| before.0 != *first)
                && next.is_some_and(|next| next.0 != *first);
            let Some((end, _)) = next.filter(|_| alone && *form != Form::Raw) else {
                continue;
            };
            let takes = match form {
                Form::Packed => self.packed_len(*first)?,
                Form::Raw | Form::Away => 0,
            };
            saved += end.since(*first).saturating_sub(takes);
        }
        Ok(saved)
    }

    /// Length of a compressed segment's file; 0 when it is gone by now.
    pub(crate) fn packed_len(&self, first: Lsn) -> Result<u64> {
        let name = packed_name(first);
        let len = self
            .storage
            .open(&name, OpenMode::Read)
            .and_then(|file| file.len());
        match len {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            len => len.map_err(|error| {
                Error::io(
                    "ask for a segment's length",
                    self.storage.root().join(name),
                    error,
                )
                .at_lsn(first)
            }),
        }
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

    /// True when the last listing has a segment that begins here.
    pub(crate) fn is_listed(&self, first: Lsn) -> bool {
        self.listed.lock().binary_search(&first).is_ok()
    }

    /// The open segment that begins at `first`.
    pub(crate) fn open(&self, first: Lsn) -> Result<Arc<Segment>> {
        if let Some(segment) = self.known.lock().get(first) {
            return Ok(segment);
        }
        let path = self.storage.root().join(segment_name(self.kind, first));
        for _ in 0..LOOKS {
            match self.open_raw(first) {
                Ok(file) => return self.adopt(first, path, Form::Raw, (file, None)),
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io("open a segment", &path, error).at_lsn(first));
                }
                Err(_) if self.kind == BlockKind::Queue => break,
                Err(_) => {}
            }
            if let Some(packed) = self.open_packed(first)? {
                let path = self.storage.root().join(packed_name(first));
                return self.adopt(
                    first,
                    path,
                    Form::Packed,
                    (Arc::new(packed.clone()), Some(packed)),
                );
            }
            if let Some(stub) = self.stub(first)? {
                match self.open_away(&stub) {
                    // Brought back or freed since its stub was read: no damage, and its archive may be gone too.
                    Err(_) if self.stub(first)? != Some(stub) => {}
                    opened => return opened,
                }
            }
        }
        Err(self.gone(first)?.at_path(path))
    }

    /// The raw file of the segment that begins at `first`.
    pub(super) fn open_raw(&self, first: Lsn) -> io::Result<Arc<dyn StorageFile>> {
        self.storage.open(&segment_name(self.kind, first), self.mode)
    }

    /// The compressed segment that begins at `first`, if there is one.
    pub(crate) fn open_packed(&self, first: Lsn) -> Result<Option<PackedSegment>> {
        let name = packed_name(first);
        match self.storage.open(&name, OpenMode::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(
                Error::io("open a compressed segment", self.storage.root().join(name), error).at_lsn(first),
            ),
            Ok(file) => self
                .packed_in(file, first, self.storage.root().join(name))
                .map(Some),
        }
    }

    fn packed_in(&self, file: Arc<dyn StorageFile>, first: Lsn, path: PathBuf) -> Result<PackedSegment> {
        let opened = if self.lenient {
            let used = self.known_end(first)?.unwrap_or(first).since(first);
            PackedSegment::open_damaged(file, self.owner.id, first, used)
        } else {
            PackedSegment::open(file, self.owner.id, first)
        };
        opened.map_err(|error| self.unreadable("open a compressed segment", path, first, error))
    }

    /// What stands in the folder for a segment that lies in the archive.
    pub(crate) fn stub(&self, first: Lsn) -> Result<Option<Stub>> {
        if self.kind == BlockKind::Queue {
            return Ok(None);
        }
        away::read_stub(&*self.storage, &away_name(first), self.owner.id, first)
    }

    /// The stub of a segment that is in the archive alone, without going there.
    pub(crate) fn only_away(&self, first: Lsn) -> Result<Option<Stub>> {
        if self
            .known
            .lock()
            .get(first)
            .is_some_and(|segment| segment.form != Form::Away)
        {
            return Ok(None);
        }
        // Asked of every segment when a store is opened, and few are away: the folder is not listed for it.
        let Some(stub) = self.stub(first)? else {
            return Ok(None);
        };
        let forms = self.forms()?;
        let here = |form| forms.binary_search(&(first, form)).is_ok();
        Ok((!here(Form::Raw) && !here(Form::Packed)).then_some(stub))
    }

    fn open_away(&self, stub: &Stub) -> Result<Arc<Segment>> {
        let first = stub.first;
        let archive = away::archive(&*self.storage, self.owner, first)?;
        let name = self.archived_name(stub);
        let (file, path) = (
            away::open_file(&*archive, &name, stub)?,
            archive.root().join(&name),
        );
        if stub.form == Form::Raw {
            return self.adopt(first, path, Form::Away, (file, None));
        }
        let packed = self.packed_in(file, first, path.clone())?;
        self.adopt(first, path, Form::Away, (Arc::new(packed.clone()), Some(packed)))
    }

    /// Name of a segment's file in the archive.
    pub(crate) fn archived_name(&self, stub: &Stub) -> String {
        match stub.form {
            Form::Packed => packed_name(stub.first),
            Form::Raw | Form::Away => segment_name(self.kind, stub.first),
        }
    }

    fn adopt(
        &self,
        first: Lsn,
        path: PathBuf,
        form: Form,
        (file, packed): (Arc<dyn StorageFile>, Option<PackedSegment>),
    ) -> Result<Arc<Segment>> {
        let len = file
            .len()
            .map_err(|error| Error::io("read a segment's length", &path, error))?;
        let segment = Segment {
            first,
            len: AtomicU64::new(len),
            file,
            safe_from: (self.written)(),
            path,
            form,
            packed,
            mapping: Mutex::new(None),
        };
        Ok(self.known.lock().adopt(segment))
    }

    /// Why bytes of a segment cannot be read. Compressed bytes whose checksum does not match are damage (E3).
    pub(crate) fn unreadable(&self, action: &str, path: PathBuf, at: Lsn, error: io::Error) -> Error {
        let error = match error.kind() {
            io::ErrorKind::InvalidData => Error::corrupt(format!("{error}; run verify; {}", self.advice())),
            io::ErrorKind::Unsupported => Error::invalid(error.to_string()),
            _ => return Error::io(action, path, error).at_lsn(at),
        };
        error.at_path(path).at_lsn(at)
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
                 this one is damaged{}",
                super::away::hint(&*self.storage, self.owner, at)
            )
        }))
    }

    /// Names of a segment in all forms that it has, with their folder.
    pub(crate) fn names_of(&self, first: Lsn) -> Result<Vec<String>> {
        let forms = self.forms()?.into_iter().filter(|(other, _)| *other == first);
        let name = |form| match form {
            Form::Raw => segment_name(self.kind, first),
            Form::Packed => packed_name(first),
            Form::Away => away_name(first),
        };
        Ok(forms.map(|(_, form)| name(form)).collect())
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
    pub(crate) fn path(&self, segment: &Segment) -> PathBuf {
        segment.path.clone()
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

    /// The form in which it was opened.
    pub(crate) fn form(&self) -> Form {
        self.form
    }

    /// Bytes from `from` on, brought into memory: at least to `until`, and to `to` where that costs little.
    pub(crate) fn window(&self, from: Lsn, until: Lsn, to: Lsn) -> io::Result<Window> {
        let (from, until, to) = (self.offset(from), self.offset(until), self.offset(to));
        if let Some(packed) = &self.packed {
            return packed.window_to(from, until);
        }
        if self.form == Form::Away {
            // A disk that may be taken away is read, not mapped: its absence is an error and not a signal.
            let mut bytes = vec![0; to_usize(to - from)];
            let read = self.file.read_at(&mut bytes, from)?;
            bytes.truncate(read);
            return Ok(Window::new(Arc::new(bytes)));
        }
        let mapping = {
            let mut slot = self.mapping.lock();
            match &*slot {
                Some(mapping) => Arc::clone(mapping),
                None => Arc::clone(slot.insert(self.file.map()?)),
            }
        };
        mapping.window(from..to)
    }

    /// Header and filter alone of the block at `at`, where they can be had without the rest.
    pub(crate) fn head(&self, at: Lsn) -> io::Result<Option<Window>> {
        self.packed
            .as_ref()
            .map_or(Ok(None), |packed| packed.head(self.offset(at)))
    }
}
