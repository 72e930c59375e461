//! `milepost hold`: named claims on the log, which keep it from being freed.

use std::time::Duration;

use clap::{Args, Subcommand};
use milepost_engine::{Hold as Claim, Lsn, NamedHold};
use serde::Serialize;

use super::stat::damaged;
use super::store_dir::StoreDir;
use crate::arguments::{moment, pause};
use crate::failure::{EXIT_CODES, Failure, Outcome};
use crate::output;

/// Show, take and drop holds: who keeps the log from being freed, and from where on.
///
/// A hold keeps everything above its position until it is dropped, moved on by its owner, or its time is over.
/// Replication takes one by itself and keeps it; a backup holds the log only while it runs, so what is freed between two
/// of its runs goes, also where no backup has it: take a hold for that. One for yourself keeps what a program of yours
/// still has to read. A hold whose file is damaged keeps everything; `hold list` shows it, and exits 6.
#[derive(Args)]
#[command(after_long_help = format!(
    "Examples:\n  milepost hold list shop\n  milepost hold add shop nightly --owner ops --expires 2d\n  milepost hold drop shop nightly\n\n{EXIT_CODES}"
))]
pub struct Hold {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Show all holds
    List(List),
    /// Take a hold, or move it
    Add(Add),
    /// Drop a hold
    Drop(Drop),
}

#[derive(Args)]
struct List {
    #[command(flatten)]
    store: StoreDir,
    /// Print one JSON object a line: name, kind, lsn, owner, since, expires, expired, damage
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Add {
    #[command(flatten)]
    store: StoreDir,
    /// Its name: 1 to 64 characters of a-z 0-9 . _ - without a leading dot
    name: String,
    /// Keep what is above this LSN; without it, all that the log still has
    #[arg(long, value_name = "LSN")]
    from: Option<u64>,
    /// Whose it is, for people
    #[arg(long, value_name = "TEXT", default_value = "an operator")]
    owner: String,
    /// When it ends by itself: 90m, 12h, 30d from now
    #[arg(long, value_name = "SPAN", value_parser = pause::seconds)]
    expires: Option<Duration>,
}

#[derive(Args)]
struct Drop {
    #[command(flatten)]
    store: StoreDir,
    /// Its name
    name: String,
}

#[derive(Serialize)]
struct Facts {
    name: String,
    kind: Option<String>,
    lsn: u64,
    owner: Option<String>,
    since: Option<i64>,
    expires: Option<i64>,
    expired: bool,
    damage: Option<String>,
}

impl Hold {
    /// Does what is asked for.
    pub fn run(self) -> Outcome {
        match self.what {
            What::List(list) => list.run(),
            What::Add(add) => add.run(),
            What::Drop(drop) => drop.run(),
        }
    }
}

impl List {
    fn run(self) -> Outcome {
        let store = self.store.open()?;
        let holds: Vec<Facts> = store.holds()?.iter().map(facts).collect();
        output::list(self.json, holds.iter(), text)?;
        match holds.iter().filter(|hold| hold.damage.is_some()).count() {
            0 => Ok(()),
            1 => Err(damaged("a hold is damaged")),
            many => Err(damaged(&format!("{many} holds are damaged"))),
        }
    }
}

impl Add {
    fn run(self) -> Outcome {
        if self.expires == Some(Duration::ZERO) {
            return Err(Failure::usage(
                "--expires 0: a hold whose time is over holds nothing; say how long from now, or leave it out",
            ));
        }
        let store = self.store.open()?;
        let expires = self.expires.map(|span| {
            let micros = i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
            store.clock().wall_micros().saturating_add(micros)
        });
        let claim = Claim {
            expires,
            ..Claim::new("operator", &self.owner, Lsn(self.from.unwrap_or(0)))
        };
        let held = match self.from {
            Some(_) => store.hold(&self.name, &claim),
            // Where the log begins is known to who takes it: another process may free meanwhile.
            None => store.move_hold(&self.name, |_| Ok(Some(claim))).map(drop),
        };
        held.map_err(Failure::of_words)
    }
}

impl Drop {
    fn run(self) -> Outcome {
        let store = self.store.open()?;
        if store.drop_hold(&self.name).map_err(Failure::of_words)? {
            return Ok(());
        }
        Err(Failure::failed(format!(
            "there is no hold {}; see `milepost hold list`",
            output::shown(&self.name)
        )))
    }
}

fn facts(held: &NamedHold) -> Facts {
    let hold = held.hold.as_ref().ok();
    Facts {
        name: held.name.clone(),
        kind: hold.map(|hold| hold.kind.clone()),
        lsn: hold.map_or(0, |hold| hold.lsn.0),
        owner: hold.map(|hold| hold.owner.clone()),
        since: hold.map(|hold| hold.since),
        expires: hold.and_then(|hold| hold.expires),
        expired: held.expired,
        damage: held.hold.as_ref().err().map(ToString::to_string),
    }
}

fn text(facts: &Facts) -> String {
    let name = output::shown(&facts.name);
    if let Some(damage) = &facts.damage {
        return format!("{name}  holds everything: {}", output::shown(damage));
    }
    let words = |text: &Option<String>| output::shown(text.as_deref().unwrap_or_default()).into_owned();
    let since = facts.since.map(moment::text).unwrap_or_default();
    let ends = match facts.expires {
        Some(at) if facts.expired => format!("over since {}", moment::text(at)),
        Some(at) => format!("until {}", moment::text(at)),
        None => "without an end".to_owned(),
    };
    format!(
        "{name}  from LSN {}  {} of {}, since {since}, {ends}",
        facts.lsn,
        words(&facts.kind),
        words(&facts.owner)
    )
}
