//! `milepost verify`: every block read from the disk, and what is damaged.

use clap::Args;
use milepost_engine::Error;
use serde::Serialize;

use super::store_dir::StoreDir;
use crate::failure::{EXIT_CODES, Exit, Failure, Outcome};
use crate::output::{self, Out};
use crate::progress::Progress;

/// Read every block of log and queue from the disk and check it.
///
/// The store is opened first, and where nobody has it open that recovers it as ever: what was written last and
/// not durable may be cut, and a queue that is damaged is thrown away with a warning, because the next scan
/// makes it again. After that nothing is changed. Checks checksums, positions, store and chain of every block, the bounds of every frame and event, and
/// the index files of sealed segments. Damage is told with file and LSN and what to do about it, one line
/// for each damaged segment, and exits 6. A damaged index file is told too and is no failure: it is made
/// again from the log when it is needed.
#[derive(Args)]
#[command(after_long_help = format!("Example:\n  milepost verify shop\n\n{EXIT_CODES}"))]
pub struct Verify {
    #[command(flatten)]
    store: StoreDir,
    /// Print the facts as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Facts {
    whole: bool,
    segments: u64,
    blocks: u64,
    frames: u64,
    transactions: u64,
    events: u64,
    bytes: u64,
    queue_blocks: u64,
    sidecars: u64,
    sidecars_missing: u64,
    sidecars_damaged: Vec<u64>,
    damage: Vec<Damage>,
    queue_damage: Vec<Damage>,
}

#[derive(Serialize)]
struct Damage {
    file: Option<String>,
    lsn: Option<u64>,
    text: String,
}

impl From<&Error> for Damage {
    fn from(error: &Error) -> Damage {
        let file = error.path().map(|path| path.display().to_string());
        Damage {
            file,
            lsn: error.lsn().map(|lsn| lsn.0),
            text: error.to_string(),
        }
    }
}

impl Verify {
    /// Reads and tells.
    pub fn run(self) -> Outcome {
        let store = self.store.open()?;
        let mut progress = Progress::bytes("verify", Some(store.watermarks().durable.since(store.oldest()?)));
        let found = store.verify(&mut |done, _| progress.reach(done))?;
        drop(progress);
        let facts = Facts {
            whole: found.damage.is_empty() && found.queue_damage.is_empty(),
            segments: found.segments,
            blocks: found.blocks,
            frames: found.frames,
            transactions: found.transactions,
            events: found.events,
            bytes: found.bytes,
            queue_blocks: found.queue_blocks,
            sidecars: found.sidecars,
            sidecars_missing: found.sidecars_missing,
            sidecars_damaged: found.sidecars_damaged.iter().map(|first| first.0).collect(),
            damage: found.damage.iter().map(Damage::from).collect(),
            queue_damage: found.queue_damage.iter().map(Damage::from).collect(),
        };
        if self.json {
            output::tell(true, &facts, format_args!(""))?;
        } else {
            print(&facts)?;
        }
        judge(&facts)
    }
}

/// Exit 6 with what to do when anything is damaged.
fn judge(facts: &Facts) -> Outcome {
    let told = |count: usize, what: &str, advice: &str| {
        let verb = if count == 1 { "is" } else { "are" };
        let segments = if count == 1 { "segment" } else { "segments" };
        Failure::new(
            Exit::Damaged,
            format!("{count} {segments} of the {what} {verb} damaged; {advice}"),
        )
    };
    match (facts.damage.len(), facts.queue_damage.len()) {
        (0, 0) => Ok(()),
        (0, queue) => Err(told(
            queue,
            "stable queue",
            "nothing is lost: end every process that has the store open and remove all files of its folder queue",
        )),
        (log, _) => Err(told(log, "log", "keep the files and restore a backup")),
    }
}

fn print(facts: &Facts) -> Outcome {
    let mut out = Out::new();
    out.line(format_args!(
        "verified {} bytes: {} segments, {} blocks, {} transactions, {} events; queue: {} blocks",
        facts.bytes, facts.segments, facts.blocks, facts.transactions, facts.events, facts.queue_blocks
    ))?;
    out.line(format_args!(
        "index files: {} whole, {} not made yet",
        facts.sidecars, facts.sidecars_missing
    ))?;
    for first in &facts.sidecars_damaged {
        out.line(format_args!(
            "index file of the segment at LSN {first} is damaged; it is made again when needed"
        ))?;
    }
    for damage in facts.damage.iter().chain(&facts.queue_damage) {
        out.line(format_args!("DAMAGED: {}", damage.text))?;
    }
    out.flush()
}
