//! [`Receipts`]: what was received in the part of the log that was freed, by its origin (docs/format.md, "Received").
//!
//! ```text
//! who frees: segments that go ─► transactions with an origin ─► log/received-<end> durable ─► base names it ─► unlinked
//! base-3000 ─► received-3000 ─► received-1000 ─► none       each names the one before, with its checksum
//! ```
//!
//! A site that replicates must know for ever what it received from where, or it would take it again (R1, R4). Of
//! the freed part a dozen bytes an event are kept: origin, ordinal, and a checksum of all that makes an event the same.
//! A file is written once, before the base that names it, and never again: nothing is made of it that was not in it.
//! One that is missing or damaged is `Corrupt`, never taken for one that holds nothing. What a repair could not save of
//! one is told as lost, to whoever asks for it.

mod layout;
mod renew;

use std::sync::Arc;

use crate::frame::{FrameKind, FrameRef, event_check};
use crate::index::base::{self, Base};
use crate::log::BlockWalk;
use crate::planted::{self, Bug};
use crate::storage::{OpenMode, Storage};
use crate::sync::Mutex;
use crate::width::{to_u64, to_usize, u32_to_usize};
use crate::{Epoch, Error, ErrorKind, Lsn, Result, Store, StoreId};

use super::Shared;
use layout::{Gathered, HEAD_LEN, Head, Place, Tables};

pub use layout::Receipt;
pub(super) use layout::end_of;
pub(super) use renew::Chained;
pub use renew::{Forgotten, ReceivedDamage};

/// What the key of a remote begins with: while there never was one, nothing was received (docs/format.md, "Catalog").
pub(crate) const REMOTE: &[u8] = b"catalog/remote/";

/// Where the files begin that a base names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Newest {
    /// False for bases of programs that did not keep what was received.
    pub(crate) told: bool,
    /// A repair that knew neither this nor all pinned records made the base: that there is no remote says nothing.
    pub(crate) doubted: bool,
    /// End of the newest file, and CRC of its header; zeros for none.
    pub(crate) file: (Lsn, u32),
}

/// What a file tells of a part of the log: header and tables verified.
struct Part {
    head: Head,
    tables: Tables,
}

/// A page that was read last: of which file, where, what it holds.
type ReadLast = Option<(Lsn, u64, Arc<Vec<(Lsn, Vec<Receipt>)>>)>;

/// What was received before the log begins. It stays what it is when more is freed.
pub struct Receipts {
    storage: Arc<dyn Storage>,
    begins: Lsn,
    complete: bool,
    doubted: bool,
    /// Newest first.
    files: Vec<Arc<Part>>,
    last: Mutex<ReadLast>,
}

impl std::fmt::Debug for Receipts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Receipts");
        shown
            .field("begins", &self.begins)
            .field("files", &self.files.len());
        shown.finish_non_exhaustive()
    }
}

impl Receipts {
    /// Where the log begins whose freed part it tells of.
    #[must_use]
    pub fn begins(&self) -> Lsn {
        self.begins
    }

    /// False when something was freed by a program, or before a hold was dropped, that did not keep it, or when a repair
    /// made the base that tells it: what is not found may have been received all the same.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// True when a repair made the base and knew not all pinned records: that there is none of a site does not say that
    /// nothing was received of it.
    #[must_use]
    pub fn is_doubted(&self) -> bool {
        self.doubted
    }

    /// Why what [`Receipts::events`] gives of a transaction may not be all that was received of it: what told it was found
    /// damaged, or was never kept.
    #[must_use]
    pub fn lost_of(&self, site: StoreId, epoch: Epoch, lsn: Lsn) -> Option<Error> {
        if !self.complete {
            return Some(self.unknown());
        }
        let lost = |file: &&Arc<Part>| {
            let lineage = file.tables.lineage((site, epoch));
            let lineage = lineage.filter(|one| one.lowest <= lsn && lsn <= one.highest);
            let page = lineage.and_then(|lineage| file.tables.page(lineage, lsn));
            file.head.tables_lost || page.is_some_and(layout::Page::is_lost)
        };
        self.files
            .iter()
            .find(lost)
            .map(|file| lost_part(&*self.storage, &file.head.place))
    }

    /// True when nobody can tell whose transactions were received in a part, or in all: [`Receipts::newest`] may be too
    /// low.
    #[must_use]
    pub fn has_lost_tables(&self) -> bool {
        !self.complete || self.files.iter().any(|file| file.head.tables_lost)
    }

    /// Of a base that does not tell what was received.
    fn unknown(&self) -> Error {
        let why = if self.doubted {
            "pinned records from before the log begins are lost with a damaged or missing base, which a repair made again, and \
             with them from whom what was received"
        } else {
            "the base does not say that all is kept of what was received before the log begins: it was damaged or missing and \
             made again by a repair, or a program freed the log that did not keep it"
        };
        let text = format!(
            "{why}, so that it may have been here before: restore a backup that has it, or make this site anew"
        );
        Error::new(ErrorKind::Behind, text)
            .at_path(self.storage.root())
            .at_lsn(self.begins)
    }

    /// Parts of our log, oldest first, of which a repair could not save all that was told of what was received.
    #[must_use]
    pub fn lost_parts(&self) -> Vec<(Lsn, Lsn)> {
        let lost =
            |file: &&Arc<Part>| file.head.tables_lost || file.tables.pages.iter().any(layout::Page::is_lost);
        let parts = self.files.iter().rev().filter(lost);
        parts
            .map(|file| (file.head.place.begin, file.head.place.end))
            .collect()
    }

    /// Transactions that it knows, or knew before a repair.
    #[must_use]
    pub fn transactions(&self) -> u64 {
        let lineages = self.files.iter().flat_map(|file| &file.tables.lineages);
        lineages.map(|lineage| lineage.transactions).sum()
    }

    /// Highest LSN of a site's transactions, in any of its lineages; [`Lsn::ZERO`] for none.
    #[must_use]
    pub fn newest(&self, site: StoreId) -> Lsn {
        let lineages = self.files.iter().flat_map(|file| &file.tables.lineages);
        let own = lineages.filter(|lineage| lineage.key.0 == site);
        own.map(|lineage| lineage.highest).max().unwrap_or_default()
    }

    /// The events that were received of one transaction, by its origin, in whatever frames they came.
    ///
    /// # Errors
    /// `Corrupt` when a file is damaged or gone.
    pub fn events(&self, site: StoreId, epoch: Epoch, lsn: Lsn) -> Result<Vec<Receipt>> {
        let mut found = Vec::new();
        for file in &self.files {
            let lineage = file.tables.lineage((site, epoch));
            let Some(lineage) = lineage.filter(|one| one.lowest <= lsn && lsn <= one.highest) else {
                continue;
            };
            let Some(page) = file.tables.page(lineage, lsn) else {
                continue;
            };
            let page = self.page(file, page)?;
            if let Ok(at) = page.binary_search_by_key(&lsn, |(there, _)| *there) {
                found.extend(page.get(at).into_iter().flat_map(|(_, receipts)| receipts));
            }
        }
        Ok(found)
    }

    fn page(&self, file: &Part, page: &layout::Page) -> Result<Arc<Vec<(Lsn, Vec<Receipt>)>>> {
        if page.is_lost() {
            // It begins where the next one does.
            return Ok(Arc::default());
        }
        let end = file.head.place.end;
        if let Some((known, at, read)) = &*self.last.lock()
            && (*known, *at) == (end, page.offset)
        {
            return Ok(Arc::clone(read));
        }
        let raw = read_at(&*self.storage, end, page.offset, u32_to_usize(page.len))?;
        let read = page.read(&raw).ok_or_else(|| damaged(&*self.storage, end))?;
        let read = Arc::new(read);
        *self.last.lock() = Some((end, page.offset, Arc::clone(&read)));
        Ok(read)
    }

    /// Reads every byte.
    ///
    /// # Errors
    /// `Corrupt` when a file is damaged.
    pub fn verify(&self) -> Result<()> {
        for file in &self.files {
            file.tables
                .pages
                .iter()
                .try_for_each(|page| self.page(file, page).map(drop))?;
        }
        Ok(())
    }

    /// Those that a base names; files that `known` has open are not opened again.
    pub(super) fn of_base(
        storage: &Arc<dyn Storage>,
        base: Option<&Base>,
        known: Option<&Receipts>,
    ) -> Result<Receipts> {
        let newest = base.map(newest_of).transpose()?;
        let newest = newest.unwrap_or(Newest {
            told: true,
            doubted: false,
            file: (Lsn::ZERO, 0),
        });
        let known: &[Arc<Part>] = known.map_or(&[], |known| &known.files);
        let (mut files, mut next) = (Vec::new(), newest.file);
        while next.0 > Lsn::ZERO {
            let held = known
                .iter()
                .find(|file| (file.head.place.end, file.head.crc) == next);
            let file = match (held, base) {
                (Some(file), _) => Arc::clone(file),
                (None, Some(base)) => Arc::new(Part::open(&**storage, next, base.store_id())?),
                (None, None) => break,
            };
            next = file.head.place.previous;
            files.push(file);
        }
        Ok(Receipts {
            storage: Arc::clone(storage),
            begins: base.map_or(Lsn::ZERO, Base::end),
            complete: newest.told,
            doubted: newest.doubted,
            files,
            last: Mutex::default(),
        })
    }
}

impl Part {
    fn open(storage: &dyn Storage, (end, crc): (Lsn, u32), id: StoreId) -> Result<Part> {
        let bad = || damaged(storage, end);
        let raw = read_at(storage, end, 0, HEAD_LEN)?;
        let head = Head::parse(&raw).filter(|head| head.crc == crc).ok_or_else(bad)?;
        let tables = read_at(storage, end, to_u64(HEAD_LEN), head.tables_len())?;
        let len = open(storage, end)?
            .len()
            .map_err(|error| failed(storage, end, error))?;
        let tables = head.tables(&tables).filter(|_| head.len == len).ok_or_else(bad)?;
        if head.place.end != end || head.place.store_id != id {
            return Err(bad());
        }
        Ok(Part { head, tables })
    }
}

/// What a base says; one of an earlier program says it by having never had a remote.
fn newest_of(base: &Base) -> Result<Newest> {
    let newest = base.received();
    Ok(Newest {
        told: newest.told || (!newest.doubted && !base.has_pinned(REMOTE)?),
        ..newest
    })
}

impl Shared {
    /// Makes durable what was received in [begins, end), which is about to be freed; what the base there has to say.
    pub(super) fn keep_received(&self, end: Lsn) -> Result<Newest> {
        let index = &self.streams.index;
        let former = index.base();
        let before = former.as_ref().map(newest_of).transpose()?;
        let before = before.unwrap_or(Newest {
            told: true,
            doubted: false,
            file: (Lsn::ZERO, 0),
        });
        if !self.may_have_received(end)? {
            return Ok(before);
        }
        let begin = former.as_ref().map_or(Lsn::ZERO, Base::end);
        remove_strays(&*self.storage, begin)?;
        let gathered = self.gather(begin, end)?;
        if gathered.is_empty() {
            return Ok(before);
        }
        let place = Place {
            store_id: self.identity.owner.id,
            begin,
            end,
            previous: before.file,
        };
        let bytes = layout::encode(&place, &gathered)?;
        let crc = Head::parse(&bytes).map(|head| head.crc);
        let crc = crc.ok_or_else(|| Error::internal("what was received was written as it cannot be read"))?;
        if !planted::is(Bug::ReceivedForgotten) {
            let name = layout::file_name(end);
            base::put(&*self.storage, end, &name, &bytes, self.log.rng.next_u64())?;
        }
        Ok(Newest {
            file: if planted::is(Bug::ReceivedForgotten) {
                before.file
            } else {
                (end, crc)
            },
            ..before
        })
    }

    /// False when there never was a remote before `end`.
    pub(super) fn may_have_received(&self, end: Lsn) -> Result<bool> {
        if self
            .streams
            .index
            .base()
            .is_some_and(|base| base.received().doubted)
        {
            return Ok(true);
        }
        self.streams.index.is_pinned_before(end, REMOTE)
    }

    fn gather(&self, begin: Lsn, end: Lsn) -> Result<Gathered> {
        let dir = &self.log.dir;
        let mut gathered = Gathered::new();
        let mut walk = BlockWalk::new(dir, dir.open(begin)?, begin);
        while walk.advance(end)? {
            let Some(block) = walk.block() else { break };
            for frame in block.frames() {
                note(&frame?, &mut gathered)?;
            }
        }
        for transaction in gathered.values_mut().flat_map(|lineage| lineage.values_mut()) {
            transaction.sort_unstable();
            transaction.dedup();
        }
        Ok(gathered)
    }
}

fn note(frame: &FrameRef<'_>, gathered: &mut Gathered) -> Result<()> {
    if frame.kind() != FrameKind::TRANSACTION {
        return Ok(());
    }
    let Some(origin) = frame.origin()? else {
        return Ok(());
    };
    let committed_at = frame.committed_at()?;
    let lineage = gathered.entry((origin.site, origin.epoch)).or_default();
    let receipts = lineage.entry(origin.lsn).or_default();
    for event in frame.events() {
        let event = event?;
        receipts.push(Receipt {
            ordinal: event.ordinal,
            check: event_check(committed_at, &event)?,
        });
    }
    Ok(())
}

impl Store {
    /// What was received before the log begins, as of now; files that `known` has open are not opened again.
    ///
    /// # Errors
    /// `Corrupt` when a file, or the base that names them, is missing or damaged.
    pub fn receipts(&self, known: Option<&Receipts>) -> Result<Receipts> {
        self.shared().follow_freed()?;
        Receipts::of_base(self.storage(), self.shared().streams.index.base().as_ref(), known)
    }
}

/// Copies the files that a base names, the newest first, to another storage where they are not whole already. No whole
/// file there gives way to one that a repair made.
pub(super) fn copy(
    from: &dyn Storage,
    to: &dyn Storage,
    id: StoreId,
    named: (Lsn, u32),
    mut word: impl FnMut() -> u64,
) -> Result<()> {
    let mut next = named;
    while next.0 > Lsn::ZERO {
        let (end, crc) = next;
        let there = whole(to, id, end).map(|(head, _)| head);
        let Some(head) = there.filter(|head| head.crc == crc) else {
            let (head, bytes) = whole(from, id, end).ok_or_else(|| damaged(from, end))?;
            if head.crc != crc || (head.renewed && there.is_some()) {
                return Err(other(from, to, end));
            }
            base::put(to, end, &layout::file_name(end), &bytes, word())?;
            next = head.place.previous;
            continue;
        };
        next = head.place.previous;
    }
    Ok(())
}

/// The file of that end as a base can name it, when it and all before it are whole, whoever named them.
pub(super) fn whole_chain(storage: &dyn Storage, id: StoreId, end: Lsn) -> Option<(Lsn, u32)> {
    let mut newest = None;
    let mut next = (end, None);
    while next.0 > Lsn::ZERO {
        let (head, _) = whole(storage, id, next.0)?;
        if next.1.is_some_and(|crc| crc != head.crc) {
            return None;
        }
        newest = newest.or(Some((end, head.crc)));
        next = (head.place.previous.0, Some(head.place.previous.1));
    }
    newest
}

/// A file of which every byte stands under its checksum.
fn whole(storage: &dyn Storage, id: StoreId, end: Lsn) -> Option<(Head, Vec<u8>)> {
    let len = open(storage, end).ok()?.len().ok()?;
    let bytes = read_at(storage, end, 0, to_usize(len)).ok()?;
    let head = Head::parse(&bytes).filter(|head| head.len == to_u64(bytes.len()))?;
    let tables = head.tables(bytes.get(HEAD_LEN..HEAD_LEN.checked_add(head.tables_len())?)?)?;
    let same = |page: &layout::Page| {
        let at = to_usize(page.offset);
        let raw = bytes.get(at..at.checked_add(u32_to_usize(page.len))?)?;
        page.read(raw)
    };
    let own = head.place.end == end && head.place.store_id == id;
    let whole = own && tables.pages.iter().all(|page| same(page).is_some());
    whole.then_some((head, bytes))
}

/// Removes files of a freeing that did not come to its base.
pub(super) fn remove_strays(storage: &dyn Storage, begins: Lsn) -> Result<()> {
    let failed = |error| {
        Error::io(
            "remove what an interrupted freeing left",
            storage.root().join("log"),
            error,
        )
    };
    for file in storage.list("log").map_err(failed)? {
        if end_of(&file).is_some_and(|end| end > begins) {
            match storage.unlink(&format!("log/{file}")) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        }
    }
    Ok(())
}

/// The newest whole file for a log that begins at `begins`: its end, and the CRC of its header; zeros for none. For a
/// repair whose base cannot say it.
///
/// # Errors
/// When files cannot be read.
pub(crate) fn received_file(storage: &dyn Storage, id: StoreId, begins: Lsn) -> Result<(Lsn, u32)> {
    let names = storage.list("log");
    let names =
        names.map_err(|error| Error::io("list what was received", storage.root().join("log"), error))?;
    let mut ends: Vec<Lsn> = names.iter().filter_map(|name| end_of(name)).collect();
    ends.retain(|end| *end <= begins);
    ends.sort_unstable();
    for end in ends.into_iter().rev() {
        match read_at(storage, end, 0, HEAD_LEN).map(|raw| Head::parse(&raw)) {
            Ok(Some(head)) if head.place.end == end && head.place.store_id == id => {
                return Ok((end, head.crc));
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Corrupt => {}
            Err(error) => return Err(error),
        }
    }
    Ok((Lsn::ZERO, 0))
}

fn open(storage: &dyn Storage, end: Lsn) -> Result<Arc<dyn crate::storage::StorageFile>> {
    let opened = storage.open(&layout::file_name(end), OpenMode::Read);
    opened.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => damaged(storage, end),
        _ => failed(storage, end, error),
    })
}

/// Reads so many bytes, or fewer where the file ends.
fn read_at(storage: &dyn Storage, end: Lsn, offset: u64, len: usize) -> Result<Vec<u8>> {
    let file = open(storage, end)?;
    let failed = |error| failed(storage, end, error);
    let left = file.len().map_err(failed)?.saturating_sub(offset);
    let mut bytes = vec![0; len.min(to_usize(left))];
    let read = file.read_at(&mut bytes, offset).map_err(failed)?;
    bytes.truncate(read);
    Ok(bytes)
}

fn failed(storage: &dyn Storage, end: Lsn, error: std::io::Error) -> Error {
    let path = storage.root().join(layout::file_name(end));
    Error::io("read what was received", path, error)
}

/// What a repair could not save.
fn lost_part(storage: &dyn Storage, place: &Place) -> Error {
    let text = format!(
        "what was received in LSN {} to {} of the log was freed, and the file that knew it was damaged and repaired, so \
         that it may have been here before: restore a backup of this site that still has the file, or make this site anew",
        place.begin, place.end
    );
    Error::new(ErrorKind::Behind, text)
        .at_path(storage.root().join(layout::file_name(place.end)))
        .at_lsn(place.end)
}

/// Of two copies neither is the one that is wanted.
fn other(from: &dyn Storage, to: &dyn Storage, end: Lsn) -> Error {
    let name = layout::file_name(end);
    let text = format!(
        "this file of what was received is not whole, or what names it is not, and {} is another one, such as a repair \
         makes: keep what is here, run `milepost repair` on the store, which tells of a repair that was interrupted, and \
         else choose another folder",
        from.root().join(&name).display()
    );
    Error::conflict(text).at_path(to.root().join(name)).at_lsn(end)
}

/// What stands there cannot be made again.
fn damaged(storage: &dyn Storage, end: Lsn) -> Error {
    let text = "the file that knows what was received in the freed part of the log is missing or damaged and cannot be \
                made again, so what comes from neighbours may have been here before: put it back from a copy, such as a \
                backup's file of that name, restore a backup, or see what `milepost repair` can save of it";
    Error::corrupt(text)
        .at_path(storage.root().join(layout::file_name(end)))
        .at_lsn(end)
}
