//! `milepost backup`: a consistent copy of a store while others write.

use std::path::PathBuf;

use clap::Args;
use milepost_engine::BackedUp;
use milepost_replication::backup::back_up;
use serde::Serialize;

use super::store_dir::StoreDir;
use crate::failure::{EXIT_CODES, Failure, Outcome};
use crate::output;
use crate::progress::Progress;

/// Copy a store's log to a folder while others write, from the second run on only what is new.
///
/// The backup holds everything that was durable when the command began, each block verified as it is copied. A
/// run that is interrupted leaves what the former run completed; the next one goes on. A folder that holds
/// another store's backup, or another history of this store, is refused. A backup is no store: nothing opens it
/// but `milepost verify`, `milepost dump` and `milepost restore`, which makes a store of it. Views, index files
/// and the stable queue are not copied: they are made again from the log. Nor are the keys of pairs (`milepost key`): who has
/// the backup cannot speak as this site. Keep them elsewhere, or draw new ones for what is restored.
///
/// Agents that run with -u (--only-backed-up) send and confirm what the last backup holds, and no more.
#[derive(Args)]
#[command(after_long_help = format!(
    "Examples:\n  milepost backup shop /mnt/disk/shop-backup\n  milepost backup shop /mnt/disk/shop-backup --check --json\n\n{EXIT_CODES}"
))]
pub struct Backup {
    #[command(flatten)]
    store: StoreDir,
    /// Folder of the backup, made if it is missing
    #[arg(value_name = "TO")]
    to: PathBuf,
    /// Read all that the backup holds already, and copy again what is damaged; what a repair took out of the store stays
    #[arg(long)]
    check: bool,
    /// Print the facts as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Facts {
    to: String,
    end: u64,
    former_end: u64,
    epoch: String,
    chain: String,
    segments: u64,
    copied_bytes: u64,
    copied_segments: Vec<u64>,
    replaced_segments: Vec<u64>,
}

impl Backup {
    /// Copies and tells.
    pub fn run(self) -> Outcome {
        let store = self.store.open()?;
        let mut progress = Progress::bytes("backup", Some(store.watermarks().durable.0));
        let done = back_up(&store, &self.to, self.check, &mut |done, total| {
            progress.reach_of(done, total);
        });
        drop(progress);
        let done =
            done.map_err(|error| Failure::from(error).then("what the backup held before is as it was"))?;
        let facts = facts(&done, self.to.display().to_string());
        let copied = facts.copied_segments.len();
        output::tell(
            self.json,
            &facts,
            format_args!(
                "backed up to LSN {}: {} bytes of {copied} segments copied, {} segments in all{}",
                facts.end,
                facts.copied_bytes,
                facts.segments,
                replaced(&facts.replaced_segments)
            ),
        )
    }
}

fn facts(done: &BackedUp, to: String) -> Facts {
    let numbers = |lsns: &[milepost_engine::Lsn]| lsns.iter().map(|lsn| lsn.0).collect();
    Facts {
        to,
        end: done.end.0,
        former_end: done.former_end.0,
        epoch: done.epoch.to_string(),
        chain: done.chain.to_string(),
        segments: done.segments,
        copied_bytes: done.copied_bytes,
        copied_segments: numbers(&done.copied),
        replaced_segments: numbers(&done.replaced),
    }
}

fn replaced(segments: &[u64]) -> String {
    if segments.is_empty() {
        return String::new();
    }
    let list: Vec<String> = segments.iter().map(u64::to_string).collect();
    format!("; copied again because the copy was damaged: {}", list.join(" "))
}
