//! What a repair takes out of the log is kept in `damaged/`, durable before anything is overwritten.
//!
//! ```text
//! damaged/<16 hex>-<length>.bin   the bytes as they were          damaged/<16 hex>-<length>.txt   what they were
//! damaged/<16 hex>.log, .mpq      whole segments that go (moved there by `apply`)
//! ```

use std::fmt::Write;
use std::sync::Arc;

use crate::storage::{OpenMode, Storage, StorageFile};
use crate::width::{to_u64, to_usize};
use crate::{Damage, Error, LostFrame, Lsn, RawLog, RawPiece, Result};

use super::plan::Plan;
use super::{Examined, RepairHow};

/// Folder of what was taken out.
pub(super) const FOLDER: &str = "damaged";
/// Bytes copied at a time.
const PIECE: u64 = 1 << 20;

/// The name of a file, or one like it that is free in the folder.
pub(super) fn free_name(storage: &dyn Storage, plain: &str) -> std::io::Result<String> {
    let taken = storage.list(FOLDER)?;
    let names = (0u32..).map(|number| match number {
        0 => plain.to_owned(),
        _ => format!("{plain}.{number}"),
    });
    let free = names.into_iter().find(|name| !taken.contains(name));
    Ok(free.unwrap_or_else(|| plain.to_owned()))
}

/// A text that grows in a file.
struct Ledger {
    file: Arc<dyn StorageFile>,
    path: std::path::PathBuf,
    text: String,
    written: u64,
}

impl Ledger {
    fn begin(storage: &dyn Storage, name: &str) -> Result<Ledger> {
        let name = format!("{FOLDER}/{name}.txt");
        let path = storage.root().join(&name);
        let file = storage.open(&name, OpenMode::OpenOrCreate);
        let file = file.and_then(|file| file.set_len(0).map(|()| file));
        Ok(Ledger {
            file: file.map_err(|error| Error::io("list what is lost", &path, error))?,
            path,
            text: String::new(),
            written: 0,
        })
    }

    fn line(&mut self, text: std::fmt::Arguments<'_>) -> Result<()> {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{text}");
        if to_u64(self.text.len()) < PIECE {
            return Ok(());
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        let written = crate::storage::write_all(&*self.file, &[self.text.as_bytes()], self.written);
        written.map_err(|error| Error::io("list what is lost", &self.path, error))?;
        self.written += to_u64(self.text.len());
        self.text.clear();
        Ok(())
    }

    fn end(mut self) -> Result<()> {
        self.flush()?;
        let synced = self.file.sync_data();
        synced.map_err(|error| Error::io("list what is lost", &self.path, error))
    }
}

/// Keeps bytes and list of everything that the plan takes out; `told` is told every lost frame.
pub(super) fn keep(
    raw: &RawLog,
    plan: &Plan,
    found: &Examined,
    told: &mut dyn FnMut(&LostFrame),
) -> Result<()> {
    let storage = &*raw.storage;
    let failed = |error| Error::io("keep what is damaged aside", storage.root().join(FOLDER), error);
    storage.create_dir(FOLDER).map_err(failed)?;
    storage.sync_dir("").map_err(failed)?;
    match plan.how {
        RepairHow::Cut => keep_cut(raw, plan, found, told)?,
        RepairHow::Isolate => {
            for (damage, _) in &found.damages {
                let name = copy(raw, damage.at, damage.end)?;
                let mut ledger = Ledger::begin(storage, &name)?;
                list_damage(raw, damage, &mut ledger, told)?;
                ledger.end()?;
            }
        }
    }
    storage.sync_dir(FOLDER).map_err(failed)
}

/// Everything behind the cut, whole blocks included. Later segments are moved as they are.
fn keep_cut(raw: &RawLog, plan: &Plan, found: &Examined, told: &mut dyn FnMut(&LostFrame)) -> Result<()> {
    let Some(range) = plan.ranges.first() else {
        return Ok(());
    };
    let next = raw
        .dir
        .list()?
        .into_iter()
        .find(|first| *first > plan.last && *first >= range.at);
    let name = copy(raw, range.at, next.unwrap_or(Lsn::MAX))?;
    let mut ledger = Ledger::begin(&*raw.storage, &name)?;
    ledger.line(format_args!(
        "the log was cut at LSN {}; it went on to {} at least. Whole segments that went are beside this file, and of archived \
         ones the stubs: their files stay in the archive until one of that name is moved there, or the log begins behind them.",
        range.at, range.end
    ))?;
    let from = found.damages.first().map_or(range.at, |(damage, _)| damage.at);
    raw.walk(&mut |piece| match piece {
        RawPiece::Damage(damage) => list_damage(raw, damage, &mut ledger, told),
        RawPiece::Block(block) if block.header().lsn >= from => {
            for frame in block.frames() {
                let lost = LostFrame::of(&frame?, true);
                ledger.line(format_args!("lost: {lost}"))?;
                told(&lost);
            }
            Ok(())
        }
        RawPiece::Block(_) => Ok(()),
    })?;
    ledger.end()
}

fn list_damage(
    raw: &RawLog,
    damage: &Damage,
    ledger: &mut Ledger,
    told: &mut dyn FnMut(&LostFrame),
) -> Result<()> {
    let loss = raw.loss(damage)?;
    ledger.line(format_args!(
        "damaged: LSN {} to {}, {} bytes of {}: {}",
        damage.at,
        damage.end,
        damage.end.since(damage.at),
        damage.path.display(),
        damage.reason
    ))?;
    match loss.named {
        Some((frames, events)) => {
            ledger.line(format_args!("its header says {frames} frames, {events} events"))?
        }
        None => ledger.line(format_args!("what stood there is unknown"))?,
    }
    for lost in &loss.frames {
        ledger.line(format_args!("lost: {lost}"))?;
        told(lost);
    }
    Ok(())
}

/// Copies what the file holds of [at, end), without zeros at its end; returns the name of the copy, which ends in
/// its length.
fn copy(raw: &RawLog, at: Lsn, end: Lsn) -> Result<String> {
    let held = held(raw, at, end)?;
    let name = format!("{:016x}-{held}", at.0);
    if held == 0 {
        return Ok(name);
    }
    let file_name = format!("{FOLDER}/{name}.bin");
    let path = raw.storage.root().join(&file_name);
    let failed = |error| Error::io("keep damaged bytes aside", &path, error).at_lsn(at);
    let file = raw
        .storage
        .open(&file_name, OpenMode::OpenOrCreate)
        .map_err(failed)?;
    file.set_len(0).map_err(failed)?;
    let mut done = 0;
    while done < held {
        let bytes = raw.read(at.plus(done), at.plus((done + PIECE).min(held)))?;
        if bytes.is_empty() {
            break;
        }
        crate::storage::write_all(&*file, &[&bytes], done).map_err(failed)?;
        done += to_u64(bytes.len());
    }
    file.sync_data().map_err(failed)?;
    Ok(name)
}

/// Bytes that the file holds from `at` on before `end`, up to the last that is not zero, in eights.
fn held(raw: &RawLog, at: Lsn, end: Lsn) -> Result<u64> {
    let (mut here, mut last) = (at, 0);
    while here < end {
        let bytes = raw.read(here, here.plus(PIECE).min(end))?;
        if bytes.is_empty() {
            break;
        }
        if let Some(found) = bytes.iter().rposition(|byte| *byte != 0) {
            last = to_usize(here.since(at)) + found + 1;
        }
        here = here.plus(to_u64(bytes.len()));
    }
    Ok(to_u64(last.next_multiple_of(8)))
}
