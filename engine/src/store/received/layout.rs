//! Bytes of the files `log/received-<16 hex>` (docs/format.md, "Received"). Touches no files.
//!
//! ```text
//! 0   "MPRECVD1" 8 | version 4 | flags 4 | store id 16
//! 32  begin 8 | end 8 | previous end 8 | its header's CRC 4 | lineages 4
//! 64  pages 4 | CRC of the tables 4 | file length 8 | reserved 12 | header CRC 4
//! 96  lineages: site 16 | epoch 8 | first page 4 | pages 4 | transactions 8 | lowest 8 | highest 8
//!     pages: first LSN 8 | offset 8 | len 4 | CRC 4
//!     the pages: LSN since the one before, events, then of each the ordinal since the one before and its check 8
//! ```
//!
//! Version 2 is what a repair writes: a page of no bytes is lost, and with flag 1 all that is not in the tables is.

use std::collections::BTreeMap;

use crate::width::{to_u64, to_usize, u32_to_usize};
use crate::{Epoch, Error, Lsn, Result, StoreId};

const MAGIC: [u8; 8] = *b"MPRECVD1";
const VERSION: u32 = 1;
/// Of a file that a repair wrote.
const RENEWED: u32 = 2;
/// Flag of such a file: nobody knows what else it told.
const TABLES_LOST: u32 = 1;
/// Length of the header.
pub(super) const HEAD_LEN: usize = 96;
const LINEAGE_LEN: usize = 56;
const PAGE_LEN: usize = 24;
/// Transactions of one page.
const PER_PAGE: usize = if cfg!(test) { 4 } else { 256 };

const PREFIX: &str = "received-";

/// Path of the file of what was received before `end`, behind what the file before it tells.
pub(super) fn file_name(end: Lsn) -> String {
    format!("log/{PREFIX}{:016x}", end.0)
}

/// Where the part of the log ends that a file of the folder tells of, if it is one.
pub(in crate::store) fn end_of(file: &str) -> Option<Lsn> {
    let hex = file.strip_prefix(PREFIX)?;
    let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let fits = hex.len() == 16 && hex.bytes().all(lower);
    fits.then(|| u64::from_str_radix(hex, 16).ok()).flatten().map(Lsn)
}

/// One event of a transaction that was received, when its frame is freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Receipt {
    /// Its number in the transaction at its origin.
    pub ordinal: u32,
    /// [`crate::frame::event_check`] of it.
    pub check: u64,
}

/// Site and lineage of origins.
pub(super) type LineageKey = (StoreId, Epoch);

/// What a stretch of the log received, by origin.
pub(super) type Gathered = BTreeMap<LineageKey, BTreeMap<Lsn, Vec<Receipt>>>;

/// Which stretch of whose log a file tells of, and which file was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) store_id: StoreId,
    pub(super) begin: Lsn,
    pub(super) end: Lsn,
    /// End of the file before and CRC of its header; zeros for none.
    pub(super) previous: (Lsn, u32),
}

/// The header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) place: Place,
    /// A repair wrote it.
    pub(super) renewed: bool,
    /// What of its part of the log was received is known only as far as the tables say it.
    pub(super) tables_lost: bool,
    lineages: u32,
    pages: u32,
    tables_crc: u32,
    pub(super) len: u64,
    /// Of the header, by which who names the file knows it.
    pub(super) crc: u32,
}

/// What of one lineage is in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lineage {
    pub(super) key: LineageKey,
    pub(super) pages: (u32, u32),
    pub(super) transactions: u64,
    pub(super) lowest: Lsn,
    pub(super) highest: Lsn,
}

/// Where the transactions from an LSN on are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) first: Lsn,
    pub(super) offset: u64,
    pub(super) len: u32,
    crc: u32,
}

/// What a file holds and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tables {
    /// Ascending by site and epoch.
    pub(super) lineages: Vec<Lineage>,
    pub(super) pages: Vec<Page>,
}

/// A page: its first LSN, and its bytes; none when they are lost.
pub(super) type PageBytes = (Lsn, Vec<u8>);

/// The file's bytes.
pub(super) fn encode(place: &Place, gathered: &Gathered) -> Result<Vec<u8>> {
    let (mut lineages, mut pages) = (Vec::new(), Vec::new());
    for (key, transactions) in gathered {
        let all: Vec<_> = transactions.iter().collect();
        let ends = all.first().zip(all.last()).map(|(low, high)| (*low.0, *high.0));
        let (lowest, highest) = ends.unwrap_or_default();
        let first = pages.len();
        for page in all.chunks(PER_PAGE) {
            let first = page.first().map_or(Lsn::ZERO, |(lsn, _)| **lsn);
            let mut bytes = Vec::new();
            encode_page(first, page, &mut bytes);
            pages.push((first, bytes));
        }
        let number = |at: usize| u32::try_from(at).map_err(|_| too_many());
        lineages.push(Lineage {
            key: *key,
            pages: (number(first)?, number(pages.len())?),
            transactions: to_u64(all.len()),
            lowest,
            highest,
        });
    }
    assemble(place, VERSION, 0, &lineages, &pages)
}

/// The bytes of a file that a repair puts in place of one that was damaged, of what is left of that; `None` when not
/// even the tables are known.
pub(super) fn encode_renewed(place: &Place, left: Option<(&[Lineage], &[PageBytes])>) -> Result<Vec<u8>> {
    match left {
        Some((lineages, pages)) => assemble(place, RENEWED, 0, lineages, pages),
        None => assemble(place, RENEWED, TABLES_LOST, &[], &[]),
    }
}

fn too_many() -> Error {
    Error::internal("more was received than a file can number")
}

fn assemble(
    place: &Place,
    version: u32,
    flags: u32,
    lineages: &[Lineage],
    pages: &[PageBytes],
) -> Result<Vec<u8>> {
    let number = |count: usize| u32::try_from(count).map_err(|_| too_many());
    let tables_len = lineages.len() * LINEAGE_LEN + pages.len() * PAGE_LEN;
    let (mut tables, mut body) = (Vec::new(), Vec::new());
    for lineage in lineages {
        let (first, end) = lineage.pages;
        tables.extend_from_slice(&lineage.key.0.0.to_le_bytes());
        tables.extend_from_slice(&lineage.key.1.0.to_le_bytes());
        tables.extend_from_slice(&first.to_le_bytes());
        tables.extend_from_slice(&end.saturating_sub(first).to_le_bytes());
        let words = [lineage.transactions, lineage.lowest.0, lineage.highest.0];
        words
            .iter()
            .for_each(|word| tables.extend_from_slice(&word.to_le_bytes()));
    }
    for (first, bytes) in pages {
        tables.extend_from_slice(&first.0.to_le_bytes());
        tables.extend_from_slice(&to_u64(HEAD_LEN + tables_len + body.len()).to_le_bytes());
        tables.extend_from_slice(&number(bytes.len())?.to_le_bytes());
        tables.extend_from_slice(&crc32fast::hash(bytes).to_le_bytes());
        body.extend_from_slice(bytes);
    }
    let head = Head {
        place: *place,
        renewed: version == RENEWED,
        tables_lost: flags & TABLES_LOST != 0,
        lineages: number(lineages.len())?,
        pages: number(pages.len())?,
        tables_crc: crc32fast::hash(&tables),
        len: to_u64(HEAD_LEN + tables.len() + body.len()),
        crc: 0,
    };
    let mut bytes = head.to_bytes();
    bytes.extend_from_slice(&tables);
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

fn encode_page(first: Lsn, page: &[(&Lsn, &Vec<Receipt>)], to: &mut Vec<u8>) {
    let mut before = first;
    for (lsn, receipts) in page {
        put_varint(to, lsn.0.wrapping_sub(before.0));
        put_varint(to, to_u64(receipts.len()));
        let mut ordinal = 0;
        for receipt in *receipts {
            put_varint(to, u64::from(receipt.ordinal.wrapping_sub(ordinal)));
            to.extend_from_slice(&receipt.check.to_le_bytes());
            ordinal = receipt.ordinal;
        }
        before = **lsn;
    }
}

impl Head {
    fn to_bytes(self) -> Vec<u8> {
        let mut raw = MAGIC.to_vec();
        raw.extend_from_slice(&(if self.renewed { RENEWED } else { VERSION }).to_le_bytes());
        raw.extend_from_slice(&(if self.tables_lost { TABLES_LOST } else { 0 }).to_le_bytes());
        raw.extend_from_slice(&self.place.store_id.0.to_le_bytes());
        let (previous, previous_crc) = self.place.previous;
        let words = [self.place.begin.0, self.place.end.0, previous.0];
        words
            .iter()
            .for_each(|word| raw.extend_from_slice(&word.to_le_bytes()));
        let halves = [previous_crc, self.lineages, self.pages, self.tables_crc];
        halves
            .iter()
            .for_each(|half| raw.extend_from_slice(&half.to_le_bytes()));
        raw.extend_from_slice(&self.len.to_le_bytes());
        raw.extend_from_slice(&[0; 12]);
        raw.extend_from_slice(&crc32fast::hash(&raw).to_le_bytes());
        assert_eq!(raw.len(), HEAD_LEN, "the table above and the writer agree");
        raw
    }

    /// Reads a header; `None` when the bytes are none.
    pub(super) fn parse(raw: &[u8]) -> Option<Head> {
        let raw: &[u8; HEAD_LEN] = raw.first_chunk()?;
        let (covered, crc) = raw.split_last_chunk::<4>()?;
        if *crc != crc32fast::hash(covered).to_le_bytes() {
            return None;
        }
        let mut fields = Fields(covered);
        if fields.take::<8>()? != MAGIC {
            return None;
        }
        let (renewed, tables_lost) = match (fields.u32()?, fields.u32()?) {
            (VERSION, _) => (false, false),
            (RENEWED, flags @ (0 | TABLES_LOST)) => (true, flags == TABLES_LOST),
            _ => return None,
        };
        let store_id = StoreId(u128::from_le_bytes(fields.take()?));
        let (begin, end) = (Lsn(fields.u64()?), Lsn(fields.u64()?));
        let previous = (Lsn(fields.u64()?), fields.u32()?);
        let head = Head {
            place: Place {
                store_id,
                begin,
                end,
                previous,
            },
            renewed,
            tables_lost,
            lineages: fields.u32()?,
            pages: fields.u32()?,
            tables_crc: fields.u32()?,
            len: fields.u64()?,
            crc: u32::from_le_bytes(*crc),
        };
        let fits = begin < end && previous.0 <= begin && to_u64(HEAD_LEN + head.tables_len()) <= head.len;
        fits.then_some(head)
    }

    /// Length of the tables behind the header.
    pub(super) fn tables_len(&self) -> usize {
        u32_to_usize(self.lineages)
            .saturating_mul(LINEAGE_LEN)
            .saturating_add(u32_to_usize(self.pages).saturating_mul(PAGE_LEN))
    }

    /// Reads the tables; `None` when the bytes are not those.
    pub(super) fn tables(&self, raw: &[u8]) -> Option<Tables> {
        if raw.len() != self.tables_len() || crc32fast::hash(raw) != self.tables_crc {
            return None;
        }
        let (mut fields, mut tables) = (Fields(raw), Tables::default());
        let mut next_page = 0;
        for _ in 0..self.lineages {
            let key = (StoreId(u128::from_le_bytes(fields.take()?)), Epoch(fields.u64()?));
            let (first, count) = (fields.u32()?, fields.u32()?);
            let transactions = fields.u64()?;
            let (lowest, highest) = (Lsn(fields.u64()?), Lsn(fields.u64()?));
            let ascends = tables.lineages.last().is_none_or(|last| last.key < key);
            if first != next_page || !ascends || lowest > highest {
                return None;
            }
            next_page = first.checked_add(count).filter(|end| *end <= self.pages)?;
            tables.lineages.push(Lineage {
                key,
                pages: (first, next_page),
                transactions,
                lowest,
                highest,
            });
        }
        let mut offset = to_u64(HEAD_LEN + raw.len());
        for _ in 0..self.pages {
            let page = Page {
                first: Lsn(fields.u64()?),
                offset: fields.u64()?,
                len: fields.u32()?,
                crc: fields.u32()?,
            };
            if page.offset != offset {
                return None;
            }
            offset = offset.checked_add(u64::from(page.len))?;
            tables.pages.push(page);
        }
        (next_page == self.pages && offset == self.len).then_some(tables)
    }
}

impl Tables {
    /// What there is of a lineage.
    pub(super) fn lineage(&self, key: LineageKey) -> Option<&Lineage> {
        let at = self.lineages.binary_search_by_key(&key, |lineage| lineage.key);
        at.ok().and_then(|at| self.lineages.get(at))
    }

    /// The page that holds a transaction of a lineage, if any does.
    pub(super) fn page(&self, lineage: &Lineage, lsn: Lsn) -> Option<&Page> {
        let (first, end) = lineage.pages;
        let pages = self.pages.get(u32_to_usize(first)..u32_to_usize(end))?;
        let behind = pages.partition_point(|page| page.first <= lsn);
        pages.get(behind.checked_sub(1)?)
    }
}

impl Page {
    /// True for one of which a repair found nothing left. A page that holds something has bytes.
    pub(super) fn is_lost(&self) -> bool {
        self.len == 0
    }

    /// Every transaction of the page; `None` when the bytes are not its.
    pub(super) fn read(&self, raw: &[u8]) -> Option<Vec<(Lsn, Vec<Receipt>)>> {
        if raw.len() != u32_to_usize(self.len) || crc32fast::hash(raw) != self.crc {
            return None;
        }
        let (mut fields, mut found) = (Fields(raw), Vec::new());
        let mut lsn = self.first.0;
        while !fields.0.is_empty() {
            lsn = lsn.checked_add(fields.varint()?)?;
            let count = to_usize(fields.varint()?);
            // Each takes nine bytes at least.
            if count > fields.0.len() / 9 {
                return None;
            }
            let (mut receipts, mut ordinal) = (Vec::with_capacity(count), 0u32);
            for _ in 0..count {
                ordinal = ordinal.checked_add(u32::try_from(fields.varint()?).ok()?)?;
                let check = fields.u64()?;
                receipts.push(Receipt { ordinal, check });
            }
            found.push((Lsn(lsn), receipts));
        }
        Some(found)
    }
}

fn put_varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value.to_le_bytes().first().copied().unwrap_or_default() | 0x80);
        value >>= 7;
    }
    to.extend(value.to_le_bytes().first());
}

/// Takes fields off the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.take::<1>()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::{assert_laid_out, kept};

    fn gathered() -> Gathered {
        let receipts = |seed: u64| {
            let count = seed % 3 + 1;
            let one = |number: u64| Receipt {
                ordinal: u32::try_from(number * seed).unwrap(),
                check: (seed << 8 | number).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            };
            (0..count).map(one).collect::<Vec<_>>()
        };
        let lineage = |count: u64, step: u64| {
            let one = |number: u64| (Lsn(8 + number * step), receipts(number));
            (0..count).map(one).collect::<BTreeMap<_, _>>()
        };
        Gathered::from([
            ((StoreId(3), Epoch(9)), lineage(9, 40)),
            ((StoreId(3), Epoch(11)), lineage(1, 8)),
            ((StoreId(u128::MAX), Epoch(1)), lineage(4, u64::MAX / 8)),
        ])
    }

    fn place() -> Place {
        Place {
            store_id: StoreId(7),
            begin: Lsn(64),
            end: Lsn(4096),
            previous: (Lsn(64), 77),
        }
    }

    /// All that a file says, if it is believed.
    fn read(bytes: &[u8]) -> Option<(Place, Gathered)> {
        let head = Head::parse(bytes).filter(|head| head.len == to_u64(bytes.len()))?;
        let tables = head.tables(bytes.get(HEAD_LEN..HEAD_LEN + head.tables_len())?)?;
        let mut found = Gathered::new();
        for lineage in &tables.lineages {
            for number in lineage.pages.0..lineage.pages.1 {
                let page = tables.pages.get(number as usize)?;
                let at = page.offset as usize;
                let read = page.read(bytes.get(at..at + page.len as usize)?)?;
                found.entry(lineage.key).or_default().extend(read);
            }
        }
        Some((head.place, found))
    }

    #[test]
    fn it_reads_as_it_was_written_and_every_changed_bit_is_seen() {
        let bytes = encode(&place(), &gathered()).unwrap();
        assert_eq!(kept("received", &bytes), bytes);
        assert_eq!(read(&bytes), Some((place(), gathered())));
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&changed), None, "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(read(&bytes[..len]), None, "{len} bytes");
        }
    }

    /// A page as docs/format.md says ("Received"): numbers in groups of seven bits.
    fn drawn_page(transactions: &[(&Lsn, &Vec<Receipt>)]) -> Vec<u8> {
        fn number(mut number: u64, to: &mut Vec<u8>) {
            while number > 127 {
                to.push(number as u8 | 128);
                number >>= 7;
            }
            to.push(number as u8);
        }
        let (mut page, mut before) = (Vec::new(), transactions[0].0.0);
        for (lsn, receipts) in transactions {
            number(lsn.0 - before, &mut page);
            number(receipts.len() as u64, &mut page);
            let mut ordinal = 0;
            for receipt in *receipts {
                number(u64::from(receipt.ordinal - ordinal), &mut page);
                page.extend_from_slice(&receipt.check.to_le_bytes());
                ordinal = receipt.ordinal;
            }
            before = lsn.0;
        }
        page
    }

    #[test]
    fn a_file_of_format_1_is_laid_out_as_its_page_says() {
        let bytes = kept("received", &encode(&place(), &gathered()).unwrap());
        // docs/format.md, "Received". Nine, one and four transactions; tests have pages of four.
        let all = gathered();
        let (mut lineages, mut pages, mut at) = (Vec::new(), Vec::new(), 96 + 3 * 56 + 5 * 24);
        for (transactions, head) in all.values().zip([(3u128, 9u64), (3, 11), (u128::MAX, 1)]) {
            let all: Vec<_> = transactions.iter().collect();
            lineages.extend_from_slice(&head.0.to_le_bytes());
            lineages.extend_from_slice(&head.1.to_le_bytes());
            lineages.extend_from_slice(&(pages.len() as u32 / 24).to_le_bytes());
            lineages.extend_from_slice(&(all.len().div_ceil(4) as u32).to_le_bytes());
            let lsns = (all[0].0.0, all[all.len() - 1].0.0);
            let words = [all.len() as u64, lsns.0, lsns.1];
            words
                .iter()
                .for_each(|word| lineages.extend_from_slice(&word.to_le_bytes()));
            for some in all.chunks(4) {
                let page = drawn_page(some);
                assert_eq!(bytes[at..at + page.len()], page, "the page at {at}");
                pages.extend_from_slice(&some[0].0.0.to_le_bytes());
                pages.extend_from_slice(&(at as u64).to_le_bytes());
                pages.extend_from_slice(&(page.len() as u32).to_le_bytes());
                pages.extend_from_slice(&crc32fast::hash(&page).to_le_bytes());
                at += page.len();
            }
        }
        assert_eq!(at, bytes.len());
        let tables = [lineages, pages].concat();
        let fields: &[(usize, &[u8])] = &[
            (0, b"MPRECVD1"),
            (8, &1u32.to_le_bytes()),
            (12, &[0; 4]),
            (16, &7u128.to_le_bytes()),
            (32, &64u64.to_le_bytes()),
            (40, &4_096u64.to_le_bytes()),
            (48, &64u64.to_le_bytes()),
            (56, &77u32.to_le_bytes()),
            (60, &3u32.to_le_bytes()),
            (64, &5u32.to_le_bytes()),
            (68, &crc32fast::hash(&tables).to_le_bytes()),
            (72, &(bytes.len() as u64).to_le_bytes()),
            (80, &[0; 12]),
            (92, &crc32fast::hash(&bytes[..92]).to_le_bytes()),
            (96, &tables),
        ];
        assert_laid_out("received", &bytes[..96 + tables.len()], fields);
    }

    /// What a repair writes: of the first lineage a page is lost; or nothing is known.
    #[test]
    fn a_renewed_file_says_what_is_lost_and_every_changed_bit_is_seen() {
        let bytes = encode(&place(), &gathered()).unwrap();
        let head = Head::parse(&bytes).unwrap();
        let tables = head
            .tables(&bytes[HEAD_LEN..HEAD_LEN + head.tables_len()])
            .unwrap();
        let page = |page: &Page| {
            let at = page.offset as usize;
            (page.first, bytes[at..at + page.len as usize].to_vec())
        };
        let mut pages: Vec<PageBytes> = tables.pages.iter().map(page).collect();
        pages[1].1.clear();
        let mut left = gathered();
        let first = left.values_mut().next().unwrap();
        let lost: Vec<Lsn> = first.keys().copied().skip(4).take(4).collect();
        lost.iter().for_each(|lsn| drop(first.remove(lsn)));
        let some = encode_renewed(&place(), Some((&tables.lineages, &pages))).unwrap();
        let none = encode_renewed(&place(), None).unwrap();
        for (name, bytes, left) in [
            ("received-renewed", some, left),
            ("received-lost", none, Gathered::new()),
        ] {
            assert_eq!(kept(name, &bytes), bytes);
            let lost = left.is_empty();
            assert_eq!(
                Head::parse(&bytes).map(|head| (head.renewed, head.tables_lost)),
                Some((true, lost))
            );
            assert_eq!(read(&bytes), Some((place(), left)));
            for bit in 0..bytes.len() * 8 {
                let mut changed = bytes.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(read(&changed), None, "bit {bit}");
            }
        }
    }

    #[test]
    fn a_transaction_is_found_in_its_page_and_no_other() {
        let (bytes, all) = (encode(&place(), &gathered()).unwrap(), gathered());
        let head = Head::parse(&bytes).unwrap();
        let tables = head
            .tables(&bytes[HEAD_LEN..HEAD_LEN + head.tables_len()])
            .unwrap();
        let find = |key, lsn| {
            let lineage = tables.lineage(key)?;
            let page = tables.page(lineage, lsn)?;
            let raw = &bytes[page.offset as usize..(page.offset + u64::from(page.len)) as usize];
            let found = page.read(raw).unwrap().into_iter().find(|(at, _)| *at == lsn)?;
            Some(found.1)
        };
        for (key, transactions) in &all {
            for (lsn, receipts) in transactions {
                assert_eq!(find(*key, *lsn).as_ref(), Some(receipts));
                assert_eq!(find(*key, Lsn(lsn.0 + 1)), None);
            }
            assert_eq!(find(*key, Lsn(1)), None);
        }
        assert_eq!(find((StoreId(3), Epoch(10)), Lsn(8)), None);
    }

    #[test]
    fn names_are_parsed_as_they_were_printed_and_no_other() {
        let name = file_name(Lsn(0xabc));
        assert_eq!(end_of(name.strip_prefix("log/").unwrap()), Some(Lsn(0xabc)));
        for other in [
            "",
            "received-",
            "received-0000000000000ABC",
            "base-0000000000000abc",
        ] {
            assert_eq!(end_of(other), None, "{other}");
        }
    }
}
