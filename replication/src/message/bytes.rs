//! Little-endian fields one after another: [`Front`] takes them off a slice, [`Put`] appends them.
//!
//! Taking never panics and never allocates: what is not there is `None`.

use milepost_engine::StoreId;
use milepost_engine::width::align8;

/// The part of a slice that was not read yet.
#[derive(Clone, Copy)]
pub(super) struct Front<'a>(pub(super) &'a [u8]);

impl<'a> Front<'a> {
    pub(super) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (own, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(own)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (own, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*own)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn site(&mut self) -> Option<StoreId> {
        self.array().map(|raw| StoreId(u128::from_le_bytes(raw)))
    }

    /// `len` bytes, then zero padding up to a multiple of 8. Padding that is not zero is refused, so
    /// that one value has one encoding.
    pub(super) fn padded(&mut self, len: usize) -> Option<&'a [u8]> {
        let own = self.bytes(len)?;
        let padding = self.bytes(align8(len).checked_sub(len)?)?;
        padding.iter().all(|byte| *byte == 0).then_some(own)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Appending fields.
pub(super) trait Put {
    fn put_u16(&mut self, value: u16);
    fn put_u32(&mut self, value: u32);
    fn put_u64(&mut self, value: u64);
    fn put_site(&mut self, site: StoreId);
    /// The bytes, then zeros up to a multiple of 8 of their own length.
    fn put_padded(&mut self, bytes: &[u8]);
}

impl Put for Vec<u8> {
    fn put_u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_site(&mut self, site: StoreId) {
        self.extend_from_slice(&site.0.to_le_bytes());
    }

    fn put_padded(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
        self.resize(self.len() + align8(bytes.len()) - bytes.len(), 0);
    }
}
