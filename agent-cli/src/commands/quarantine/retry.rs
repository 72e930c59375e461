//! `milepost quarantine retry`: what could not be applied is tried again, with the hook if one is named.

use std::collections::BTreeSet;

use clap::Args;
use milepost_engine::{Lsn, SiteName, Store};
use milepost_replication::agent::retry_set_aside;
use milepost_replication::hooks::SharedHooks;
use milepost_replication::quarantine::{HeldTransaction, Quarantine, Retried, held};
use milepost_replication::receive::quarantined;
use serde::Serialize;

use super::facts::name_of;
use super::{Case, find, held_by_an_agent};
use crate::commands::store_dir::{self, StoreDir};
use crate::failure::{EXIT_CODES, Exit, Failure, Outcome};
use crate::hook::HookArgs;
use crate::output;

/// Try again to apply one of them, or all.
///
/// A held transaction is applied at a new LSN with its origin, then those that are held behind it, in order, up to the first that is
/// refused again. Each is applied once, wherever the command is killed. With --hook the program rules as it does for the
/// agent; without it nobody vetoes. A message that was set aside is received again from its copy; where it also waits on its
/// link it is a duplicate from then on. No agent may receive meanwhile. Exit 5 when something is refused again.
#[derive(Args)]
#[command(
    override_usage = "milepost quarantine retry DIR {ID | --all [--remote SITE]} [--hook PROGRAM]",
    after_long_help = format!(
        "Examples:\n  milepost quarantine retry shop 40960\n  milepost quarantine retry shop --all --remote hq --hook ./rules\n\n{EXIT_CODES}"
    )
)]
pub struct Retry {
    #[command(flatten)]
    store: StoreDir,
    /// Its name in `quarantine list`
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    id: Option<String>,
    /// All of them, in their order; one that is refused again keeps up those behind it alone
    #[arg(long)]
    all: bool,
    /// With --all: only what came from this one
    #[arg(long, value_name = "SITE", requires = "all")]
    remote: Option<SiteName>,
    #[command(flatten)]
    hook: HookArgs,
    /// Print one JSON object for each: id, outcome (applied, here, refused), lsn, events, reason
    #[arg(long)]
    json: bool,
}

/// What became of one.
#[derive(Serialize)]
struct Told {
    id: String,
    outcome: &'static str,
    lsn: Option<u64>,
    events: Option<u32>,
    reason: Option<String>,
}

/// What became of all.
#[derive(Default)]
struct Course {
    json: bool,
    tried: usize,
    refused: usize,
    /// The first line that could not be printed.
    untold: Option<Failure>,
}

impl Retry {
    pub fn run(self) -> Outcome {
        let store = self.store.open_site()?;
        let hooks = self.hook.start(store.site())?;
        let mut course = Course {
            json: self.json,
            ..Course::default()
        };
        match &self.id {
            Some(id) => match find(&store, id)? {
                Case::Transaction(one) => course.transaction(&store, hooks, one.id)?,
                Case::Message(one) => course.messages(&store, hooks, &BTreeSet::from([one.file]))?,
            },
            None => self.retry_all(&store, hooks, &mut course)?,
        }
        store_dir::close(store)?;
        course.end()
    }

    /// What is held came before what was set aside of the same remote.
    fn retry_all(&self, store: &Store, hooks: SharedHooks, course: &mut Course) -> Outcome {
        if !held(store)?.is_empty() {
            let mut operator = Quarantine::open(store, hooks.clone()).map_err(held_by_an_agent)?;
            operator.retry_all(self.remote.as_ref(), &mut |one, retried| {
                course.told(one, retried)
            })?;
        }
        let asked = |sender: &str| self.remote.as_ref().is_none_or(|asked| asked.as_str() == sender);
        let aside = quarantined(store)?.into_iter().filter(|one| asked(&one.sender));
        let files: BTreeSet<String> = aside.map(|one| one.file).collect();
        match files.is_empty() {
            true => Ok(()),
            false => course.messages(store, hooks, &files),
        }
    }
}

impl Course {
    fn transaction(&mut self, store: &Store, hooks: SharedHooks, id: Lsn) -> Outcome {
        let mut operator = Quarantine::open(store, hooks).map_err(held_by_an_agent)?;
        operator.retry_on(id, &mut |one, retried| self.told(one, retried))?;
        Ok(())
    }

    fn messages(&mut self, store: &Store, hooks: SharedHooks, files: &BTreeSet<String>) -> Outcome {
        let done = retry_set_aside(store, hooks, files).map_err(held_by_an_agent)?;
        for file in files {
            let refused = done.refused.iter().find(|one| one.message.as_str() == file);
            let outcome = match refused {
                None if done.taken.contains(file) => "applied",
                // It stands behind something that was not retried or has not come yet.
                None => "waits",
                Some(_) => "refused",
            };
            self.tell(Told {
                id: name_of(file).to_owned(),
                outcome,
                lsn: None,
                events: None,
                reason: refused.map(|one| one.reason.clone()),
            });
        }
        Ok(())
    }

    fn told(&mut self, one: &HeldTransaction, retried: &Retried) {
        let mut told = Told {
            id: one.id.0.to_string(),
            outcome: "here",
            lsn: None,
            events: None,
            reason: None,
        };
        match retried {
            Retried::Here => {}
            Retried::Applied(lsn, events) => {
                (told.outcome, told.lsn, told.events) = ("applied", Some(lsn.0), Some(*events));
            }
            Retried::Refused(why) => {
                (told.outcome, told.reason) = ("refused", Some(why.clone()));
            }
        }
        self.tell(told);
    }

    fn tell(&mut self, told: Told) {
        self.tried += 1;
        self.refused += usize::from(told.outcome == "refused" || told.outcome == "waits");
        let id = output::shown(&told.id);
        let text = match (told.outcome, told.lsn, &told.reason) {
            ("applied", Some(lsn), _) => format!("{id}  applied at LSN {lsn}"),
            ("applied", ..) => format!("{id}  applied"),
            ("here", ..) => format!("{id}  was here already, and is held no longer"),
            ("waits", ..) => format!("{id}  waits for what comes before it"),
            (_, _, reason) => {
                let reason = reason.as_deref().unwrap_or_default();
                format!("{id}  refused again: {}", output::shown(reason))
            }
        };
        // Whatever is printed, what was begun is ended.
        if let Err(failure) = output::tell(self.json, &told, format_args!("{text}")) {
            self.untold.get_or_insert(failure);
        }
    }

    fn end(self) -> Outcome {
        if let Some(failure) = self.untold {
            return Err(failure);
        }
        match self.refused {
            0 => Ok(()),
            refused => Err(Failure::new(
                Exit::Quarantine,
                format!(
                    "{refused} of {} still need an operator; see `milepost quarantine list`",
                    self.tried
                ),
            )),
        }
    }
}
