//! The steps of a repair, each of which may be done twice.
//!
//! ```text
//! queue to damaged/ ─► `log/closed` and sidecars from the damage on and the marks of views removed
//! ─► segments behind the end to damaged/ ─► isolate: lost blocks ─► kept blocks written again (S3), rest of the last
//! one zeroed ─► all of it synced ─► block of the new epoch, with lost/… records ─► log/newest
//! ```

use std::io::ErrorKind as Io;
use std::sync::Arc;

use crate::block::{BlockKind, HEADER_LEN, Seal, lost_block};
use crate::index::sidecar_segment;
use crate::log::{
    Cursor, Form, Found, away_name, newest, packed, packed_name, rescue, segment_name, write_block_again,
    zero,
};
use crate::storage::write_all;
use crate::storage::{OpenMode, Storage};
use crate::width::to_u64;
use crate::{Chain, Error, Lsn, Options, RawLog, Result};

use super::super::lineage::{self, Beginning, Fork};
use super::super::restore::begin_lineage;
use super::RepairHow;
use super::aside::{FOLDER, free_name};
use super::plan::{Becomes, LostRange, Plan, REPAIR_FILE};

/// Most bytes of one lost block, so that readers hold little of nothing.
const LOST_BLOCK: u64 = 1 << 20;

/// Longest block: 1 GiB.
const LONGEST_BLOCK: u64 = 1 << 30;

/// Does every step of the plan.
pub(super) fn apply(raw: &RawLog, plan: &Plan, options: &Options) -> Result<()> {
    let storage = &raw.storage;
    let folder = storage.create_dir(FOLDER).and_then(|()| storage.sync_dir(""));
    folder.map_err(|error| Error::io("keep what is damaged aside", storage.root().join(FOLDER), error))?;
    move_queue(&**storage)?;
    newest::forget_closed(&**storage).map_err(|error| {
        let path = storage.root().join("log");
        Error::io("forget where the damaged log ended", path, error)
    })?;
    remove_sidecars(&**storage, plan.damaged)?;
    close_views(&**storage)?;
    newest::write(&**storage, plan.store, plan.last);
    // Isolating, too, leaves nothing behind the end: a file of which no block is left would be the log's last.
    for first in raw.dir.list()?.into_iter().filter(|first| *first > plan.last) {
        for name in raw.dir.names_of(first)? {
            move_aside(&**storage, &name)?;
        }
        raw.dir.forget(first);
    }
    if plan.how == RepairHow::Isolate {
        for range in &plan.ranges {
            replace(raw, plan, range, options)?;
        }
    }
    end_log(raw, plan, options)
}

/// The queue is made again from the log; it may hold copies of what is lost, so it is kept.
fn move_queue(storage: &dyn Storage) -> Result<()> {
    let names = match storage.list("queue") {
        Ok(names) => names,
        Err(error) if error.kind() == Io::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("list the queue", storage.root().join("queue"), error)),
    };
    for name in names {
        move_aside(storage, &format!("queue/{name}"))?;
    }
    let synced = storage.sync_dir("queue");
    synced.map_err(|error| Error::io("begin a new queue", storage.root().join("queue"), error))
}

/// Moves a file of a folder to what was taken out, under a name that is free there.
fn move_aside(storage: &dyn Storage, name: &str) -> Result<()> {
    let failed = |error| Error::io("keep a file aside", storage.root().join(name), error);
    let plain = name.rsplit('/').next().unwrap_or(name);
    let target = format!("{FOLDER}/{}", free_name(storage, plain).map_err(failed)?);
    // The new name first: a crash between the two folders' syncs may lose neither.
    storage.rename(name, &target).map_err(failed)?;
    storage.sync_dir(FOLDER).map_err(failed)
}

/// What an index says of later segments rests on what was lost.
fn remove_sidecars(storage: &dyn Storage, from: Lsn) -> Result<()> {
    let failed = |error| Error::io("remove an index file", storage.root().join("log"), error);
    for name in storage.list("log").map_err(failed)? {
        if sidecar_segment(&name).is_some_and(|first| first >= from) {
            storage.unlink(&format!("log/{name}")).map_err(failed)?;
        }
    }
    storage.sync_dir("log").map_err(failed)
}

/// A view may hold what is lost, though its checkpoint is still a position of the log: without its mark it is made
/// again (E4).
fn close_views(storage: &dyn Storage) -> Result<()> {
    let failed = |error| Error::io("make views ask again", storage.root().join("views"), error);
    let names = match storage.list("views") {
        Err(error) if error.kind() == Io::NotFound => return Ok(()),
        other => other.map_err(failed)?,
    };
    for name in names {
        match storage.unlink(&format!("views/{name}/closed")) {
            Err(error) if !matches!(error.kind(), Io::NotFound | Io::NotADirectory) => {
                return Err(failed(error));
            }
            _ => {}
        }
        // What is no folder has nothing to sync.
        let _ = storage.sync_dir(&format!("views/{name}"));
    }
    Ok(())
}

/// A compressed segment becomes one that can be written; what could not be decompressed is zeros there, and the
/// compressed file is kept aside.
fn make_raw(raw: &RawLog, first: Lsn, options: &Options) -> Result<()> {
    if raw.dir.forms()?.binary_search(&(first, Form::Packed)).is_err() {
        return Ok(());
    }
    packed::unpack_beside(&raw.dir, first, &*options.rng)?;
    move_aside(&*raw.storage, &packed_name(first))?;
    raw.dir.forget(first);
    Ok(())
}

/// Puts lost blocks in place of a range.
fn replace(raw: &RawLog, plan: &Plan, range: &LostRange, options: &Options) -> Result<()> {
    let first = match range.becomes {
        Becomes::Nothing => return Ok(()),
        Becomes::Blocks => {
            let first = raw.dir.first_at_or_before(range.at)?.unwrap_or_default();
            make_raw(raw, first, options)?;
            first
        }
        Becomes::File => {
            let next = raw.dir.list()?.into_iter().find(|first| *first > range.at);
            let longest = raw.identity.segment_bytes.max(LONGEST_BLOCK);
            refuse_too_long(raw, range, next.unwrap_or(range.at.plus(longest)))?;
            let name = segment_name(BlockKind::Log, range.at);
            let path = raw.storage.root().join(&name);
            let len = raw.identity.segment_bytes.max(range.end.since(range.at));
            let made = raw
                .storage
                .open(&name, OpenMode::OpenOrCreate)
                .and_then(|file| file.set_len(len));
            made.map_err(|error| Error::io("make a file for a lost range", path, error).at_lsn(range.at))?;
            raw.dir.forget(range.at);
            range.at
        }
    };
    write_lost(raw, plan, range, first)?;
    let stub = away_name(first);
    if range.becomes == Becomes::File && raw.dir.forms()?.binary_search(&(first, Form::Away)).is_ok() {
        // What it named was not there: the lost blocks count from here on.
        move_aside(&*raw.storage, &stub)?;
    }
    Ok(())
}

/// A range lies within its segment. A plan is a file, and what it says is not written without end.
fn refuse_too_long(raw: &RawLog, range: &LostRange, most: Lsn) -> Result<()> {
    if range.at <= range.end && range.end <= most {
        return Ok(());
    }
    let text = format!(
        "the plan of the repair names lost bytes up to {}, and the segment they are in ends at {most} at the latest: it is \
         damaged, so the repair cannot go on: restore a backup; what was taken out of the log is in `damaged`",
        range.end
    );
    Err(Error::corrupt(text)
        .at_path(raw.storage.root().join(REPAIR_FILE))
        .at_lsn(range.at))
}

/// Writes the lost blocks of a range in the segment that begins at `first`.
fn write_lost(raw: &RawLog, plan: &Plan, range: &LostRange, first: Lsn) -> Result<()> {
    let segment = raw.dir.open(first)?;
    let failed = |error| Error::io("write a lost block", raw.dir.path(&segment), error).at_lsn(range.at);
    if range.becomes == Becomes::Blocks {
        // The file may have been cut short.
        let whole = segment.first.plus(raw.identity.segment_bytes);
        refuse_too_long(raw, range, segment.end().max(whole))?;
        zero(
            &*segment.file,
            segment.offset(range.at),
            segment.offset(range.end),
        )
        .map_err(failed)?;
    }
    let (mut at, mut chain) = (range.at, range.chain_before);
    while at < range.end {
        let left = range.end.since(at);
        // No piece is left that is too short for a header.
        let len = if left < LOST_BLOCK + to_u64(HEADER_LEN) {
            left
        } else {
            LOST_BLOCK
        };
        let last = len == left;
        let seal = Seal {
            kind: BlockKind::Log,
            close: false,
            owner: raw.identity.owner,
            epoch: plan.epoch,
            lsn: at,
            durable: Lsn::ZERO,
            nonce: plan.nonce,
            chain,
            aux: 0,
        };
        let after = if last {
            range.chain_after
        } else {
            Chain(chain.0 ^ at.0 ^ plan.nonce)
        };
        let block = lost_block(&seal, u32::try_from(len).unwrap_or_default(), after);
        write_all(&*segment.file, &[&block.bytes], segment.offset(at)).map_err(failed)?;
        (at, chain) = (at.plus(len), after);
    }
    segment.file.sync_data().map_err(failed)
}

/// Clears what stands behind the new end, makes all that is kept durable and begins the new lineage.
fn end_log(raw: &RawLog, plan: &Plan, options: &Options) -> Result<()> {
    let (dir, storage) = (&raw.dir, &raw.storage);
    if dir.list()?.binary_search(&plan.last).is_err() {
        dir.place_segment(plan.last, raw.identity.segment_bytes, 0, &*options.rng)?;
    }
    make_raw(raw, plan.last, options)?;
    dir.forget(plan.last);
    let segment = dir.open(plan.last)?;
    let path = dir.path(&segment);
    let failed = |error| Error::io("end the log anew", &path, error).at_lsn(plan.end);
    write_again(raw, plan)?;
    segment
        .file
        .allocate(raw.identity.segment_bytes)
        .map_err(failed)?;
    segment.look_again().map_err(failed)?;
    zero(&*segment.file, segment.offset(plan.end), segment.len()).map_err(failed)?;
    segment.file.sync_data().map_err(failed)?;
    storage.sync_dir(dir.folder()).map_err(failed)?;
    let beginning = Beginning {
        owner: raw.identity.owner,
        epoch: plan.epoch,
        nonce: plan.nonce,
        time: plan.time,
        pad_to: raw.identity.pad_to,
    };
    let fork = Fork {
        parent: plan.parent,
        at: plan.end,
        begins: plan.end,
        chain: plan.chain,
    };
    let lost = plan
        .ranges
        .iter()
        .map(|range| lineage::lost_record(range.at, range.end));
    let block = lineage::first_block(&beginning, fork, lost.collect())?;
    begin_lineage(dir, raw.identity.segment_bytes, plan.last, &block, options)
}

/// S3: what the last segment keeps beyond what was known to be durable may be in the page cache alone.
fn write_again(raw: &RawLog, plan: &Plan) -> Result<()> {
    let segment = raw.dir.open(plan.last)?;
    let mut cursor = Cursor::new(&raw.dir, &Arc::clone(&segment));
    let mut at = plan.last;
    while at < plan.end {
        let end = match cursor.block(at, None)? {
            Found::Block(block, _) => block.header().end(),
            Found::Nothing(reason) => return Err(cursor.corrupt(at, &reason)),
        };
        if end > plan.durable && raw.identity.pad_to > 1 {
            rescue::write_over(&mut cursor, at, end, &|segment| segment.file.sync_data())?;
        } else if end > plan.durable {
            write_block_again(&mut cursor, at)?;
        }
        at = end;
    }
    Ok(())
}
