//! The files of what was received, as a repair finds them, and the bytes that make their chain whole again.
//!
//! ```text
//! base ─► received-3000 ─► BAD ─► received-1000     ─►     base' ─► received-3000' ─► renewed ─► received-1000
//! ```
//!
//! A renewed file says what of the damaged one still stands under a checksum, and that the rest is lost: whoever asks
//! for that is told so, and never that nothing was received (R1). Every file behind it names another checksum then, so
//! it is renewed too, with all that it holds. Oldest first, and the base last: a repair that dies in between leaves
//! files of the second version, which are believed as they are, and goes on when it is run again.

use std::path::PathBuf;

use crate::storage::Storage;
use crate::width::{to_u64, to_usize, u32_to_usize};
use crate::{Epoch, Error, ErrorKind, Lsn, Result, StoreId};

use super::layout::{self, HEAD_LEN, Head, PageBytes, Place, Tables};
use super::{Newest, end_of, open, read_at};

/// Of which transactions, by their origin, it is no longer known whether they were received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgotten {
    /// Site of the origin.
    pub site: StoreId,
    /// Its lineage.
    pub epoch: Epoch,
    /// First and last LSN there.
    pub from: Lsn,
    /// See `from`.
    pub to: Lsn,
}

/// A file of what was received that is damaged, and what is left of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedDamage {
    /// The file.
    pub path: PathBuf,
    /// It told what was received in this part of our log, which was freed.
    pub begin: Lsn,
    /// End of that part.
    pub end: Lsn,
    /// What is wrong with it.
    pub reason: &'static str,
    /// What is not known any more; `None` where not even that is known.
    pub forgotten: Option<Vec<Forgotten>>,
}

impl ReceivedDamage {
    /// What is lost with it, as sentences for an operator.
    #[must_use]
    pub fn lost(&self) -> Vec<String> {
        let Some(forgotten) = &self.forgotten else {
            return vec![format!(
                "which transactions of any other site were received in LSN {} to {} of this log",
                self.begin, self.end
            )];
        };
        let sentence = |one: &Forgotten| {
            let (site, epoch) = (one.site, one.epoch);
            format!(
                "which transactions of site {site}, epoch {epoch}, LSN {} to {} there, were received",
                one.from, one.to
            )
        };
        forgotten.iter().map(sentence).collect()
    }
}

/// A file of the chain.
struct Link {
    end: Lsn,
    bytes: Vec<u8>,
    /// Where it is the one that is named, by whom it can be read.
    head: Option<Head>,
    tables: Option<Tables>,
    pages: Vec<PageBytes>,
    reason: Option<&'static str>,
}

/// The chain of files as it was found.
pub(in crate::store) struct Chained {
    id: StoreId,
    /// Oldest first.
    links: Vec<Link>,
    named: Newest,
}

/// A file that is to be put in place.
pub(in crate::store) struct Renewed {
    pub(in crate::store) name: String,
    pub(in crate::store) end: Lsn,
    pub(in crate::store) bytes: Vec<u8>,
}

/// A damaged file, and its bytes as far as there are any.
pub(in crate::store) struct Broken<'a> {
    pub(in crate::store) damage: ReceivedDamage,
    pub(in crate::store) bytes: &'a [u8],
}

impl Chained {
    /// Reads the files that a base names.
    ///
    /// # Errors
    /// When they cannot be read at all; damage is no error here.
    pub(in crate::store) fn read(storage: &dyn Storage, id: StoreId, named: Newest) -> Result<Chained> {
        let names = storage.list("log");
        let names =
            names.map_err(|error| Error::io("list what was received", storage.root().join("log"), error))?;
        let ends: Vec<Lsn> = names.iter().filter_map(|name| end_of(name)).collect();
        let (mut links, mut next) = (Vec::new(), (named.file.0, Some(named.file.1)));
        while next.0 > Lsn::ZERO {
            let (end, crc) = next;
            let link = Link::read(storage, id, end, crc)?;
            next = match &link.head {
                Some(head) => (head.place.previous.0, Some(head.place.previous.1)),
                // Nobody says which one comes before, so it is the one that is there.
                None => {
                    let before = ends.iter().copied().filter(|there| *there < end).max();
                    (before.unwrap_or_default(), None)
                }
            };
            links.push(link);
        }
        links.reverse();
        Ok(Chained { id, links, named })
    }

    /// What is damaged, oldest first.
    pub(in crate::store) fn broken(&self, storage: &dyn Storage) -> Vec<Broken<'_>> {
        let mut before = Lsn::ZERO;
        let mut found = Vec::new();
        for link in &self.links {
            if let Some(reason) = link.reason {
                found.push(Broken {
                    damage: ReceivedDamage {
                        path: storage.root().join(layout::file_name(link.end)),
                        begin: link.head.map_or(before, |head| head.place.begin),
                        end: link.end,
                        reason,
                        forgotten: link.forgotten(),
                    },
                    bytes: &link.bytes,
                });
            }
            before = link.end;
        }
        found
    }

    /// The files that make the chain whole, oldest first, and what the base has to name; none, and what it names, when it
    /// is whole.
    ///
    /// # Errors
    /// `Internal` for what no file can hold.
    pub(in crate::store) fn renewed(&self) -> Result<(Vec<Renewed>, Newest)> {
        let (mut files, mut previous) = (Vec::new(), (Lsn::ZERO, 0));
        for link in &self.links {
            let begin = link.head.map_or(previous.0, |head| head.place.begin);
            let place = Place {
                store_id: self.id,
                begin: begin.max(previous.0),
                end: link.end,
                previous,
            };
            previous = match link.head {
                Some(head) if link.reason.is_none() && head.place == place => (link.end, head.crc),
                _ => {
                    let bytes = layout::encode_renewed(&place, link.left())?;
                    let crc = Head::parse(&bytes).map(|head| head.crc);
                    let crc = crc.ok_or_else(|| {
                        Error::internal("what was received was renewed as it cannot be read").at_lsn(link.end)
                    })?;
                    files.push(Renewed {
                        name: layout::file_name(link.end),
                        end: link.end,
                        bytes,
                    });
                    (link.end, crc)
                }
            };
        }
        let file = previous;
        Ok((files, Newest { file, ..self.named }))
    }

    /// True when the base names the newest, and each file the one before it.
    pub(in crate::store) fn is_whole(&self) -> Result<bool> {
        let (files, named) = self.renewed()?;
        Ok(files.is_empty() && named == self.named)
    }
}

impl Link {
    fn read(storage: &dyn Storage, id: StoreId, end: Lsn, crc: Option<u32>) -> Result<Link> {
        let mut link = Link {
            end,
            bytes: Vec::new(),
            head: None,
            tables: None,
            pages: Vec::new(),
            reason: None,
        };
        match open(storage, end) {
            Ok(file) => {
                let len = file.len().map_err(|error| super::failed(storage, end, error))?;
                link.bytes = read_at(storage, end, 0, to_usize(len))?;
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                link.reason = Some("the file is missing");
                return Ok(link);
            }
            Err(error) => return Err(error),
        }
        link.judge(id, crc);
        Ok(link)
    }

    fn judge(&mut self, id: StoreId, crc: Option<u32>) {
        let bytes = &self.bytes;
        let head = Head::parse(bytes).filter(|head| head.place.end == self.end && head.place.store_id == id);
        let Some(head) = head else {
            self.reason = Some("its header is damaged");
            return;
        };
        if !head.renewed && crc.is_some_and(|crc| crc != head.crc) {
            self.reason = Some("it is another file than the one that is named");
            return;
        }
        self.head = Some(head);
        let tables = bytes.get(HEAD_LEN..HEAD_LEN.saturating_add(head.tables_len()));
        let Some(tables) = tables.and_then(|raw| head.tables(raw)) else {
            self.reason = Some("its tables are damaged");
            return;
        };
        for page in &tables.pages {
            let at = to_usize(page.offset);
            let raw = bytes.get(at..at.saturating_add(u32_to_usize(page.len)));
            let raw = raw.filter(|raw| page.read(raw).is_some());
            if raw.is_none() {
                self.reason = Some("a page of it is damaged");
            }
            self.pages.push((page.first, raw.unwrap_or_default().to_vec()));
        }
        if to_u64(bytes.len()) != head.len {
            self.reason = self.reason.or(Some("it is longer than it says"));
        }
        self.tables = Some(tables);
    }

    /// What still stands there; `None` when what else it told is not known.
    fn left(&self) -> Option<(&[layout::Lineage], &[PageBytes])> {
        let known = self.head.is_some_and(|head| !head.tables_lost);
        let tables = self.tables.as_ref().filter(|_| known)?;
        Some((&tables.lineages, &self.pages))
    }

    fn forgotten(&self) -> Option<Vec<Forgotten>> {
        let (lineages, pages) = self.left()?;
        let mut found = Vec::new();
        for lineage in lineages {
            for (from, to) in lost_ranges(lineage, pages) {
                found.push(Forgotten {
                    site: lineage.key.0,
                    epoch: lineage.key.1,
                    from,
                    to,
                });
            }
        }
        Some(found)
    }
}

/// Ranges of LSNs of a lineage that lost pages held.
fn lost_ranges(lineage: &layout::Lineage, pages: &[PageBytes]) -> Vec<(Lsn, Lsn)> {
    let (first, end) = lineage.pages;
    let own = pages
        .get(u32_to_usize(first)..u32_to_usize(end))
        .unwrap_or_default();
    let mut found: Vec<(Lsn, Lsn)> = Vec::new();
    for (number, (from, bytes)) in own.iter().enumerate() {
        let next = own.get(number + 1).map(|(next, _)| Lsn(next.0.saturating_sub(1)));
        let to = next.unwrap_or(lineage.highest);
        match found.last_mut() {
            _ if !bytes.is_empty() => {}
            Some(last) if last.1.0.saturating_add(1) == from.0 => last.1 = to,
            _ => found.push((*from, to)),
        }
    }
    found
}
