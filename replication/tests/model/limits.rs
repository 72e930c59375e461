//! Remotes with limits in a [`Story`]: some are suspended when their site finds that they do not confirm, whatever keeps them
//! from it, and their operators bring them back some time later, as `status` says: removed and added again.

use std::time::Duration;

use milepost_engine::{ErrorKind, Lsn, SiteName};
use milepost_replication::catalog::{AtLimit, Remote, RemoteLimits, Start};
use milepost_replication::send::{LimitState, limit_told, suspended};

use super::chance::Chance;
use super::story::Story;

/// Two send intervals, and more.
const GRACE: Duration = Duration::from_secs(130);

/// What the story knows of limits.
pub struct Limited {
    /// Draws them, and what operators do about who is suspended.
    chance: Chance,
    /// How often one was suspended and brought back.
    pub given_up: u64,
    /// The story comes to its end: nobody is given up any more once he is brought back.
    pub resting: bool,
}

impl Limited {
    pub fn new(seed: u64) -> Limited {
        Limited {
            chance: Chance::new(seed ^ 0x8888_0000),
            given_up: 0,
            resting: false,
        }
    }

    /// Limits of a remote that is added.
    fn draw(&self, may_suspend: bool) -> RemoteLimits {
        if self.resting || !self.chance.percent(75) {
            return RemoteLimits::default();
        }
        let at_limit = match self.chance.percent(70) && may_suspend {
            true => AtLimit::Suspend,
            false => AtLimit::Hold,
        };
        RemoteLimits {
            bytes: Some(self.chance.pick(&[200, 500, 5_000])),
            age: self.chance.pick(&[None, Some(200), Some(5_000)]),
            at_limit,
        }
    }
}

impl Story {
    /// Limits for the remote of an edge. One end of which sends only what is backed up is held alone: it may not be made anew.
    pub fn draw_limits(&self, edge: usize) -> RemoteLimits {
        self.limited.draw(!self.is_backed_up(edge))
    }

    /// True when the publisher of an edge has given up its remote.
    pub fn is_suspended(&self, edge: usize) -> bool {
        let (from, to) = (self.edges[edge].from, self.name(self.edges[edge].to));
        let catalog = self.sites[from].definitions().catalog().unwrap();
        let remote = catalog.remote(&SiteName::new(to).unwrap());
        remote.is_some_and(|remote| suspended(self.sites[from].store(), remote).unwrap().is_some())
    }

    /// Why a subscription for the remote of an edge is refused, if it must be.
    pub fn refusal(&self, edge: usize, is_freed: bool) -> Option<ErrorKind> {
        match (self.is_suspended(edge), is_freed) {
            (true, _) => Some(ErrorKind::Conflict),
            (false, true) => Some(ErrorKind::Invalid),
            (false, false) => None,
        }
    }

    /// A site that has found a remote at its limit sends again after the time that it gives it, sometimes before anything else happens.
    fn wait_for_limits(&mut self, site: usize) {
        let store = self.sites[site].store();
        let catalog = self.sites[site].definitions().catalog().unwrap();
        let gives_up = |remote: &&Remote| remote.limits.at_limit == AtLimit::Suspend;
        let at_limit = |remote: &Remote| limit_told(store, remote).unwrap().state == LimitState::Reached;
        let waits = catalog.remotes().filter(gives_up).any(at_limit);
        if waits && self.limited.chance.percent(70) {
            self.time.pass(GRACE);
            // Which pair stops it tells the next time, too.
            let (messages, _) = self.sites[site].send();
            self.tell(format!(
                "{} waits, and sends {messages} messages",
                self.name(site)
            ));
        }
    }

    /// Who is suspended at a site is brought back, sometimes, with all that the log still has.
    pub fn bring_back(&mut self, site: usize) {
        self.wait_for_limits(site);
        for edge in 0..self.edges.len() {
            if self.edges[edge].from != site || !self.is_suspended(edge) {
                continue;
            }
            if !self.limited.resting && !self.limited.chance.percent(30) {
                continue;
            }
            let (from, to) = (self.name(site), self.name(self.edges[edge].to));
            self.tell(format!("{from} had suspended {to}"));
            self.limited.given_up += 1;
            self.remove_or_add_remote(edge);
            if self.edges[edge].making().is_none() {
                self.remove_or_add_remote(edge);
            }
            // What was held of it kept it from being removed: the next time, then.
            if self.is_suspended(edge) {
                continue;
            }
            let start = match self.sites[site].store().oldest().unwrap() {
                Lsn::ZERO => Start::Beginning,
                oldest => Start::At(Lsn(oldest.0 + 1)),
            };
            self.subscribe_to(edge, 0, start);
        }
    }
}
