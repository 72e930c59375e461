//! [`History`]: what a subscription is due of the time before it was made, read from the log.
//!
//! ```text
//! log   ─────[from ····· h ·········· s)──────► live, from the queue
//! place              (s, h), ascending in h, behind every place below s and before every live one above
//! ```
//!
//! An event goes to a remote once, however many subscriptions match: what an earlier subscription of
//! the same remote covered, live or as its own history, is left out. One that was revoked covers nothing:
//! what it had sent by then is known at the receiver by its origin (R4). What matched is decided by the
//! publications in force there: at `h` for live coverage, at `s` for a subscription's history.
//! Nothing that came from the remote goes back to it (R4).

use std::collections::BTreeSet;

use milepost_engine::frame::{EventRef, FrameKind, FrameRef};
use milepost_engine::{Error, LogScan, Lsn, Origin, Position, Result, SiteName, Store, StoreId};

use crate::catalog::{Catalog, Matcher, Subscription, SubscriptionId, TopicId};
use crate::message::{Carried, Point};

/// One subscription's history.
pub struct History {
    log: LogScan,
    judge: Judge,
    ended: bool,
}

/// What of a frame is due.
struct Judge {
    remote: SiteName,
    /// Where the subscription was made: what every place of its history says first.
    starts: Position,
    /// Where the remote was added: subscriptions before were another's of its name.
    added: Lsn,
    /// Subscriptions that are revoked by now, whatever they were at the frame at hand.
    revoked: BTreeSet<SubscriptionId>,
    own_site: (StoreId, SiteName),
    catalog: Catalog,
    own: Matcher,
    /// Earlier subscriptions, each as it was in force for its own history.
    earlier: Vec<Matcher>,
    /// Earlier subscriptions, as in force for the frame at hand.
    live: Matcher,
    found: Vec<TopicId>,
}

impl History {
    /// The history of `subscription` behind the commit at `after` ([`Lsn::ZERO`] for all of it).
    ///
    /// # Errors
    /// `Behind` when the log no longer has it; `Corrupt` when the subscription's frame is not there.
    pub fn open(store: &Store, subscription: &Subscription, after: Lsn) -> Result<History> {
        let starts = subscription.id.lsn();
        let missing =
            || Error::corrupt("the frame that made a subscription is not in the log").at_lsn(starts);
        let position = store.position_at(starts)?.ok_or_else(missing)?;
        let next = Lsn(subscription.from.0.max(after.0.saturating_add(1)));
        let at_start = Catalog::as_of(store, starts)?;
        let own = Matcher::new(&at_start, |one| one.id == subscription.id)?;
        let added = at_start
            .remote(&subscription.remote)
            .map_or(Lsn::ZERO, |remote| remote.added);
        let revoked: BTreeSet<SubscriptionId> = Catalog::load(store)?
            .subscriptions()
            .filter(|one| one.revoked)
            .map(|one| one.id)
            .collect();
        let is_earlier = |one: &Subscription| {
            one.remote == subscription.remote
                && one.id < subscription.id
                && one.id.lsn() > added
                && !revoked.contains(&one.id)
        };
        let mut earlier = Vec::new();
        for one in at_start.subscriptions().filter(|one| is_earlier(one)) {
            if one.from < one.id.lsn() {
                earlier.push(Matcher::new(&Catalog::as_of(store, one.id.lsn())?, |other| {
                    other.id == one.id
                })?);
            }
        }
        let behind = Lsn(next.0.saturating_sub(1));
        let catalog = Catalog::as_of(store, behind)?;
        let live = Matcher::new(&catalog, is_earlier)?;
        let own_site = (store.id(), store.site().clone());
        let (remote, found) = (subscription.remote.clone(), Vec::new());
        let judge = Judge {
            remote,
            starts: position,
            added,
            revoked,
            own_site,
            catalog,
            own,
            earlier,
            live,
            found,
        };
        Ok(History {
            log: store.scan(behind)?,
            judge,
            ended: false,
        })
    }

    /// Looks at the next `frames` frames for a transaction that is due.
    ///
    /// # Errors
    /// Those of reading the log.
    pub fn next(&mut self, frames: usize) -> Result<Found<Carried>> {
        for _ in 0..frames {
            let frame = if self.ended { None } else { self.log.next()? };
            let Some(frame) = frame.filter(|frame| frame.lsn() < self.judge.starts.lsn) else {
                self.ended = true;
                return Ok(Found::End);
            };
            if let Some(carried) = self.judge.look(&frame)? {
                return Ok(Found::Due(carried));
            }
        }
        Ok(Found::NotYet)
    }
}

/// What a search through the log found.
pub enum Found<T> {
    /// The next transaction that is due.
    Due(T),
    /// Nothing among the frames looked at; there are more.
    NotYet,
    /// There is nothing more.
    End,
}

impl Judge {
    fn look(&mut self, frame: &FrameRef<'_>) -> Result<Option<Carried>> {
        if self.catalog.follow(frame)? {
            let (remote, between, revoked) =
                (&self.remote, self.added.plus(1)..self.starts.lsn, &self.revoked);
            let is_earlier = |one: &Subscription| {
                one.remote == *remote && between.contains(&one.id.lsn()) && !revoked.contains(&one.id)
            };
            self.live = Matcher::new(&self.catalog, is_earlier)?;
            return Ok(None);
        }
        let came_from_it = frame.via()?.is_some_and(|via| via.name == self.remote.as_str());
        if frame.kind() != FrameKind::TRANSACTION || came_from_it {
            return Ok(None);
        }
        let mut due = Vec::new();
        for event in frame.events() {
            let event = event?;
            if self.is_due(&event, frame.lsn())? {
                due.push(event);
            }
        }
        if due.is_empty() {
            return Ok(None);
        }
        let origin = match frame.origin()? {
            Some(origin) => Some(origin.to_owned()?),
            None if frame.epoch() == self.starts.epoch => None,
            // A commit of an earlier lineage: the point's epoch is not its own, so it is said.
            None => {
                let (site, name) = self.own_site.clone();
                Some(Origin {
                    site,
                    name,
                    epoch: frame.epoch(),
                    lsn: frame.lsn(),
                })
            }
        };
        let point = Point {
            position: self.starts,
            back: frame.lsn(),
        };
        let mut carried = Carried::of(point, origin, due)?;
        carried.committed_at = frame.committed_at()?;
        Ok(Some(carried))
    }

    fn is_due(&mut self, event: &EventRef<'_>, lsn: Lsn) -> Result<bool> {
        self.found.clear();
        self.own.topics_of(event, &mut self.found)?;
        if self.found.is_empty() {
            return Ok(false);
        }
        self.found.clear();
        self.live.topics_of(event, &mut self.found)?;
        let covers = |subscription: &Subscription| subscription.covers_live(lsn);
        if self
            .found
            .iter()
            .any(|id| self.live.subscriptions(*id).iter().any(covers))
        {
            return Ok(false);
        }
        for matcher in &mut self.earlier {
            self.found.clear();
            matcher.topics_of(event, &mut self.found)?;
            let covers = |subscription: &Subscription| subscription.covers_history(lsn);
            if self
                .found
                .iter()
                .any(|id| matcher.subscriptions(*id).iter().any(covers))
            {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
