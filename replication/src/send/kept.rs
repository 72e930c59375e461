//! [`Kept`]: what is kept for one remote because it has not confirmed it, and how near that is to its limits.
//!
//! ```text
//! queue   oldest entry that it is due and has not confirmed ──────────────► end of the queue          counts always
//! log     that entry, or the history under way ──► what retention and scan would let go   counts where the log is freed
//! age     since that entry was queued, or since the subscription of that history was made
//! ```
//!
//! Guarantees: what retention keeps for its own sake counts for nobody, nor does what a remote has not confirmed because it was
//! not told of it (nothing was due). So one that confirms all it is sent stands at nothing. Where it is not sure which of the
//! two a stretch of log is, it counts less: who is suspended too late costs space, who is too early costs data.

use milepost_engine::{ErrorKind, Lsn, Result, SiteName, Store};

use crate::catalog::{RemoteLimits, Subscription};
use crate::message::Place;

use super::postings::{Due, Postings};
use super::queue::QueueEntries;
use super::suspended::{LimitCause, LimitState};

/// From here on it is told, in percent,
const NEAR: u64 = 70;
/// and below this no longer.
const FAR: u64 = 60;
/// At the limit, in percent,
const REACHED: u64 = 100;
/// and below this no longer.
const LEFT: u64 = 90;

/// What one remote was sent, and has confirmed.
pub struct Account<'a> {
    /// The remote.
    pub remote: &'a SiteName,
    /// Its subscriptions ([`super::living`]).
    pub subscriptions: &'a [&'a Subscription],
    /// What it confirmed.
    pub confirmed: Place,
    /// It had confirmed so much once, and went back.
    pub confirmed_once: Lsn,
    /// What it was sent.
    pub sent: Place,
    /// Behind what it confirmed nothing live is due up to here.
    pub nothing_to: Lsn,
    /// The first place behind what it was sent, where that is all confirmed.
    pub ahead: Option<Place>,
}

/// What a remote has not confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owed {
    /// The oldest entry of the queue.
    live: Option<Due>,
    /// The log from here on, and since when that counts: a commit.
    log: Option<(Lsn, Option<Lsn>)>,
}

impl Owed {
    /// What `account` owes a confirmation of.
    #[must_use]
    pub fn of(account: &Account<'_>, postings: &Postings) -> Owed {
        let Account {
            remote,
            subscriptions,
            confirmed,
            sent,
            ..
        } = account;
        let live = postings.next_due(remote, subscriptions, account.nothing_to);
        let is_owed = sent > confirmed;
        let at = if is_owed { Some(*sent) } else { account.ahead };
        let history = at.filter(|at| at.back > Lsn::ZERO).and_then(|at| {
            let one = subscriptions.iter().find(|one| one.id.lsn() == at.at)?;
            let behind = one.history_behind(*confirmed)?;
            Some((behind.max(Lsn(one.from.0.saturating_sub(1))), Some(at.at)))
        });
        let went_back = confirmed.at < account.confirmed_once && at.is_some();
        let past = went_back.then_some((confirmed.at, None));
        // It was told that nothing was due, and has not confirmed that.
        let stretch = (is_owed && live.is_none()).then_some((sent.at, Some(sent.at)));
        let log = history.or(past).or(stretch);
        Owed { live, log }
    }

    /// Where the log is kept from.
    fn from(&self) -> Option<Lsn> {
        let log = self.log.map(|(from, _)| from);
        let live = self.live.as_ref().map(|due| due.lsn);
        log.into_iter().chain(live).min()
    }
}

/// What is kept for a remote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Bytes of queue and log.
    pub bytes: u64,
    /// Since when the oldest of it is due, microseconds since 1970 by the clock here.
    pub oldest: Option<i64>,
}

/// Times of entries and commits that were looked up before: they are asked for in every round.
#[derive(Clone, Debug, Default)]
pub struct Times {
    queued: Option<(Lsn, Option<i64>)>,
    committed: Option<(Lsn, Option<i64>)>,
}

impl Kept {
    /// Measures what is owed; of the log only where that `frees`.
    ///
    /// # Errors
    /// Those of reading queue and log.
    pub fn of(
        owed: &Owed,
        (store, queue): (&Store, &mut QueueEntries),
        frees: bool,
        times: &mut Times,
    ) -> Result<Kept> {
        let mut kept = Kept::default();
        if let Some(due) = &owed.live {
            kept.oldest = queued_at(due, (store, queue), times)?;
            if due.is_queued() {
                kept.bytes = store.queue_end().0.saturating_sub(due.queued.lsn.0);
            }
        }
        if let Some((_, Some(commit))) = owed.log {
            let since = match times.committed {
                Some((known, time)) if known == commit => time,
                _ => time_of(store, commit)?,
            };
            times.committed = Some((commit, since));
            kept.oldest = kept.oldest.into_iter().chain(since).min();
        }
        if let Some(from) = owed.from().filter(|_| frees) {
            kept.bytes = kept.bytes.saturating_add(store.held_bytes(from)?);
        }
        Ok(kept)
    }
}

fn queued_at(
    due: &Due,
    (store, queue): (&Store, &mut QueueEntries),
    times: &mut Times,
) -> Result<Option<i64>> {
    if let Some((known, time)) = times.queued.filter(|_| due.is_queued())
        && known == due.queued.lsn
    {
        return Ok(time);
    }
    if !due.is_queued() {
        return time_of(store, due.lsn);
    }
    let time = Some(queue.read(due.queued, |entry, _| Ok(entry.queued_at))?);
    times.queued = Some((due.queued.lsn, time));
    Ok(time)
}

/// When the frame at `lsn` was appended here; `None` when it was freed.
fn time_of(store: &Store, lsn: Lsn) -> Result<Option<i64>> {
    let mut scan = match store.scan(Lsn(lsn.0.saturating_sub(1))) {
        Err(error) if error.kind() == ErrorKind::Behind => return Ok(None),
        scan => scan?,
    };
    Ok(scan.next()?.map(|frame| frame.time()))
}

/// How near a remote is to its limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// Of the nearer one.
    pub percent: u64,
    /// Which that is,
    pub cause: LimitCause,
    /// what is kept, in bytes or seconds,
    pub kept: u64,
    /// and what is allowed.
    pub limit: u64,
}

impl Level {
    /// The level at `now`, the time if that is believed: without it nothing goes by age.
    #[must_use]
    pub fn of(kept: Kept, limits: &RemoteLimits, now: Option<i64>) -> Level {
        let bytes = limits.bytes.map(|limit| (LimitCause::Bytes, kept.bytes, limit));
        let age = kept
            .oldest
            .zip(now)
            .zip(limits.age)
            .map(|((oldest, now), limit)| {
                let micros = u64::try_from(now.saturating_sub(oldest)).unwrap_or_default();
                (LimitCause::Age, micros / 1_000_000, limit)
            });
        let all = bytes.into_iter().chain(age);
        let levels = all.map(|(cause, kept, limit)| Level {
            percent: percent(kept, limit),
            cause,
            kept,
            limit,
        });
        levels.max_by_key(|level| level.percent).unwrap_or_default()
    }

    /// True at the limit or beyond.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        self.percent >= REACHED
    }

    /// The state that follows `before`.
    #[must_use]
    pub fn state(&self, before: LimitState) -> LimitState {
        match (self.percent, before) {
            (REACHED.., _) | (LEFT.., LimitState::Reached) => LimitState::Reached,
            (NEAR.., _) | (FAR.., LimitState::Near | LimitState::Reached) => LimitState::Near,
            _ => LimitState::Fine,
        }
    }
}

fn percent(kept: u64, limit: u64) -> u64 {
    let percent = u128::from(kept) * 100 / u128::from(limit.max(1));
    u64::try_from(percent).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::AtLimit;
    use crate::catalog::tests::subscription;

    fn place(at: u64, back: u64) -> Place {
        Place {
            at: Lsn(at),
            back: Lsn(back),
        }
    }

    fn owed(one: &Subscription, confirmed: Place, sent: Place, ahead: Option<Place>) -> Option<Lsn> {
        let account = Account {
            remote: &one.remote,
            subscriptions: &[one],
            confirmed,
            confirmed_once: Lsn::ZERO,
            sent,
            nothing_to: confirmed.at,
            ahead,
        };
        Owed::of(&account, &Postings::default()).from()
    }

    /// A subscription from the beginning of a log in which nothing matched, or all was confirmed, is no history under way.
    #[test]
    fn the_log_counts_from_the_history_that_is_sent_or_due_and_not_where_nothing_is() {
        let mut one = subscription(300, "bern", "orders", Some("be"));
        one.from = Lsn(100);
        assert_eq!(owed(&one, Place::NONE, Place::NONE, None), None);
        assert_eq!(
            owed(&one, Place::NONE, Place::NONE, Some(place(300, 120))),
            Some(Lsn(99))
        );
        assert_eq!(
            owed(&one, Place::NONE, place(300, 200), None),
            Some(Lsn(99)),
            "sent and not confirmed"
        );
        assert_eq!(owed(&one, place(300, 150), place(300, 200), None), Some(Lsn(150)));
        assert_eq!(owed(&one, place(300, 200), place(300, 200), None), None);
        assert_eq!(
            owed(&one, place(300, 200), place(900, 0), None),
            Some(Lsn(900)),
            "a stretch that was told and not confirmed"
        );
    }

    #[test]
    fn the_nearer_limit_counts_and_age_only_by_a_clock_that_is_believed() {
        let limits = RemoteLimits {
            bytes: Some(1000),
            age: Some(100),
            at_limit: AtLimit::Hold,
        };
        let kept = Kept {
            bytes: 500,
            oldest: Some(1_000_000),
        };
        let level = Level::of(kept, &limits, Some(91_000_000));
        assert_eq!(
            (level.percent, level.cause, level.kept, level.limit),
            (90, LimitCause::Age, 90, 100)
        );
        let level = Level::of(kept, &limits, None);
        assert_eq!((level.percent, level.cause), (50, LimitCause::Bytes));
        assert_eq!(Level::of(kept, &limits, Some(-9)).percent, 50);
        assert_eq!(
            Level::of(Kept::default(), &RemoteLimits::default(), Some(0)),
            Level::default()
        );
        assert_eq!(percent(u64::MAX, 1), u64::MAX);
    }

    #[test]
    fn a_state_is_left_only_well_below_where_it_began() {
        use LimitState::{Fine, Near, Reached};
        let mut state = Fine;
        let course = [
            (69, Fine),
            (70, Near),
            (65, Near),
            (59, Fine),
            (65, Fine),
            (100, Reached),
            (90, Reached),
            (89, Near),
            (99, Near),
            (120, Reached),
            (61, Near),
            (0, Fine),
        ];
        for (percent, expected) in course {
            let level = Level {
                percent,
                ..Level::default()
            };
            state = level.state(state);
            assert_eq!(state, expected, "{percent}");
        }
    }
}
