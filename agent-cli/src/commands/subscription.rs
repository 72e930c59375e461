//! `milepost subscription`: which remote is due what.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use milepost_engine::SiteName;
use milepost_replication::catalog::{
    Catalog, Definitions, NewSubscription, Start, Subscription as Due, SubscriptionId,
};

use super::bulk;
use super::store_dir::StoreDir;
use crate::failure::{EXIT_CODES, Failure, Outcome};
use crate::output;

/// Say which remote is due which publication.
#[derive(Args)]
pub struct Subscription {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    Add(Add),
    List(List),
    Remove(Remove),
}

/// Give a remote a publication, with a value where the publication asks for one.
///
/// It is due the commits from the start on: those from now on, those at or behind an LSN, or all of the
/// log's history. A start before the oldest retained position is refused, and the message names that.
///
/// --file makes many in one go, all or none: the first that cannot be made is named by its line. What a remote has already is passed over, so the
/// same list may be given again.
#[derive(Args)]
#[command(after_long_help = format!(
    "Examples:\n  milepost subscription add hq --remote shop1 --publication orders --value bern\n  \
     milepost subscription add shop1 --remote hq --publication sales --from beginning\n  \
     milepost subscription add hq --file subscriptions.json\n\n{EXIT_CODES}"
))]
struct Add {
    #[command(flatten)]
    store: StoreDir,
    #[command(flatten)]
    what: What,
    /// Many subscriptions: a file, or - for standard input, with one JSON object a line: remote, publication, value, start
    #[arg(long, value_name = "FILE", conflicts_with_all = ["remote", "publication", "value", "from"])]
    file: Option<PathBuf>,
    /// Where it starts: beginning, now, or an LSN
    #[arg(long, value_name = "beginning|now|LSN", default_value = "now", value_parser = start)]
    from: Start,
    /// Print the subscription as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct What {
    /// Who is due
    #[arg(long, value_name = "SITE", required_unless_present = "file")]
    remote: Option<SiteName>,
    /// What
    #[arg(long, value_name = "NAME", required_unless_present = "file")]
    publication: Option<String>,
    /// The value chosen, where the publication asks for one
    #[arg(long, value_name = "V")]
    value: Option<String>,
}

/// List the subscriptions in force.
#[derive(Args)]
#[command(after_long_help = format!("Example:\n  milepost subscription list hq --remote shop1 --json\n\n{EXIT_CODES}"))]
struct List {
    #[command(flatten)]
    store: StoreDir,
    /// Only those of this remote
    #[arg(long, value_name = "SITE")]
    remote: Option<SiteName>,
    /// Only those to this publication
    #[arg(long, value_name = "NAME")]
    publication: Option<String>,
    /// Those that have ended as well
    #[arg(long)]
    all: bool,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// End a subscription: earlier commits still go, or with --revoke no longer.
///
/// With --revoke what was not sent yet is dropped, unless another subscription of the remote wants it too.
#[derive(Args)]
#[command(after_long_help = format!(
    "Examples:\n  milepost subscription remove hq --remote shop1 --publication orders --value bern\n  \
     milepost subscription remove hq --id 81920 --revoke\n\n{EXIT_CODES}"
))]
struct Remove {
    #[command(flatten)]
    store: StoreDir,
    /// Who is due
    #[arg(
        long,
        value_name = "SITE",
        required_unless_present = "id",
        conflicts_with = "id"
    )]
    remote: Option<SiteName>,
    /// What
    #[arg(
        long,
        value_name = "NAME",
        required_unless_present = "id",
        conflicts_with = "id"
    )]
    publication: Option<String>,
    /// The value chosen
    #[arg(long, value_name = "V", conflicts_with = "id")]
    value: Option<String>,
    /// The subscription's id, as `subscription list` shows it
    #[arg(long, value_name = "ID")]
    id: Option<SubscriptionId>,
    /// Drop what is unsent
    #[arg(long)]
    revoke: bool,
    /// Print the subscription as one JSON object
    #[arg(long)]
    json: bool,
}

impl Subscription {
    /// Runs the action.
    pub fn run(self) -> Outcome {
        match self.action {
            Action::Add(add) => add.run(),
            Action::List(list) => list.run(),
            Action::Remove(remove) => remove.run(),
        }
    }
}

impl Add {
    fn run(self) -> Outcome {
        let store = self.store.open_site()?;
        let What {
            remote,
            publication,
            value,
        } = self.what;
        let (Some(remote), Some(publication)) = (remote, publication) else {
            if let Some(file) = &self.file {
                bulk::subscriptions(&store, file, self.json)?;
            }
            return Ok(store.close()?);
        };
        let new = NewSubscription {
            remote,
            publication,
            value,
            start: self.from,
        };
        let made = Definitions::new(&store).add_subscription(new)?;
        output::tell(self.json, &made, format_args!("{}", text(&made)))?;
        Ok(store.close()?)
    }
}

impl List {
    fn run(self) -> Outcome {
        let store = self.store.open_site()?;
        let catalog = Definitions::new(&store).catalog()?;
        let (site, publication) = (self.remote.as_ref(), self.publication.as_ref());
        let asked = |due: &&Due| {
            (self.all || due.is_in_force())
                && site.is_none_or(|site| *site == due.remote)
                && publication.is_none_or(|name| *name == due.publication)
        };
        output::list(self.json, catalog.subscriptions().filter(asked), text).map(|_| ())
    }
}

impl Remove {
    fn run(self) -> Outcome {
        let store = self.store.open_site()?;
        let definitions = Definitions::new(&store);
        let id = match self.id {
            Some(id) => id,
            None => self.find(&definitions.catalog()?)?,
        };
        let ended = definitions.remove_subscription(id, self.revoke)?;
        output::tell(self.json, &ended, format_args!("{}", text(&ended)))?;
        Ok(store.close()?)
    }

    fn find(&self, catalog: &Catalog) -> Outcome<SubscriptionId> {
        let matches = |due: &&Due| {
            due.is_in_force()
                && self.remote.as_ref() == Some(&due.remote)
                && self.publication.as_ref() == Some(&due.publication)
                && self.value == due.value
        };
        let found = catalog.subscriptions().find(matches).map(|due| due.id);
        found.ok_or_else(|| {
            Failure::failed("there is no such subscription in force; see `milepost subscription list`")
        })
    }
}

fn text(due: &Due) -> String {
    let value = due
        .value
        .as_ref()
        .map_or_else(String::new, |value| format!(" with value {value}"));
    let until = match (due.until, due.revoked) {
        (None, _) => String::new(),
        (Some(until), None) => format!(", ended at LSN {until}"),
        (Some(until), Some(at)) if at == until => format!(", revoked at LSN {at}"),
        (Some(until), Some(at)) => format!(", ended at LSN {until}, revoked at LSN {at}"),
    };
    format!(
        "subscription {}: {} gets {}{value} from LSN {}{until}",
        due.id, due.remote, due.publication, due.from
    )
}

pub(super) fn start(text: &str) -> Result<Start, String> {
    match text {
        "now" => Ok(Start::Now),
        "beginning" => Ok(Start::Beginning),
        number => match number.parse() {
            Ok(lsn) => Ok(Start::At(lsn)),
            Err(_) => Err(format!("{text:?} is not beginning, now or an LSN")),
        },
    }
}
