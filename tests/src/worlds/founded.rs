//! A store that was made takes its place: the judge hears what its site subscribes to and from where on, and its operator defines what it sends.

use milepost_engine::{Lsn, SiteName, StoreId};
use milepost_replication::catalog::{Catalog, Start};
use milepost_replication::extract::Purpose;
use milepost_replication::keys::KeyId;
use milepost_replication::message::Place;

use super::chance::Chance;
use super::defined::{PUBLICATIONS, Subscribed};
use super::founding::{Attempt, Founding};
use super::operators::draw_value;
use super::shape::NAMES;
use super::world::World;

/// What the program says of a store that it has made.
pub struct Facts {
    pub store: StoreId,
    pub starts: Lsn,
    pub generation: u32,
    pub key: Option<KeyId>,
}

/// Publications, with values, to subscribe to.
pub fn draw_wanted(chance: &Chance) -> Vec<(String, Option<String>)> {
    let first = chance.below(PUBLICATIONS.len() as u64) as usize;
    let chosen = PUBLICATIONS.iter().cycle().skip(first);
    let count = chance.pick(&[1, 1, 2]);
    let wanted = chosen.take(count);
    wanted
        .map(|(name, by)| ((*name).to_owned(), draw_value(chance, *by)))
        .collect()
}

impl World {
    /// The site has the store that was made.
    pub fn be_made(&mut self, founding: &Founding, attempt: Attempt, facts: Facts) -> Result<(), String> {
        let Founding { site, source, .. } = *founding;
        let (down, up) = (self.edge_of(source, site)?, self.edge_of(site, source)?);
        let name = NAMES[site];
        self.tell(format!(
            "{} has made a store of {name}, generation {}, and what is due from {} on comes over the link",
            NAMES[source], facts.generation, facts.starts
        ));
        let subscriptions = self.copied_subscriptions(source, site, &attempt, &facts)?;
        match attempt.purpose {
            Purpose::Extract => self.totals.founded += 1,
            Purpose::Resync => self.totals.replaced += 1,
        }
        let is_new = self.edges[down]
            .making()
            .is_none_or(|making| making.generation < facts.generation);
        if is_new {
            let sent = self.sent(down, 0);
            if let Some(making) = self.edges[down].making() {
                making.removed = Some(sent);
            }
            self.add_making(down, facts.generation);
        }
        self.forget_suspended(down);
        let returned = (attempt.purpose == Purpose::Resync).then_some((attempt.from, facts.starts));
        let making = self.edges[down].making().ok_or("no remote")?;
        (making.subscriptions, making.returned) = (subscriptions, returned);
        let own = &mut self.sites[site];
        while own.known.is_named(&own.judged) {
            own.judged.push('\'');
        }
        own.known.add(facts.store, &own.judged);
        own.be_there(attempt.disk);
        self.sites[site].look()?;
        self.add_making(up, facts.generation);
        self.have_key(site, source, facts.key);
        for which in 0..PUBLICATIONS.len() {
            self.publish_as(site, which, vec!["**"])?;
        }
        match self.chance.percent(70) {
            true => self.subscribe_to(up, 0, Start::Now),
            false => self.subscribe(up),
        }
    }

    /// How far anything was sent over a pair, in messages of this generation or later ones, or in a store that was made.
    pub fn sent(&mut self, edge: usize, generation: u32) -> Place {
        let (from, to) = (NAMES[self.edges[edge].from], NAMES[self.edges[edge].to]);
        let sent = self.wire.sent(from, to, generation);
        let making = self.edges[edge].making();
        let copied = making
            .into_iter()
            .flat_map(|making| &making.subscriptions)
            .filter(|one| one.is_copied);
        copied.map(|one| Place::live(one.id)).fold(sent, Place::max)
    }

    fn copied_subscriptions(
        &mut self,
        source: usize,
        site: usize,
        attempt: &Attempt,
        facts: &Facts,
    ) -> Result<Vec<Subscribed>, String> {
        let told = |error: milepost_engine::Error| format!("what was made cannot be looked at: {error}");
        let store = self.sites[source].desk().map_err(told)?;
        let catalog = Catalog::load(&store).map_err(told)?;
        let name = SiteName::new(NAMES[site]).map_err(told)?;
        let remote = catalog
            .remote(&name)
            .ok_or("the remote of a store that was made is gone")?;
        if remote.generation != facts.generation {
            return Err(format!(
                "{} has generation {} of {name}",
                NAMES[source], remote.generation
            ));
        }
        let mut found = Vec::new();
        for one in catalog.subscriptions_of(remote).filter(|one| one.is_in_force()) {
            let known = PUBLICATIONS.iter().find(|(name, _)| *name == one.publication);
            let (publication, by) = known.copied().ok_or("an unknown publication")?;
            if !attempt.wanted.is_empty()
                && !attempt
                    .wanted
                    .contains(&(one.publication.clone(), one.value.clone()))
            {
                return Err(format!(
                    "{name} got a subscription to {publication} that nobody wanted"
                ));
            }
            self.tell(format!(
                "{name} has subscription {} to {publication} {:?}",
                one.id, one.value
            ));
            found.push(Subscribed {
                id: one.id.lsn(),
                publication,
                by,
                value: one.value.clone(),
                from: attempt.from,
                until: None,
                revoked: None,
                is_copied: true,
            });
        }
        let last = found.iter().map(|one| one.id).max();
        self.maybe_leave_desk(source);
        match last == Some(facts.starts) {
            true => Ok(found),
            false => Err(format!(
                "{name} says that it has all before {}, its last subscription is {last:?}",
                facts.starts
            )),
        }
    }
}
