//! [`Pages`]: the bytes of a simulated file, sparse and cheap to copy.
//!
//! ```text
//! page 0      page 1      page 2
//! Some(Arc)   None        Some(Arc)      None reads as zeros; a copy shares every page
//! |0|1|..|7|              |0|1|..|7|     a page is eight sectors of 512 bytes
//! ```

use std::sync::Arc;

/// Bytes of a page.
pub const PAGE: usize = 4096;
/// Bytes of a sector: what a disk writes whole or not at all.
pub const SECTOR: usize = 512;
/// Sectors of a page.
pub const SECTORS: usize = PAGE / SECTOR;

type Page = Arc<[u8; PAGE]>;

/// Bytes of a file, zeros beyond what was written.
#[derive(Clone, Default)]
pub struct Pages {
    pages: Vec<Option<Page>>,
}

impl Pages {
    /// Reads at `offset`; zeros where nothing was written.
    pub fn read(&self, buffer: &mut [u8], offset: usize) {
        let mut done = 0;
        while done < buffer.len() {
            let (number, inside) = ((offset + done) / PAGE, (offset + done) % PAGE);
            let count = (PAGE - inside).min(buffer.len() - done);
            let target = &mut buffer[done..done + count];
            match self.page(number) {
                Some(page) => target.copy_from_slice(&page[inside..inside + count]),
                None => target.fill(0),
            }
            done += count;
        }
    }

    /// Writes within one page.
    pub fn write_page(&mut self, number: usize, inside: usize, bytes: &[u8]) {
        if self.page(number).is_none() && is_zero(bytes) {
            return;
        }
        if self.pages.len() <= number {
            self.pages.resize(number + 1, None);
        }
        let page = self.pages[number].get_or_insert_with(|| Arc::new([0; PAGE]));
        Arc::make_mut(page)[inside..inside + bytes.len()].copy_from_slice(bytes);
    }

    /// The page, unless it reads as zeros throughout because nothing was written.
    pub fn page(&self, number: usize) -> Option<&[u8; PAGE]> {
        self.pages.get(number)?.as_deref()
    }

    /// One sector of a page.
    pub fn sector(&self, number: usize, sector: usize) -> [u8; SECTOR] {
        let mut bytes = [0; SECTOR];
        if let Some(page) = self.page(number) {
            bytes.copy_from_slice(&page[sector * SECTOR..(sector + 1) * SECTOR]);
        }
        bytes
    }

    /// Takes a page as `other` has it, sharing it.
    pub fn share_page(&mut self, number: usize, other: &Pages) {
        let page = other.pages.get(number).cloned().flatten();
        if page.is_some() && self.pages.len() <= number {
            self.pages.resize(number + 1, None);
        }
        if let Some(own) = self.pages.get_mut(number) {
            *own = page;
        }
    }

    /// Forgets everything from `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.pages.truncate(len.div_ceil(PAGE));
        let (last, inside) = (len / PAGE, len % PAGE);
        if inside != 0
            && let Some(Some(page)) = self.pages.get_mut(last)
        {
            Arc::make_mut(page)[inside..].fill(0);
        }
    }

    /// Number of pages that may hold something.
    pub fn count(&self) -> usize {
        self.pages.len()
    }
}

/// True when all bytes, at most a page, are zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    static ZEROS: [u8; PAGE] = [0; PAGE];
    bytes == &ZEROS[..bytes.len()]
}
