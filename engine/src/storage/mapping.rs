//! Read-only mappings of segments, populated window by window.
//!
//! A load from a page that the disk cannot read is a signal, which no caller can turn into an error.
//! So the kernel is asked to bring each window of 2 MiB in at its first touch, and its refusal is an
//! ordinary error. What remains: a page dropped later under memory pressure and unreadable by then.
//!
//! ```text
//! | window 0, 2 MiB | window 1 | ... | last window |     one byte each: was it populated, or how often in part?
//! ```

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use crate::width::{to_u64, to_usize};

use super::sys::{RawMap, RawPiece};
use super::{Mapping, Window};

const WINDOW: u64 = 2 << 20;
/// Ranges up to this length are brought in alone, the first few times: who asks for so little may want little more
/// nearby, as a lookup in an index does. Who goes on asking reads on, as a tail does.
const SMALL: u64 = 64 << 10;
/// How many small ranges of a window are brought in alone.
const FEW: u8 = 8;
/// A window that was brought in.
const WHOLE: u8 = u8::MAX;
/// Step by which bytes are read where the kernel cannot populate.
const STEP: usize = 64 << 10;

/// A file as long as it was when it was mapped.
pub(super) struct FileMapping {
    map: Option<Arc<RawMap>>,
    /// Kept only where the kernel cannot populate: a mapping needs no descriptor.
    file: Option<Arc<File>>,
    /// Only saves a system call: losing a count costs one more, so no ordering is needed.
    populated: Vec<AtomicU8>,
}

impl FileMapping {
    pub(super) fn new(file: Arc<File>) -> io::Result<FileMapping> {
        let len = file.metadata()?.len();
        let map = if len == 0 {
            None
        } else {
            Some(Arc::new(RawMap::read_only(&file, to_usize(len))?))
        };
        let windows = to_usize(len.div_ceil(WINDOW));
        let needed = map.as_ref().is_some_and(|map| !can_populate(map));
        Ok(FileMapping {
            map,
            file: needed.then_some(file),
            populated: (0..windows).map(|_| AtomicU8::new(0)).collect(),
        })
    }

    /// Makes sure that a range, which is inside the mapping and not empty, can be loaded.
    fn populate(&self, map: &RawMap, range: &Range<u64>) -> io::Result<()> {
        let windows = to_usize(range.start / WINDOW)..to_usize(range.end.div_ceil(WINDOW));
        let flags = self.populated.get(windows.clone()).unwrap_or_default();
        if flags.iter().all(|flag| flag.load(Ordering::Relaxed) == WHOLE) {
            return Ok(());
        }
        let few = |flag: &AtomicU8| flag.load(Ordering::Relaxed) < FEW;
        if range.end - range.start <= SMALL && flags.iter().all(few) {
            flags.iter().for_each(|flag| {
                flag.store(flag.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed)
            });
            return self.bring_in(map, range.clone());
        }
        let whole = to_u64(windows.start) * WINDOW..(to_u64(windows.end) * WINDOW).min(self.len());
        if self.bring_in(map, whole).is_ok() {
            flags.iter().for_each(|flag| flag.store(WHOLE, Ordering::Relaxed));
            return Ok(());
        }
        // A page nobody asked for may be the bad one.
        self.bring_in(map, range.clone())
    }

    fn bring_in(&self, map: &RawMap, range: Range<u64>) -> io::Result<()> {
        match map.populate(to_usize(range.start)..to_usize(range.end)) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.read_through(range),
            other => other,
        }
    }

    /// For kernels before 5.14: reading brings the same pages in, or says why not.
    fn read_through(&self, range: Range<u64>) -> io::Result<()> {
        let file = self.file.as_ref().ok_or(io::ErrorKind::InvalidInput)?;
        let mut scratch = vec![0; STEP.min(to_usize(range.end - range.start))];
        let mut at = range.start;
        while at < range.end {
            let step = scratch.len().min(to_usize(range.end - at));
            let (part, _) = scratch.split_at_mut(step);
            file.read_exact_at(part, at)?;
            at += to_u64(step);
        }
        Ok(())
    }
}

/// Whether the kernel can be asked to bring pages in; asked once, with the first page of some mapping.
fn can_populate(map: &RawMap) -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    *CAN.get_or_init(|| {
        let first = map.populate(0..map.len().min(4096));
        !matches!(first, Err(error) if error.kind() == io::ErrorKind::InvalidInput)
    })
}

impl Mapping for FileMapping {
    fn len(&self) -> u64 {
        self.map.as_ref().map_or(0, |map| to_u64(map.len()))
    }

    fn window(&self, range: Range<u64>) -> io::Result<Window> {
        if range.start > range.end || range.end > self.len() {
            let text = format!(
                "bytes {} to {} lie outside a mapping of {}",
                range.start,
                range.end,
                self.len()
            );
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        let Some(map) = self.map.as_ref().filter(|_| !range.is_empty()) else {
            return Ok(Window::new(Arc::new([])));
        };
        self.populate(map, &range)?;
        let piece = RawPiece::new(Arc::clone(map), to_usize(range.start)..to_usize(range.end))?;
        Ok(Window::new(Arc::new(piece)))
    }
}
