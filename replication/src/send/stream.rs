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
use crate::catalog::{Subscription, SubscriptionId};
use crate::message::{Carried, Place, Point};
use crate::scan::Entry;

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
    /// Subscriptions of the remote, as of a position at or behind `scanned`.
    pub subscriptions: &'a [&'a Subscription],
    /// The remote had confirmed everything at or below before it went back to an older copy: the queue may
    /// have let that go, so it is read from the log.
    pub confirmed_once: Lsn,
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

    /// Forgets what was found ahead: subscriptions changed.
    pub fn forget(&mut self) {
        *self = Stream::new(self.remote.clone());
    }

    fn find(&mut self, sources: &mut Sources<'_>, after: Place) -> Result<Option<Carried>> {
        let live = match self.next_live(sources, after.at)? {
            Found::Due(live) => Some(live),
            Found::End => None,
            Found::NotYet => return Ok(None),
        };
        let live_at = live.as_ref().map_or(Lsn::MAX, Live::lsn);
        while let Some(subscription) = self
            .next_history(sources, after)
            .filter(|one| one.id.lsn() < live_at)
        {
            if subscription.id.lsn() > sources.scanned {
                // Live transactions below it may still come into the queue; they go first.
                return Ok(None);
            }
            match self.search(sources, subscription, after)? {
                Found::Due(carried) => return Ok(Some(carried)),
                Found::End => {}
                Found::NotYet => return Ok(None),
            }
        }
        match live {
            Some(Live::Queued(due)) => self.carry(sources, &due).map(Some),
            Some(Live::Past(_)) => Ok(self.past.as_mut().and_then(Past::take)),
            None => Ok(None),
        }
    }

    /// The first live transaction behind the commit at `after`.
    fn next_live(&mut self, sources: &Sources<'_>, after: Lsn) -> Result<Found<Live>> {
        let once = sources.confirmed_once;
        if after < once {
            let mut past = match self.past.take().filter(|past| past.goes_on_from(after)) {
                Some(past) => past,
                None => Past::open(sources.store, after)?,
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
            _ => History::open(sources.store, subscription, back)?,
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

    fn carry(&self, sources: &mut Sources<'_>, due: &Due) -> Result<Carried> {
        sources.queue.read(due.queue_lsn, |entry: &Entry<'_>| {
            let wanted: Vec<bool> = entry
                .topics
                .iter()
                .map(|topic| due.topics.contains(topic))
                .collect();
            let events = entry.events_under(&wanted).collect::<Result<Vec<_>>>()?;
            let origin = entry.origin.map(|origin| origin.to_owned()).transpose()?;
            let mut carried = Carried::of(Point::live(entry.position), origin, events)?;
            carried.committed_at = entry.time;
            Ok(carried)
        })
    }
}
