//! All the `unsafe` of Milepost: system calls that std has no door for, and the two kinds of mapping.
//!
//! - byte-range locks of the open file description (`F_OFD_SETLK`), allocation, gathered writes;
//! - [`RawMap`], [`RawPiece`]: read-only mappings of segments, handed out in pieces;
//! - [`ControlPage`]: 4,096 shared bytes, touched through atomics only, with futex waits on its words.
//!
//! Every function is safe to call; what makes each block sound is said beside it. Callers outside
//! `storage` see none of this.
#![expect(
    unsafe_code,
    reason = "the one place for system calls and mappings; see the comments"
)]
#![expect(clippy::as_conversions, reason = "the types of system calls are C's")]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, fence};
use std::time::Duration;

use memmap2::{Advice, MmapOptions, MmapRaw};

use super::{Cell, LockMode};

pub(super) use std::sync::atomic::Ordering;

#[cfg(not(target_endian = "little"))]
compile_error!("the low half of a shared word is at its own address on little-endian machines only");

/// Bytes of a line of the processor's cache.
const CACHE_LINE: usize = 64;

/// Most pieces that one gathered write takes (Linux: `UIO_MAXIOV`).
const PIECES: usize = 1024;

/// Takes, changes or (for `None`) gives back the lock on one byte; false when another holds it.
pub(super) fn lock_byte(file: &File, at: u64, mode: Option<LockMode>) -> io::Result<bool> {
    let lock = byte_lock(at, mode)?;
    // SAFETY: `file` keeps the descriptor open during the call, and F_OFD_SETLK reads one `flock`,
    // which `lock` is; `l_pid` is zero as OFD locks demand.
    let result = retry(|| unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) });
    match result {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// True while another open file description holds the byte exclusively; takes nothing.
pub(super) fn is_byte_locked(file: &File, at: u64) -> io::Result<bool> {
    let mut lock = byte_lock(at, Some(LockMode::Shared))?;
    // SAFETY: `file` keeps the descriptor open during the call, and F_OFD_GETLK reads and writes one
    // `flock`, which `lock` is; `l_pid` is zero as OFD locks demand.
    retry(|| unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) })?;
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}

/// The lock on one byte as C takes it.
fn byte_lock(at: u64, mode: Option<LockMode>) -> io::Result<libc::flock> {
    // SAFETY: `flock` is a plain C structure for which all zeros is a valid value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    let kind = match mode {
        Some(LockMode::Shared) => libc::F_RDLCK,
        Some(LockMode::Exclusive) => libc::F_WRLCK,
        None => libc::F_UNLCK,
    };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = offset(at)?;
    lock.l_len = 1;
    Ok(lock)
}

/// Reserves blocks for a range and makes the file at least that long; where the file system cannot
/// reserve, only the length is set.
pub(super) fn allocate(file: &File, start: u64, end: u64) -> io::Result<()> {
    if end <= start {
        return Ok(());
    }
    let (from, len) = (offset(start)?, offset(end - start)?);
    // SAFETY: `file` keeps the descriptor open during the call; no memory is passed.
    match retry(|| unsafe { libc::fallocate(file.as_raw_fd(), 0, from, len) }) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            if file.metadata()?.len() < end {
                file.set_len(end)
            } else {
                Ok(())
            }
        }
        other => other.map(|_| ()),
    }
}

/// Gives the blocks of a range back, which reads as zeros from then on; the length stays.
pub(super) fn release(file: &File, range: Range<u64>) -> io::Result<()> {
    if range.is_empty() {
        return Ok(());
    }
    let (from, len) = (offset(range.start)?, offset(range.end - range.start)?);
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: `file` keeps the descriptor open during the call; no memory is passed.
    match retry(|| unsafe { libc::fallocate(file.as_raw_fd(), mode, from, len) }) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(()),
        other => other.map(|_| ()),
    }
}

/// Writes the pieces one after another; a short write ends it and is told by the count.
pub(super) fn write_pieces(file: &File, pieces: &[&[u8]], at: u64) -> io::Result<usize> {
    let mut done = 0;
    for group in pieces.chunks(PIECES) {
        let wanted: usize = group.iter().map(|piece| piece.len()).sum();
        if wanted == 0 {
            continue;
        }
        let gathered: Vec<libc::iovec> = group
            .iter()
            .map(|piece| libc::iovec {
                iov_base: piece.as_ptr().cast_mut().cast(),
                iov_len: piece.len(),
            })
            .collect();
        let (count, to) = (gathered.len() as libc::c_int, offset(at + done as u64)?);
        let fd = file.as_raw_fd();
        // SAFETY: `gathered` holds `count` (at most 1,024) entries, each the address and length of a
        // slice in `group`, which is borrowed beyond the call; pwritev only reads from them.
        let written = retry(|| unsafe { libc::pwritev(fd, gathered.as_ptr(), count, to) })?;
        done += written as usize;
        if (written as usize) < wanted {
            break;
        }
    }
    Ok(done)
}

/// The file system that a file lies on: the number that says which, what is left for us of it, its size in bytes.
pub(super) fn file_system(file: &File) -> io::Result<(u64, u64, u64)> {
    // SAFETY: `statfs` is a plain C structure for which all zeros is a valid value.
    let mut facts: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: `file` keeps the descriptor open during the call, which writes one `statfs` into `facts`.
    retry(|| unsafe { libc::fstatfs(file.as_raw_fd(), &raw mut facts) })?;
    // Some targets sign this field; the numbers are 32 bits wide everywhere.
    let unit = facts.f_bsize as u64;
    let bytes = |blocks: u64| blocks.saturating_mul(unit);
    Ok((
        facts.f_type as u64 & 0xffff_ffff,
        bytes(facts.f_bavail),
        bytes(facts.f_blocks),
    ))
}

/// A read-only mapping. No reference into it exists but those of [`RawPiece`].
pub(super) struct RawMap {
    map: MmapRaw,
}

impl RawMap {
    pub(super) fn read_only(file: &File, len: usize) -> io::Result<RawMap> {
        Ok(RawMap {
            map: MmapOptions::new().len(len).map_raw_read_only(file)?,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    /// Brings a range of pages in; `InvalidInput` when the kernel cannot be asked to.
    pub(super) fn populate(&self, range: Range<usize>) -> io::Result<()> {
        loop {
            match self
                .map
                .advise_range(Advice::PopulateRead, range.start, range.end - range.start)
            {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::EFAULT) => {
                    return Err(io::Error::other(
                        "the file is shorter than its mapping, or its disk cannot be read",
                    ));
                }
                other => return other,
            }
        }
    }
}

/// Asks the processor to bring `len` bytes into its nearest cache that begin `distance` bytes behind the first of
/// `bytes`, wherever that is. A hint; nothing on processors that we know no way to ask.
#[inline(always)]
pub(crate) fn prefetch(bytes: &[u8], distance: usize, len: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let first = bytes.as_ptr().wrapping_add(distance).cast::<i8>();
        for line in (0..len).step_by(CACHE_LINE) {
            // SAFETY: a prefetch gives no value and faults nowhere, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(first.wrapping_add(line)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (bytes, distance, len);
}

/// Some bytes of a mapping that are never written again.
pub(super) struct RawPiece {
    map: Arc<RawMap>,
    range: Range<usize>,
}

impl RawPiece {
    /// Takes a range of the mapping, whose pages were populated.
    pub(super) fn new(map: Arc<RawMap>, range: Range<usize>) -> io::Result<RawPiece> {
        if range.start > range.end || range.end > map.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(RawPiece { map, range })
    }
}

impl AsRef<[u8]> for RawPiece {
    fn as_ref(&self) -> &[u8] {
        let len = self.range.end - self.range.start;
        // SAFETY: `new` checked that the range lies inside the mapping, which `self.map` keeps alive as
        // long as the slice, and u8 has no alignment. Nobody writes through this mapping (it is
        // read-only), and by the contract of `Mapping::window` nobody writes these bytes of the file:
        // they lie below durable, the log never goes back below it, and files are never truncated.
        unsafe { std::slice::from_raw_parts(self.map.map.as_ptr().add(self.range.start), len) }
    }
}

/// The control page: words that all processes share, each touched as an atomic only.
pub(super) struct ControlPage {
    map: MmapRaw,
}

impl ControlPage {
    /// Maps a file of exactly [`Cell::PAGE`] bytes and keeps it in memory as far as allowed.
    pub(super) fn map(file: &File) -> io::Result<ControlPage> {
        let map = MmapOptions::new().len(Cell::PAGE).map_raw(file)?;
        // Faulted in for writing now, so that a failing disk is an error here; kernels before 5.14 do
        // not know the advice. Locked so that it stays; limits may forbid it, then it is merely likely.
        match map.advise(Advice::PopulateWrite) {
            Err(error) if error.kind() != io::ErrorKind::InvalidInput => return Err(error),
            _ => {}
        }
        if let Err(error) = map.lock() {
            tracing::debug!(%error, "the control page is not locked in memory");
        }
        Ok(ControlPage { map })
    }

    /// A word of the page.
    pub(super) fn word(&self, cell: Cell) -> &AtomicU64 {
        self.word_of_line(cell, 0)
    }

    /// How many sleep until the word of `cell` moves, those that were killed in their sleep included.
    fn sleepers(&self, cell: Cell) -> &AtomicU64 {
        self.word_of_line(cell, size_of::<AtomicU64>())
    }

    fn word_of_line(&self, cell: Cell, at: usize) -> &AtomicU64 {
        let offset = cell.offset() + at;
        assert!(
            offset + size_of::<AtomicU64>() <= self.map.len()
                && offset.is_multiple_of(align_of::<AtomicU64>()),
            "every word lies in the page"
        );
        // SAFETY: the assertion says that the word lies inside the mapping and is aligned in it, and the mapping
        // begins on a page; it lives as long as `self`; this process makes no other kind of access to it, and other
        // processes use atomics too.
        unsafe { AtomicU64::from_ptr(self.map.as_mut_ptr().add(offset).cast()) }
    }

    /// Sleeps while the low half of the word is that of `seen`, until a wake or `limit`.
    pub(super) fn wait(&self, cell: Cell, seen: u64, limit: Duration) {
        // Who raises the word and sees nobody asleep wakes nobody: either it sees this, or the kernel the raised word.
        self.sleepers(cell).fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.sleep(cell, seen, limit);
        self.sleepers(cell).fetch_sub(1, Ordering::SeqCst);
    }

    fn sleep(&self, cell: Cell, seen: u64, limit: Duration) {
        let limit = libc::timespec {
            tv_sec: libc::time_t::try_from(limit.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::from(limit.subsec_nanos() as i32),
        };
        let low = seen as u32;
        // SAFETY: the address is that of the word's low half (little endian), mapped as long as `self`
        // and 4-aligned; `limit` outlives the call. The result says only why it returned, and callers look again.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.word(cell).as_ptr(),
                libc::FUTEX_WAIT,
                low,
                &raw const limit,
            );
        }
    }

    /// Wakes all processes and threads that wait for the word, which was raised before; a system call only if there
    /// are any.
    pub(super) fn wake(&self, cell: Cell) {
        fence(Ordering::SeqCst);
        if self.sleepers(cell).load(Ordering::SeqCst) == 0 {
            return;
        }
        // SAFETY: as in `sleep`; FUTEX_WAKE uses the address as a name only.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.word(cell).as_ptr(),
                libc::FUTEX_WAKE,
                libc::c_int::MAX,
            );
        }
    }
}

/// An offset as C takes it.
fn offset(at: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(at)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "an offset beyond 2^63 bytes"))
}

/// Calls again while a signal interrupts; below zero is an error.
fn retry<T: Copy + Default + PartialOrd>(mut call: impl FnMut() -> T) -> io::Result<T> {
    loop {
        let result = call();
        if result >= T::default() {
            return Ok(result);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
