//! `milepost remote rejoin`: why a pair is stopped, the ways on, and the one that was chosen.

use clap::{ArgGroup, Args};
use milepost_engine::{SiteName, Store};
use milepost_replication::catalog::Remote;
use milepost_replication::rejoin::{Parting, Resume, rejoin};
use milepost_replication::tracking::StopReason;
use serde::Serialize;

use super::store_dir::StoreDir;
use crate::failure::{EXIT_CODES, Failure, Outcome};
use crate::output;
use crate::progress::Progress;

/// Say why a pair is stopped and what the ways on are; go one of them when told which.
///
/// A pair stops when one of its two sites is found to have gone back in time: restored from a backup, or its folder put back
/// from a copy, behind what the other one has of it. Nothing else stops. Without a choice nothing is changed: the reason is told, up to
/// where both have the same history as far as this site can know, and how many transactions are here that the other has lost.
///
/// --again makes the pair anew in its place, with its links, schedule, limits and subscriptions, and goes on behind the
/// last transaction that both have. --from-beginning has all of the remote's stream come once more, where nobody knows that point.
/// Either way nothing is doubled: what is here is known and left out; and nothing is taken back: what the other site lost stays here.
/// Of a remote that frees its log not all may be there any more: then the pair stops there for that, and `milepost resync` is the way.
/// One site is enough, where the pair is stopped; the other follows when it hears of it. To make both alike again, make the store
/// of one of them anew: `milepost resync`.
///
/// --other-store accepts another store under the remote's name, made by hand instead of by extract, resync or restore: whichever of them comes
/// first is the remote, and what was known of the former one is forgotten.
///
/// A folder that was put back from a copy of its files says nothing of it, which a restored backup does: let it begin a lineage of its own
/// there, with `milepost repair DIR --new-lineage`, before you choose.
#[derive(Args)]
#[command(
    override_usage = "milepost remote rejoin DIR [SITE | --all] [--again | --from-beginning | --other-store]",
    group = ArgGroup::new("choice"),
    group = ArgGroup::new("which"),
    after_long_help = format!(
        "Examples:\n  milepost remote rejoin hq\n  milepost remote rejoin hq shop --again\n  milepost remote rejoin hq --all \
         --again --json\n\n{EXIT_CODES}"
    )
)]
pub struct Rejoin {
    #[command(flatten)]
    store: StoreDir,
    /// The remote; all whose pairs are stopped unless given
    #[arg(group = "which")]
    site: Option<SiteName>,
    /// Choose for all remotes whose pairs are stopped
    #[arg(long, group = "which")]
    all: bool,
    /// Go on behind the last transaction that both sites have
    #[arg(long, group = "choice")]
    again: bool,
    /// Have all of the remote's stream come again; what is here is left out
    #[arg(long, group = "choice")]
    from_beginning: bool,
    /// Accept another store as the remote, and have all of its stream
    #[arg(long, group = "choice", conflicts_with = "all", requires = "site")]
    other_store: bool,
    /// Print one JSON object for each remote
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Facts {
    remote: String,
    /// Why it is stopped here; absent when it is not.
    stopped: Option<String>,
    /// What is here of its stream, and what of that both have where this site knows.
    received: String,
    common: Option<String>,
    /// Transactions here that it lost, and the LSNs here of the first and the last.
    lost_there: u64,
    lost_there_lsns: Option<(u64, u64)>,
    /// Generation of the pair, before and, when a way was gone, after.
    generation: u32,
    rejoined: Option<u32>,
}

impl Rejoin {
    /// Tells, or goes the way that was chosen.
    pub fn run(self) -> Outcome {
        let choice = match (self.again, self.from_beginning, self.other_store) {
            (true, ..) => Some(Resume::Common),
            (_, true, _) => Some(Resume::Beginning),
            (_, _, true) => Some(Resume::OtherStore),
            _ => None,
        };
        if choice.is_some() && self.site.is_none() && !self.all {
            return Err(Failure::usage("say for which remote, or --all"));
        }
        let store = self.store.open_site()?;
        let found = self.look(&store)?;
        if found.is_empty() && !self.json {
            output::tell(false, &(), format_args!("no pair is stopped here"))?;
        }
        for parting in found {
            let made = choice.map(|choice| rejoin(&store, &parting, choice));
            let made = made.transpose().map_err(Failure::of_words)?;
            let facts = facts(&parting, made.as_ref());
            output::tell(
                self.json,
                &facts,
                format_args!("{}", text(&self.store, &parting, &facts)),
            )?;
        }
        Ok(store.close()?)
    }

    fn look(&self, store: &Store) -> Result<Vec<Parting>, Failure> {
        let (begins, ends) = (store.oldest()?, store.watermarks().durable);
        let mut progress = Progress::bytes("reading", Some(ends.since(begins)));
        let mut read = |at: milepost_engine::Lsn| progress.reach(at.since(begins));
        Ok(match &self.site {
            Some(site) => vec![Parting::look(store, site, &mut read).map_err(Failure::of_words)?],
            None => Parting::all(store, &mut read)?,
        })
    }
}

fn facts(parting: &Parting, made: Option<&Remote>) -> Facts {
    Facts {
        remote: parting.remote.site.to_string(),
        stopped: parting.stopped.as_ref().map(ToString::to_string),
        received: parting.received.to_string(),
        common: parting.common.map(|common| common.to_string()),
        lost_there: parting.beyond.transactions,
        lost_there_lsns: parting.beyond.here.map(|(first, last)| (first.0, last.0)),
        generation: parting.generation,
        rejoined: made.map(|made| made.generation),
    }
}

fn text(dir: &StoreDir, parting: &Parting, facts: &Facts) -> String {
    let remote = &facts.remote;
    if let Some(generation) = facts.rejoined {
        return format!(
            "rejoined {remote} under generation {generation}: agents here and there go on with their next round{}",
            kept(facts)
        );
    }
    let Some(stopped) = &facts.stopped else {
        return format!(
            "the pair with {remote} is not stopped here. If it is there, choose there; what that site chooses this one follows"
        );
    };
    let own = dir.dir.display();
    let way = format!("milepost remote rejoin {own} {remote}");
    let known = match (parting.common, &parting.stopped) {
        (None, Some(StopReason::Parted(None, _))) => "nobody knows here which transactions of its both sites have; if its folder was put back from a copy, it says so once it has begun a \
             lineage of its own there: milepost repair DIR --new-lineage, then agents at both sites, then look again"
            .to_owned(),
        (None, _) => "nobody knows here which transactions of its both sites have".to_owned(),
        (Some(_), Some(StopReason::Fork(_))) => format!(
            "of its stream nothing is in doubt here; if the folder of this store was put back from a copy and has begun no lineage of its own yet, \
             do that first: milepost repair {own} --new-lineage"
        ),
        (Some(_), Some(StopReason::Parted(..))) => {
            format!(
                "both sites have its transactions up to {}{}",
                text_of(facts),
                kept(facts)
            )
        }
        (Some(_), _) => "of its stream nothing is in doubt here".to_owned(),
    };
    let again = match parting.common {
        Some(_) => format!("  {way} --again            goes on from there; nothing comes twice\n"),
        None => String::new(),
    };
    format!(
        "the pair with {remote} is stopped: {stopped}\n{known}. Ways on:\n{again}  {way} --from-beginning   has all of it come again; what is \
         here is left out\n  milepost resync {own} --remote {remote} --to NEWDIR   makes its store anew from this one, so that both have the \
         same"
    )
}

fn text_of(facts: &Facts) -> &str {
    facts.common.as_deref().unwrap_or_default()
}

/// What the other site lost.
fn kept(facts: &Facts) -> String {
    match (facts.lost_there, facts.lost_there_lsns) {
        (1, Some((lsn, _))) => {
            format!("; one transaction of its stream is here that it has no more (LSN {lsn} here), and stays")
        }
        (count, Some((first, last))) => format!(
            "; {count} transactions of its stream are here that it has no more (LSN {first} to {last} here), and stay"
        ),
        _ => String::new(),
    }
}
