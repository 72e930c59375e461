//! Sections between a frame's fixed part and its body: origin, via, pinned records, time of the first commit.
//!
//! ```text
//! origin  0 site 16 | epoch 8 | lsn 8 | name_len 2 | reserved 6 | name, padded to 8
//! via     0 site 16 | epoch 8 | at 8 | back 8 | chain 8 | generation 4 | name_len 2 | reserved 2 | name, padded to 8
//! pinned  0 section_len 4 | count 4 | records: key_len 2 | flags 2 | value_len 4 | key | value, padded to 8
//! committed_at  0 time 8
//! ```

use crate::width::{align8, u32_to_usize};
use crate::{Chain, Epoch, Error, Lsn, Position, Result, SiteName, StoreId};

const ORIGIN_FIXED: usize = 40;
const VIA_FIXED: usize = 56;
const PINNED_REMOVED: u16 = 1;

/// Where a transaction was first committed. Hubs pass it on unchanged.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The site's id.
    pub site: StoreId,
    /// The site's name when the transaction left it.
    pub name: SiteName,
    /// Lineage there.
    pub epoch: Epoch,
    /// LSN there.
    pub lsn: Lsn,
}

/// The neighbour that a transaction was received from, and the position it told with it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Via {
    /// The neighbour's id.
    pub site: StoreId,
    /// The neighbour's name: a remote of this site.
    pub name: SiteName,
    /// Generation of the pair.
    pub generation: u32,
    /// Position of the transaction in the neighbour's log, as told.
    pub position: Position,
    /// 0 for a live commit; for history, the LSN it is read from, while `position.lsn` is where the
    /// subscription starts.
    pub back: Lsn,
}

/// A record whose last value is state (catalog, neighbour positions, epochs). The engine knows no
/// meaning.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pinned {
    /// 1 to 65,535 bytes.
    pub key: Vec<u8>,
    /// The value; `None` removes the key.
    pub value: Option<Vec<u8>>,
}

/// [`Origin`] in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginRef<'a> {
    /// The site's id.
    pub site: StoreId,
    /// The site's name.
    pub name: &'a str,
    /// Lineage there.
    pub epoch: Epoch,
    /// LSN there.
    pub lsn: Lsn,
}

impl OriginRef<'_> {
    /// An owned copy.
    ///
    /// # Errors
    /// `Invalid` when the name breaks the rule of site names.
    pub fn to_owned(&self) -> Result<Origin> {
        Ok(Origin {
            site: self.site,
            name: SiteName::new(self.name)?,
            epoch: self.epoch,
            lsn: self.lsn,
        })
    }
}

/// [`Via`] in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViaRef<'a> {
    /// The neighbour's id.
    pub site: StoreId,
    /// The neighbour's name.
    pub name: &'a str,
    /// Generation of the pair.
    pub generation: u32,
    /// Position in the neighbour's log, as told.
    pub position: Position,
    /// 0 for a live commit, else where history was read.
    pub back: Lsn,
}

impl ViaRef<'_> {
    /// An owned copy.
    ///
    /// # Errors
    /// `Invalid` when the name breaks the rule of site names.
    pub fn to_owned(&self) -> Result<Via> {
        Ok(Via {
            site: self.site,
            name: SiteName::new(self.name)?,
            generation: self.generation,
            position: self.position,
            back: self.back,
        })
    }
}

/// [`Pinned`] in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinnedRef<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value; `None` removes the key.
    pub value: Option<&'a [u8]>,
}

/// Takes fixed-width fields off the front of a slice.
struct Front<'a>(&'a [u8]);

impl<'a> Front<'a> {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn u16(&mut self) -> Option<u16> {
        self.bytes().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn site(&mut self) -> Option<StoreId> {
        self.bytes().map(|raw| StoreId(u128::from_le_bytes(raw)))
    }

    /// A text of `len` bytes, then padding so that `fixed + len` bytes are a multiple of 8.
    fn name(&mut self, len: u16, fixed: usize) -> Option<&'a str> {
        let len = usize::from(len);
        let (own, rest) = self.0.split_at_checked(align8(fixed + len) - fixed)?;
        self.0 = rest;
        std::str::from_utf8(own.get(..len)?).ok()
    }
}

impl<'a> OriginRef<'a> {
    /// Reads the section at the front of `rest` and moves behind it.
    pub(super) fn take(rest: &mut &'a [u8], lsn: Lsn) -> Result<OriginRef<'a>> {
        let mut front = Front(rest);
        let mut read = || {
            let (site, epoch, at) = (front.site()?, Epoch(front.u64()?), Lsn(front.u64()?));
            let name_len = front.u16()?;
            front.bytes::<6>()?;
            Some(OriginRef {
                site,
                epoch,
                lsn: at,
                name: front.name(name_len, ORIGIN_FIXED)?,
            })
        };
        let origin = read().ok_or_else(|| Error::corrupt("a frame's origin cannot be read").at_lsn(lsn))?;
        *rest = front.0;
        Ok(origin)
    }
}

impl<'a> ViaRef<'a> {
    /// Reads the section at the front of `rest` and moves behind it.
    pub(super) fn take(rest: &mut &'a [u8], lsn: Lsn) -> Result<ViaRef<'a>> {
        let mut front = Front(rest);
        let mut read = || {
            let (site, epoch) = (front.site()?, Epoch(front.u64()?));
            let (at, back, chain) = (Lsn(front.u64()?), Lsn(front.u64()?), Chain(front.u64()?));
            let (generation, name_len) = (front.u32()?, front.u16()?);
            front.bytes::<2>()?;
            let name = front.name(name_len, VIA_FIXED)?;
            Some(ViaRef {
                site,
                name,
                generation,
                position: Position {
                    epoch,
                    lsn: at,
                    chain,
                },
                back,
            })
        };
        let via = read().ok_or_else(|| Error::corrupt("a frame's via cannot be read").at_lsn(lsn))?;
        *rest = front.0;
        Ok(via)
    }
}

/// Takes a pinned section, of the length it tells, off the front of `rest`.
pub(super) fn take_pinned<'a>(rest: &mut &'a [u8], lsn: Lsn) -> Result<&'a [u8]> {
    let len = Front(rest).u32().map(u32_to_usize);
    let taken = len
        .filter(|len| len.is_multiple_of(8))
        .and_then(|len| rest.split_at_checked(len));
    let (section, after) = taken.ok_or_else(|| unreadable_pinned(lsn))?;
    *rest = after;
    Ok(section)
}

/// Takes the time of the first commit off the front of `rest`.
pub(super) fn take_time(rest: &mut &[u8], lsn: Lsn) -> Result<i64> {
    let (own, after) = rest
        .split_first_chunk()
        .ok_or_else(|| Error::corrupt("a frame's time of the first commit cannot be read").at_lsn(lsn))?;
    *rest = after;
    Ok(i64::from_le_bytes(*own))
}

fn unreadable_pinned(lsn: Lsn) -> Error {
    Error::corrupt("a frame's pinned records cannot be read").at_lsn(lsn)
}

/// Reads a whole pinned section.
pub(super) fn read_pinned(section: &[u8], lsn: Lsn) -> Result<Vec<PinnedRef<'_>>> {
    let bad = || unreadable_pinned(lsn);
    let mut front = Front(section);
    let (_, count) = (front.u32().ok_or_else(bad)?, front.u32().ok_or_else(bad)?);
    let mut records = Vec::new();
    for _ in 0..count {
        let mut read = || {
            let (key_len, flags, value_len) = (front.u16()?, front.u16()?, front.u32()?);
            let (key_len, value_len) = (usize::from(key_len), u32_to_usize(value_len));
            let (own, rest) = front.0.split_at_checked(align8(key_len + value_len))?;
            front.0 = rest;
            let (key, own) = own.split_at_checked(key_len)?;
            let value = own.get(..value_len)?;
            Some(PinnedRef {
                key,
                value: (flags & PINNED_REMOVED == 0).then_some(value),
            })
        };
        records.push(read().ok_or_else(bad)?);
    }
    if front.0.is_empty() {
        Ok(records)
    } else {
        Err(bad())
    }
}

/// Length of an origin section in bytes.
pub(super) fn origin_len(origin: &Origin) -> usize {
    align8(ORIGIN_FIXED + origin.name.as_str().len())
}

/// Length of a via section in bytes.
pub(super) fn via_len(via: &Via) -> usize {
    align8(VIA_FIXED + via.name.as_str().len())
}

/// Length of a pinned section in bytes; none without records.
pub(super) fn pinned_len(records: &[Pinned]) -> usize {
    if records.is_empty() {
        return 0;
    }
    let len =
        |record: &Pinned| 8 + align8(record.key.len() + record.value.as_deref().unwrap_or_default().len());
    8 + records.iter().map(len).sum::<usize>()
}

/// Appends an origin section.
pub(super) fn encode_origin(out: &mut Vec<u8>, origin: &Origin) {
    let start = out.len();
    out.extend_from_slice(&origin.site.0.to_le_bytes());
    out.extend_from_slice(&origin.epoch.0.to_le_bytes());
    out.extend_from_slice(&origin.lsn.0.to_le_bytes());
    out.extend_from_slice(&name_len(&origin.name).to_le_bytes());
    out.extend_from_slice(&[0; 6]);
    finish(out, start, origin.name.as_str());
}

/// Appends a via section.
pub(super) fn encode_via(out: &mut Vec<u8>, via: &Via) {
    let start = out.len();
    out.extend_from_slice(&via.site.0.to_le_bytes());
    let longs = [
        via.position.epoch.0,
        via.position.lsn.0,
        via.back.0,
        via.position.chain.0,
    ];
    longs
        .iter()
        .for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
    out.extend_from_slice(&via.generation.to_le_bytes());
    out.extend_from_slice(&name_len(&via.name).to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    finish(out, start, via.name.as_str());
}

/// Appends a pinned section.
///
/// # Errors
/// `Invalid` when a key or value is too long.
pub(super) fn encode_pinned(out: &mut Vec<u8>, records: &[Pinned]) -> Result<()> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    let count = u32::try_from(records.len());
    out.extend_from_slice(
        &count
            .map_err(|_| Error::invalid("too many pinned records"))?
            .to_le_bytes(),
    );
    for record in records {
        let value = record.value.as_deref().unwrap_or_default();
        let (key_len, value_len) = (u16::try_from(record.key.len()), u32::try_from(value.len()));
        let (Ok(key_len @ 1..), Ok(value_len)) = (key_len, value_len) else {
            return Err(Error::invalid("a pinned record's key is not 1 to 65,535 bytes"));
        };
        out.extend_from_slice(&key_len.to_le_bytes());
        let flags = if record.value.is_none() { PINNED_REMOVED } else { 0 };
        out.extend_from_slice(&flags.to_le_bytes());
        out.extend_from_slice(&value_len.to_le_bytes());
        let body = out.len();
        out.extend_from_slice(&record.key);
        out.extend_from_slice(value);
        out.resize(body + align8(out.len() - body), 0);
    }
    let len = u32::try_from(out.len() - start);
    let len = len.map_err(|_| Error::invalid("pinned records of more than 4 GiB in one frame"))?;
    if let Some(field) = out.get_mut(start..).and_then(<[u8]>::first_chunk_mut) {
        *field = len.to_le_bytes();
    }
    Ok(())
}

fn finish(out: &mut Vec<u8>, start: usize, name: &str) {
    out.extend_from_slice(name.as_bytes());
    out.resize(start + align8(out.len() - start), 0);
}

fn name_len(name: &SiteName) -> u16 {
    match u16::try_from(name.as_str().len()) {
        Ok(len) => len,
        Err(_) => unreachable!("a site name is at most 64 bytes"),
    }
}
