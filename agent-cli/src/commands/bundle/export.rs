//! `milepost bundle export`: makes one bundle a remote.

use std::path::PathBuf;

use clap::Args;
use clap::builder::FalseyValueParser;
use milepost_engine::{ErrorKind, SiteName, Store};
use milepost_replication::agent::{AgentOptions, GO_ON};
use milepost_replication::bundle::{Cut, ExportOptions, Made, Outcome as Exported, export_with};
use milepost_replication::hooks::SharedHooks;
use serde::Serialize;

use super::super::store_dir::StoreDir;
use super::counted;
use crate::arguments::size;
use crate::failure::{EXIT_CODES, Exit, Failure, Outcome};
use crate::hook::HookArgs;
use crate::output;

/// Make a bundle of all that a remote is due, and count it as sent.
///
/// What was committed until now is scanned and written to a file of its own in the folder --to, or to a file of that name, which
/// must not exist yet. The file gets its name once it is whole and synced; before that nothing counts as sent, so an export
/// that fails or is killed is simply made again. The next bundle begins where this one ends. A bundle that got lost need not be
/// told: the way back shows it, and what it held goes again. To save that way, --again sends everything that is not
/// confirmed. Nothing is due: no file is made, and that is success. With --hook a program is told of the phases and of each message, once the
/// bundle has its name.
#[derive(Args)]
#[command(
    override_usage = "milepost bundle export DIR --remote SITE... --to FILE|FOLDER",
    after_long_help = format!(
        "Examples:\n  milepost bundle export hq --remote island --to /media/stick\n  \
         milepost bundle export hq --remote island --to /media/stick --max-bytes 2G\n  \
         milepost bundle export hq --remote island --to /media/stick --again\n\n{EXIT_CODES}"
    )
)]
pub struct Export {
    #[command(flatten)]
    store: StoreDir,
    /// For which remotes: a bundle for each
    #[arg(long = "remote", value_name = "SITE", num_args = 1.., required = true)]
    remotes: Vec<SiteName>,
    /// A folder, or for one remote the name of a file that is not there yet
    #[arg(long, value_name = "FILE|FOLDER")]
    to: PathBuf,
    /// Send everything that is not confirmed, though it was in bundles before
    #[arg(long)]
    again: bool,
    /// Largest bundle, as 500M or 2G; what does not fit is for the next one, also of a transaction that is longer
    #[arg(long, value_name = "N", value_parser = size::parse)]
    max_bytes: Option<u64>,
    /// Largest message in bytes, at least 10000; longer transactions take several
    #[arg(long, value_name = "N", default_value = "50000", env = "MILEPOST_MESSAGE_BYTES", value_parser = size::parse)]
    message_bytes: u64,
    /// Send, and let the remote free, only what the last `milepost backup` holds
    #[arg(short = 'u', long, env = "MILEPOST_ONLY_BACKED_UP", value_parser = FalseyValueParser::new())]
    only_backed_up: bool,
    #[command(flatten)]
    hook: HookArgs,
    /// Print one JSON object for each remote: remote, path, number, id, messages, transactions, bytes, more, acknowledges; without
    /// a bundle the path is null
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Facts {
    remote: String,
    path: Option<PathBuf>,
    number: Option<u64>,
    id: Option<String>,
    messages: u32,
    transactions: u64,
    bytes: u64,
    more: bool,
    cut: Option<Cut>,
    acknowledges: Vec<(u64, u64)>,
}

impl Export {
    /// Makes the bundles.
    pub fn run(self) -> Outcome {
        let check = AgentOptions {
            message_bytes: self.message_bytes,
            ..AgentOptions::default()
        };
        check.check().map_err(|error| Failure::usage(error.to_string()))?;
        if self.remotes.len() > 1 && !self.to.is_dir() {
            return Err(Failure::usage(format!(
                "--to {}: bundles for several remotes go into a folder, and this is none",
                self.to.display()
            )));
        }
        let store = self.store.open_site()?;
        let hooks = self.hook.start(store.site())?;
        for remote in &self.remotes {
            self.one(&store, remote, &hooks)?;
        }
        Ok(store.close()?)
    }

    fn one(&self, store: &Store, remote: &SiteName, hooks: &SharedHooks) -> Outcome {
        let options = ExportOptions {
            to: self.to.clone(),
            again: self.again,
            most_bytes: self.max_bytes,
            message_bytes: self.message_bytes,
            only_backed_up: self.only_backed_up,
        };
        let made =
            export_with(store, remote, &options, hooks.clone()).map_err(|error| match error.kind() {
                ErrorKind::Conflict => Failure::new(Exit::Held, error.to_string()),
                _ => Failure::of_words(error),
            })?;
        match made {
            Exported::Made(made) => {
                let facts = facts(remote, Some(&made));
                output::tell(self.json, &facts, format_args!("{}", text(&made)))
            }
            Exported::NothingDue => {
                let text = format!("nothing is due to {remote}; no bundle was made");
                output::tell(self.json, &facts(remote, None), format_args!("{text}"))
            }
            Exported::Suspended(reason) => Err(Failure::new(
                Exit::Quarantine,
                format!("remote {remote} is suspended: {reason}"),
            )),
            Exported::Stopped(reason) => Err(Failure::new(
                Exit::Quarantine,
                format!("the pair with {remote} is stopped: {reason}; {GO_ON}"),
            )),
        }
    }
}

fn facts(remote: &SiteName, made: Option<&Made>) -> Facts {
    let header = made.map(|made| &made.header);
    Facts {
        remote: remote.to_string(),
        path: made.map(|made| made.path.clone()),
        number: header.map(|header| header.number),
        id: header.map(|header| format!("{:032x}", header.id)),
        messages: header.map_or(0, |header| header.count),
        transactions: made.map_or(0, |made| made.transactions),
        bytes: header.map_or(0, |header| header.bytes),
        more: header.is_some_and(|header| header.more),
        cut: made.and_then(|made| made.cut),
        acknowledges: header.map_or_else(Vec::new, |header| header.acknowledged.as_slice().to_vec()),
    }
}

fn text(made: &Made) -> String {
    let header = &made.header;
    let more = match made.cut {
        _ if !header.more => String::new(),
        None => "; more is due than fits: export again to another stick".to_owned(),
        Some(cut) => format!(
            "; transaction {} of {} bytes did not fit whole: export again to another stick, and carry both",
            cut.lsn, cut.bytes
        ),
    };
    format!(
        "bundle {} for {}: {} in {}, {} bytes, {}{more}",
        header.number,
        header.to,
        counted(made.transactions, "transaction"),
        counted(header.count.into(), "message"),
        header.bytes,
        output::shown(&made.path.display().to_string())
    )
}
