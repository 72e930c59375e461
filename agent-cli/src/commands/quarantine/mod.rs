//! `milepost quarantine`: what could not be applied, and what an operator does about it.
//!
//! Three kinds, one list: transactions that are held in the log (a remote with `--on-error go-on`), named by the LSN of the frame that
//! keeps them; messages that were set aside in files and wait on their link, named by their file; and copies of messages that came damaged
//! over and over.

mod facts;
mod retry;
mod show;

use clap::{Args, Subcommand};
use milepost_engine::{Lsn, SiteName};
use milepost_replication::quarantine::{HeldTransaction, Quarantine as Operator, held};
use milepost_replication::receive::{Quarantined, drop_set_aside, quarantined};
use serde::Serialize;

use super::store_dir::{self, StoreDir};
use crate::failure::{EXIT_CODES, Exit, Failure, Outcome};
use crate::output;
use facts::Facts;

/// List, show, retry and drop what could not be applied.
///
/// A transaction that the hook of the agent vetoes, or that may have been received before and nobody knows any more, is
/// handled by the policy of its remote (`remote add --on-error`). By `stop` its message is set aside: it waits on its link, a
/// copy is kept here, and nothing that follows it is applied. By `go-on` it is held in the log, with what shares a stream with it, and all
/// else goes on. Messages that cannot be taken as a whole (another history, a loop) are set aside always. Of messages
/// that come damaged for the third time, or that are not surely of their sender, at most four copies of a remote are kept until what they
/// should have brought is here. Nothing of it counts as
/// applied, and the site that sent it is told.
#[derive(Args)]
#[command(after_long_help = format!(
    "Examples:\n  milepost quarantine list shop\n  milepost quarantine show shop 40960\n  \
     milepost quarantine retry shop 40960\n  milepost quarantine retry shop --all --remote hq\n  \
     milepost quarantine drop shop 40960 --yes --reason 'booked by hand'\n\n{EXIT_CODES}"
))]
pub struct Quarantine {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    List(List),
    Show(show::Show),
    Retry(retry::Retry),
    Drop(Drop),
}

/// List what could not be applied, with the reasons.
#[derive(Args)]
#[command(after_long_help = format!("Example:\n  milepost quarantine list shop --json\n\n{EXIT_CODES}"))]
struct List {
    #[command(flatten)]
    store: StoreDir,
    /// Only what came from this one
    #[arg(long, value_name = "SITE")]
    remote: Option<SiteName>,
    /// Print one JSON object a line: id, type, remote, since, reason, what, bytes, events, refusals, behind, holds
    #[arg(long)]
    json: bool,
}

/// Drop one of them for ever.
///
/// A held transaction is never applied then: a frame says so with the reason, and those held behind it can be retried; here
/// nobody gets it any more, and what this site passes on lacks it. Of a message that was set aside the copy goes, and the message waits on
/// its link as before: to get past a transaction, set `--on-error go-on` for its remote, let an agent receive, and drop what is held.
#[derive(Args)]
#[command(after_long_help = format!(
    "Example:\n  milepost quarantine drop shop 40960 --yes --reason 'booked by hand'\n\n{EXIT_CODES}"
))]
struct Drop {
    #[command(flatten)]
    store: StoreDir,
    /// Its name in `quarantine list`
    id: String,
    /// Yes, drop it
    #[arg(long)]
    yes: bool,
    /// Why, for who reads the log later
    #[arg(long, value_name = "TEXT", default_value = "dropped by an operator")]
    reason: String,
    /// Print what was dropped as one JSON object: dropped, type
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Dropped<'a> {
    dropped: &'a str,
    r#type: &'a str,
}

/// One of what could not be applied.
enum Case {
    Transaction(Box<HeldTransaction>),
    Message(Quarantined),
}

impl Quarantine {
    /// Does what is asked for.
    pub fn run(self) -> Outcome {
        match self.what {
            What::List(list) => list.run(),
            What::Show(show) => show.run(),
            What::Retry(retry) => retry.run(),
            What::Drop(drop) => drop.run(),
        }
    }
}

impl List {
    fn run(self) -> Outcome {
        let store = self.store.open_site()?;
        let asked = |remote: &str| self.remote.as_ref().is_none_or(|asked| asked.as_str() == remote);
        let mut all = Vec::new();
        for one in held(&store)?.into_iter().filter(|one| asked(one.remote.as_str())) {
            all.push(Facts::of(&Case::Transaction(Box::new(one)), &store));
        }
        for one in quarantined(&store)?.into_iter().filter(|one| asked(&one.sender)) {
            all.push(Facts::of(&Case::Message(one), &store));
        }
        output::list(self.json, all.iter(), Facts::text)?;
        Ok(store.close()?)
    }
}

impl Drop {
    fn run(self) -> Outcome {
        if !self.yes {
            return Err(Failure::usage(format!(
                "drop {}: what is dropped is never applied; look at it with `milepost quarantine show`, then say --yes",
                output::shown(&self.id)
            )));
        }
        let store = self.store.open_site()?;
        let kind = match find(&store, &self.id)? {
            Case::Transaction(one) => {
                let mut operator = Operator::open(&store, None).map_err(held_by_an_agent)?;
                operator.drop(one.id, &self.reason)?;
                "transaction"
            }
            Case::Message(one) => {
                drop_set_aside(&store, &one.file).map_err(held_by_an_agent)?;
                facts::kind_of(&one)
            }
        };
        let dropped = Dropped {
            dropped: &self.id,
            r#type: kind,
        };
        let after = match kind {
            "message" => "; the message itself still waits on its link",
            "damaged" => " message; what it should have brought is asked for as before",
            _ => "",
        };
        output::tell(
            self.json,
            &dropped,
            format_args!("dropped {kind} {}{after}", output::shown(&self.id)),
        )?;
        store_dir::close(store)
    }
}

/// What has this name in `quarantine list`.
fn find(store: &milepost_engine::Store, id: &str) -> Outcome<Case> {
    let none = || {
        Failure::failed(format!(
            "nothing in quarantine has the name {}; see `milepost quarantine list`",
            output::shown(id)
        ))
    };
    if let Ok(lsn) = id.parse::<u64>() {
        let found = held(store)?.into_iter().find(|one| one.id == Lsn(lsn));
        return found.map(|one| Case::Transaction(Box::new(one))).ok_or_else(none);
    }
    let found = quarantined(store)?
        .into_iter()
        .find(|one| facts::name_of(&one.file) == id);
    found.map(Case::Message).ok_or_else(none)
}

/// Who may not apply beside an agent is told which one has the phase.
fn held_by_an_agent(error: milepost_engine::Error) -> Failure {
    match error.kind() {
        milepost_engine::ErrorKind::Conflict => Failure::new(Exit::Held, error.to_string())
            .then("stop that agent first, and start it again afterwards"),
        _ => Failure::from(error),
    }
}
