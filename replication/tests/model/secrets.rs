//! Keys of some pairs, replaced while everything else happens. Nothing that comes may be one that its addressee cannot open
//! or does not believe: what damage the link does is found by checksums, before any key is asked.
//!
//! What is drawn here is drawn apart, so that a story is the same with and without keys.

use milepost_engine::SiteName;
use milepost_replication::keys::{KeyId, KeyLine, Keys, PairKeys, keys_of};

use super::story::Story;

/// A pair that has a key.
pub struct Secret {
    /// Its sites.
    sites: [usize; 2],
    /// A new key that one of them has, and which.
    carried: Option<(usize, KeyLine)>,
    /// Where the last key was drawn.
    drawn_at: usize,
}

impl Story {
    /// Some pairs get a key before anything goes between them.
    pub fn share_keys(&mut self) {
        for edge in 0..self.edges.len() {
            let sites = [self.edges[edge].from, self.edges[edge].to];
            let [one, other] = sites;
            let known = self
                .secrets
                .iter()
                .any(|secret| secret.sites == sites || secret.sites == [other, one]);
            if known || self.dice.percent(40) {
                continue;
            }
            let line = Keys::new(self.sites[one].store()).add_fresh(&self.site_name(other));
            let line = line.unwrap();
            Keys::new(self.sites[other].store())
                .add(&self.site_name(one), &line, false)
                .unwrap();
            self.tell(format!(
                "{} and {} share key {}",
                self.name(one),
                self.name(other),
                line.key.id()
            ));
            self.secrets.push(Secret {
                sites,
                carried: None,
                drawn_at: one,
            });
        }
    }

    /// The next step of replacing the key of some pair: draw a new one, carry it, drop the former at one site, at the other.
    pub fn go_on_with_a_key(&mut self) {
        if self.secrets.is_empty() {
            return;
        }
        let which = self.dice.below(self.secrets.len() as u64) as usize;
        let [one, other] = self.secrets[which].sites;
        let side = self.dice.below(2) as usize;
        let [mut here, mut there] = [[one, other], [other, one]][side];
        if let Some((at, line)) = self.secrets[which].carried.take() {
            let to = if at == one { other } else { one };
            Keys::new(self.sites[to].store())
                .add(&self.site_name(at), &line, false)
                .unwrap();
            self.tell(format!("{} gets key {}", self.name(to), line.key.id()));
            return;
        }
        let (both, its) = (self.ids(here, there), self.ids(there, here));
        if both.0.len() == 1 && its.0.len() == 1 {
            let line = Keys::new(self.sites[here].store()).add_fresh(&self.site_name(there));
            let line = line.unwrap();
            self.tell(format!(
                "{} draws key {} for {}",
                self.name(here),
                line.key.id(),
                self.name(there)
            ));
            self.secrets[which].drawn_at = here;
            self.secrets[which].carried = Some((here, line));
            return;
        }
        // First where the new one was drawn: it would seal with the former again if it were restored.
        here = self.secrets[which].drawn_at;
        there = if here == one { other } else { one };
        if self.ids(here, there).0.len() == 1 {
            (here, there) = (there, here);
        }
        let ((ids, seals), (_, its_seals)) = (self.ids(here, there), self.ids(there, here));
        if seals == its_seals && seals == ids[0] {
            Keys::new(self.sites[here].store())
                .drop_key(&self.site_name(there), ids[1])
                .unwrap();
            self.keys += 1;
            self.tell(format!(
                "{} drops key {} of {}",
                self.name(here),
                ids[1],
                self.name(there)
            ));
        }
    }

    /// Ids of the keys that a site has of another, the newest first, and the one that seals.
    fn ids(&self, here: usize, there: usize) -> (Vec<KeyId>, KeyId) {
        let keys = keys_of(self.sites[here].store(), &self.site_name(there)).unwrap();
        let seals = keys.sealing().expect("a pair that has a key").id();
        match &keys {
            PairKeys::Sealed { ring, .. } => (ring.keys().iter().map(|one| one.key.id()).collect(), seals),
            other => panic!("{other:?}"),
        }
    }

    fn site_name(&self, site: usize) -> SiteName {
        SiteName::new(self.name(site)).unwrap()
    }
}
