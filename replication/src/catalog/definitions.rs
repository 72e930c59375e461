//! [`Definitions`]: makes and ends publications, remotes and subscriptions, for command line and API.
//!
//! Each call reads the catalog, checks, and appends one control frame. Commands of other processes
//! may come in between: so the rules that span two definitions are checked once more behind the own
//! frame, and what broke one is taken back with `Conflict`. A reader that meets the moment between
//! sees a subscription without its publication, which is due nothing.

use milepost_engine::frame::NewFrame;
use milepost_engine::{Durability, Error, Lsn, Pinned, Result, SiteName, Store};

use crate::backup::CoveredRecord;
use crate::keys::DistrustRecord;
use crate::quarantine::held_prefix;
use crate::receive::{DamagedRecord, GapRecord};
use crate::send::{LimitRecord, SEND_NOW_PREFIX, SENT_NOW_PREFIX, SuspendedRecord, suspended};
use crate::tracking::{
    AskedRecord, ConfirmedRecord, PairRecord, PairState, ProbeRecord, ReceivedRecord, RejoinedRecord,
    ReportedRecord, SentRecord, ServingRecord, ToldRecord, TransferRecord,
};

use super::history::Subscribing;
use super::record::{self, End, PublicationBytes, RemoteBytes, SubscriptionBytes};
use super::{
    Article, Catalog, OnError, Publication, Remote, RemoteLimits, Schedule, Start, SubscribeBy, Subscription,
    SubscriptionId, publication, remote,
};

/// Longest value a subscription may choose, in bytes.
const VALUE_MAX: usize = 1024;

/// A publication to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPublication {
    /// Its name: 1 to 64 characters of `a-z A-Z 0-9 . _ -`.
    pub name: String,
    /// Its articles, at least one.
    pub articles: Vec<Article>,
    /// What subscribers choose by.
    pub by: Option<SubscribeBy>,
}

impl NewPublication {
    /// A publication of all events, or of some kinds, in the streams that the patterns select.
    #[must_use]
    pub fn new(name: &str, patterns: &[String], kinds: &[String], by: Option<SubscribeBy>) -> NewPublication {
        let article = |streams: &String| Article {
            streams: streams.clone(),
            kinds: kinds.to_vec(),
        };
        NewPublication {
            name: name.to_owned(),
            articles: patterns.iter().map(article).collect(),
            by,
        }
    }
}

/// A remote to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRemote {
    /// Name of the neighbour site.
    pub site: SiteName,
    /// Link addresses, the primary first.
    pub links: Vec<String>,
    /// When it is sent to.
    pub schedule: Schedule,
    /// True for the one neighbour above.
    pub consolidated: bool,
    /// What happens when a transaction of its cannot be applied.
    pub on_error: OnError,
    /// How much may be kept for it.
    pub limits: RemoteLimits,
}

/// A subscription to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSubscription {
    /// Who is due.
    pub remote: SiteName,
    /// What.
    pub publication: String,
    /// The value, where the publication asks for one.
    pub value: Option<String>,
    /// Since when.
    pub start: Start,
}

/// Changes the catalog of a store.
pub struct Definitions<'a> {
    pub(super) store: &'a Store,
}

impl<'a> Definitions<'a> {
    /// Definitions of this store.
    #[must_use]
    pub fn new(store: &'a Store) -> Definitions<'a> {
        Definitions { store }
    }

    /// The catalog as it is now.
    ///
    /// # Errors
    /// As [`Catalog::load`].
    pub fn catalog(&self) -> Result<Catalog> {
        Catalog::load(self.store)
    }

    /// Makes a publication; with `replace`, changes one from here on.
    ///
    /// # Errors
    /// `Invalid` when a rule is broken; `Conflict` when the name is taken and `replace` is false, or free
    /// and it is true, or the change would strand a subscription that has (or lacks) a value.
    pub fn add_publication(&self, new: NewPublication, replace: bool) -> Result<Publication> {
        publication::check(&new.name, &new.articles, new.by.as_ref())?;
        let catalog = self.catalog()?;
        let current = catalog.publication(&new.name);
        refuse_mistaken(&format!("publication {}", new.name), current.is_some(), replace)?;
        if current.is_some_and(|current| current.by.is_some() != new.by.is_some()) {
            refuse_if_in_use(&catalog, &new.name, "cannot change whether it asks for a value")?;
        }
        let (previous, version) = self.previous::<PublicationBytes>(&record::publication_key(&new.name))?;
        let version = version.map_or(1, |bytes| bytes.version.saturating_add(1));
        let bytes = PublicationBytes {
            previous,
            version,
            value: Some((new.articles, new.by)),
        };
        self.append(record::publication_key(&new.name), &bytes)?;
        let made = self.catalog()?.publication(&new.name).cloned();
        made.ok_or_else(|| {
            Error::conflict(format!("publication {} was removed by another command", new.name))
        })
    }

    /// Removes a publication that nobody subscribes to.
    ///
    /// # Errors
    /// `Invalid` when there is none; `Conflict` when a subscription uses it.
    pub fn remove_publication(&self, name: &str) -> Result<()> {
        let catalog = self.catalog()?;
        let Some(current) = catalog.publication(name).cloned() else {
            return Err(Error::invalid(format!("there is no publication {name}")));
        };
        refuse_if_in_use(&catalog, name, "cannot be removed")?;
        let gone = PublicationBytes {
            previous: current.since,
            version: current.version,
            value: None,
        };
        let lsn = self.append(record::publication_key(name), &gone)?;
        // A subscription made between the check and our frame would be stranded.
        let in_use = refuse_if_in_use(&self.catalog()?, name, "cannot be removed");
        if in_use.is_err() {
            let value = Some((current.articles, current.by));
            let version = current.version.saturating_add(1);
            self.append(
                record::publication_key(name),
                &PublicationBytes {
                    previous: lsn,
                    version,
                    value,
                },
            )?;
        }
        in_use
    }

    /// Makes a remote; with `replace`, changes links, schedule, policy and limits of one.
    ///
    /// # Errors
    /// `Invalid` when a rule is broken or the site is this one; `Conflict` when the name is taken and
    /// `replace` is false, or free and it is true, or there is another consolidated neighbour.
    pub fn add_remote(&self, new: NewRemote, replace: bool) -> Result<Remote> {
        check_remote(self.store, &new)?;
        let (site, key) = (new.site.clone(), record::remote_key(&new.site));
        let catalog = self.catalog()?;
        let current = catalog.remote(&site);
        refuse_mistaken(&format!("remote {site}"), current.is_some(), replace)?;
        if new.consolidated {
            refuse_second_consolidated(&catalog, &site)?;
        }
        let (previous, last) = match self.store.pinned(&key)? {
            Some((value, at)) => (at, Some(record::remote_body(&value, at)?.0)),
            None => (Lsn::ZERO, None),
        };
        let generation = last.map_or(0, |bytes| bytes.generation);
        let (added, generation) = match current {
            Some(current) => (current.added, generation),
            None => (Lsn::ZERO, generation.saturating_add(1)),
        };
        let value = Some((new.links, new.schedule, new.consolidated));
        let bytes = RemoteBytes {
            previous,
            generation,
            added,
            value,
        };
        let lsn = self.append_frame(record::remote_frame(&site, bytes, new.on_error, new.limits)?)?;
        let catalog = self.catalog()?;
        if new.consolidated
            && let Err(conflict) = refuse_second_consolidated(&catalog, &site)
        {
            self.append(
                key,
                &RemoteBytes {
                    previous: lsn,
                    generation,
                    added,
                    value: None,
                },
            )?;
            return Err(conflict);
        }
        let made = catalog.remote(&site).cloned();
        made.ok_or_else(|| Error::conflict(format!("remote {site} was removed by another command")))
    }

    /// Makes a remote whose pair begins with this generation, with what else its frame is to pin.
    ///
    /// # Errors
    /// `Invalid` when a rule is broken; `Conflict` when the remote is there, or had this generation before.
    pub(crate) fn add_remote_of(&self, new: NewRemote, generation: u32, beside: Vec<Pinned>) -> Result<()> {
        remote::check(&new.site, &new.links, new.schedule)?;
        let (mut previous, key) = (Lsn::ZERO, record::remote_key(&new.site));
        if let Some((value, at)) = self.store.pinned(&key)? {
            let (last, ..) = record::remote_body(&value, at)?;
            if last.value.is_some() || last.generation >= generation {
                return Err(Error::conflict(format!(
                    "remote {} was changed by another command meanwhile",
                    new.site
                )));
            }
            previous = at;
        }
        let bytes = RemoteBytes {
            previous,
            generation,
            added: Lsn::ZERO,
            value: Some((new.links, new.schedule, new.consolidated)),
        };
        let mut frame = record::remote_frame(&new.site, bytes, new.on_error, new.limits)?;
        beside.into_iter().for_each(|pinned| frame.pin(pinned));
        self.append_frame(frame).map(drop)
    }

    /// Removes a remote without subscriptions in force. What is unsent to it is dropped.
    ///
    /// # Errors
    /// `Invalid` when there is none; `Conflict` while a subscription is in force, or transactions of its are in quarantine.
    pub fn remove_remote(&self, site: &SiteName) -> Result<()> {
        let catalog = self.catalog()?;
        let Some(current) = catalog.remote(site) else {
            return Err(Error::invalid(format!("there is no remote {site}")));
        };
        if let Some(user) = catalog
            .subscriptions_of(current)
            .find(|subscription| subscription.is_in_force())
        {
            return Err(Error::conflict(format!(
                "remote {site} cannot be removed while it has subscription {} (publication {}); remove that first",
                user.id, user.publication
            )));
        }
        // Whoever sent them has let them go: nobody else has them any more.
        self.refuse_while_held(site, "removed")?;
        // The pair may have agreed on a higher generation; the next one must be beyond it.
        let pair = self.store.pinned(&PairRecord::key(site))?;
        let pair = pair.map(|(value, _)| PairRecord::read(&value)).transpose()?;
        let agreed = pair.map_or(0, |pair| pair.generation);
        let (previous, added) = (current.since, current.added);
        let generation = current.generation.max(agreed);
        let gone = RemoteBytes {
            previous,
            generation,
            added,
            value: None,
        };
        let mut frame = record::frame(record::remote_key(site), &gone)?;
        let tracking = [
            PairRecord::key(site),
            ReceivedRecord::key(site),
            ToldRecord::key(site),
            ProbeRecord::key(site),
            SentRecord::key(site),
            TransferRecord::key(site),
            ServingRecord::key(site),
            AskedRecord::key(site),
            ConfirmedRecord::key(site),
            CoveredRecord::key(site),
            format!("{SEND_NOW_PREFIX}{site}").into_bytes(),
            format!("{SENT_NOW_PREFIX}{site}").into_bytes(),
            DistrustRecord::key(site),
            GapRecord::key(site),
            DamagedRecord::key(site),
            ReportedRecord::key(site),
            RejoinedRecord::key(site),
            SuspendedRecord::key(site),
            LimitRecord::key(site),
        ];
        tracking
            .into_iter()
            .for_each(|key| frame.pin(Pinned { key, value: None }));
        self.append_frame(frame)?;
        // Whoever removes the remote has seen what was kept of it, and the next pair begins clean.
        crate::receive::clear_quarantine(self.store, site)
    }

    /// Makes a subscription.
    ///
    /// # Errors
    /// `Invalid` for an unknown remote or publication, a value that is missing or not asked for, or a
    /// start that is not retained; `Conflict` when the remote is suspended, has the same subscription already, or a
    /// command removed what it needs meanwhile.
    pub fn add_subscription(&self, new: NewSubscription) -> Result<Subscription> {
        let catalog = self.catalog()?;
        self.refuse_suspended(&catalog, &new.remote)?;
        check_subscription(&catalog, &new)?;
        let from = self.first_position(new.start)?;
        // What it asks for stays until the hold of replication knows it.
        let held = from
            .map(|from| Subscribing::begin(self.store, from))
            .transpose()?;
        let key = record::subscription_key(self.store.rng().next_u64());
        let bytes = SubscriptionBytes::begun(&new, from);
        let id = SubscriptionId(self.append(key, &bytes)?.0);
        held.map(Subscribing::end).transpose()?;
        let catalog = self.catalog()?;
        let known = catalog.remote(&new.remote).is_some() && catalog.publication(&new.publication).is_some();
        let twin = |other: &Subscription| other.id < id && is_same(other, &new);
        if !known || catalog.subscriptions().any(twin) {
            self.remove_subscription(id, true)?;
            return Err(Error::conflict(format!(
                "another command changed remote {} or publication {} meanwhile; look at them and try again",
                new.remote, new.publication
            )));
        }
        let made = catalog.subscription(id).cloned();
        made.ok_or_else(|| Error::internal("a subscription just made is not in the log").at_lsn(id.lsn()))
    }

    /// What it would be given it would not get, and there would be no end to what it has not.
    pub(super) fn refuse_suspended(&self, catalog: &Catalog, site: &SiteName) -> Result<()> {
        let remote = catalog.remote(site);
        match remote
            .map(|remote| suspended(self.store, remote))
            .transpose()?
            .flatten()
        {
            None => Ok(()),
            Some(_) => Err(Error::conflict(format!(
                "remote {site} is suspended: end its subscriptions, remove it and add it again, then subscribe"
            ))),
        }
    }

    /// Ends a subscription here: earlier commits still go, or with `revoke` no longer.
    ///
    /// # Errors
    /// `Invalid` when there is none of this id, or it has ended.
    pub fn remove_subscription(&self, id: SubscriptionId, revoke: bool) -> Result<Subscription> {
        let all = self.store.pinned_with_prefix(record::subscription_prefix())?;
        for (key, value, at) in all {
            let found = record::Record::decode(&key, &value, at)?;
            let record::Definition::Subscription(found) = found.definition else {
                continue;
            };
            if found.id != id {
                continue;
            }
            if !found.is_in_force() && (found.revoked.is_some() || !revoke) {
                return Err(Error::invalid(format!("subscription {id} has ended already")));
            }
            let bytes = SubscriptionBytes {
                previous: at,
                id: id.lsn(),
                remote: found.remote.to_string(),
                publication: found.publication.clone(),
                value: found.value.clone(),
                from: Some(found.from),
                end: if revoke { End::Revoked } else { End::Ended },
                until: found.until,
            };
            let here = self.append(key, &bytes)?;
            return Ok(Subscription {
                until: Some(found.until.unwrap_or(here)),
                revoked: revoke.then_some(here),
                ..found
            });
        }
        Err(Error::invalid(format!(
            "there is no subscription {id}; see `subscription list`"
        )))
    }

    /// The first position of history, or `None` for a subscription that starts now.
    ///
    /// # Errors
    /// `Invalid` for one that is not retained, or not there yet.
    pub(crate) fn first_position(&self, start: Start) -> Result<Option<Lsn>> {
        let oldest = self.store.oldest()?;
        let durable = self.store.watermarks().durable;
        let from = match start {
            Start::Now => return Ok(None),
            Start::Beginning => Lsn::ZERO,
            Start::At(lsn) if lsn < durable => lsn,
            Start::At(lsn) => {
                let text =
                    format!("a subscription cannot start at {lsn}, beyond the log's durable end {durable}");
                return Err(Error::invalid(text));
            }
        };
        if oldest > Lsn::ZERO && from <= oldest {
            return Err(Error::invalid(format!(
                "the log no longer has what a subscription from {from} needs; the oldest that it can begin with is {}",
                oldest.0 + 1
            )));
        }
        Ok(Some(from))
    }

    fn previous<T: bincode::Decode<()>>(&self, key: &[u8]) -> Result<(Lsn, Option<T>)> {
        match self.store.pinned(key)? {
            Some((value, at)) => Ok((at, Some(record::body(&value, at)?))),
            None => Ok((Lsn::ZERO, None)),
        }
    }

    /// Appends one definition, durably: R2 lets nobody act on it before.
    fn append<T: bincode::Encode>(&self, key: Vec<u8>, value: &T) -> Result<Lsn> {
        self.append_frame(record::frame(key, value)?)
    }

    pub(super) fn refuse_while_held(&self, site: &SiteName, what: &str) -> Result<()> {
        match self.store.pinned_with_prefix(&held_prefix(site))?.len() {
            0 => Ok(()),
            count => Err(Error::conflict(format!(
                "remote {site} cannot be {what} while {count} of its transactions are in quarantine, and nobody else may have them any \
                 more; retry or drop them first (`milepost quarantine list`)"
            ))),
        }
    }

    pub(super) fn append_frame(&self, frame: NewFrame) -> Result<Lsn> {
        super::keep_history(self.store)?;
        let committed = self.store.append_frames(vec![frame], Durability::Synced)?;
        let lsn = committed.first().map(|committed| committed.lsn);
        lsn.ok_or_else(|| Error::internal("an append of one frame told no position"))
    }
}

/// False when no remote of that name was ever removed: records of its pair that are not there were never made.
///
/// # Errors
/// Those of the store.
pub fn was_remote_before(store: &Store, site: &SiteName) -> Result<bool> {
    let Some((value, at)) = store.pinned(&record::remote_key(site))? else {
        return Ok(false);
    };
    let (bytes, ..) = record::remote_body(&value, at)?;
    Ok(bytes.generation > 1 || bytes.value.is_none())
}

/// Checks what is asked for of a remote by itself.
pub(super) fn check_remote(store: &Store, new: &NewRemote) -> Result<()> {
    remote::check(&new.site, &new.links, new.schedule)?;
    new.limits.check()?;
    if new.site == *store.site() {
        return Err(Error::invalid(format!(
            "{} is the name of this site; a remote is another one",
            new.site
        )));
    }
    Ok(())
}

/// Nothing is replaced by accident, and nothing new is made by a name that was mistyped.
fn refuse_mistaken(what: &str, exists: bool, replace: bool) -> Result<()> {
    match (exists, replace) {
        (true, false) => Err(Error::conflict(format!(
            "{what} exists; remove it first or replace it"
        ))),
        (false, true) => Err(Error::conflict(format!("there is no {what} to replace"))),
        _ => Ok(()),
    }
}

fn is_same(subscription: &Subscription, new: &NewSubscription) -> bool {
    subscription.is_in_force()
        && subscription.remote == new.remote
        && subscription.publication == new.publication
        && subscription.value == new.value
}

fn check_subscription(catalog: &Catalog, new: &NewSubscription) -> Result<()> {
    let NewSubscription {
        remote,
        publication,
        value,
        ..
    } = new;
    if catalog.remote(remote).is_none() {
        return Err(Error::invalid(format!(
            "there is no remote {remote}; add it first"
        )));
    }
    check_wanted(catalog, publication, value.as_deref())?;
    if let Some(twin) = catalog.subscriptions().find(|other| is_same(other, new)) {
        return Err(Error::conflict(format!(
            "remote {remote} has this already: subscription {} to publication {publication}",
            twin.id
        )));
    }
    Ok(())
}

/// Checks what is asked for of a publication.
///
/// # Errors
/// `Invalid` when there is none of this name, or the value is missing, not asked for or too long.
pub(crate) fn check_wanted(catalog: &Catalog, publication: &str, value: Option<&str>) -> Result<()> {
    if value.is_some_and(|value| value.len() > VALUE_MAX) {
        return Err(Error::invalid(format!(
            "a subscription's value is at most {VALUE_MAX} bytes"
        )));
    }
    let Some(found) = catalog.publication(publication) else {
        return Err(Error::invalid(format!(
            "there is no publication {publication}; add it first"
        )));
    };
    match (&found.by, value) {
        (Some(_), None) => {
            let text = format!("publication {publication} is subscribed to by a value; give one");
            return Err(Error::invalid(text));
        }
        (None, Some(_)) => {
            return Err(Error::invalid(format!(
                "publication {publication} asks for no value; give none"
            )));
        }
        _ => {}
    }
    Ok(())
}

fn refuse_if_in_use(catalog: &Catalog, name: &str, what: &str) -> Result<()> {
    let uses = |subscription: &&Subscription| subscription.is_in_force() && subscription.publication == name;
    match catalog.subscriptions().find(uses) {
        Some(user) => Err(Error::conflict(format!(
            "publication {name} {what} while remote {} has subscription {} to it; remove that first",
            user.remote, user.id
        ))),
        None => Ok(()),
    }
}

pub(super) fn refuse_second_consolidated(catalog: &Catalog, site: &SiteName) -> Result<()> {
    match catalog
        .remotes()
        .find(|remote| remote.consolidated && remote.site != *site)
    {
        Some(other) => Err(Error::conflict(format!(
            "remote {} is the consolidated neighbour already; a site has at most one",
            other.site
        ))),
        None => Ok(()),
    }
}
