//! `milepost init`: a new store.

use clap::Args;
use milepost_engine::{Retention, SiteName};
use serde::Serialize;

use super::store_dir::StoreDir;
use crate::arguments::{keep, size};
use crate::failure::{EXIT_CODES, Failure, Outcome};
use crate::output;

/// Make a new store in a directory that is missing or empty.
///
/// The store gets a random id and the site name you choose: the name under which other sites know it.
/// Names are 1 to 64 characters of a-z 0-9 . _ - without a leading dot. Size of segments,
/// padding and site name are fixed for the store's life.
#[derive(Args)]
#[command(after_long_help = format!("Example:\n  milepost init shop --site shop1\n\n{EXIT_CODES}"))]
pub struct Init {
    #[command(flatten)]
    store: StoreDir,
    /// Name of the site
    #[arg(long, value_name = "NAME")]
    site: SiteName,
    /// Size of a log segment in bytes: 1048576 to 1073741824, K, M and G suffixes
    #[arg(long, value_name = "N", value_parser = segment_bytes)]
    segment_bytes: Option<u64>,
    /// Pad blocks to N bytes, 512 to 65536, a power of two: for disks that turn a sector into garbage when power
    /// fails while they write it. N is the larger of sector and file system block, mostly 4096
    #[arg(long, value_name = "N", value_parser = pad_to)]
    pad_to: Option<usize>,
    /// How long the log is kept: forever (the default); until-scanned; an age such as 30d; or a size such as 20G.
    /// `milepost space` changes it
    #[arg(long, value_name = "HOW-LONG", value_parser = keep::parse)]
    retention: Option<Retention>,
    /// Most bytes that the log may take, at least three segments, K, M and G suffixes; `milepost space` changes it
    #[arg(long, value_name = "N", value_parser = size::parse)]
    limit: Option<u64>,
    /// Print the facts as one JSON object: store, site, epoch, dir
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Made<'a> {
    store: String,
    site: &'a str,
    epoch: String,
    dir: String,
}

impl Init {
    /// Makes the store.
    pub fn run(self) -> Outcome {
        let mut options = self.store.options();
        if let Some(bytes) = self.segment_bytes {
            options = options.segment_bytes(bytes);
        }
        if let Some(bytes) = self.pad_to {
            options = options.pad_to(bytes);
        }
        options = options
            .retention(self.retention.unwrap_or_default())
            .limit(self.limit.unwrap_or_default());
        let made = options.init(&self.store.dir, self.site);
        // What names a path is about the place and not about the words.
        let store = made.map_err(|error| match error.path() {
            Some(_) => Failure::from(error),
            None => Failure::of_words(error),
        })?;
        let made = Made {
            store: store.id().to_string(),
            site: store.site().as_str(),
            epoch: store.epoch().to_string(),
            dir: self.store.dir.display().to_string(),
        };
        let text = format_args!("made store {} of site {} in {}", made.store, made.site, made.dir);
        output::tell(self.json, &made, text).map_err(|failure| failure.after("the store is made"))?;
        Ok(store.close()?)
    }
}

fn segment_bytes(text: &str) -> Result<u64, String> {
    let bytes = size::parse(text)?;
    if (1 << 20..=1 << 30).contains(&bytes) {
        Ok(bytes)
    } else {
        Err(format!("{text} is not 1 MiB to 1 GiB"))
    }
}

fn pad_to(text: &str) -> Result<usize, String> {
    let bytes = usize::try_from(size::parse(text)?).unwrap_or(0);
    if bytes.is_power_of_two() && (512..=64 << 10).contains(&bytes) {
        Ok(bytes)
    } else {
        Err(format!("{text} is no power of two from 512 to 65536"))
    }
}
