//! `milepost verify`: every block read from the disk, and what is damaged.

use clap::Args;
use milepost_engine::{Backup, BackupFacts, Error, ErrorKind, RawLog, RawPiece, Verified};
use serde::Serialize;

use super::store_dir::StoreDir;
use crate::arguments::moment;
use crate::failure::{EXIT_CODES, Exit, Failure, Outcome};
use crate::output::{self, Out};
use crate::progress::Progress;

/// Read every block of a store's log and queue, or of a backup, from the disk and check it.
///
/// The store is opened first, and where nobody has it open that recovers it as ever: what was written last and
/// not durable may be cut, and a queue that is damaged is thrown away with a warning, because the next scan
/// makes it again. After that nothing is changed. Checks checksums, positions, store and chain of every block, the bounds of every frame and event, and
/// the index files of sealed segments, the file that names the store and the one that names its newest segment.
/// A backup, and a store that cannot be opened because it is damaged, is read alone. Damage is told with file and LSN and what to do about it, one line
/// for each damaged segment, and exits 6. A damaged index file is told too and is no failure: it is made
/// again from the log when it is needed. Damaged settings of space and damaged holds are told with their files and
/// exit 6. Segments in an archive that is away are counted, with what to mount, and exit 1 where nothing is damaged.
#[derive(Args)]
#[command(after_long_help = format!("Examples:\n  milepost verify shop\n  milepost verify /mnt/disk/shop-backup --json\n\n{EXIT_CODES}"))]
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
    newest_missing: bool,
    damage: Vec<Damage>,
    queue_damage: Vec<Damage>,
    settings_damage: Vec<Damage>,
    unverified: NotRead,
    /// Of a backup: what it says of itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    backup: Option<BackupOf>,
}

/// Segments that could not be reached, and why not.
#[derive(Serialize)]
struct NotRead {
    segments: u64,
    bytes: u64,
    reasons: Vec<Damage>,
}

#[derive(Serialize)]
struct BackupOf {
    site: String,
    store: String,
    end: u64,
    epoch: String,
    completed: i64,
}

impl From<BackupFacts> for BackupOf {
    fn from(facts: BackupFacts) -> BackupOf {
        BackupOf {
            site: facts.site.to_string(),
            store: facts.store.to_string(),
            end: facts.end.0,
            epoch: facts.epoch.to_string(),
            completed: facts.completed,
        }
    }
}

/// Damage, as `--json` shows it.
#[derive(Serialize)]
pub struct Damage {
    file: Option<String>,
    lsn: Option<u64>,
    /// A sentence with what to do.
    pub text: String,
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
        let facts = if Backup::is_in(&self.store.dir) {
            let backup = Backup::open(&self.store.dir)?;
            let mut progress = Progress::bytes("verify", Some(backup.facts().end.0));
            let found = backup.verify(&mut |done, total| progress.reach_of(done, total))?;
            facts(&found, Some(backup.facts().into()))
        } else if let Some(damaged) = self.unopened()? {
            damaged
        } else {
            let store = self.store.open()?;
            let mut progress = Progress::bytes("verify", Some(store.watermarks().durable.0));
            let found = store.verify(&mut |done, total| progress.reach_of(done, total))?;
            facts(&found, None)
        };
        if self.json {
            output::tell(true, &facts, format_args!(""))?;
        } else {
            print(&facts)?;
        }
        judge(&facts)
    }
}

impl Verify {
    /// What is damaged in a store that cannot be opened for it, read as it lies on the disk.
    fn unopened(&self) -> Outcome<Option<Facts>> {
        match self.store.options().open(&self.store.dir) {
            Err(error) if error.kind() == ErrorKind::Corrupt => {}
            _ => return Ok(None),
        }
        let Ok(raw) = RawLog::open(&self.store.dir) else {
            return Ok(None);
        };
        let mut found = Verified::default();
        let mut progress = Progress::bytes("verify", Some(raw.bytes()?));
        raw.walk(&mut |piece| {
            match piece {
                RawPiece::Block(block) => {
                    found.blocks += 1;
                    found.frames += u64::from(block.header().frame_count);
                    found.events += u64::from(block.header().event_count);
                    found.bytes += u64::from(block.header().block_len);
                    for frame in block.frames() {
                        found.transactions += u64::from(frame?.event_count() > 0);
                    }
                    progress.reach(block.header().end().0);
                }
                RawPiece::Damage(damage) => {
                    let text = format!("{}, up to LSN {}", damage.reason, damage.end);
                    found
                        .damage
                        .push(Error::corrupt(text).at_path(&damage.path).at_lsn(damage.at));
                }
            }
            Ok(())
        })?;
        found.segments = raw.segments()?;
        // A refusal to open that the walk does not explain is told as it is.
        Ok((!found.damage.is_empty()).then(|| facts(&found, None)))
    }
}

fn facts(found: &Verified, backup: Option<BackupOf>) -> Facts {
    Facts {
        whole: found.is_whole(),
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
        newest_missing: found.newest_missing,
        damage: found.damage.iter().map(Damage::from).collect(),
        queue_damage: found.queue_damage.iter().map(Damage::from).collect(),
        settings_damage: found.settings_damage.iter().map(Damage::from).collect(),
        unverified: NotRead {
            segments: found.unverified.segments,
            bytes: found.unverified.bytes,
            reasons: found.unverified.reasons.iter().map(Damage::from).collect(),
        },
        backup,
    }
}

/// Exit 6 with what to do when anything is damaged, exit 1 when not all could be looked at.
fn judge(facts: &Facts) -> Outcome {
    let told = |count: usize, what: &str, advice: &str| {
        let verb = if count == 1 { "is" } else { "are" };
        let parts = if count == 1 { "part" } else { "parts" };
        Failure::new(
            Exit::Damaged,
            format!("{count} {parts} of the {what} {verb} damaged; {advice}"),
        )
    };
    match (facts.damage.len(), facts.queue_damage.len()) {
        (0, 0) => judge_rest(facts),
        (0, queue) => Err(told(
            queue,
            "stable queue",
            "nothing is lost: end every process that has the store open and remove all files of its folder queue",
        )),
        (log, _) if facts.backup.is_some() => {
            let advice = "the store is untouched: `milepost backup` with --check copies it again";
            Err(told(log, "backup", advice))
        }
        (log, _) => Err(told(
            log,
            "log",
            "keep the files and restore a backup, or see what `milepost repair` can save",
        )),
    }
}

/// Log and queue are whole as far as they were read.
fn judge_rest(facts: &Facts) -> Outcome {
    let (settings, unread) = (facts.settings_damage.len(), &facts.unverified);
    if settings > 0 {
        let files = if settings == 1 { "file is" } else { "files are" };
        return Err(Failure::new(
            Exit::Damaged,
            format!(
                "log and queue are whole as far as they were read; {settings} {files} damaged, with what to do told above"
            ),
        ));
    }
    if unread.segments == 0 {
        return Ok(());
    }
    let segments = if unread.segments == 1 {
        "segment was"
    } else {
        "segments were"
    };
    let next = "what was read is whole: do what is told above, mostly mount the archive, and verify again";
    Err(Failure::failed(format!(
        "{} {segments} not verified; {next}",
        unread.segments
    )))
}

fn print(facts: &Facts) -> Outcome {
    let mut out = Out::new();
    out.line(format_args!(
        "verified {} bytes: {} segments, {} blocks, {} transactions, {} events; queue: {} blocks",
        facts.bytes, facts.segments, facts.blocks, facts.transactions, facts.events, facts.queue_blocks
    ))?;
    match &facts.backup {
        Some(of) => out.line(format_args!(
            "backup of site {}, store {}, complete to LSN {} since {}",
            of.site,
            of.store,
            of.end,
            moment::text(of.completed)
        ))?,
        None => out.line(format_args!(
            "index files: {} whole, {} not made yet",
            facts.sidecars, facts.sidecars_missing
        ))?,
    }
    if facts.newest_missing {
        out.line(format_args!(
            "the file log/newest does not name the newest segment; the next open by a process that is alone mends it"
        ))?;
    }
    for first in &facts.sidecars_damaged {
        out.line(format_args!(
            "index file of the segment at LSN {first} is damaged; it is made again when needed"
        ))?;
    }
    let damages = facts.damage.iter().chain(&facts.queue_damage);
    for damage in damages.chain(&facts.settings_damage) {
        out.line(format_args!("DAMAGED: {}", damage.text))?;
    }
    if facts.unverified.segments > 0 {
        let unread = &facts.unverified;
        out.line(format_args!(
            "NOT VERIFIED: {} segments of {} bytes",
            unread.segments, unread.bytes
        ))?;
        for reason in &unread.reasons {
            out.line(format_args!("  {}", reason.text))?;
        }
    }
    out.flush()
}
