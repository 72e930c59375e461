//! What the operators of a [`Story`] do: publications, remotes, subscriptions. Each act is done at the site and
//! noted in the model.

use milepost_engine::{ErrorKind, Lsn, SiteName};
use milepost_replication::catalog::{
    NewPublication, NewRemote, NewSubscription, OnError, Schedule, Start, SubscribeBy, SubscriptionId,
};

use milepost_replication::quarantine::held_of;

use super::defined::{By, Making, PUBLICATIONS, Subscribed, Version};
use super::story::{NAMES, Story};

const PATTERNS: [&str; 6] = ["**", "x/**", "y/*", "*/1", "x/2", "y/0"];

impl Story {
    /// Every site publishes, knows its neighbours, and most subscribe to all that is to come.
    pub fn begin(&mut self) {
        for site in 0..self.sites.len() {
            self.publish_as(site, 0, vec!["**"], Vec::new());
            self.publish(site);
        }
        for edge in 0..self.edges.len() {
            self.remove_or_add_remote(edge);
            if self.chance.percent(60) {
                self.subscribe_to(edge, 0, Start::Now);
            }
        }
        if self.chance.percent(70) {
            self.change_weather();
        }
    }

    pub fn name(&self, site: usize) -> &'static str {
        NAMES[site]
    }

    /// A publication is made, changed, or removed if nobody subscribes to it.
    pub fn publish(&mut self, site: usize) {
        let which = self.chance.below(PUBLICATIONS.len() as u64) as usize;
        if self.chance.percent(20) && self.is_published(site, which) && !self.is_in_use(site, which) {
            self.unpublish(site, which);
            return;
        }
        let patterns = (0..1 + self.chance.below(2)).map(|_| self.chance.pick(&PATTERNS));
        let patterns: Vec<&'static str> = patterns.collect();
        let kinds = if self.chance.percent(30) {
            vec![self.chance.pick(&["k", "m"])]
        } else {
            Vec::new()
        };
        self.publish_as(site, which, patterns, kinds);
    }

    fn publish_as(
        &mut self,
        site: usize,
        which: usize,
        patterns: Vec<&'static str>,
        kinds: Vec<&'static str>,
    ) {
        let (name, by) = PUBLICATIONS[which];
        let by = match by {
            By::Nothing => None,
            By::Segment => Some(SubscribeBy::Segment(2)),
            By::Region => Some(SubscribeBy::Header("region".to_owned())),
        };
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let new = NewPublication::new(name, &owned(&patterns), &owned(&kinds), by);
        let definitions = self.sites[site].definitions();
        let replace = definitions.catalog().unwrap().publication(name).is_some();
        let made = definitions.add_publication(new, replace).unwrap();
        self.tell(format!(
            "{} publishes {name} {patterns:?} {kinds:?} from {} on",
            self.name(site),
            made.since
        ));
        let version = Version {
            since: made.since,
            patterns,
            kinds,
        };
        self.publications[site].entry(name).or_default().push(version);
    }

    fn unpublish(&mut self, site: usize, which: usize) {
        let name = PUBLICATIONS[which].0;
        let store = self.sites[site].store();
        let since = Lsn(store.watermarks().durable.0 - 1);
        self.sites[site].definitions().remove_publication(name).unwrap();
        self.tell(format!(
            "{} publishes {name} no more, from {since} on",
            self.name(site)
        ));
        let version = Version {
            since,
            patterns: Vec::new(),
            kinds: Vec::new(),
        };
        self.publications[site].entry(name).or_default().push(version);
    }

    fn is_published(&self, site: usize, which: usize) -> bool {
        let versions = self.publications[site].get(PUBLICATIONS[which].0);
        versions
            .and_then(|versions| versions.last())
            .is_some_and(|last| !last.patterns.is_empty())
    }

    fn is_in_use(&self, site: usize, which: usize) -> bool {
        let makings = self
            .edges
            .iter()
            .filter(|edge| edge.from == site)
            .flat_map(|edge| &edge.makings);
        let mut all = makings.flat_map(|making| &making.subscriptions);
        all.any(|one| one.publication == PUBLICATIONS[which].0 && one.until.is_none())
    }

    pub fn subscribe(&mut self, edge: usize) {
        let which = self.chance.below(PUBLICATIONS.len() as u64) as usize;
        let own = self.oldest_own(self.edges[edge].from);
        let start = match self.chance.below(4) {
            0 | 1 => Start::Now,
            2 => Start::Beginning,
            _ if own.is_empty() => Start::Now,
            _ => Start::At(self.chance.pick(&own)),
        };
        self.subscribe_to(edge, which, start);
    }

    pub fn subscribe_to(&mut self, edge: usize, which: usize, start: Start) {
        let (from, to) = (self.edges[edge].from, self.name(self.edges[edge].to));
        let (publication, by) = PUBLICATIONS[which];
        let value = match by {
            By::Nothing => None,
            By::Segment => Some(self.chance.below(3).to_string()),
            By::Region => Some(self.chance.pick(&["n", "s"]).to_owned()),
        };
        let is_known = self.is_published(from, which);
        let publishes = self.edges[edge].publishes;
        let Some(making) = self.edges[edge].making().filter(|_| publishes && is_known) else {
            return;
        };
        let same =
            |one: &Subscribed| one.until.is_none() && one.publication == publication && one.value == value;
        if making.subscriptions.iter().any(same) {
            return;
        }
        let new = NewSubscription {
            remote: SiteName::new(to).unwrap(),
            publication: publication.to_owned(),
            value: value.clone(),
            start,
        };
        let oldest = self.sites[from].store().oldest().unwrap();
        let since = match start {
            Start::Now => None,
            Start::Beginning => Some(Lsn::ZERO),
            Start::At(lsn) => Some(lsn),
        };
        let made = self.sites[from].definitions().add_subscription(new);
        let is_freed = since.is_some_and(|since| since <= oldest && oldest > Lsn::ZERO);
        if let Some(kind) = self.refusal(edge, is_freed) {
            assert_eq!(
                made.unwrap_err().kind(),
                kind,
                "it is given up, or what it asks for was freed"
            );
            return;
        }
        let made = made.unwrap();
        let id = made.id.lsn();
        let since = since.unwrap_or(id);
        self.tell(format!(
            "{} gives {to} subscription {id} to {publication} {value:?} from {since} on",
            self.name(from)
        ));
        let subscribed = Subscribed {
            id,
            publication,
            by,
            value,
            from: since,
            until: None,
            revoked: None,
            is_copied: false,
        };
        self.edges[edge].making().unwrap().subscriptions.push(subscribed);
    }

    /// A subscription ends, or is revoked, also after it has ended.
    pub fn end_subscription(&mut self, edge: usize) {
        let revoke = self.chance.percent(50);
        let chance = self.chance.clone();
        let Some(making) = self.edges[edge].making() else {
            return;
        };
        let fits = |one: &Subscribed| match revoke {
            true => one.revoked.is_none(),
            false => one.until.is_none(),
        };
        let open: Vec<usize> = (0..making.subscriptions.len())
            .filter(|number| fits(&making.subscriptions[*number]))
            .collect();
        if !open.is_empty() {
            self.end_one(edge, chance.pick(&open), revoke);
        }
    }

    fn end_one(&mut self, edge: usize, number: usize, revoke: bool) {
        let (from, to) = (self.edges[edge].from, self.edges[edge].to);
        let making = self.edges[edge].making().unwrap();
        let sent = self
            .wire
            .sent(self.sites[from].name, self.sites[to].name, making.generation);
        let one = &mut making.subscriptions[number];
        let gone = self.sites[from]
            .definitions()
            .remove_subscription(SubscriptionId(one.id.0), revoke)
            .unwrap();
        one.until = gone.until;
        one.revoked = gone.revoked.map(|at| (at, sent));
        let (id, until) = (one.id, gone.until.unwrap());
        self.tell(format!(
            "{} ends subscription {id} of {} at {until}{}",
            self.name(from),
            self.name(to),
            if revoke { ", revoked" } else { "" }
        ));
    }

    /// A remote goes with its subscriptions, and some time later comes again.
    pub fn remove_or_add_remote(&mut self, edge: usize) {
        let (from, to) = (self.edges[edge].from, self.edges[edge].to);
        let site = SiteName::new(self.name(to)).unwrap();
        if held_of(self.sites[from].store(), &site).unwrap().is_some() {
            // Nobody else has it any more.
            let refused = self.sites[from].definitions().remove_remote(&site).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Conflict);
            return;
        }
        let Some(making) = self.edges[edge].making() else {
            let new = NewRemote {
                site,
                links: vec!["memory://".to_owned()],
                schedule: Schedule::EverySeconds(1),
                consolidated: false,
                on_error: OnError::GoOn,
                limits: self.draw_limits(edge),
            };
            let made = self.sites[from].definitions().add_remote(new, false).unwrap();
            self.makings += 1;
            let number = self.makings;
            self.edges[edge].makings.push(Making {
                generation: made.generation,
                number,
                subscriptions: Vec::new(),
                removed: None,
                returned: None,
                lost: None,
            });
            let (from, to, generation) = (self.name(from), self.name(to), made.generation);
            self.tell(format!("{from} adds remote {to}, generation {generation}"));
            if self.chance.percent(60) {
                self.subscribe(edge);
            }
            return;
        };
        let open: Vec<usize> = (0..making.subscriptions.len())
            .filter(|number| making.subscriptions[*number].until.is_none())
            .collect();
        open.into_iter()
            .for_each(|number| self.end_one(edge, number, false));
        let generation = self.edges[edge].making().unwrap().generation;
        let sent = self
            .wire
            .sent(self.sites[from].name, self.sites[to].name, generation);
        self.sites[from].definitions().remove_remote(&site).unwrap();
        self.edges[edge].making().unwrap().removed = Some(sent);
        self.tell(format!("{} removes remote {}", self.name(from), self.name(to)));
        if self.chance.percent(50) {
            self.remove_or_add_remote(edge);
        }
    }
}
