//! `milepost restore`: makes a store of a backup.

use std::path::PathBuf;

use clap::Args;
use milepost_engine::{Backup, Options, Store};
use milepost_replication::catalog::{Catalog, keep_history};
use serde::Serialize;

use crate::failure::{EXIT_CODES, Outcome};
use crate::output;
use crate::progress::{Progress, on_rebuild};

/// Make a store of a backup, under a new lineage epoch.
///
/// The new store is the same site with the same id and goes on where the backup ends. Never run the former
/// store again beside it: both would be one site with two histories. What the site committed after the backup
/// is missing here; remotes that have some of it find out at the first exchange and stop the pair, until the
/// remote is removed and added again at one of the two sites, which doubles nothing. Remotes that have nothing
/// from behind the backup's end go on, and what they had sent since comes again.
#[derive(Args)]
#[command(after_long_help = format!("Example:\n  milepost restore /mnt/disk/shop-backup shop\n\n{EXIT_CODES}"))]
pub struct Restore {
    /// Folder of the backup
    #[arg(value_name = "BACKUP")]
    backup: PathBuf,
    /// Folder of the new store: empty, or made if it is missing
    #[arg(value_name = "NEWDIR")]
    new: PathBuf,
    /// Restore to NFS, 9p or FUSE, which may break their promises; at your risk
    #[arg(long, env = "MILEPOST_FORCE_FILE_SYSTEM", value_parser = clap::builder::FalseyValueParser::new())]
    force_file_system: bool,
    /// Print the facts as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Facts {
    site: String,
    store: String,
    dir: String,
    fork: u64,
    parent: String,
    epoch: String,
    segments: u64,
}

impl Restore {
    /// Copies and tells.
    pub fn run(self) -> Outcome {
        let of = Backup::open(&self.backup)?.facts();
        let mut progress = Progress::bytes("restore", Some(of.end.0));
        let options = Options::new()
            .force_file_system(self.force_file_system)
            .on_rebuild(on_rebuild());
        let made = options.restore(&self.backup, &self.new, &mut |done, total| {
            progress.reach_of(done, total);
        })?;
        drop(progress);
        keep_what_replication_needs(options.open(&self.new)?)?;
        let facts = Facts {
            site: of.site.to_string(),
            store: of.store.to_string(),
            dir: self.new.display().to_string(),
            fork: made.fork.0,
            parent: made.parent.to_string(),
            epoch: made.epoch.to_string(),
            segments: made.segments,
        };
        output::tell(
            self.json,
            &facts,
            format_args!(
                "restored site {} in {} up to LSN {}; lineage epoch {} goes on from {} there",
                facts.site, facts.dir, facts.fork, facts.epoch, facts.parent
            ),
        )
    }
}

/// Holds are not backed up. What neighbours may ask for is held before anything can be freed.
fn keep_what_replication_needs(store: Store) -> milepost_engine::Result<()> {
    if Catalog::load(&store)?.remotes().next().is_some() {
        keep_history(&store)?;
    }
    store.close()
}
