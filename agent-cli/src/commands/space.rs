//! `milepost space`: how long the log is kept and how much it may take.

use clap::Args;
use milepost_engine::{ErrorKind, Retention, Space as Settings, Store};
use serde::Serialize;

use super::store_dir::StoreDir;
use crate::arguments::{keep, size};
use crate::failure::{EXIT_CODES, Failure, Outcome};
use crate::output;

/// Show or set how long the log is kept and how much it may take.
///
/// With nothing to set it shows. What is set is followed by every process that has the store open. Segments that
/// need not be kept are freed as a whole, the oldest first, by age also while nobody commits (whoever has the store open looks
/// once a minute, and append and import before they end; `milepost stat` says when): never what the scan phase has not passed, nor what
/// somebody holds (`milepost hold list`). Versions of streams and pinned records stay as they are, and whoever reads
/// what was freed is told so. Nothing goes by age while the clock is more than a day from the newest time in the log: it may have jumped, and
/// --clock-is-right says that it did not. At the limit a commit fails and says who keeps the log; the last segment is a reserve
/// for small records without events, so that there is a way out. Settings whose file is damaged are made anew with
/// both --retention and --limit.
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
    /// Let limits by age act again after the clock jumped, or nothing was written for more than a day: it is right now
    #[arg(long)]
    clock_is_right: bool,
    /// Free now what need not be kept; the store's processes do so by themselves
    #[arg(long)]
    free: bool,
    /// Print the settings as one JSON object: retention, limit, compress, archive; with --free, freed (segments)
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Facts {
    retention: String,
    limit: u64,
    compress: bool,
    archive: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    freed: Option<u64>,
}

impl Space {
    /// Sets what is asked for, and shows.
    pub fn run(self) -> Outcome {
        let sets = self.retention.is_some() || self.limit.is_some();
        // What waits in mailboxes is known by no hold.
        let store = if sets {
            self.store.open_site()?
        } else {
            self.store.open()?
        };
        if self.clock_is_right {
            store.confirm_clock()?;
        }
        let space = if sets { self.set(&store)? } else { store.space()? };
        let freed = self.free.then(|| store.free()).transpose();
        let freed = freed.map_err(|error| {
            let next = super::archive::where_to(&error);
            let failure = Failure::from(error);
            if next.is_empty() {
                failure
            } else {
                failure.then(&format!("free something{next}"))
            }
        })?;
        if freed == Some(0) {
            tell_damaged_holds(&store)?;
        }
        let facts = facts(&space, freed);
        let limit = match facts.limit {
            0 => "no limit".to_owned(),
            limit => format!("a limit of {}", keep::bytes_text(limit)),
        };
        let freed = freed.map_or_else(String::new, |freed| format!("; segments freed: {freed}"));
        let text = format_args!("the log is kept {}, with {limit}{freed}", kept(space.retention));
        output::tell(self.json, &facts, text)
    }

    /// Changes what is asked for. Damaged settings are made anew when all that this command sets is given.
    fn set(&self, store: &Store) -> Outcome<Settings> {
        let change = |space: &mut Settings| {
            space.retention = self.retention.unwrap_or(space.retention);
            space.limit = self.limit.unwrap_or(space.limit);
        };
        match (store.change_space(change), self.retention, self.limit) {
            (Err(error), Some(retention), Some(limit)) if error.kind() == ErrorKind::Corrupt => {
                let space = Settings {
                    retention,
                    limit,
                    ..Settings::default()
                };
                store.set_space(&space).map_err(Failure::of_words)?;
                tracing::warn!(
                    "the settings were damaged and are made anew: whether segments are compressed, and where the archive \
                     is, is to be set again by `milepost compress --always` and `milepost archive --to`"
                );
                Ok(space)
            }
            (changed, ..) => changed.map_err(Failure::of_words),
        }
    }
}

/// Why nothing goes, when a hold that cannot be read keeps everything.
fn tell_damaged_holds(store: &Store) -> Outcome {
    for held in store.holds()? {
        if let Err(error) = held.hold {
            tracing::warn!("nothing was freed: {error}");
        }
    }
    Ok(())
}

fn facts(space: &Settings, freed: Option<u64>) -> Facts {
    Facts {
        retention: keep::text(space.retention),
        limit: space.limit,
        compress: space.compress,
        archive: space.archive.as_ref().map(|path| path.display().to_string()),
        freed,
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
