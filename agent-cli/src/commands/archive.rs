//! `milepost archive`: sealed segments in a second directory, read from there as before.

use std::path::PathBuf;

use clap::Args;
use milepost_engine::{Archived, Error, ErrorKind};
use serde::Serialize;

use super::store_dir::StoreDir;
use crate::failure::{EXIT_CODES, Failure, Outcome};
use crate::output;
use crate::progress::Progress;

/// Move a store's sealed segments to a second directory, from where they are read as before.
///
/// Each segment but the last two is copied to the archive, synced, read back and compared, and only then the file
/// here goes; a small file in its place says where it is. The archive may be on a slower or larger disk, local like
/// the store's. While it is not mounted the store opens and commits, and what lies there is told by its name. From the
/// first time on, whoever has the store open moves there what it seals. An archive that was moved as a whole is named
/// anew with --to and its new path. A copy of the store's folder reads what the archive of the first has, but moves
/// nothing there and removes nothing; an archive is used by one store's folder alone. What is freed while the archive is
/// away is removed there when it is back and something is freed or moved, or `milepost space --free` is called. Index files stay here, so finding a stream reads nothing in the archive but its events.
#[derive(Args)]
#[command(after_long_help = format!(
    "Examples:\n  milepost archive shop --to /mnt/cold/shop\n  milepost archive shop\n  milepost archive shop --back --json\n\n{EXIT_CODES}"
))]
pub struct Archive {
    #[command(flatten)]
    store: StoreDir,
    /// Directory of the archive, made if it is missing; kept in the store's settings
    #[arg(long, value_name = "ARCHIVE", conflicts_with = "back")]
    to: Option<PathBuf>,
    /// Make an archive this store's that another copy of it used, which must be gone; or after the store was copied to
    /// another disk
    #[arg(long, requires = "to")]
    take_over: bool,
    /// Bring all segments back, and move none from now on; they stay in an archive that another copy of the store uses
    #[arg(long)]
    back: bool,
    /// Print the facts as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Facts {
    /// First LSNs of the segments that were moved.
    segments: Vec<u64>,
    bytes: u64,
    away: u64,
    of: u64,
    archive: Option<String>,
}

impl Archive {
    /// Moves, and tells.
    pub fn run(self) -> Outcome {
        let store = self.store.open()?;
        match &self.to {
            Some(to) if self.take_over => store.take_archive_over(to)?,
            Some(to) => store.set_archive(to)?,
            None => {}
        }
        let mut progress = Progress::bytes("move", Some(0));
        let mut told = |done, total| progress.reach_of(done, total);
        let done = if self.back {
            store.bring_back(&mut told)
        } else {
            store.archive(&mut told)
        };
        drop(progress);
        let done = done.map_err(|error| match again(&error) {
            Some(again) => Failure::from(error).then(&again),
            None => Failure::from(error),
        })?;
        let archive = store.space()?.archive;
        let facts = facts(&done, archive.map(|path| path.display().to_string()));
        let (count, verb) = (
            facts.segments.len(),
            if self.back { "brought back" } else { "moved" },
        );
        output::tell(
            self.json,
            &facts,
            format_args!(
                "{verb} {count} segments, {} bytes; {} of {} are in the archive",
                facts.bytes, facts.away, facts.of
            ),
        )
    }
}

/// What to do about a failure that another run may not meet again; `None` for one that says itself what has to change first.
pub fn again(error: &Error) -> Option<String> {
    let helps = matches!(error.kind(), ErrorKind::Full | ErrorKind::Internal);
    let next = where_to(error);
    helps.then(|| {
        format!("no segment was lost and all are read as before; run it again when that is mended{next}")
    })
}

/// What else helps when a disk is full.
pub fn where_to(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::Full => ", or move segments to another disk with `milepost archive DIR --to ARCHIVE`",
        _ => "",
    }
}

fn facts(done: &Archived, archive: Option<String>) -> Facts {
    Facts {
        segments: done.segments.iter().map(|first| first.0).collect(),
        bytes: done.bytes,
        away: done.away,
        of: done.of,
        archive,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_the_way_to_another_disk() {
        assert!(where_to(&Error::full("no space")).contains("archive DIR --to"));
        assert_eq!(where_to(&Error::corrupt("damaged")), "");
        assert!(again(&Error::full("no space")).unwrap().contains("run it again"));
        for helpless in [
            Error::corrupt("x"),
            Error::conflict("x"),
            Error::unavailable("x"),
            Error::invalid("x"),
        ] {
            assert_eq!(again(&helpless), None);
        }
    }
}
