//! [`Definitions::add_all`]: many remotes and subscriptions at once, with one look at the catalog before and one behind.
//!
//! ```text
//! catalog ─► each checked against it and those before it ─► all frames in one append, one sync ─► catalog: the rules that span two
//! ```
//!
//! **All or nothing.** Nothing is appended unless every one may be, and the first that may not is named by its number. What is there
//! already, exactly so, is passed over: so a list may be given again, also when power was lost while it was written, which may leave
//! the first of it.

use std::collections::{BTreeMap, BTreeSet};

use milepost_engine::frame::NewFrame;
use milepost_engine::{Durability, Error, Lsn, Result, SiteName};

use super::definitions::{
    Definitions, NewRemote, NewSubscription, check_remote, check_wanted, refuse_second_consolidated,
};
use super::history::{Subscribing, keep_history};
use super::record::{self, RemoteBytes, SubscriptionBytes};
use super::{Catalog, Remote, Start, SubscriptionId};

/// One of many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewDefinition {
    /// A remote.
    Remote(NewRemote),
    /// A subscription, of a remote that is there or comes before it.
    Subscription(NewSubscription),
}

/// What became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// Made now.
    pub made: usize,
    /// There already, exactly so.
    pub there: usize,
}

/// Why none of them was made.
#[derive(Debug)]
pub struct NotAdded {
    /// Which one is to blame, from 0; `None` when none is.
    pub number: Option<usize>,
    /// Why.
    pub error: Error,
}

impl From<Error> for NotAdded {
    fn from(error: Error) -> NotAdded {
        NotAdded { number: None, error }
    }
}

/// What one remote asks for of one publication.
type Wanted = (SiteName, String, Option<String>);

fn wanted(new: &NewSubscription) -> Wanted {
    (new.remote.clone(), new.publication.clone(), new.value.clone())
}

/// What is there, and what of the list would be.
struct Checked<'a> {
    catalog: &'a Catalog,
    /// In force, or in the list.
    subscribed: BTreeSet<Wanted>,
    /// Of the list.
    remotes: BTreeMap<SiteName, &'a NewRemote>,
    above: Option<SiteName>,
}

/// A frame that is to be appended, and what it makes.
enum Made {
    Remote(SiteName),
    Subscription(Wanted),
}

impl Definitions<'_> {
    /// Makes all of these, in their order, or none.
    ///
    /// # Errors
    /// As [`Definitions::add_remote`] and [`Definitions::add_subscription`], with the number of the one that is to blame.
    pub fn add_all(&self, all: &[NewDefinition]) -> Result<Added, NotAdded> {
        let catalog = self.catalog()?;
        let mut checked = Checked::of(&catalog);
        let (mut frames, mut made, mut first) = (Vec::new(), Vec::new(), None::<Lsn>);
        for (number, new) in all.iter().enumerate() {
            let blamed = |error| NotAdded {
                number: Some(number),
                error,
            };
            let is_new = checked.take(self, new).map_err(blamed)?;
            if !is_new {
                continue;
            }
            let (frame, what, from) = self.frame_of(new).map_err(blamed)?;
            first = first.into_iter().chain(from).min();
            frames.push(frame);
            made.push(what);
        }
        let added = Added {
            made: frames.len(),
            there: all.len() - frames.len(),
        };
        if frames.is_empty() {
            return Ok(added);
        }
        keep_history(self.store)?;
        // What they ask for stays until the hold of replication knows them.
        let held = first
            .map(|first| Subscribing::begin(self.store, first))
            .transpose()?;
        let committed = self.store.append_frames(frames, Durability::Synced)?;
        held.map(Subscribing::end).transpose()?;
        let lsns: Vec<Lsn> = committed.into_iter().map(|committed| committed.lsn).collect();
        self.judge(&made, &lsns)?;
        Ok(added)
    }

    /// The frame of one, and where its history begins.
    fn frame_of(&self, new: &NewDefinition) -> Result<(NewFrame, Made, Option<Lsn>)> {
        match new {
            NewDefinition::Remote(new) => {
                let key = record::remote_key(&new.site);
                let (previous, generation) = match self.store.pinned(&key)? {
                    Some((value, at)) => (at, record::remote_body(&value, at)?.0.generation),
                    None => (Lsn::ZERO, 0),
                };
                let bytes = RemoteBytes {
                    previous,
                    generation: generation.saturating_add(1),
                    added: Lsn::ZERO,
                    value: Some((new.links.clone(), new.schedule, new.consolidated)),
                };
                let frame = record::remote_frame(&new.site, bytes, new.on_error, new.limits)?;
                Ok((frame, Made::Remote(new.site.clone()), None))
            }
            NewDefinition::Subscription(new) => {
                let from = self.first_position(new.start)?;
                let bytes = SubscriptionBytes::begun(new, from);
                let key = record::subscription_key(self.store.rng().next_u64());
                Ok((record::frame(key, &bytes)?, Made::Subscription(wanted(new)), from))
            }
        }
    }

    /// Commands of other processes may have come in between: where one broke what spans two definitions, all are taken back.
    fn judge(&self, made: &[Made], lsns: &[Lsn]) -> Result<(), NotAdded> {
        let catalog = self.catalog()?;
        let mut oldest: BTreeMap<Wanted, SubscriptionId> = BTreeMap::new();
        for one in catalog.subscriptions().filter(|one| one.is_in_force()) {
            let known = (one.remote.clone(), one.publication.clone(), one.value.clone());
            let first = oldest.entry(known).or_insert(one.id);
            *first = one.id.min(*first);
        }
        let broken = made.iter().zip(lsns).find_map(|(made, lsn)| match made {
            Made::Remote(site) => match catalog.remote(site) {
                None => Some(site.clone()),
                Some(remote) if remote.consolidated => refuse_second_consolidated(&catalog, site)
                    .is_err()
                    .then(|| site.clone()),
                Some(_) => None,
            },
            Made::Subscription(wanted) => {
                let known = catalog.remote(&wanted.0).is_some() && catalog.publication(&wanted.1).is_some();
                let is_first = oldest.get(wanted) == Some(&SubscriptionId(lsn.0));
                (!known || !is_first).then(|| wanted.0.clone())
            }
        });
        let Some(site) = broken else {
            return Ok(());
        };
        for (made, lsn) in made.iter().zip(lsns).rev() {
            match made {
                Made::Subscription(_) => drop(self.remove_subscription(SubscriptionId(lsn.0), true)?),
                Made::Remote(site) if catalog.remote(site).is_some_and(|remote| remote.since == *lsn) => {
                    self.remove_remote(site)?;
                }
                // Another command has changed it since: it is that one's.
                Made::Remote(_) => {}
            }
        }
        let text = format!(
            "another command changed what concerns remote {site} meanwhile; look at it and try again"
        );
        Err(Error::conflict(text).into())
    }
}

impl<'a> Checked<'a> {
    fn of(catalog: &'a Catalog) -> Checked<'a> {
        let in_force = catalog.subscriptions().filter(|one| one.is_in_force());
        let subscribed = in_force.map(|one| (one.remote.clone(), one.publication.clone(), one.value.clone()));
        let above = catalog.remotes().find(|remote| remote.consolidated);
        Checked {
            catalog,
            subscribed: subscribed.collect(),
            remotes: BTreeMap::new(),
            above: above.map(|remote| remote.site.clone()),
        }
    }

    /// False for one that is there already, exactly so.
    fn take(&mut self, definitions: &Definitions<'_>, new: &'a NewDefinition) -> Result<bool> {
        match new {
            NewDefinition::Remote(new) => self.take_remote(definitions, new),
            NewDefinition::Subscription(new) => self.take_subscription(definitions, new),
        }
    }

    fn take_remote(&mut self, definitions: &Definitions<'_>, new: &'a NewRemote) -> Result<bool> {
        check_remote(definitions.store, new)?;
        let there = self.catalog.remote(&new.site).map(as_new);
        let there = there.as_ref().or(self.remotes.get(&new.site).copied());
        match there {
            Some(there) if there == new => return Ok(false),
            Some(_) => {
                return Err(Error::conflict(format!(
                    "remote {} exists and is another one; change it by itself, with --replace",
                    new.site
                )));
            }
            None => {}
        }
        if new.consolidated {
            if let Some(above) = &self.above {
                return Err(Error::conflict(format!(
                    "remote {above} is the consolidated neighbour already; a site has at most one"
                )));
            }
            self.above = Some(new.site.clone());
        }
        self.remotes.insert(new.site.clone(), new);
        Ok(true)
    }

    fn take_subscription(&mut self, definitions: &Definitions<'_>, new: &NewSubscription) -> Result<bool> {
        let is_new = self.remotes.contains_key(&new.remote);
        if !is_new && self.catalog.remote(&new.remote).is_none() {
            return Err(Error::invalid(format!(
                "there is no remote {}; add it first",
                new.remote
            )));
        }
        check_wanted(self.catalog, &new.publication, new.value.as_deref())?;
        if new.start != Start::Now {
            definitions.first_position(new.start)?;
        }
        if !self.subscribed.insert(wanted(new)) {
            return Ok(false);
        }
        if !is_new {
            definitions.refuse_suspended(self.catalog, &new.remote)?;
        }
        Ok(true)
    }
}

/// A remote as it was asked for.
fn as_new(remote: &Remote) -> NewRemote {
    NewRemote {
        site: remote.site.clone(),
        links: remote.links.clone(),
        schedule: remote.schedule,
        consolidated: remote.consolidated,
        on_error: remote.on_error,
        limits: remote.limits,
    }
}
