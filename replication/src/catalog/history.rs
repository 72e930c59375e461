//! The hold `replication`: what a site that replicates still needs of its log.
//!
//! ```text
//! each remote that was ever given a subscription:   what it has not confirmed, and its newest confirmed commit
//! a subscription with a history under way:          the history behind what is confirmed
//! the least of all ─► hold `replication`, which names who needs it
//! ```
//!
//! **Why that is enough.** A neighbour names positions of ours that it was sent, and none below what it confirmed last
//! counts (R5): that one is known without the log. What it may ask for again lies above. What was received here is
//! known by its origin when it is freed, too ([`milepost_engine::Receipts`]; R1, R4). What it confirmed is durable in our log before
//! the hold moves, the hold before anything is freed. A neighbour that goes back behind its own confirmation is
//! told from the log as long as that has it; then its pair stops ([`crate::tracking::StopReason::Freed`]).
//!
//! With a retention of `forever` the hold stays where it was taken. Dropped by an operator, it is taken again by the
//! next agent or definition, from where the log begins by then.

use milepost_engine::{Error, ErrorKind, Hold, Lsn, Result, Retention, SiteName, Store};

use crate::planted::{self, Bug};
use crate::send::{living, suspended};
use crate::tracking::{Neighbour, PairRecords};

use super::{Catalog, Remote, SubscriptionId};

/// Its name.
pub const HOLD: &str = "replication";
const KIND: &str = "replication";
/// What the hold of a subscription that is being made begins with.
const SUBSCRIBING: &str = "subscribing-";
/// After this time who made one is not waited for any more: an hour, in microseconds.
const SUBSCRIBING_FOR: i64 = 3_600 * 1_000_000;

/// What is needed of the log, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// Everything above.
    pub from: Lsn,
    /// The remote that needs it.
    pub remote: Option<SiteName>,
    /// Its subscription whose history is under way.
    pub history: Option<SubscriptionId>,
    /// Its pair is stopped.
    pub stopped: bool,
}

impl Need {
    /// Whose hold it is, for people.
    fn owner(&self) -> String {
        let Some(remote) = &self.remote else {
            return "the message agent; no remote needs what it has scanned".to_owned();
        };
        match (self.history, self.stopped) {
            (_, true) => format!("remote {remote}, whose pair is stopped: see `milepost status`"),
            (Some(id), _) => {
                format!("remote {remote}, which has not confirmed the history of subscription {id}")
            }
            _ => format!(
                "remote {remote}, which has not confirmed what is above; `milepost remote remove {remote}` gives it up"
            ),
        }
    }
}

/// Takes the hold of a site that replicates, unless it is there.
///
/// # Errors
/// `Unavailable` while another process frees segments for longer than the lock's time limit; `Internal`.
pub fn keep_history(store: &Store) -> Result<()> {
    if store.holds()?.iter().any(|hold| hold.name == HOLD) {
        return Ok(());
    }
    let take = |now: Option<&Hold>| {
        let owner = "the message agent: what neighbours may ask for stands in it";
        Ok(now.is_none().then(|| Hold::new(KIND, owner, Lsn::ZERO)))
    };
    store.move_hold(HOLD, take).map(drop)
}

/// Moves the hold to what is needed now: on, when that lets a segment go, or back. With `tell`, also to name who needs
/// it. Under a retention of `forever` it is only moved back.
///
/// # Errors
/// As [`keep_history`]; those of reading the log.
pub fn hold_what_is_needed(store: &Store, tell: bool) -> Result<bool> {
    let forever = store.space()?.retention == Retention::Forever;
    let judge = |known: Option<&Hold>| {
        let hold = moved(store, known, tell)?;
        Ok(hold.filter(|hold| !forever || known.is_some_and(|known| hold.lsn < known.lsn)))
    };
    keep_history(store)?;
    let known = store.holds()?.into_iter().find(|hold| hold.name == HOLD);
    let known = known.and_then(|known| known.hold.ok());
    if judge(known.as_ref())?.is_none() && unfinished(store)?.is_empty() {
        return Ok(false);
    }
    // Judged again while nobody frees: what was made meanwhile counts.
    let moved = store.move_hold(HOLD, judge)?;
    for name in unfinished(store)? {
        tracing::warn!(
            hold = name,
            "who made a subscription has not ended it for an hour; its hold is dropped"
        );
        store.drop_hold(&name)?;
    }
    Ok(moved)
}

/// The hold as it is to be, if that is another.
fn moved(store: &Store, known: Option<&Hold>, tell: bool) -> Result<Option<Hold>> {
    let need = needed(store, &Catalog::load(store)?)?;
    let from = match planted::is(Bug::HoldMovedTooFar) {
        true => store.scanned_through(),
        false => need.from,
    };
    let hold = Hold::new(KIND, &need.owner(), from.max(store.oldest()?));
    let Some(known) = known else {
        return Ok(Some(hold));
    };
    let goes_on = store
        .segment_after(known.lsn)?
        .is_some_and(|first| first <= hold.lsn);
    let renamed = tell && known.owner != hold.owner;
    Ok((goes_on || hold.lsn < known.lsn || renamed).then_some(hold))
}

/// What remotes need of the log. All it is made of is durable.
///
/// # Errors
/// Those of reading the log.
pub fn needed(store: &Store, catalog: &Catalog) -> Result<Need> {
    let mut least = Need {
        from: store.scanned_through(),
        remote: None,
        history: None,
        stopped: false,
    };
    for remote in catalog.remotes() {
        if let Some(need) = needed_by(store, catalog, remote)?.filter(|need| need.from < least.from) {
            least = need;
        }
    }
    Ok(least)
}

/// The first remote that is due something which only the queue would have, once the log begins later: what it has not
/// confirmed. Without one a lost queue is made again from the log (Q2).
///
/// # Errors
/// Those of reading the log.
pub fn due_before_the_log(store: &Store) -> Result<Option<SiteName>> {
    let (begins, catalog) = (store.oldest()?, Catalog::load(store)?);
    for remote in catalog.remotes() {
        let Some(first) = catalog.subscriptions_of(remote).map(|one| one.id).min() else {
            continue;
        };
        if suspended(store, remote)?.is_some() {
            continue;
        }
        // What it confirmed once and lost is read from the log, not from the queue.
        let told = records_of(store, remote)?.told;
        if told.confirmed_at_most().max(first.lsn()) < begins {
            return Ok(Some(remote.site.clone()));
        }
    }
    Ok(None)
}

fn records_of(store: &Store, remote: &Remote) -> Result<PairRecords> {
    let neighbour = Neighbour {
        name: remote.site.clone(),
        generation: remote.generation,
    };
    PairRecords::load(&neighbour, |key| Ok(store.pinned(key)?.map(|(value, _)| value)))
}

/// What one remote needs; nothing when it was never given a subscription, or is suspended.
fn needed_by(store: &Store, catalog: &Catalog, remote: &Remote) -> Result<Option<Need>> {
    let Some(first) = catalog.subscriptions_of(remote).map(|one| one.id).min() else {
        return Ok(None);
    };
    if suspended(store, remote)?.is_some() {
        return Ok(None);
    }
    let records = records_of(store, remote)?;
    let confirmed = records.told.confirmed.place();
    let stopped = records.pair.is_some_and(|pair| pair.stopped.is_some());
    // It may say of what it was sent that it has it: the first is that of its first subscription.
    let mut need = Need {
        from: if confirmed.at == Lsn::ZERO {
            first.lsn()
        } else {
            confirmed.at
        },
        remote: Some(remote.site.clone()),
        history: None,
        stopped,
    };
    for one in living(catalog.subscriptions_of(remote)) {
        let behind = one
            .history_behind(confirmed)
            .map(|back| back.max(Lsn(one.from.0.saturating_sub(1))));
        if let Some(behind) = behind.filter(|behind| *behind < need.from) {
            (need.from, need.history) = (behind, Some(one.id));
        }
    }
    Ok(Some(need))
}

/// Keeps the log from a position on while a subscription is made that asks for it.
pub(super) struct Subscribing<'a> {
    store: &'a Store,
    name: String,
}

impl<'a> Subscribing<'a> {
    /// Everything at or behind `from`.
    pub(super) fn begin(store: &'a Store, from: Lsn) -> Result<Subscribing<'a>> {
        let name = format!("{SUBSCRIBING}{:016x}", store.rng().next_u64());
        let lsn = Lsn(from.0.saturating_sub(1));
        let owner = format!("process {}, which makes a subscription", std::process::id());
        match store.hold(&name, &Hold::new(KIND, &owner, lsn)) {
            Err(error) if error.kind() == ErrorKind::Behind => {
                let text = format!(
                    "the log no longer has what a subscription from {from} needs; the oldest that it can begin with is {}",
                    Lsn(store.oldest()?.0 + 1)
                );
                Err(Error::invalid(text))
            }
            held => held.map(|()| Subscribing { store, name }),
        }
    }

    /// The subscription is in the log: the hold of replication knows it.
    pub(super) fn end(self) -> Result<()> {
        hold_what_is_needed(self.store, true)?;
        self.store.drop_hold(&self.name).map(drop)
    }
}

/// Holds of subscriptions whose makers are gone.
fn unfinished(store: &Store) -> Result<Vec<String>> {
    // Its maker may be at it still when a clock jumps.
    let Some(now) = store.believed_now() else {
        return Ok(Vec::new());
    };
    let before = now.saturating_sub(SUBSCRIBING_FOR);
    let left = |hold: &milepost_engine::NamedHold| {
        let since = hold.hold.as_ref().map_or(i64::MAX, |hold| hold.since);
        hold.name.starts_with(SUBSCRIBING) && since < before
    };
    let holds = store.holds()?.into_iter().filter(left);
    Ok(holds.map(|hold| hold.name).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};
    use std::time::Duration;

    use milepost_engine::Options;
    use milepost_engine::clock::Clock;

    use super::*;
    use crate::catalog::{Definitions, NewPublication};

    /// Moved by hand.
    #[derive(Default)]
    struct Hands(AtomicI64);

    impl Clock for Hands {
        fn wall_micros(&self) -> i64 {
            1_700_000_000_000_000 + self.0.load(Ordering::Relaxed)
        }

        fn monotonic(&self) -> Duration {
            Duration::from_micros(self.0.load(Ordering::Relaxed).unsigned_abs())
        }

        fn sleep(&self, pause: Duration) {
            let micros = i64::try_from(pause.as_micros()).unwrap();
            self.0.fetch_add(micros, Ordering::Relaxed);
        }
    }

    /// Its maker was killed between the hold and the definition.
    #[test]
    fn the_hold_of_a_subscription_that_nobody_finishes_keeps_the_log_for_an_hour() {
        let (dir, hands) = (tempfile::tempdir().unwrap(), Arc::new(Hands::default()));
        let store = Options::new()
            .segment_bytes(1 << 20)
            .background(false)
            .clock(Arc::clone(&hands) as Arc<dyn Clock>)
            .retention(Retention::UntilScanned)
            .init(dir.path().join("s"), "a".parse().unwrap())
            .unwrap();
        let all = NewPublication::new("all", &["**".to_owned()], &[], None);
        Definitions::new(&store).add_publication(all, false).unwrap();
        std::mem::forget(Subscribing::begin(&store, Lsn(1)).unwrap());
        let names = || {
            let holds = store.holds().unwrap().into_iter();
            holds.map(|hold| hold.name).collect::<Vec<_>>()
        };
        hands.sleep(Duration::from_secs(3_500));
        hold_what_is_needed(&store, true).unwrap();
        assert_eq!(names().len(), 2, "{:?}", names());
        let years = Duration::from_secs(10 * 365 * 86_400);
        hands.sleep(years);
        hold_what_is_needed(&store, true).unwrap();
        assert_eq!(names().len(), 2, "a clock that nobody believes: {:?}", names());
        hands
            .0
            .fetch_sub(i64::try_from(years.as_micros()).unwrap(), Ordering::Relaxed);
        hands.sleep(Duration::from_secs(200));
        hold_what_is_needed(&store, false).unwrap();
        assert_eq!(names(), [HOLD]);
    }
}
