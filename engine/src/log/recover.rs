//! Recovery of a log by who is alone in the store (architecture: "Opening, recovering, reading").
//!
//! ```text
//! last segment:  | block | block | block | ~ ~ bad ~ ~ | maybe more valid headers |
//!                                ^ tail                  └─ may name a higher durable D
//! tail < D   → Corrupt: something durable is damaged (E3)
//! tail >= D  → cut at tail: write again and sync what is kept beyond D (S3), zero the rest, sync
//! ```
//!
//! Only the last segment is read: by S2 all others are durable to their end. Recovery may crash at any
//! point and begin again: it writes bytes that stand there already, or zeros behind the tail.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::block::BlockKind;
use crate::block::HEADER_LEN;
use crate::planted::{self, Bug};
use crate::storage::{StorageFile, write_all};
use crate::width::{to_u64, to_usize};
use crate::{Chain, Epoch, Error, Lsn, Result};

use super::control::Tail;
use super::cursor::{Cursor, Found};
use super::form::segment_name;
use super::segment::{Segment, SegmentDir};

/// Zeros for cuts and fills, written in pieces of this many bytes.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
/// A block is written over itself in pieces of so many bytes.
const WRITTEN_AGAIN: usize = 4 << 20;

/// What recovery found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recovered {
    /// Where the next block goes; everything before it is durable.
    pub tail: Tail,
    /// `aux` of the last block: for a queue, `scanned_through`.
    pub aux: u64,
}

/// How a log's files are laid out; fixed when its store is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// Least length of a segment in bytes; 0 when it is not known.
    pub segment_bytes: u64,
    /// Blocks begin and end at multiples of this; 1 is off.
    pub pad_to: usize,
}

impl Layout {
    /// The queue's, whose segments may have any length. Over a log that was freed it is truth, so its blocks are kept as
    /// the log's are.
    pub(crate) fn of_queue(pad_to: usize) -> Layout {
        Layout {
            segment_bytes: 0,
            pad_to,
        }
    }
}

/// What the walk over the last segment found.
struct Walked {
    tail: Lsn,
    chain: Chain,
    /// Epoch and `aux` of the last block, if there is one.
    last: Option<(Epoch, u64)>,
    /// Highest durable LSN that any header names.
    durable: Lsn,
    /// Starts of the blocks that end beyond `durable`.
    beyond: VecDeque<(Lsn, Lsn)>,
    /// Why the walk ended.
    reason: String,
}

/// Recovers the log in `dir`: finds its durable end, finishes the cut behind it, and returns the tail,
/// which is durable. `floor` is a position that is known to have been durable from elsewhere (the
/// queue's `scanned_through`). `None` when there is no segment at all.
pub(crate) fn recover(
    dir: &Arc<SegmentDir>,
    genesis: Chain,
    floor: Lsn,
    layout: Layout,
) -> Result<Option<Recovered>> {
    let firsts = dir.list()?;
    let Some((last, before)) = firsts.split_last() else {
        return Ok(None);
    };
    if dir.kind() == BlockKind::Log {
        refuse_lost_segments(dir, &firsts, *last)?;
    }
    let segment = dir.open(*last)?;
    refuse_short(dir, &segment, layout.segment_bytes)?;
    if layout.pad_to > 1 {
        super::rescue::put_back(dir, genesis)?;
    }
    let mut cursor = Cursor::new(dir, &segment);
    let mut walked = walk(&mut cursor, (*last == Lsn::ZERO).then_some(genesis))?;
    walked.durable = walked.durable.max(cursor.durable_behind(walked.tail)?).max(floor);
    // The first block was durable before the store had its name.
    let made = dir.kind() == BlockKind::Queue || walked.tail != Lsn::ZERO;
    if walked.tail < walked.durable || !made {
        return Err(cursor.corrupt(walked.tail, &walked.reason));
    }
    if walked.last.is_none()
        && let Some(previous) = before.last()
    {
        (walked.chain, walked.last) = end_of(dir, *previous, segment.first)?;
    }
    write_again(&mut cursor, &walked, layout)?;
    finish_cut(&mut cursor, dir, walked.tail)?;
    let path = dir.path(&segment);
    segment
        .file
        .sync_data()
        .map_err(|error| Error::io("sync the last segment", &path, error))?;
    let synced = dir.storage().sync_dir(dir.folder());
    synced.map_err(|error| {
        Error::io(
            "sync the folder of segments",
            dir.storage().root().join(dir.folder()),
            error,
        )
    })?;
    if dir.kind() == BlockKind::Log {
        super::newest::note(&**dir.storage(), dir.owner().id, *last);
    }
    let (epoch, aux) = walked.last.unwrap_or_default();
    let tail = Tail {
        at: walked.tail,
        chain: walked.chain,
        segment: segment.first,
        epoch,
    };
    Ok(Some(Recovered { tail, aux }))
}

/// Nothing of a log goes but by a loss: not its first file, none behind a segment that has a sidecar (which
/// is made of sealed ones alone), none that `log/newest` has seen (E3).
fn refuse_lost_segments(dir: &SegmentDir, firsts: &[Lsn], last: Lsn) -> Result<()> {
    let storage = dir.storage();
    let folder = storage.root().join(dir.folder());
    if let Some(first) = firsts.first().filter(|first| **first != Lsn::ZERO)
        && !dir.has_freed(Lsn(first.0.saturating_sub(1)))?
    {
        return Err(Error::corrupt(format!(
            "the first files of the log are missing, and no base says that they were freed; nothing was changed: \
             put them back or restore a backup{}",
            super::away::hint(&**storage, dir.owner(), Lsn::ZERO)
        ))
        .at_path(folder));
    }
    let names = storage.list(dir.folder());
    let names = names.map_err(|error| Error::io("list the segments", &folder, error))?;
    if names
        .iter()
        .any(|name| crate::index::sidecar_segment(name) == Some(last))
    {
        return Err(Error::corrupt(
            "the log goes on behind this segment, and the files that hold it are missing; nothing was changed: \
             put them back or restore a backup",
        )
        .at_path(storage.root().join(segment_name(dir.kind(), last)))
        .at_lsn(last));
    }
    let newest = super::newest::read(&**storage, dir.owner().id);
    let newest = newest.map_err(|error| Error::io("read which segment is the newest", &folder, error))?;
    match newest {
        Some(newest) if newest > last => Err(Error::corrupt(
            "this segment of the log is missing; nothing was changed: put it back or restore a backup",
        )
        .at_path(storage.root().join(segment_name(dir.kind(), newest)))
        .at_lsn(newest)),
        _ => Ok(()),
    }
}

/// A segment has its length before it has its name (S2), so a shorter one was cut, with whatever stood there.
fn refuse_short(dir: &SegmentDir, segment: &Segment, segment_bytes: u64) -> Result<()> {
    if segment.len() >= segment_bytes {
        return Ok(());
    }
    Err(Error::corrupt(format!(
        "the file has {} bytes of at least {segment_bytes}: it was cut, and what stood in the rest is gone; {}",
        segment.len(),
        dir.advice()
    ))
    .at_path(dir.path(segment))
    .at_lsn(segment.first))
}

fn walk(cursor: &mut Cursor, genesis: Option<Chain>) -> Result<Walked> {
    let first = cursor.segment().first;
    let mut walked = Walked {
        tail: first,
        chain: genesis.unwrap_or_default(),
        last: None,
        durable: first,
        beyond: VecDeque::new(),
        reason: String::new(),
    };
    let mut expected = genesis;
    loop {
        let header = match cursor.block(walked.tail, expected)? {
            Found::Block(block, _) => *block.header(),
            Found::Nothing(reason) => {
                walked.reason = reason;
                return Ok(walked);
            }
        };
        walked.durable = walked.durable.max(header.durable);
        walked.beyond.push_back((header.lsn, header.end()));
        while walked
            .beyond
            .front()
            .is_some_and(|(_, end)| *end <= walked.durable)
        {
            walked.beyond.pop_front();
        }
        walked.tail = header.end();
        walked.chain = header.chain_after();
        walked.last = Some((header.epoch, header.aux));
        expected = Some(walked.chain);
    }
}

/// Chain, epoch and `aux` at the end of the segment before an empty one.
fn end_of(dir: &Arc<SegmentDir>, first: Lsn, end: Lsn) -> Result<(Chain, Option<(Epoch, u64)>)> {
    let segment = dir.open(first)?;
    let mut cursor = Cursor::new(dir, &segment);
    let (mut at, mut chain, mut last) = (first, None, None);
    while at < end {
        match cursor.block(at, chain)? {
            Found::Block(block, _) => {
                at = block.header().end();
                chain = Some(block.chain_after());
                last = Some((block.header().epoch, block.header().aux));
            }
            Found::Nothing(reason) => return Err(cursor.corrupt(at, &reason)),
        }
    }
    match chain {
        Some(chain) if at == end => Ok((chain, last)),
        _ => Err(cursor.corrupt(end, "a segment does not begin where its predecessor ends")),
    }
}

/// S3: the page cache may show bytes that the disk never took and whose failure was told to a process
/// that is gone; written again through this descriptor they are dirty again, and the sync is ours.
fn write_again(cursor: &mut Cursor, walked: &Walked, layout: Layout) -> Result<()> {
    if planted::is(Bug::CacheBelieved) {
        return Ok(());
    }
    let mut beyond = walked.beyond.iter().filter(|(_, end)| *end > walked.durable);
    if layout.pad_to > 1 {
        let Some((from, _)) = beyond.next() else {
            return Ok(());
        };
        let sync = |segment: &Segment| segment.file.sync_data();
        return super::rescue::write_over(cursor, *from, walked.tail, &sync);
    }
    for (start, _) in beyond {
        write_block_again(cursor, *start)?;
    }
    Ok(())
}

/// Writes one verified block over itself; returns its end.
pub(crate) fn write_block_again(cursor: &mut Cursor, start: Lsn) -> Result<Lsn> {
    let segment = Arc::clone(cursor.segment());
    let path = cursor.path();
    match cursor.block(start, None)? {
        Found::Block(block, bytes) => {
            // From memory of our own: a long block is mapped from the very place that is written.
            let mut at = segment.offset(start);
            let mut own = Vec::new();
            for piece in bytes.chunks(WRITTEN_AGAIN) {
                own.clear();
                own.extend_from_slice(piece);
                write_all(&*segment.file, &[&own], at)
                    .map_err(|error| Error::io("write a block again", path.clone(), error).at_lsn(start))?;
                at += to_u64(piece.len());
            }
            Ok(block.header().end())
        }
        Found::Nothing(reason) => Err(cursor.corrupt(start, &reason)),
    }
}

/// Zeroes every non-zero byte behind the tail, so that no old block can come back into line. Where the
/// next header would stand zeros are written in any case: the cache may show zeros that an earlier
/// recovery failed to get onto the disk (S3).
fn finish_cut(cursor: &mut Cursor, dir: &SegmentDir, tail: Lsn) -> Result<()> {
    if planted::is(Bug::StaleBytesBehindCut) {
        return Ok(());
    }
    let segment = Arc::clone(cursor.segment());
    if cursor.dirty_behind(tail)? {
        let (from, to) = (segment.offset(tail), segment.len());
        zero(&*segment.file, from, to)
            .map_err(|error| Error::io("zero what lies behind the log's end", dir.path(&segment), error))?;
        tracing::info!(lsn = tail.0, "the log was cut behind its last whole block");
        return Ok(());
    }
    let (from, len) = (segment.offset(tail), segment.len());
    let to = from.saturating_add(to_u64(HEADER_LEN)).min(len);
    zero(&*segment.file, from, to)
        .map_err(|error| Error::io("zero the place of the next block", dir.path(&segment), error))
}

/// Zeros, `len` bytes in all.
pub(super) fn zeros<'a>(len: u64) -> impl Iterator<Item = &'a [u8]> {
    let mut left = to_usize(len);
    std::iter::from_fn(move || {
        let piece = ZEROS
            .get(..left.min(ZEROS.len()))
            .filter(|piece| !piece.is_empty())?;
        left -= piece.len();
        Some(piece)
    })
}

/// Zeroes a range of a file.
pub(crate) fn zero(file: &dyn StorageFile, from: u64, to: u64) -> std::io::Result<()> {
    let mut at = from;
    for piece in zeros(to.saturating_sub(from)) {
        write_all(file, &[piece], at)?;
        at += to_u64(piece.len());
    }
    Ok(())
}
