//! `milepost unpack`: makes a store of a file that `extract` or `resync` made.

use std::path::PathBuf;

use clap::Args;
use milepost_engine::Options;
use milepost_replication::extract::carried;
use serde::Serialize;

use crate::failure::{EXIT_CODES, Failure, Outcome};
use crate::output;
use crate::progress::Progress;

/// Make the store of a file that `milepost extract` or `milepost resync` made, where it was carried.
///
/// All of the file is checked before anything is made of it, and the log is verified before the store gets its name: a file that was cut or
/// changed on the way is told, and leaves nothing. Interrupted, it begins anew. Unpack it in one place only: two copies that both run are one
/// site with two histories.
///
/// The pair's key is not in the file. Add it with `milepost key add` before the agent runs.
#[derive(Args)]
#[command(after_long_help = format!(
    "Examples:\n  milepost unpack /mnt/stick/shop2.mpx shop2\n  milepost key add shop2 hq --from shop2.mpx.key\n\n{EXIT_CODES}"
))]
pub struct Unpack {
    /// The file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Folder of the store: missing or empty
    #[arg(value_name = "NEWDIR")]
    to: PathBuf,
    /// Make it on NFS, 9p or FUSE, which may break their promises; at your risk
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
    bytes: u64,
}

impl Unpack {
    /// Makes and tells.
    pub fn run(self) -> Outcome {
        let options = Options::new().force_file_system(self.force_file_system);
        let mut progress = Progress::bytes("unpack", None);
        let made = carried::unpack(&self.file, &self.to, &options, &mut |done, total| {
            progress.reach_of(done, total);
        });
        drop(progress);
        let made = made.map_err(Failure::of_words)?;
        let facts = Facts {
            site: made.site.to_string(),
            store: made.store.to_string(),
            dir: self.to.display().to_string(),
            bytes: made.bytes,
        };
        output::tell(
            self.json,
            &facts,
            format_args!(
                "made site {} in {} of {} bytes; run `milepost agent` on it",
                facts.site,
                output::shown(&facts.dir),
                facts.bytes
            ),
        )
    }
}
