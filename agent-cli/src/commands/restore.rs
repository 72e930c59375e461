//! `milepost restore`: makes a store of a backup.

use std::path::PathBuf;

use clap::Args;
use milepost_engine::{Backup, Options, Store};
use milepost_replication::catalog::{Catalog, keep_history};
use milepost_replication::keys::Keys;
use serde::Serialize;

use crate::arguments::keep;
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
///
/// How long the log is kept, its limit, and whether it is compressed are as they were when the backup was made, and are
/// told. Holds are not restored, nor an archive: all segments are in the new store. Keys are in no backup: remotes whose
/// messages are sealed are named, and nothing goes to them until they have a key again (`milepost key`).
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
    /// As in the store that the backup is of; not there where the backup's file is damaged.
    retention: Option<String>,
    limit: Option<u64>,
    compress: Option<bool>,
    /// The archive that the store had, and the new one has not.
    archive_of_store: Option<String>,
    /// Remotes whose messages are sealed with keys that no backup has.
    keys_missing: Vec<String>,
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
        let keys_missing = set_up(options.open(&self.new)?)?;
        let facts = Facts {
            site: of.site.to_string(),
            store: of.store.to_string(),
            dir: self.new.display().to_string(),
            fork: made.fork.0,
            parent: made.parent.to_string(),
            epoch: made.epoch.to_string(),
            segments: made.segments,
            retention: made.space.as_ref().map(|space| keep::text(space.retention)),
            limit: made.space.as_ref().map(|space| space.limit),
            compress: made.space.as_ref().map(|space| space.compress),
            archive_of_store: made
                .space
                .as_ref()
                .and_then(|space| space.archive.as_ref())
                .map(|path| path.display().to_string()),
            keys_missing,
        };
        output::tell(
            self.json,
            &facts,
            format_args!(
                "restored site {} in {} up to LSN {}; lineage epoch {} goes on from {} there; {}{}",
                facts.site,
                facts.dir,
                facts.fork,
                facts.epoch,
                facts.parent,
                settings(&facts),
                keys(&facts)
            ),
        )
    }
}

/// What the new store keeps, and what of it is to be set again.
fn settings(facts: &Facts) -> String {
    let (Some(retention), Some(limit)) = (&facts.retention, facts.limit) else {
        return "how long the log is kept is damaged in the backup: it is kept for ever, without a limit, until \
                `milepost space` sets it"
            .to_owned();
    };
    let limit = match limit {
        0 => "no limit".to_owned(),
        limit => format!("a limit of {}", keep::bytes_text(limit)),
    };
    let compress = match facts.compress {
        Some(true) => ", and compressed",
        _ => "",
    };
    let archive = facts.archive_of_store.as_ref().map_or_else(String::new, |archive| {
        let archive = output::shown(archive);
        format!("; the archive {archive} stays the former store's: `milepost archive` with --to names one of its own")
    });
    let room = match facts.limit.unwrap_or(0) > 0
        && (facts.compress == Some(true) || facts.archive_of_store.is_some())
    {
        true => {
            "; its segments lie here as they were before: `milepost stat` says whether the limit has room for them"
        }
        false => "",
    };
    format!("as in the former store its log is kept {retention}, with {limit}{compress}{archive}{room}")
}

/// What is to be done before sealed messages go and come again.
fn keys(facts: &Facts) -> String {
    if facts.keys_missing.is_empty() {
        return String::new();
    }
    format!(
        "; messages of {} are sealed, and keys are in no backup: put the folder `keys` of the former store here if you have \
         it, else draw a new key for each with `milepost key add {} SITE --to FILE` and add it there",
        facts.keys_missing.join(", "),
        output::shown(&facts.dir)
    )
}

/// Holds are not backed up: what neighbours may ask for is held before anything can be freed. Nor are keys; whose are missing.
fn set_up(store: Store) -> milepost_engine::Result<Vec<String>> {
    if Catalog::load(&store)?.remotes().next().is_some() {
        keep_history(&store)?;
    }
    let locked = Keys::new(&store).all()?;
    let locked = locked.iter().filter(|one| one.keys.locked().is_some());
    let missing = locked.map(|one| one.remote.to_string()).collect();
    store.close()?;
    Ok(missing)
}
