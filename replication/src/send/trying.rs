//! Links that fail, and remotes that links take nothing for: each is left alone for a while, whatever is sent to others meanwhile.

use std::time::Duration;

use milepost_engine::{Result, SiteName};

use crate::agent::LinkNumber;
use crate::link::LinkError;
use crate::tracking::Now;

use super::asked::asked_to_send;
use super::phase::{Pair, SendPhase};
use super::serve::Serve;

impl SendPhase {
    /// True when something that was tried last failed.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        !self.dead_links.is_empty() || !self.refused.is_empty()
    }

    /// How long until something that failed may be tried again.
    #[must_use]
    pub fn until_retry(&self) -> Option<Duration> {
        let now = self.store.clock().monotonic();
        let both = [self.dead_links.until(now), self.refused.until(now)];
        both.into_iter().flatten().min()
    }

    /// How long until a timer of tracking (a probe, collected requests) may have something to send to a remote whose turn it is, and which is to
    /// be sent to.
    #[must_use]
    pub fn until_timer(&self) -> Option<Duration> {
        let Now {
            monotonic,
            wall_micros,
        } = self.now();
        let is_in_turn = |pair: &Pair| {
            let until = pair.turn.until(pair.remote.schedule, monotonic, wall_micros);
            until.is_some_and(|until| until.is_zero())
        };
        let waits = |name: &SiteName, pair: &Pair| {
            !pair.remote.is_carried()
                && pair.serves_normally()
                && pair.sender.stopped().is_none()
                && pair.keys.locked().is_none()
                && is_in_turn(pair)
                && self.may_try(name, pair.link)
        };
        let served = self.pairs.iter().filter(|(name, pair)| waits(name, pair));
        let wakes = served.filter_map(|(_, pair)| pair.sender.wakes_at());
        wakes.min().map(|at| at.saturating_sub(monotonic))
    }

    fn may_try(&self, name: &SiteName, link: LinkNumber) -> bool {
        self.dead_links.may(&link) && self.refused.may(name)
    }

    /// Those of the remotes that are due whose time has come after a failure. A round that somebody asked for tries all.
    pub(super) fn may_be_tried(&mut self, due: Vec<SiteName>, serve: Serve<'_>, now: Now) -> Vec<SiteName> {
        self.dead_links.look(now.monotonic);
        self.refused.look(now.monotonic);
        if serve != Serve::InTurn {
            return due;
        }
        let may = |name: &SiteName| {
            self.pairs
                .get(name)
                .is_some_and(|pair| self.may_try(name, pair.link))
        };
        due.into_iter().filter(|name| may(name)).collect()
    }

    /// Reads who somebody asked for (`--send-now`); one that was not asked for before is tried at once, whatever failed.
    pub(super) fn look_at_wishes(&mut self) -> Result<()> {
        let asked = asked_to_send(&self.store)?;
        for (name, wish) in &asked {
            if self.asked.get(name) == Some(wish) {
                continue;
            }
            self.refused.works(name);
            if let Some(pair) = self.pairs.get(name) {
                self.dead_links.works(&pair.link);
            }
        }
        self.asked = asked;
        Ok(())
    }

    /// What came of serving a remote, which took so long.
    pub(super) fn note_outcome(
        &mut self,
        (name, link): (&SiteName, LinkNumber),
        outcome: &std::result::Result<(), LinkError>,
        took: Duration,
    ) {
        let now = self.store.clock().monotonic();
        let is_locked = self
            .pairs
            .get(name)
            .is_some_and(|pair| pair.keys.locked().is_some());
        match outcome {
            Err(error) if error.is_unreachable() => self.dead_links.failed(link, now, took),
            // That is no failure of its link, and waits for its operator.
            Err(_) if is_locked => {}
            Err(_) => self.refused.failed(name.clone(), now, Duration::ZERO),
            Ok(()) => self.refused.works(name),
        }
    }

    /// Links over which nothing failed: where nothing was due, nothing is to be tried either.
    pub(super) fn note_what_works<'a>(&mut self, links: impl Iterator<Item = &'a LinkNumber>) {
        links.for_each(|link| self.dead_links.works(link));
    }

    /// Forgets what failed and is not there any more.
    pub(super) fn forget_failures(&mut self) {
        let pairs = &self.pairs;
        self.refused.retain(|name| pairs.contains_key(name));
        self.dead_links
            .retain(|link| pairs.values().any(|pair| pair.link == *link));
    }
}
