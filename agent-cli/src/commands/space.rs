//! `milepost space`: how long the log is kept and how much it may take.

use clap::Args;
use milepost_engine::{Retention, Space as Settings};
use serde::Serialize;

use super::store_dir::StoreDir;
use crate::arguments::{keep, size};
use crate::failure::{EXIT_CODES, Failure, Outcome};
use crate::output;

/// Show or set how long the log is kept and how much it may take.
///
/// With nothing to set it shows. This version keeps the settings and frees nothing yet.
#[derive(Args)]
#[command(after_long_help = format!(
    "Examples:\n  milepost space shop\n  milepost space shop --retention 30d --limit 20G\n\n{EXIT_CODES}"
))]
pub struct Space {
    #[command(flatten)]
    store: StoreDir,
    /// forever; until-scanned; an age such as 90m, 12h or 30d; or a size such as 500M or 20G
    #[arg(long, value_name = "HOW-LONG", value_parser = keep::parse)]
    retention: Option<Retention>,
    /// Most bytes that the log may take, at least three segments, K, M and G suffixes; 0 for no limit
    #[arg(long, value_name = "N", value_parser = size::parse)]
    limit: Option<u64>,
    /// Print the settings as one JSON object: retention, limit, compress, archive
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Facts {
    retention: String,
    limit: u64,
    compress: bool,
    archive: Option<String>,
}

impl Space {
    /// Sets what is asked for, and shows.
    pub fn run(self) -> Outcome {
        let store = self.store.open()?;
        let mut space = store.space()?;
        if self.retention.is_some() || self.limit.is_some() {
            space.retention = self.retention.unwrap_or(space.retention);
            space.limit = self.limit.unwrap_or(space.limit);
            store.set_space(&space).map_err(Failure::of_words)?;
        }
        let facts = facts(&space);
        let limit = match facts.limit {
            0 => "no limit".to_owned(),
            limit => format!("a limit of {}", keep::bytes_text(limit)),
        };
        let text = format_args!("the log is kept {}, with {limit}", kept(space.retention));
        output::tell(self.json, &facts, text)
    }
}

fn facts(space: &Settings) -> Facts {
    Facts {
        retention: keep::text(space.retention),
        limit: space.limit,
        compress: space.compress,
        archive: space.archive.as_ref().map(|path| path.display().to_string()),
    }
}

fn kept(retention: Retention) -> String {
    let text = keep::text(retention);
    match retention {
        Retention::Forever | Retention::UntilScanned => text,
        Retention::Age(_) => format!("for {text}"),
        Retention::Bytes(_) => format!("as far as its newest {text}"),
    }
}
