//! The catalog: who is due what, as the log says it.
//!
//! ```text
//! publication add orders --streams 'orders/**' --by-segment 2      what can be had
//! remote add bern --link milepost://a:7001                         who the neighbours are
//! subscription add --remote bern --publication orders --value be   who gets what, over which range
//! ```
//!
//! Every definition is a pinned record in a control frame of kind [`CATALOG_FRAME`] (docs/format.md,
//! "Catalog"), written by [`Definitions`] and in force by position: a change concerns the
//! transactions behind it. A subscription is a range of positions and its id is the LSN of the frame
//! that made it, so ids ascend and never come again. Publications have versions; the catalog as of an
//! earlier position ([`Catalog::as_of`]) follows each record's `previous` back through the log.
//!
//! Refuses: records of another version, names that break their rule, ranges that end before they begin.

mod anew;
mod bulk;
mod definitions;
mod history;
mod limits;
mod matcher;
mod publication;
mod record;
mod remote;
mod subscription;

pub use bulk::{Added, NewDefinition, NotAdded};
pub(crate) use definitions::check_wanted;
pub use definitions::{Definitions, NewPublication, NewRemote, NewSubscription, was_remote_before};
pub use history::{HOLD, Need, due_before_the_log, hold_what_is_needed, keep_history, needed};
pub use limits::{AtLimit, RemoteLimits};
pub use matcher::{Matcher, Topic, TopicId};
pub use publication::{Article, Publication, SubscribeBy};
pub use record::CATALOG_FRAME;
pub(crate) use record::definition_of;
pub use remote::{OnError, Remote, Schedule};
pub use subscription::{Start, Subscription, SubscriptionId};

use std::collections::{BTreeMap, BTreeSet};

use milepost_engine::frame::FrameRef;
use milepost_engine::{Lsn, Result, SiteName, Store};

use record::{Definition, Record};

/// All definitions in force at one position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    publications: BTreeMap<String, Publication>,
    remotes: BTreeMap<SiteName, Remote>,
    subscriptions: BTreeMap<SubscriptionId, Subscription>,
    /// Those of each remote, ended ones included: with many remotes nobody looks through all of them for one.
    by_remote: BTreeMap<SiteName, BTreeSet<SubscriptionId>>,
}

impl Catalog {
    /// The definitions in force at the durable end.
    ///
    /// # Errors
    /// `Corrupt` when a record cannot be read; otherwise as [`Store::pinned_with_prefix`].
    pub fn load(store: &Store) -> Result<Catalog> {
        Catalog::as_of(store, Lsn::MAX)
    }

    /// The publications and remotes in force for a transaction behind `lsn`. Subscriptions carry
    /// their range, so all of them are given, whatever the position.
    ///
    /// # Errors
    /// As [`Catalog::load`], and `Behind` for a position before the log begins, unless the base can tell.
    pub fn as_of(store: &Store, lsn: Lsn) -> Result<Catalog> {
        let mut catalog = Catalog::default();
        for (key, value, at) in store.pinned_with_prefix(record::PREFIX)? {
            let newest = Record::decode(&key, &value, at)?;
            if let Definition::Subscription(_) = newest.definition {
                catalog.take(newest);
            } else if let Some(record) = newest.back_to(store, lsn)? {
                catalog.take(record);
            }
        }
        Ok(catalog)
    }

    /// The same publications with nothing but these subscriptions: for who wants to know what they would bring.
    pub(crate) fn asked_for(mut self, remote: &SiteName, wanted: &[(String, Option<String>)]) -> Catalog {
        let subscription = |(number, (publication, value)): (u64, &(String, Option<String>))| {
            let id = SubscriptionId(number);
            let subscription = Subscription {
                id,
                remote: remote.clone(),
                publication: publication.clone(),
                value: value.clone(),
                from: id.lsn(),
                until: None,
                revoked: None,
            };
            (id, subscription)
        };
        self.subscriptions = (0..).zip(wanted).map(subscription).collect();
        let own = self.subscriptions.keys().copied().collect();
        self.by_remote = BTreeMap::from([(remote.clone(), own)]);
        self
    }

    /// Takes in the definitions of one frame; true when it held any.
    ///
    /// # Errors
    /// `Corrupt` when a record cannot be read.
    pub fn follow(&mut self, frame: &FrameRef<'_>) -> Result<bool> {
        if frame.kind() != CATALOG_FRAME {
            return Ok(false);
        }
        for pinned in frame.pinned()? {
            // Beside definitions stand removals of what tracking knew of a removed remote.
            if let Some(value) = pinned.value.filter(|_| pinned.key.starts_with(record::PREFIX)) {
                self.take(Record::decode(pinned.key, value, frame.lsn())?);
            }
        }
        Ok(true)
    }

    fn take(&mut self, record: Record) {
        match record.definition {
            Definition::Publication {
                name,
                value: Some(publication),
            } => {
                self.publications.insert(name, publication);
            }
            Definition::Publication { name, value: None } => {
                self.publications.remove(&name);
            }
            Definition::Remote {
                name,
                value: Some(remote),
            } => {
                self.remotes.insert(name, remote);
            }
            Definition::Remote { name, value: None } => {
                self.remotes.remove(&name);
            }
            Definition::Subscription(subscription) => {
                let own = self.by_remote.entry(subscription.remote.clone()).or_default();
                own.insert(subscription.id);
                self.subscriptions.insert(subscription.id, subscription);
            }
        }
    }

    /// A publication by name.
    #[must_use]
    pub fn publication(&self, name: &str) -> Option<&Publication> {
        self.publications.get(name)
    }

    /// Publications by name.
    pub fn publications(&self) -> impl Iterator<Item = &Publication> {
        self.publications.values()
    }

    /// A remote by its site's name.
    #[must_use]
    pub fn remote(&self, name: &SiteName) -> Option<&Remote> {
        self.remotes.get(name)
    }

    /// Remotes by name.
    pub fn remotes(&self) -> impl Iterator<Item = &Remote> {
        self.remotes.values()
    }

    /// A subscription by id.
    #[must_use]
    pub fn subscription(&self, id: SubscriptionId) -> Option<&Subscription> {
        self.subscriptions.get(&id)
    }

    /// Subscriptions, ended ones included, in the order they were made.
    pub fn subscriptions(&self) -> impl Iterator<Item = &Subscription> {
        self.subscriptions.values()
    }

    /// Subscriptions of a remote, ended ones included, in the order they were made. Those of a former
    /// remote of the same name ended with it.
    pub fn subscriptions_of<'a>(&'a self, remote: &'a Remote) -> impl Iterator<Item = &'a Subscription> {
        let own = self.by_remote.get(&remote.site).into_iter().flatten();
        own.filter_map(|id| self.subscriptions.get(id))
            .filter(|one| one.id.lsn() > remote.added)
    }
}

#[cfg(test)]
pub(crate) mod tests;
