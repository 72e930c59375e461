//! `milepost dump`: the log as it is: blocks, frames, markers; the queue and the index files likewise.

pub mod facts;

use clap::Args;
use milepost_engine::block::Block;
use milepost_engine::{Backup, Error, ErrorKind, Lsn, RawLog, RawPiece, Store};

use self::facts::{
    BehindFacts, EventFacts, Line, block_facts, block_text, damage_facts, damage_text, frame_facts,
    frame_text, lost_facts, lost_text, sidecar_line, sidecar_text,
};
use super::store_dir::StoreDir;
use crate::arguments::start::{self, Start};
use crate::failure::{EXIT_CODES, Exit, Failure, Outcome};
use crate::output::Out;

/// Print blocks, frames and markers of the log, readable, up to what is durable now.
///
/// A block's line has its LSN, length, numbers of frames and events, length of its filter, lineage epoch, random
/// word of its writer, the durable LSN its writer saw and the chain before and after it; a frame's line its LSN,
/// kind, length, time, transaction id, number of events, origin, via and the keys of its pinned records.
///
/// Reads backups too. At damage the log is read on as it lies on the disk, from the next block header that is
/// whole, with what the damaged bytes seem to hold, provided that nobody else has the store open; that exits 6.
/// Nothing is changed by it.
#[derive(Args)]
#[command(after_long_help = format!(
    "Examples:\n  milepost dump shop\n  milepost dump shop --from 65536 --to 131072 --events --json\n  \
     milepost dump shop --queue\n  milepost dump shop --sidecars\n\n{EXIT_CODES}"
))]
pub struct Dump {
    #[command(flatten)]
    store: StoreDir,
    /// First LSN to print; with --queue a position of the queue. Where the log begins later, that is told; not with oldest
    #[arg(long, value_name = "LSN", default_value = "0", value_parser = start::parse)]
    from: Start,
    /// LSN before which to stop
    #[arg(long, value_name = "LSN")]
    to: Option<Lsn>,
    /// Print the events of transactions as well
    #[arg(long)]
    events: bool,
    /// Print the stable queue and not the log
    #[arg(long, conflicts_with_all = ["sidecars", "events"])]
    queue: bool,
    /// Print what the index files of sealed segments say, and not the log
    #[arg(long, conflicts_with = "events")]
    sidecars: bool,
    /// Print one JSON object a line: {"block":{…}}, {"frame":{…}}, {"event":{…}}, {"damage":{…}}, {"lost":{…}},
    /// {"sidecar":{…}}, {"behind":{"from","oldest"}}
    #[arg(long)]
    json: bool,
}

impl Dump {
    /// Prints the log.
    pub fn run(self) -> Outcome {
        let from = self.from.lsn();
        if self.to.is_some_and(|to| to < from) {
            return Err(Failure::usage("--to lies before --from"));
        }
        let mut out = Out::new();
        let is_backup = Backup::is_in(&self.store.dir);
        if is_backup && (self.queue || self.sidecars) {
            return Err(Failure::usage("a backup holds neither queue nor index files"));
        }
        let outcome = match (self.queue, self.sidecars) {
            (true, _) => self.queue(&self.store.open()?, &mut out),
            (_, true) => self.sidecars(&self.store.open()?, &mut out),
            _ if is_backup => self.raw(RawLog::open(&self.store.dir)?, from, &mut out),
            _ => self.log(&mut out),
        };
        out.flush()?;
        outcome
    }

    fn log(&self, out: &mut Out) -> Outcome {
        let (error, from) = match self.store.options().open(&self.store.dir) {
            Ok(store) => match self.live(&store, out)? {
                None => return Ok(()),
                Some(damaged) => damaged,
            },
            Err(error) if error.kind() == ErrorKind::Corrupt => (error, self.from.lsn()),
            Err(error) => return Err(error.into()),
        };
        match RawLog::open(&self.store.dir) {
            Ok(raw) => self.raw(raw, from, out),
            Err(_) => {
                let next = "what lies behind can be read when nobody else has the store open";
                Err(Failure::from(error).then(next))
            }
        }
    }

    /// Prints what is durable; the damage that ends it and where, if any does.
    fn live(&self, store: &Store, out: &mut Out) -> Outcome<Option<(Error, Lsn)>> {
        let durable = store.watermarks().durable;
        self.from.refuse_beyond(durable)?;
        let end = durable.min(self.to.unwrap_or(Lsn::MAX));
        let (from, oldest) = (self.from.lsn(), store.oldest()?);
        self.tell_behind(oldest, out)?;
        let start = Lsn(from.0.saturating_sub(1)).max(oldest);
        let mut scan = match store.scan(start) {
            Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(Some((error, from))),
            other => other?,
        };
        let mut reached = from;
        loop {
            match scan.next_block() {
                Ok(Some(block)) if block.header().lsn < end => {
                    self.print_block(&block, end, out)?;
                    reached = block.header().end();
                }
                Ok(_) => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(Some((error, reached))),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Prints the log as it lies on the disk from `from` on.
    fn raw(&self, raw: RawLog, from: Lsn, out: &mut Out) -> Outcome {
        let end = self.to.unwrap_or(Lsn::MAX);
        let (mut damages, mut failed, mut begun) = (0u64, None, from > self.from.lsn());
        let walked = raw.walk(&mut |piece| {
            let at = match &piece {
                RawPiece::Block(block) => block.header().lsn,
                RawPiece::Damage(damage) => damage.at,
            };
            if !std::mem::replace(&mut begun, true)
                && let Err(failure) = self.tell_behind(at, out)
            {
                failed = Some(failure);
            }
            let printed = match piece {
                RawPiece::Block(block) if block.header().end() > from && block.header().lsn < end => {
                    self.print_block(&block, end, out)
                }
                RawPiece::Damage(damage) if damage.end >= from && damage.at < end => {
                    damages += 1;
                    let loss = raw.loss(damage)?;
                    let lost = loss.frames.iter().map(|frame| Line::Lost(lost_facts(frame)));
                    let lines = std::iter::once(Line::Damage(damage_facts(damage, &loss))).chain(lost);
                    lines.into_iter().try_for_each(|line| self.print(&line, out))
                }
                _ => Ok(()),
            };
            printed.map_err(|failure| {
                failed = Some(failure);
                Error::internal("printing ended")
            })
        });
        if let Some(failure) = failed {
            return Err(failure);
        }
        let ends = walked?;
        if damages == 0 {
            return self.from.refuse_beyond(ends.at.max(ends.durable));
        }
        let ranges = if damages == 1 { "range" } else { "ranges" };
        let next = if raw.is_backup() {
            "`milepost backup` with --check copies it again"
        } else {
            "keep the files and restore a backup, or see what `milepost repair` can save"
        };
        Err(Failure::new(
            Exit::Damaged,
            format!("{damages} damaged {ranges}; {next}"),
        ))
    }

    fn queue(&self, store: &Store, out: &mut Out) -> Outcome {
        let end = self.to.unwrap_or(Lsn::MAX);
        let mut reader = store.queue_reader(Lsn(self.from.lsn().0.saturating_sub(1)))?;
        while let Some(block) = reader.next_block()? {
            if block.header().lsn >= end {
                break;
            }
            self.print_block(&block, end, out)?;
        }
        Ok(())
    }

    fn sidecars(&self, store: &Store, out: &mut Out) -> Outcome {
        let end = self.to.unwrap_or(Lsn::MAX);
        for (first, facts) in store.sidecars()? {
            if first >= self.from.lsn() && first < end {
                let file = format!("log/{:016x}.idx", first.0);
                self.print(&Line::Sidecar(sidecar_line(first.0, file, facts.as_ref())), out)?;
            }
        }
        Ok(())
    }

    fn print_block(&self, block: &Block<'_>, end: Lsn, out: &mut Out) -> Outcome {
        self.print(&Line::Block(block_facts(block.header())), out)?;
        for frame in block.frames() {
            let frame = frame?;
            if frame.lsn() < self.from.lsn() || frame.lsn() >= end {
                continue;
            }
            self.print(&Line::Frame(frame_facts(&frame)?), out)?;
            if self.events {
                for event in frame.events() {
                    let event = event?;
                    let facts = EventFacts {
                        ordinal: event.ordinal,
                        stream: event.stream()?,
                        kind: event.kind()?,
                        headers: event.headers().read()?.len(),
                        payload_bytes: event.payload.len(),
                    };
                    self.print(&Line::Event(facts), out)?;
                }
            }
        }
        Ok(())
    }

    /// Says so when the log begins later than asked for.
    fn tell_behind(&self, oldest: Lsn, out: &mut Out) -> Outcome {
        let Some(text) = self.from.behind(oldest) else {
            return Ok(());
        };
        tracing::warn!("{text}, where this begins");
        if self.json {
            let (from, oldest) = (self.from.lsn().0, oldest.0);
            self.print(&Line::Behind(BehindFacts { from, oldest }), out)?;
        }
        Ok(())
    }

    fn print(&self, line: &Line<'_>, out: &mut Out) -> Outcome {
        if self.json {
            return out.json(line);
        }
        match line {
            Line::Block(block) => out.line(format_args!("{}", block_text(block))),
            Line::Frame(frame) => out.line(format_args!("  {}", frame_text(frame))),
            Line::Event(event) => out.line(format_args!(
                "    {:>4}  {}  {}  {} headers, {} bytes",
                event.ordinal, event.stream, event.kind, event.headers, event.payload_bytes
            )),
            Line::Damage(damage) => out.line(format_args!("{}", damage_text(damage))),
            Line::Lost(frame) => out.line(format_args!("  lost? {}", lost_text(frame))),
            Line::Sidecar(sidecar) => out.line(format_args!("{}", sidecar_text(sidecar))),
            // On standard error.
            Line::Behind(_) => Ok(()),
        }
    }
}
