//! [`History`]: what a subscription is due of the time before it was made, read from the log.
//!
//! ```text
//! log   ─────[from ····· h ·········· s)──────► live, from the queue
//! place              (s, h), ascending in h, behind every place below s and before every live one above
//! ```
//!
//! An event goes to a remote once, however many subscriptions match: what an earlier subscription of
//! the same remote covered, live or as its own history, is left out. One that was revoked before this one was made
//! covers nothing: what it had sent by then is known at the receiver by its origin (R4). One that was revoked later
//! covers as ever, because places never move ([`super::Heirs`]). What matched is decided by the publications in
//! force there: at `h` for live coverage, at `s` for a subscription's history.
//! Nothing that came from the remote goes back to it (R4).

use std::collections::BTreeSet;

use milepost_engine::frame::{EventRef, FrameKind, FrameRef};
use milepost_engine::{Error, LogScan, Lsn, Origin, Position, Result, SiteName, Store, StoreId};

use crate::catalog::{Catalog, Matcher, Subscription, SubscriptionId, TopicId};
use crate::message::{Carried, Point};

use super::heirs::{Asked, Heirs};

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
    /// When this one was revoked; then what its heirs want is due.
    revoked: Option<Lsn>,
    heirs: Heirs,
    /// All of the remote's, when it was.
    in_doubt: Vec<Subscription>,
    store: Store,
    /// Earlier subscriptions, but those that were revoked before this one was made.
    covering: BTreeSet<SubscriptionId>,
    own_site: (StoreId, SiteName),
    catalog: Catalog,
    own: Matcher,
    /// Of them those with a history.
    earlier: Vec<Asked>,
    /// All of them, as in force for the frame at hand.
    live: Matcher,
    found: Vec<TopicId>,
}

impl History {
    /// The history of one of a remote's `subscriptions` ([`super::living`]) behind the commit at `after`
    /// ([`Lsn::ZERO`] for all of it).
    ///
    /// # Errors
    /// `Behind` when the log no longer has it; `Corrupt` when the subscription's frame is not there.
    pub fn open(
        store: &Store,
        subscriptions: &[&Subscription],
        subscription: &Subscription,
        after: Lsn,
    ) -> Result<History> {
        let starts = subscription.id.lsn();
        let missing =
            || Error::corrupt("the frame that made a subscription is not in the log").at_lsn(starts);
        let position = store.position_at(starts)?.ok_or_else(missing)?;
        let next = Lsn(subscription.from.0.max(after.0.saturating_add(1)));
        let own = Matcher::new(&Catalog::as_of(store, starts)?, |one| one.id == subscription.id)?;
        let covers = |one: &&&Subscription| {
            one.id < subscription.id && one.revoked.is_none_or(|revoked| revoked > starts)
        };
        let covering = subscriptions.iter().filter(covers);
        let with_history = covering.clone().filter(|one| one.has_history());
        let earlier = with_history.map(|one| Asked::new(store, one)).collect();
        let covering: BTreeSet<SubscriptionId> = covering.map(|one| one.id).collect();
        let behind = Lsn(next.0.saturating_sub(1));
        let catalog = Catalog::as_of(store, behind)?;
        let live = Matcher::new(&catalog, |one| covering.contains(&one.id))?;
        let in_doubt = match subscription.revoked {
            Some(_) => subscriptions.iter().map(|one| (*one).clone()).collect(),
            None => Vec::new(),
        };
        let own_site = (store.id(), store.site().clone());
        let (remote, found) = (subscription.remote.clone(), Vec::new());
        let judge = Judge {
            remote,
            starts: position,
            revoked: subscription.revoked,
            heirs: Heirs::default(),
            in_doubt,
            store: store.clone(),
            covering,
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
            let covering = &self.covering;
            self.live = Matcher::new(&self.catalog, |one| covering.contains(&one.id))?;
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
        for asked in &mut self.earlier {
            if asked.holds(event, lsn)? {
                return Ok(false);
            }
        }
        let all: Vec<&Subscription> = self.in_doubt.iter().collect();
        self.heirs.want((&self.store, &all), event, lsn, self.revoked)
    }
}
