//! `milepost compress`: sealed segments in less space, read as before.

use clap::Args;
use milepost_engine::Compressed;
use serde::Serialize;

use super::store_dir::StoreDir;
use crate::failure::{EXIT_CODES, Failure, Outcome};
use crate::output;
use crate::progress::Progress;

/// Compress a store's sealed segments, which are read, verified and backed up as before.
///
/// Each segment but the last two is written anew with zstd, synced, read back and compared byte for byte, and only
/// then the former file goes. Others may read and append meanwhile, and a run that is interrupted loses nothing: the
/// next one goes on. Reading a compressed segment takes the time to decompress it; a read of one stream through the
/// index touches little of it. A backup holds segments as they were, not compressed.
#[derive(Args)]
#[command(after_long_help = format!(
    "Examples:\n  milepost compress shop\n  milepost compress shop --always\n  milepost compress shop --undo --json\n\n{EXIT_CODES}"
))]
pub struct Compress {
    #[command(flatten)]
    store: StoreDir,
    /// From now on, let whoever has the store open compress what it seals
    #[arg(long, conflicts_with = "undo")]
    always: bool,
    /// Take all compressed segments out again but those in the archive, and do not compress from now on
    #[arg(long)]
    undo: bool,
    /// Print the facts as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Facts {
    /// First LSNs of the segments that were given another form.
    segments: Vec<u64>,
    raw_bytes: u64,
    packed_bytes: u64,
    compressed: u64,
    /// Compressed segments in the archive, which stay as they are.
    in_archive: u64,
    of: u64,
    always: bool,
}

impl Compress {
    /// Compresses, or takes out again, and tells.
    pub fn run(self) -> Outcome {
        let store = self.store.open()?;
        let space = if self.always || self.undo {
            store.change_space(|space| space.compress = self.always)?
        } else {
            store.space()?
        };
        let what = if self.undo { "decompress" } else { "compress" };
        let mut progress = Progress::bytes(what, Some(0));
        let mut told = |done, total| progress.reach_of(done, total);
        let done = if self.undo {
            store.decompress(&mut told)
        } else {
            store.compress(&mut told)
        };
        drop(progress);
        let done = done.map_err(|error| {
            let again = super::archive::again(&error);
            let failure = match self.undo {
                true => Failure::from(error).then("no segment is compressed from now on"),
                false => Failure::from(error),
            };
            match again {
                Some(again) => failure.then(&again),
                None => failure,
            }
        })?;
        let facts = facts(&done, space.compress);
        let count = facts.segments.len();
        let (compressed, of) = (facts.compressed, facts.of);
        let text = if self.undo {
            let left = match facts.in_archive {
                0 => String::new(),
                left => format!(
                    "; {left} compressed ones in the archive were left as they are: `milepost archive` with --back brings \
                     them here, then undo again"
                ),
            };
            format!("decompressed {count} segments; {compressed} of {of} are compressed here{left}")
        } else {
            format!(
                "compressed {count} segments, {} bytes to {}; {compressed} of {of} are compressed",
                facts.raw_bytes, facts.packed_bytes
            )
        };
        output::tell(self.json, &facts, format_args!("{text}"))
    }
}

fn facts(done: &Compressed, always: bool) -> Facts {
    Facts {
        segments: done.segments.iter().map(|first| first.0).collect(),
        raw_bytes: done.raw_bytes,
        packed_bytes: done.packed_bytes,
        compressed: done.compressed,
        in_archive: done.in_archive,
        of: done.of,
        always,
    }
}
