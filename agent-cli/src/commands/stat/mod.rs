//! `milepost stat`: what a store is, how far it is and what it takes of its disk.

mod disk;

use clap::Args;
use milepost_engine::{ErrorKind, Lsn, Phase, Result, Store};
use serde::Serialize;

use super::store_dir::StoreDir;
use super::verify::Damage;
use crate::arguments::moment;
use crate::failure::{EXIT_CODES, Exit, Failure, Outcome};
use crate::output::{self, Out};
use crate::progress::Progress;

/// How often a store is asked that another process is freeing.
const TRIES: usize = 8;

/// Print what a store is and how far it is.
///
/// Identity, size, how far the log is written (appended), on disk (durable) and taken over into the
/// stable queue (scanned), numbers of blocks, frames, transactions and events, and who runs its phases; what it takes
/// of its disk (log, queue and what is derived, and by files and bytes parts that wait, quarantine and keys), what is freed next and who keeps the rest, and when the disk is full at the rate of the newest segments.
/// The counts come from a walk over the whole retained log, every checksum verified on the way. Damaged settings and
/// holds, and damaged files of what was received in the freed part of the log, are told with what to do, beside all the
/// rest, and exit 6.
#[derive(Args)]
#[command(after_long_help = format!("Example:\n  milepost stat shop --json\n\n{EXIT_CODES}"))]
pub struct Stat {
    #[command(flatten)]
    store: StoreDir,
    /// Print the facts as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Facts {
    store: String,
    site: String,
    epoch: String,
    oldest: u64,
    appended: u64,
    durable: u64,
    scanned: u64,
    blocks: u64,
    frames: u64,
    transactions: u64,
    events: u64,
    first_time: Option<i64>,
    last_time: Option<i64>,
    phases: Vec<PhaseFacts>,
    disk: disk::Disk,
    /// Parts of the freed log of which a repair could not save all that was received.
    received_lost: Vec<(u64, u64)>,
    /// Settings, holds, and files of what was received, that cannot be read.
    damage: Vec<Damage>,
}

#[derive(Serialize)]
struct PhaseFacts {
    phase: &'static str,
    holder: Option<String>,
}

impl Stat {
    /// Prints the facts.
    pub fn run(self) -> Outcome {
        let store = self.store.open()?;
        let facts = unless_freed(|| gather(&store))?;
        if self.json {
            output::tell(true, &facts, format_args!(""))?;
        } else {
            print(&facts)?;
        }
        match facts.damage.len() {
            0 => Ok(()),
            1 => Err(damaged("a file is damaged")),
            many => Err(damaged(&format!("{many} files are damaged"))),
        }
    }
}

/// Asks again, a few times, when what was asked for was freed meanwhile by another process.
fn unless_freed<T>(mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 1..TRIES {
        match ask() {
            Err(error) if error.kind() == ErrorKind::Behind => {}
            told => return told,
        }
    }
    ask()
}

/// Damaged files, each of which was told before.
pub(super) fn damaged(what: &str) -> Failure {
    let text = format!("{what}; what follows from it and what to do is told beside the rest");
    Failure::new(Exit::Damaged, text)
}

fn print(facts: &Facts) -> Outcome {
    let mut out = Out::new();
    out.line(format_args!("site          {}", facts.site))?;
    out.line(format_args!("store         {}", facts.store))?;
    out.line(format_args!("epoch         {}", facts.epoch))?;
    out.line(format_args!(
        "log           {} to {} durable, {} appended",
        facts.oldest, facts.durable, facts.appended
    ))?;
    out.line(format_args!("scanned       {}", facts.scanned))?;
    out.line(format_args!("blocks        {}", facts.blocks))?;
    out.line(format_args!("frames        {}", facts.frames))?;
    out.line(format_args!("transactions  {}", facts.transactions))?;
    out.line(format_args!("events        {}", facts.events))?;
    if let (Some(first), Some(last)) = (facts.first_time, facts.last_time) {
        out.line(format_args!(
            "written       {} to {}",
            moment::text(first),
            moment::text(last)
        ))?;
    }
    for phase in &facts.phases {
        let holder = phase.holder.as_deref().unwrap_or("not running");
        out.line(format_args!("{:<12}  {holder}", phase.phase))?;
    }
    facts.disk.print(&mut out)?;
    for (begin, end) in &facts.received_lost {
        out.line(format_args!(
            "not known     all that was received in LSN {begin} to {end}, since a repair: a message that may have been here is \
             refused"
        ))?;
    }
    for damage in &facts.damage {
        out.line(format_args!("DAMAGED: {}", output::shown(&damage.text)))?;
    }
    out.flush()
}

fn gather(store: &Store) -> Result<Facts> {
    let marks = store.watermarks();
    let (oldest, mut damage) = (store.oldest()?, Vec::new());
    let received = store.receipts(None);
    let received_lost = match received.and_then(|received| received.verify().map(|()| received)) {
        Ok(received) => received.lost_parts(),
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            damage.push(Damage::from(&error));
            Vec::new()
        }
        Err(error) => return Err(error),
    };
    let received_lost = received_lost.into_iter().map(|(begin, end)| (begin.0, end.0));
    let mut facts = Facts {
        store: store.id().to_string(),
        site: store.site().to_string(),
        epoch: store.epoch().to_string(),
        oldest: oldest.0,
        appended: marks.appended.0,
        durable: marks.durable.0,
        scanned: marks.scanned.0,
        blocks: 0,
        frames: 0,
        transactions: 0,
        events: 0,
        first_time: None,
        last_time: None,
        phases: phases(store)?,
        disk: disk::gather(store, &mut damage)?,
        received_lost: received_lost.collect(),
        damage,
    };
    // Disk figures are wanted most when an archive is away.
    match count(store, oldest, marks.durable, &mut facts) {
        Err(error) if error.kind() == ErrorKind::Unavailable => {
            tracing::warn!(%error, "blocks, frames, transactions, events and times are of what was reached");
        }
        counted => counted?,
    }
    Ok(facts)
}

fn count(store: &Store, oldest: Lsn, end: Lsn, facts: &mut Facts) -> Result<()> {
    let mut progress = Progress::bytes("stat", Some(end.since(oldest)));
    let mut scan = store.scan(oldest)?;
    while let Some(block) = scan.next_block()? {
        let header = block.header();
        if header.lsn >= end {
            break;
        }
        facts.blocks += 1;
        facts.frames += u64::from(header.frame_count);
        facts.events += u64::from(header.event_count);
        if header.frame_count > 0 {
            facts.first_time = facts.first_time.or(Some(header.first_time));
            facts.last_time = Some(header.last_time);
        }
        if header.event_count > 0 {
            for frame in block.frames() {
                facts.transactions += u64::from(frame?.event_count() > 0);
            }
        }
        progress.reach(header.end().since(oldest));
    }
    Ok(())
}

fn phases(store: &Store) -> Result<Vec<PhaseFacts>> {
    let mut phases = Vec::new();
    for (phase, name) in [
        (Phase::Receive, "receive"),
        (Phase::Scan, "scan"),
        (Phase::Send, "send"),
    ] {
        phases.push(PhaseFacts {
            phase: name,
            holder: store.phase_holder(phase)?,
        });
    }
    Ok(phases)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_freed_meanwhile_is_asked_for_again_and_not_without_end() {
        let asked = |freed: usize| {
            let mut times = 0;
            let told = unless_freed(|| {
                times += 1;
                match times > freed {
                    true => Ok(times),
                    false => Err(milepost_engine::Error::behind("freed")),
                }
            });
            (told.ok(), times)
        };
        assert_eq!(asked(0), (Some(1), 1));
        assert_eq!(asked(3), (Some(4), 4));
        assert_eq!(asked(100), (None, TRIES));
        let other = unless_freed::<()>(|| Err(milepost_engine::Error::corrupt("damaged")));
        assert_eq!(other.unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
