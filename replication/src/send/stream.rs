//! [`Stream`]: one remote's stream, place by place: live transactions from the queue, or from the log
//! where the queue let them go, and history from the log, merged in the order of places (semantics, 3).
//!
//! ```text
//! live   100   200        │        420  500      from the queue, through the posting list
//! history of s=300        │(300,50) (300,120)    from the log, once the scan has passed s
//! stream 100, 200, (300,50), (300,120), 420, 500
//! ```

use std::collections::BTreeMap;

use milepost_engine::{Lsn, Result, SiteName, Store};

use crate::agent::Stop;
use crate::catalog::{Subscription, SubscriptionId, Topic};
use crate::message::{Carried, Place, Point};
use crate::planted::{self, Bug};
use crate::scan::Entry;

use super::heirs::Heirs;
use super::history::{Found, History};
use super::past::Past;
use super::postings::{Due, Postings};
use super::queue::QueueEntries;

/// Frames of history looked at between two looks whether to stop.
const FRAMES_AT_A_TIME: usize = 10_000;

/// What a stream is made of, as of one look at queue and catalog.
pub struct Sources<'a> {
    /// The store.
    pub store: &'a Store,
    /// Entries of the queue.
    pub queue: &'a mut QueueEntries,
    /// What they are due under. Complete up to `scanned`.
    pub postings: &'a Postings,
    /// Everything at or below was scanned and noted in `postings`.
    pub scanned: Lsn,
    /// Subscriptions of the remote that matter ([`super::living`]), as of a position at or behind `scanned`.
    pub subscriptions: &'a [&'a Subscription],
    /// The remote had confirmed everything at or below before it went back to an older copy: the queue may
    /// have let that go, so it is read from the log.
    pub confirmed_once: Lsn,
    /// Nothing of the log behind this is sent (`-u`).
    pub covered: Lsn,
    /// Ends a long search through history.
    pub stop: &'a Stop,
}

/// Where the next live transaction is.
enum Live {
    /// In the queue.
    Queued(Due),
    /// In the log alone, at this LSN.
    Past(Lsn),
}

impl Live {
    fn lsn(&self) -> Lsn {
        match self {
            Live::Queued(due) => due.lsn,
            Live::Past(lsn) => *lsn,
        }
    }
}

/// One remote's stream.
pub struct Stream {
    remote: SiteName,
    /// The transaction found behind a place, until somebody asks behind another.
    ahead: Option<(Place, Carried)>,
    history: Option<(SubscriptionId, Lsn, History)>,
    past: Option<Past>,
    heirs: Heirs,
    /// Behind the first place, entries up to the second were looked at, and all of them was revoked.
    nothing: (Lsn, Lsn),
    /// Histories that have nothing behind this commit.
    ended: BTreeMap<SubscriptionId, Lsn>,
}

impl Stream {
    /// The stream of a remote.
    #[must_use]
    pub fn new(remote: SiteName) -> Stream {
        Stream {
            remote,
            ahead: None,
            history: None,
            past: None,
            heirs: Heirs::default(),
            nothing: (Lsn::ZERO, Lsn::ZERO),
            ended: BTreeMap::new(),
        }
    }

    /// Place of the first transaction behind `after`, if there is one by now.
    ///
    /// # Errors
    /// As [`Stream::next`].
    pub fn peek(&mut self, sources: &mut Sources<'_>, after: Place) -> Result<Option<Place>> {
        if self.ahead.as_ref().is_none_or(|(asked, _)| *asked != after) {
            self.ahead = self.find(sources, after)?.map(|carried| (after, carried));
        }
        Ok(self.ahead.as_ref().map(|(_, carried)| carried.point.place()))
    }

    /// The first transaction behind `after`.
    ///
    /// # Errors
    /// Those of reading queue and log.
    pub fn next(&mut self, sources: &mut Sources<'_>, after: Place) -> Result<Option<Carried>> {
        match self.ahead.take() {
            Some((asked, carried)) if asked == after => Ok(Some(carried)),
            _ => self.find(sources, after),
        }
    }

    /// Up to where no live transaction behind `after` is due though a revoked subscription gave some: as far as
    /// somebody looked, else `after`.
    #[must_use]
    pub fn nothing_behind(&self, after: Lsn) -> Lsn {
        let (from, through) = self.nothing;
        if from == after { through } else { after }
    }

    /// Forgets what was found ahead: subscriptions changed.
    pub fn forget(&mut self) {
        *self = Stream::new(self.remote.clone());
    }

    fn find(&mut self, sources: &mut Sources<'_>, after: Place) -> Result<Option<Carried>> {
        let mut live_after = after.at;
        loop {
            let live = match self.next_live(sources, live_after)? {
                Found::Due(live) => Some(live).filter(|live| live.lsn() <= sources.covered),
                Found::End => None,
                Found::NotYet => return Ok(None),
            };
            // What a subscription behind it brings waits as well.
            let live_at = live
                .as_ref()
                .map_or(Lsn(sources.covered.0.saturating_add(1)), Live::lsn);
            match self.find_history(sources, after, live_at)? {
                Found::Due(carried) => return Ok(Some(carried)),
                Found::NotYet => return Ok(None),
                Found::End => {}
            }
            match live {
                Some(Live::Queued(due)) => match self.carry(sources, &due)? {
                    Some(carried) => return Ok(Some(carried)),
                    // All of it was revoked, and nobody else wants it.
                    None => {
                        live_after = due.lsn;
                        self.nothing = (after.at, live_after);
                    }
                },
                Some(Live::Past(_)) => return Ok(self.past.as_mut().and_then(Past::take)),
                None => return Ok(None),
            }
        }
    }

    /// The first transaction behind `after` in the histories that stand before the live place `live_at`.
    fn find_history(&mut self, sources: &Sources<'_>, after: Place, live_at: Lsn) -> Result<Found<Carried>> {
        while let Some(subscription) = self
            .next_history(sources, after)
            .filter(|one| one.id.lsn() < live_at)
        {
            if subscription.id.lsn() > sources.scanned {
                // Live transactions below it may still come into the queue; they go first.
                return Ok(Found::NotYet);
            }
            match self.search(sources, subscription, after)? {
                Found::End => {}
                found => return Ok(found),
            }
        }
        Ok(Found::End)
    }

    /// The first live transaction behind the commit at `after`.
    fn next_live(&mut self, sources: &Sources<'_>, after: Lsn) -> Result<Found<Live>> {
        let once = sources.confirmed_once;
        if after < once {
            let mut past = match self.past.take().filter(|past| past.goes_on_from(after)) {
                Some(past) => past,
                None => Past::open(sources.store, sources.subscriptions, after)?,
            };
            let found = loop {
                match past.peek(&self.remote, sources.subscriptions, once, FRAMES_AT_A_TIME)? {
                    Found::NotYet if !sources.stop.is_requested() => {}
                    found => break found,
                }
            };
            self.past = Some(past);
            match found {
                Found::Due(lsn) => return Ok(Found::Due(Live::Past(lsn))),
                Found::NotYet => return Ok(Found::NotYet),
                Found::End => {}
            }
        }
        let queued = sources
            .postings
            .next_due(&self.remote, sources.subscriptions, after.max(once));
        Ok(queued.map_or(Found::End, |due| Found::Due(Live::Queued(due))))
    }

    /// The first subscription at or behind `after` whose history is not known to be over.
    fn next_history<'a>(&self, sources: &Sources<'a>, after: Place) -> Option<&'a Subscription> {
        let fits = |one: &&&Subscription| {
            if planted::is(Bug::HistoryForgotten) {
                return false;
            }
            let ended = self.ended.get(&one.id).copied().unwrap_or(Lsn::MAX);
            one.history_behind(after).is_some_and(|back| back < ended)
        };
        sources
            .subscriptions
            .iter()
            .filter(fits)
            .min_by_key(|one| one.id)
            .copied()
    }

    fn search(
        &mut self,
        sources: &Sources<'_>,
        subscription: &Subscription,
        after: Place,
    ) -> Result<Found<Carried>> {
        let back = subscription.history_behind(after).unwrap_or_default();
        let mut history = match self.history.take() {
            Some((id, at, history)) if id == subscription.id && at == back => history,
            _ => History::open(sources.store, sources.subscriptions, subscription, back)?,
        };
        loop {
            match history.next(FRAMES_AT_A_TIME)? {
                Found::Due(carried) => {
                    self.history = Some((subscription.id, carried.point.back, history));
                    return Ok(Found::Due(carried));
                }
                Found::End => {
                    self.ended.insert(subscription.id, back);
                    return Ok(Found::End);
                }
                Found::NotYet if sources.stop.is_requested() => return Ok(Found::NotYet),
                Found::NotYet => {}
            }
        }
    }

    /// The transaction of a queue entry with the events that are due; `None` when none is.
    fn carry(&mut self, sources: &mut Sources<'_>, due: &Due) -> Result<Option<Carried>> {
        let (heirs, all) = (&mut self.heirs, (sources.store, sources.subscriptions));
        sources.queue.read(due.queued, |entry: &Entry<'_>, place| {
            let under =
                |wanted: &dyn Fn(&Topic) -> bool| -> Vec<bool> { entry.topics.iter().map(wanted).collect() };
            let sure = under(&|topic| due.topics.contains(topic));
            let origin = || entry.origin.map(|origin| origin.to_owned()).transpose();
            if entry.all_under(&sure)? {
                let mut carried = Carried::whole(Point::live(entry.position), origin()?, entry.all(place)?);
                carried.committed_at = entry.time;
                return Ok(Some(carried));
            }
            let mut events = entry.events_under(&sure).collect::<Result<Vec<_>>>()?;
            for (doubtful, revoked) in &due.doubtful {
                let flags = under(&|topic| topic == doubtful);
                for event in entry.events_under(&flags) {
                    let event = event?;
                    let place = events.binary_search_by_key(&event.ordinal, |known| known.ordinal);
                    if let Err(place) = place
                        && heirs.want(all, &event, entry.position.lsn, Some(*revoked))?
                    {
                        events.insert(place, event);
                    }
                }
            }
            if events.is_empty() {
                return Ok(None);
            }
            let mut carried = Carried::of(Point::live(entry.position), origin()?, events)?;
            carried.committed_at = entry.time;
            Ok(Some(carried))
        })
    }
}
