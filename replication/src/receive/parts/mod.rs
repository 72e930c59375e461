//! [`Parts`]: pieces of transactions that are not whole yet, on disk (docs/replication.md, "Parts on disk", lays the file out).
//!
//! ```text
//! message with a piece ─► join ─► parts/<remote>-<digest>.part ─► sync ─► the message leaves its link
//!                          └ the last one ─► checked, decoded, applied, durable ─► settled: the file goes
//! ```
//!
//! Guarantees: a piece is durable before its message leaves the link; a file goes only when what it became is durable, or is
//! of no use any more; what a crash left half-written is cut, and asked for again. Refuses: transactions that no segment
//! of this store could hold, more bytes of one remote than such a one has, and pieces in more runs than [`RUNS_MAX`].
//!
//! Several encodings of a transaction may be under way at once, as what a remote is due of it can change while its parts travel.

mod joining;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use milepost_engine::storage::{OpenMode, Storage, StorageFile, write_all};
use milepost_engine::width::{to_u64, to_usize, u32_to_usize};
use milepost_engine::{Error, Result, SiteName, Store};

use crate::message::{Carried, Joined, MessageFault, Part, Pieces, Point};

use joining::Joining;

pub(crate) const FOLDER: &str = "parts";
const MAGIC: [u8; 8] = *b"MPPARTS\x01";
/// Length of a file's head: magic, generation, checksum of both.
const HEAD_LEN: u64 = 16;
/// Length of what stands before each piece: its length and checksum.
const RECORD_HEAD: u64 = 8;
/// Longest record taken, in bytes: more than any message.
const RECORD_MAX: u64 = 32 << 20;
/// Encodings of one transaction that are kept side by side.
const ENCODINGS_MAX: usize = 4;
/// Runs of bytes that one file may consist of; they are kept in memory.
const RUNS_MAX: usize = 1 << 16;

/// A transaction of which pieces are here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incomplete {
    /// Generation of the pair that it came in; no other has a use for it.
    pub generation: u32,
    /// Where it is in its sender's stream.
    pub point: Point,
    /// Bytes of it that are here.
    pub held: u64,
    /// Bytes of it.
    pub total: u64,
    /// Digest of its encoding.
    pub digest: u128,
    /// Where the first of those begins that are missing.
    pub missing_from: u64,
}

impl Incomplete {
    /// What is here from its beginning on, where anything is.
    #[must_use]
    pub fn pieces(&self) -> Option<Pieces> {
        let begun = self.missing_from > 0 && self.missing_from < self.total;
        begun.then_some(Pieces {
            point: self.point,
            digest: self.digest,
            total: self.total,
            bytes: self.missing_from,
        })
    }
}

/// Pieces by remote.
pub struct Parts {
    store: Store,
    remotes: BTreeMap<SiteName, Vec<Spool>>,
    /// A file was made or removed since the folder was synced.
    renamed: bool,
}

/// One encoding of a transaction.
struct Spool {
    name: String,
    file: Arc<dyn StorageFile>,
    generation: u32,
    point: Point,
    total: u64,
    digest: u128,
    /// Ends of the runs that are here, by their starts; none touches the next.
    runs: BTreeMap<u64, u64>,
    held: u64,
    /// Where the next record goes.
    end: u64,
    dirty: bool,
}

impl Parts {
    /// What is here from former processes. Files that cannot be read as far as their first piece are removed: what they were
    /// for is asked for again.
    ///
    /// # Errors
    /// `Internal` when the folder or a file cannot be read.
    pub fn open(store: &Store) -> Result<Parts> {
        let mut parts = Parts {
            store: store.clone(),
            remotes: BTreeMap::new(),
            renamed: false,
        };
        let storage = Arc::clone(store.storage());
        let mut open = || -> std::io::Result<()> {
            for name in names(&*storage)? {
                let path = format!("{FOLDER}/{name}");
                if joining::is_left_over(&name) {
                    storage.unlink(&path)?;
                    parts.renamed = true;
                }
                let Some(remote) = remote_of(&name) else { continue };
                match Spool::read(&*storage, &path, OpenMode::ReadWrite)? {
                    // Under another name than its own it would be in the way of what has that name.
                    Some(spool) if path == file_of(&remote, spool.digest) => {
                        // What a killed process wrote may be in the page cache alone, and is not written when it comes again.
                        parts.renamed = true;
                        parts.remotes.entry(remote).or_default().push(spool);
                    }
                    _ => {
                        storage.unlink(&path)?;
                        parts.renamed = true;
                    }
                }
            }
            Ok(())
        };
        open().map_err(|error| told("read", &*storage, error))?;
        Ok(parts)
    }

    /// Takes a piece. What is kept of another transaction of that remote goes: that one was applied since. Where there is no
    /// room for more, the encoding goes that has not grown for the longest time.
    ///
    /// # Errors
    /// `Full` or `Internal` when it cannot be written; its message is to stay where it is. Within: `TooLarge` for a
    /// transaction that no segment could hold, `Contradiction` when all pieces are here and do not make what they say; they
    /// are forgotten then.
    pub fn join(
        &mut self,
        remote: &SiteName,
        generation: u32,
        part: &Part,
    ) -> Result<Result<Joined, MessageFault>> {
        let limit = self.store.segment_bytes();
        if part.total > limit {
            let claimed = part.total;
            return Ok(Err(MessageFault::TooLarge { claimed, limit }));
        }
        let storage = Arc::clone(self.store.storage());
        let mut spools = self.remotes.remove(remote).unwrap_or_default();
        let (mut of_no_use, mut began) = (Vec::new(), false);
        let outcome = join_in(
            &*storage,
            &mut spools,
            &mut of_no_use,
            (remote, generation, part, limit),
            &mut began,
        );
        self.renamed |= began;
        // A new one may have the name of one of another generation.
        of_no_use.retain(|old| spools.iter().all(|spool| spool.name != old.name));
        if !spools.is_empty() {
            self.remotes.insert(remote.clone(), spools);
        }
        let removed = self.remove(&*storage, of_no_use);
        outcome
            .and_then(|joined| removed.map(|()| joined))
            .map_err(|error| told("keep", &*storage, error))
    }

    /// The transaction of a remote that waits for pieces, in the encoding that grew last.
    #[must_use]
    pub fn incomplete(&self, remote: &SiteName) -> Option<Incomplete> {
        self.remotes.get(remote)?.last().map(Spool::incomplete)
    }

    /// Bytes that are here of a remote.
    #[must_use]
    pub fn held(&self, remote: &SiteName) -> u64 {
        let spools = self.remotes.get(remote).into_iter().flatten();
        spools.map(|spool| spool.held).sum()
    }

    /// Makes all that was kept durable: before the messages leave their link.
    ///
    /// # Errors
    /// `Full` or `Internal`; then nothing may leave.
    pub fn sync(&mut self) -> Result<()> {
        let storage = Arc::clone(self.store.storage());
        let mut sync = || -> std::io::Result<()> {
            for spool in self.remotes.values_mut().flatten().filter(|spool| spool.dirty) {
                spool.file.sync_data()?;
                spool.dirty = false;
            }
            if self.renamed {
                storage.sync_dir(FOLDER)?;
                storage.sync_dir("")?;
                self.renamed = false;
            }
            Ok(())
        };
        sync().map_err(|error| told("sync", &*storage, error))
    }

    /// Removes what is of no use any more, by generation of the pair and the transaction's place.
    ///
    /// # Errors
    /// `Internal` when a file cannot be removed.
    pub fn settled(&mut self, remote: &SiteName, is_of_use: impl Fn(u32, Point) -> bool) -> Result<()> {
        let Some(spools) = self.remotes.get_mut(remote) else {
            return Ok(());
        };
        let of_use = |spool: &Spool| is_of_use(spool.generation, spool.point);
        let (kept, done): (Vec<Spool>, Vec<Spool>) = spools.drain(..).partition(of_use);
        *spools = kept;
        if spools.is_empty() {
            self.remotes.remove(remote);
        }
        let storage = Arc::clone(self.store.storage());
        self.remove(&*storage, done)
            .map_err(|error| told("remove", &*storage, error))
    }

    /// Removes what is here of all remotes but these.
    ///
    /// # Errors
    /// As [`Parts::settled`].
    pub fn retain(&mut self, is_remote: impl Fn(&SiteName) -> bool) -> Result<()> {
        let storage = Arc::clone(self.store.storage());
        let gone: Vec<SiteName> = self
            .remotes
            .keys()
            .filter(|name| !is_remote(name))
            .cloned()
            .collect();
        for name in gone {
            let spools = self.remotes.remove(&name).unwrap_or_default();
            self.remove(&*storage, spools)
                .map_err(|error| told("remove", &*storage, error))?;
        }
        Ok(())
    }

    fn remove(&mut self, storage: &dyn Storage, spools: Vec<Spool>) -> std::io::Result<()> {
        for spool in spools {
            self.renamed = true;
            match storage.unlink(&spool.name) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Adds a piece to those of a remote, which are ordered by when they grew; those of no use any more are taken out.
fn join_in(
    storage: &dyn Storage,
    spools: &mut Vec<Spool>,
    of_no_use: &mut Vec<Spool>,
    (remote, generation, part, limit): (&SiteName, u32, &Part, u64),
    began: &mut bool,
) -> std::io::Result<Result<Joined, MessageFault>> {
    let of_this = |spool: &Spool| spool.generation == generation && spool.point == part.point;
    let (kept, other): (Vec<Spool>, Vec<Spool>) = spools.drain(..).partition(of_this);
    *spools = kept;
    of_no_use.extend(other);
    let same = |spool: &Spool| spool.digest == part.digest;
    let is_other = |spool: &Spool| same(spool) && spool.total != part.total;
    if let Some(at) = spools.iter().position(is_other) {
        // One of them is forged, and nobody knows which: both are forgotten.
        of_no_use.push(spools.remove(at));
        return Ok(Err(MessageFault::Contradiction(
            "the parts of a transaction tell two lengths of it",
        )));
    }
    let mut spool = match spools.iter().position(same) {
        Some(at) => spools.remove(at),
        None => {
            *began = true;
            Spool::begin(storage, remote, generation, part)?
        }
    };
    let kept = spool.keep(part);
    let held = spool.held;
    let mut others: u64 = spools.iter().map(|spool| spool.held).sum();
    while !spools.is_empty() && (spools.len() >= ENCODINGS_MAX || others + held > limit) {
        let oldest = spools.remove(0);
        others -= oldest.held;
        of_no_use.push(oldest);
    }
    let whole = match kept {
        Ok(true) => spool.whole(storage),
        Ok(false) => Ok(Some(Err(MessageFault::Contradiction(
            "a transaction comes in more pieces, out of order, than messages of the least size would make",
        )))),
        Err(error) => Err(error),
    };
    match whole {
        Ok(Some(Err(fault))) => {
            of_no_use.push(spool);
            Ok(Err(fault))
        }
        whole => {
            spools.push(spool);
            whole.map(|whole| match whole {
                Some(Ok(carried)) => Ok(Joined::Whole(carried)),
                _ => Ok(Joined::Waiting),
            })
        }
    }
}

/// Transactions that wait for pieces, by remote or of one `only`, for whoever does not run the receive phase. Their files are read.
///
/// # Errors
/// `Internal` when a file cannot be read.
pub fn incomplete(store: &Store, only: Option<&SiteName>) -> Result<Vec<(SiteName, Incomplete)>> {
    let storage = &**store.storage();
    let read = || -> std::io::Result<Vec<(SiteName, Incomplete)>> {
        let mut found = Vec::new();
        for name in names(storage)? {
            let wanted = remote_of(&name).filter(|remote| only.is_none_or(|only| only == remote));
            let Some(remote) = wanted else { continue };
            match Spool::read(storage, &format!("{FOLDER}/{name}"), OpenMode::Read) {
                Ok(Some(spool)) => found.push((remote, spool.incomplete())),
                Ok(None) => {}
                // It became whole in this moment.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    };
    read().map_err(|error| told("read", storage, error))
}

impl Spool {
    fn begin(
        storage: &dyn Storage,
        remote: &SiteName,
        generation: u32,
        part: &Part,
    ) -> std::io::Result<Spool> {
        storage.create_dir(FOLDER)?;
        let name = file_of(remote, part.digest);
        let file = storage.open(&name, OpenMode::OpenOrCreate)?;
        file.set_len(0)?;
        write_all(&*file, &[&head(generation)], 0)?;
        Ok(Spool {
            name,
            file,
            generation,
            point: part.point,
            total: part.total,
            digest: part.digest,
            runs: BTreeMap::new(),
            held: 0,
            end: HEAD_LEN,
            dirty: true,
        })
    }

    /// Reads a file as far as it is whole; `None` when not even its first piece is.
    fn read(storage: &dyn Storage, name: &str, mode: OpenMode) -> std::io::Result<Option<Spool>> {
        let file = storage.open(name, mode)?;
        let mut bytes = [0; 16];
        if file.read_at(&mut bytes, 0)? < bytes.len() {
            return Ok(None);
        }
        let Some((_, rest)) = bytes.split_first_chunk::<8>() else {
            return Ok(None);
        };
        let generation = rest.first_chunk().map_or(0, |raw| u32::from_le_bytes(*raw));
        if bytes != head(generation) {
            return Ok(None);
        }
        let mut spool: Option<Spool> = None;
        let mut at = HEAD_LEN;
        while let Some((part, next)) = read_record(&*file, at)? {
            let spool = spool.get_or_insert_with(|| Spool {
                name: name.to_owned(),
                file: Arc::clone(&file),
                generation,
                point: part.point,
                total: part.total,
                digest: part.digest,
                runs: BTreeMap::new(),
                held: 0,
                end: at,
                dirty: true,
            });
            if (spool.point, spool.total, spool.digest) != (part.point, part.total, part.digest) {
                break;
            }
            spool.note(part.offset, part.end());
            (spool.end, at) = (next, next);
        }
        Ok(spool)
    }

    /// Writes what of a piece is not here yet behind the others; false when there are too many of them.
    fn keep(&mut self, part: &Part) -> std::io::Result<bool> {
        for (from, to) in self.missing(part.offset, part.end()) {
            if self.runs.len() >= RUNS_MAX {
                return Ok(false);
            }
            let own = part
                .piece
                .get(to_usize(from - part.offset)..to_usize(to - part.offset));
            let piece = Part {
                piece: Bytes::copy_from_slice(own.unwrap_or_default()),
                offset: from,
                ..*part
            };
            let mut bytes = vec![0; to_usize(RECORD_HEAD)];
            piece.encode(&mut bytes);
            let item = bytes.get(to_usize(RECORD_HEAD)..).unwrap_or_default();
            let (len, crc) = (to_u64(item.len()), crc32fast::hash(item));
            let len = u32::try_from(len).map_err(std::io::Error::other)?;
            let written = [len.to_le_bytes(), crc.to_le_bytes()].concat();
            if let Some(head) = bytes.get_mut(..to_usize(RECORD_HEAD)) {
                head.copy_from_slice(&written);
            }
            // What a crash or a full disk left here before is written over, and never read beyond.
            write_all(&*self.file, &[&bytes], self.end)?;
            self.end += to_u64(bytes.len());
            self.dirty = true;
            self.note(from, to);
        }
        Ok(true)
    }

    /// Runs between two offsets that are not here.
    fn missing(&self, from: u64, to: u64) -> Vec<(u64, u64)> {
        let (mut found, mut at) = (Vec::new(), from);
        let before = self.runs.range(..=from).next_back();
        let covering = before
            .into_iter()
            .chain(self.runs.range(from.saturating_add(1)..to));
        for (start, end) in covering {
            if *start > at {
                found.push((at, (*start).min(to)));
            }
            at = at.max(*end);
        }
        if at < to {
            found.push((at, to));
        }
        found
    }

    /// Notes that a run is here.
    fn note(&mut self, from: u64, to: u64) {
        for (from, to) in self.missing(from, to) {
            self.held += to - from;
            let start = match self.runs.range(..=from).next_back() {
                Some((start, end)) if *end == from => *start,
                _ => from,
            };
            let end = self.runs.remove(&to).unwrap_or(to);
            self.runs.insert(start, end);
        }
    }

    fn incomplete(&self) -> Incomplete {
        let first = self.runs.first_key_value();
        Incomplete {
            generation: self.generation,
            point: self.point,
            held: self.held,
            total: self.total,
            digest: self.digest,
            missing_from: first.map_or(0, |(start, end)| if *start == 0 { *end } else { 0 }),
        }
    }

    /// The transaction, if no byte of it is missing.
    fn whole(&mut self, storage: &dyn Storage) -> std::io::Result<Option<Result<Carried, MessageFault>>> {
        if self.held < self.total {
            return Ok(None);
        }
        let mut joining = Joining::begin(storage, self)?;
        let mut at = HEAD_LEN;
        while at < self.end {
            let Some((part, next)) = read_record(&*self.file, at)? else {
                // The disk gives back something else than it took: all behind is missing again.
                self.forget_behind(at)?;
                return Ok(None);
            };
            joining.put(&part)?;
            at = next;
        }
        let encoding = joining.end()?;
        Ok(Some(self.check(&encoding)))
    }

    fn check(&self, encoding: &Bytes) -> Result<Carried, MessageFault> {
        if Part::digest_of(encoding) != self.digest {
            return Err(MessageFault::Contradiction(
                "the parts of a transaction do not have its digest",
            ));
        }
        let carried = Carried::decode_shared(encoding)?;
        if carried.point != self.point {
            return Err(MessageFault::Contradiction(
                "the parts of a transaction tell another position",
            ));
        }
        Ok(carried)
    }

    fn forget_behind(&mut self, end: u64) -> std::io::Result<()> {
        tracing::error!(
            file = self.name,
            offset = end,
            "damaged: what came behind is asked for again"
        );
        (self.runs, self.held) = (BTreeMap::new(), 0);
        let mut at = HEAD_LEN;
        while at < end {
            let Some((part, next)) = read_record(&*self.file, at)? else {
                break;
            };
            self.note(part.offset, part.end());
            at = next;
        }
        self.end = at;
        Ok(())
    }
}

fn head(generation: u32) -> [u8; 16] {
    let mut head = [0; 16];
    let (front, crc) = head.split_at_mut(12);
    front.copy_from_slice(&[&MAGIC[..], &generation.to_le_bytes()].concat());
    crc.copy_from_slice(&crc32fast::hash(front).to_le_bytes());
    head
}

/// The piece at `at`, and where the next begins; `None` when it is not whole.
fn read_record(file: &dyn StorageFile, at: u64) -> std::io::Result<Option<(Part, u64)>> {
    let mut head = [0; 8];
    if file.read_at(&mut head, at)? < head.len() {
        return Ok(None);
    }
    let (len, crc) = head.split_at(4);
    let number = |raw: &[u8]| raw.first_chunk().map_or(0, |raw| u32::from_le_bytes(*raw));
    let (len, crc) = (number(len), number(crc));
    let begins = at.saturating_add(RECORD_HEAD);
    let ends = begins.saturating_add(u64::from(len));
    // No more than is there is allocated.
    if u64::from(len) > RECORD_MAX || len == 0 || ends > file.len()? {
        return Ok(None);
    }
    let mut item = vec![0; u32_to_usize(len)];
    if file.read_at(&mut item, begins)? < item.len() || crc32fast::hash(&item) != crc {
        return Ok(None);
    }
    Ok(Part::decode(&Bytes::from(item)).ok().map(|part| (part, ends)))
}

/// Names in the folder, sorted; none without one.
fn names(storage: &dyn Storage) -> std::io::Result<Vec<String>> {
    match storage.list(FOLDER) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        names => names.map(|mut names| {
            names.sort();
            names
        }),
    }
}

/// The file of an encoding.
fn file_of(remote: &SiteName, digest: u128) -> String {
    format!("{FOLDER}/{remote}-{digest:032x}.part")
}

/// Whose pieces a file of that name holds; `None` for one that is not ours.
fn remote_of(name: &str) -> Option<SiteName> {
    let (remote, digest) = name.strip_suffix(".part")?.rsplit_once('-')?;
    let is_digest = digest.len() == 32 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_digest.then(|| remote.parse().ok()).flatten()
}

fn told(what: &str, storage: &dyn Storage, error: std::io::Error) -> Error {
    Error::io(
        &format!("{what} parts of a transaction"),
        storage.root().join(FOLDER),
        error,
    )
}

#[cfg(test)]
mod tests;
