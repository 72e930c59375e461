//! What operators do: publications, remotes, subscriptions. Each act is done at the site, durably, and noted for the judge.

use milepost_engine::{ErrorKind, Lsn, SiteName, Store};
use milepost_replication::catalog::{
    Definitions, NewPublication, NewRemote, NewSubscription, OnError, RemoteLimits, Schedule, Start,
    SubscribeBy, SubscriptionId,
};

use milepost_replication::quarantine::held_of;

use super::carrying::BUNDLE;
use super::chance::Chance;
use super::defined::{By, Making, PUBLICATIONS, Subscribed, Version};
use super::process::STOPPED;
use super::shape::NAMES;
use super::world::{Kind, World};

const PATTERNS: [&str; 5] = ["**", "x/**", "y/*", "*/1", "y/0"];

fn refused(error: milepost_engine::Error) -> String {
    format!("an operator is refused though nothing fails: {error}")
}

/// What a subscriber chooses by.
pub fn draw_value(chance: &Chance, by: By) -> Option<String> {
    match by {
        By::Nothing => None,
        By::Segment => Some(chance.below(3).to_string()),
        By::Region => Some(chance.pick(&["n", "s"]).to_owned()),
    }
}

impl World {
    /// Every site publishes, knows its neighbours, and most subscribe to all that is to come.
    pub fn begin(&mut self) -> Result<(), String> {
        for site in self.present() {
            for which in 0..PUBLICATIONS.len() {
                self.publish_as(site, which, vec!["**"])?;
            }
        }
        for edge in 0..self.edges.len() {
            if self.is_unsettled(edge) {
                continue;
            }
            self.add_remote(edge)?;
            if self.kind != Kind::Whole || self.chance.percent(70) {
                self.subscribe_to(edge, 0, Start::Now)?;
            } else {
                self.subscribe(edge)?;
            }
        }
        if self.chance.percent(70) {
            self.change_weather();
        }
        Ok(())
    }

    fn desk(&mut self, site: usize) -> Result<Store, String> {
        self.sites[site].desk().map_err(refused)
    }

    /// A publication gets another pattern.
    pub fn publish(&mut self, site: usize) -> Result<(), String> {
        let which = self.chance.below(PUBLICATIONS.len() as u64) as usize;
        let pattern = self.chance.pick(&PATTERNS);
        self.publish_as(site, which, vec![pattern])
    }

    pub fn publish_as(
        &mut self,
        site: usize,
        which: usize,
        patterns: Vec<&'static str>,
    ) -> Result<(), String> {
        let (name, by) = PUBLICATIONS[which];
        let by = match by {
            By::Nothing => None,
            By::Segment => Some(SubscribeBy::Segment(2)),
            By::Region => Some(SubscribeBy::Header("region".to_owned())),
        };
        let owned: Vec<String> = patterns.iter().map(|text| (*text).to_owned()).collect();
        let new = NewPublication::new(name, &owned, &[], by);
        let store = self.desk(site)?;
        let replace = self.publications[site].contains_key(name);
        let made = Definitions::new(&store)
            .add_publication(new, replace)
            .map_err(refused)?;
        self.tell(format!(
            "{} publishes {name} {patterns:?} from {} on",
            NAMES[site], made.since
        ));
        self.publications[site].entry(name).or_default().push(Version {
            since: made.since,
            patterns,
            kinds: Vec::new(),
        });
        self.maybe_leave_desk(site);
        Ok(())
    }

    pub fn subscribe(&mut self, edge: usize) -> Result<(), String> {
        let which = self.chance.below(PUBLICATIONS.len() as u64) as usize;
        let own: Vec<Lsn> = self.sites[self.edges[edge].from]
            .commits
            .keys()
            .copied()
            .collect();
        let start = match self.chance.below(4) {
            0 | 1 => Start::Now,
            3 if !own.is_empty() => Start::At(self.chance.pick(&own)),
            _ => Start::Beginning,
        };
        self.subscribe_to(edge, which, start)
    }

    pub fn subscribe_to(&mut self, edge: usize, which: usize, start: Start) -> Result<(), String> {
        let (from, to) = (self.edges[edge].from, NAMES[self.edges[edge].to]);
        let (publication, by) = PUBLICATIONS[which];
        let value = draw_value(&self.chance, by);
        let same =
            |one: &Subscribed| one.until.is_none() && one.publication == publication && one.value == value;
        match self.edges[edge].making() {
            Some(making) if !making.subscriptions.iter().any(same) => {}
            _ => return Ok(()),
        }
        let store = self.desk(from)?;
        let oldest = store.oldest().map_err(refused)?;
        let since = match start {
            Start::Now => None,
            Start::Beginning => Some(Lsn::ZERO),
            Start::At(lsn) => Some(lsn),
        };
        let made = Definitions::new(&store).add_subscription(NewSubscription {
            remote: SiteName::new(to).map_err(refused)?,
            publication: publication.to_owned(),
            value: value.clone(),
            start,
        });
        // What somebody freed who was killed before he told is known once the hold is taken.
        let oldest_now = store.oldest().map_err(refused)?;
        self.maybe_leave_desk(from);
        let freed_below = |oldest: Lsn| since.is_some_and(|since| since <= oldest && oldest > Lsn::ZERO);
        let is_freed = freed_below(oldest);
        let made = match made {
            Err(error) if freed_below(oldest_now) && error.kind() == ErrorKind::Invalid => return Ok(()),
            Err(error) if self.limiting.is_some() && error.to_string().contains("is suspended: end") => {
                return Ok(());
            }
            Ok(_) if is_freed => return Err(format!("{} gave what it had freed", NAMES[from])),
            made => made.map_err(refused)?,
        };
        let id = made.id.lsn();
        let since = since.unwrap_or(id);
        self.tell(format!(
            "{} gives {to} subscription {id} to {publication} {value:?} from {since} on",
            NAMES[from]
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
        if let Some(making) = self.edges[edge].making() {
            making.subscriptions.push(subscribed);
        }
        Ok(())
    }

    /// A subscription ends, or is revoked, also after it has ended.
    pub fn end_subscription(&mut self, edge: usize) -> Result<(), String> {
        let revoke = self.chance.percent(50);
        let Some(making) = self.edges[edge].making() else {
            return Ok(());
        };
        let fits = |one: &Subscribed| match revoke {
            true => one.revoked.is_none(),
            false => one.until.is_none(),
        };
        let open: Vec<usize> = (0..making.subscriptions.len())
            .filter(|number| fits(&making.subscriptions[*number]))
            .collect();
        match open.is_empty() {
            true => Ok(()),
            false => {
                let number = self.chance.pick(&open);
                self.end_this(edge, number, revoke)
            }
        }
    }

    fn end_this(&mut self, edge: usize, number: usize, revoke: bool) -> Result<(), String> {
        let (from, to) = (self.edges[edge].from, self.edges[edge].to);
        let store = self.desk(from)?;
        let generation = self.edges[edge].making().ok_or("no remote")?.generation;
        let sent = self.sent(edge, generation);
        let making = self.edges[edge].making().ok_or("no remote")?;
        let one = &mut making.subscriptions[number];
        let gone = Definitions::new(&store)
            .remove_subscription(SubscriptionId(one.id.0), revoke)
            .map_err(refused)?;
        one.until = gone.until;
        one.revoked = gone.revoked.map(|at| (at, sent));
        let (id, until) = (one.id, one.until);
        self.tell(format!(
            "{} ends subscription {id} of {} at {until:?}{}",
            NAMES[from],
            NAMES[to],
            if revoke { ", revoked" } else { "" }
        ));
        self.maybe_leave_desk(from);
        Ok(())
    }

    /// A remote goes with its subscriptions, and some time later comes again.
    pub fn remove_or_add_remote(&mut self, edge: usize) -> Result<(), String> {
        if self.is_unsettled(edge) {
            return Ok(());
        }
        let Some(making) = self.edges[edge].making() else {
            self.add_remote(edge)?;
            return self.subscribe(edge);
        };
        let open = making.subscriptions.iter().enumerate();
        let open: Vec<usize> = open
            .filter(|(_, one)| one.until.is_none())
            .map(|(number, _)| number)
            .collect();
        let generation = making.generation;
        let (from, to) = (self.edges[edge].from, NAMES[self.edges[edge].to]);
        let (store, site) = (self.desk(from)?, SiteName::new(to).map_err(refused)?);
        if held_of(&store, &site).map_err(refused)?.is_some() {
            // Nobody else has it any more.
            let removed = Definitions::new(&store).remove_remote(&site);
            let is_kept = removed.is_err_and(|error| error.kind() == ErrorKind::Conflict);
            return is_kept
                .then_some(())
                .ok_or_else(|| format!("{} let go of what it holds of {to} (R6)", NAMES[from]));
        }
        for number in open {
            self.end_this(edge, number, false)?;
        }
        let sent = self.sent(edge, generation);
        let store = self.desk(from)?;
        match Definitions::new(&store).remove_remote(&site) {
            // Something was put in quarantine while its subscriptions ended.
            Err(error)
                if error.kind() == ErrorKind::Conflict
                    && held_of(&store, &site).map_err(refused)?.is_some() =>
            {
                self.tell(format!("{} may not remove remote {to}: {error}", NAMES[from]));
                self.maybe_leave_desk(from);
                return Ok(());
            }
            removed => removed.map_err(refused)?,
        };
        if let Some(making) = self.edges[edge].making() {
            making.removed = Some(sent);
        }
        self.tell(format!("{} removes remote {to}", NAMES[from]));
        self.maybe_leave_desk(from);
        if self.chance.percent(50) {
            self.remove_or_add_remote(edge)?;
        }
        Ok(())
    }

    fn add_remote(&mut self, edge: usize) -> Result<(), String> {
        let limits = self.draw_limits();
        self.add_remote_with(edge, limits)
    }

    pub fn add_remote_with(&mut self, edge: usize, limits: RemoteLimits) -> Result<(), String> {
        let (from, to) = (self.edges[edge].from, NAMES[self.edges[edge].to]);
        let store = self.desk(from)?;
        let (one, other) = (self.edges[edge].from, self.edges[edge].to);
        let is_carried = self
            .carried
            .is_some_and(|sites| sites.contains(&one) && sites.contains(&other));
        let new = NewRemote {
            site: SiteName::new(to).map_err(refused)?,
            links: vec![if is_carried { BUNDLE } else { "memory://" }.to_owned()],
            schedule: if is_carried {
                Schedule::None
            } else {
                Schedule::EverySeconds(1)
            },
            consolidated: false,
            on_error: OnError::GoOn,
            limits,
        };
        let made = Definitions::new(&store).add_remote(new, false).map_err(refused)?;
        self.add_making(edge, made.generation);
        self.tell(format!(
            "{} adds remote {to}, generation {}",
            NAMES[from], made.generation
        ));
        Ok(())
    }

    /// A remote is there, without subscriptions yet.
    pub fn add_making(&mut self, edge: usize, generation: u32) {
        self.makings += 1;
        self.edges[edge].makings.push(Making {
            generation,
            number: self.makings,
            subscriptions: Vec::new(),
            removed: None,
            returned: None,
            lost: None,
        });
    }

    /// A pair that needs what was freed is made anew by the operator, as it asks for. It may only if its neighbour made it
    /// anew, who then may ask for what it had confirmed. Any other reason ends the run: nobody went back (R5).
    pub fn make_anew(&mut self, site: usize, why: &str) -> Result<(), String> {
        let told = format!("{}: {why}", NAMES[site]);
        if self.kind == Kind::GoingBack && why.starts_with(STOPPED) {
            self.note_stopped(told);
            return Ok(());
        }
        let pair = why.strip_prefix(STOPPED).and_then(|rest| rest.split(' ').next());
        let of = |from: usize, to: &str| {
            let fits = |edge: &super::world::Edge| edge.from == from && NAMES[edge.to] == to;
            self.edges.iter().position(fits)
        };
        let number = pair
            .filter(|_| why.contains("was freed"))
            .and_then(|pair| of(site, pair));
        let number = number.ok_or_else(|| format!("R4, R5: nothing gives a reason, and {told}"))?;
        let other = of(self.edges[number].to, NAMES[site]);
        let made = |number: usize| {
            self.edges[number]
                .makings
                .last()
                .map_or(0, |making| making.number)
        };
        if other.map_or(0, made) <= made(number) {
            return Err(format!("Q2: nobody made it anew, and {told}"));
        }
        self.tell(told);
        self.remove_or_add_remote(number)
    }
}
