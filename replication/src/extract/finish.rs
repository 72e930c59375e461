//! Ends the making of a store: from one position on, what its site is due comes over the link.
//!
//! ```text
//! copied to the end ─► the remote made anew (resync) ─► subscriptions from now on ─► copied to the last of them
//!     ─► keys ─► what goes up ─► the plan unpinned
//! ```
//!
//! Every step looks whether a former process has taken it.

use milepost_engine::frame::NewFrame;
use milepost_engine::{Durability, Error, Lsn, Result, SiteName, Store};

use crate::catalog::{Catalog, Definitions, NewPublication, NewSubscription, Remote, Start, Subscription};
use crate::keys::{KeyId, Keys, MAX_KEYS, PairKeys, keys_of};
use crate::message::VERSION;
use crate::tracking::{MadeRecord, NOTE, Neighbour, PairRecord, PairRecords, PairState};

use super::plan::{Plan, Renewed};

/// Name of the publication of what the new site sends up.
const UP: &str = "up";

/// The remote made anew, as it was, and the pair tied to the new store: the one it replaces may still be about, and is refused
/// from now on.
pub(super) fn renew(source: &Store, made: &Store, plan: &Plan, renewed: &Renewed) -> Result<()> {
    let (definitions, site) = (Definitions::new(source), made.site());
    let catalog = definitions.catalog()?;
    if let Some(remote) = catalog.remote(site) {
        if remote.generation == plan.generation {
            return refuse_taken(source, made, plan);
        }
        refuse_overtaken(source, made, plan)?;
        for one in catalog.subscriptions_of(remote).filter(|one| one.is_in_force()) {
            definitions.remove_subscription(one.id, true)?;
        }
        definitions.remove_remote(site)?;
    }
    let pair = PairRecord {
        site: made.id(),
        epoch: made.epoch(),
        past_epochs: Vec::new(),
        generation: plan.generation,
        // No commit of its was ever here: it is new.
        held: Lsn::ZERO,
        reads: VERSION,
        stopped: None,
    };
    definitions.add_remote_of(renewed.remote(site), plan.generation, vec![pair.pin(site)?])
}

/// The former store, or a command here, has begun the pair anew since the plan was made, with as high a generation: seen before anything is removed.
fn refuse_overtaken(source: &Store, made: &Store, plan: &Plan) -> Result<()> {
    let (site, catalog) = (made.site(), Catalog::load(source)?);
    let pair = source.pinned(&PairRecord::key(site))?;
    let pair = pair.map(|(value, _)| PairRecord::read(&value)).transpose()?;
    let agreed = catalog.remote(site).map_or(0, |remote| remote.generation);
    match agreed.max(pair.map_or(0, |pair| pair.generation)) >= plan.generation {
        false => Ok(()),
        true => Err(Error::conflict(format!(
            "the pair with {site} was made anew while its store was made; remove the folder of the new store, drop the hold extract-{site} (`milepost \
             hold drop`) and begin again"
        ))),
    }
}

/// From now on no other store can be the remote. A store that is given up before it is done binds nobody.
pub(super) fn remember_made(source: &Store, made: &Store) -> Result<()> {
    let record = MadeRecord { store: made.id() };
    let known = source.pinned(&MadeRecord::key(made.site()))?;
    let known = known.map(|(value, _)| MadeRecord::read(&value)).transpose()?;
    if known == Some(record) {
        return Ok(());
    }
    let mut note = NewFrame::of_kind(NOTE, Vec::new());
    note.pin(record.pin(made.site())?);
    source.append_frames(vec![note], Durability::Synced).map(drop)
}

/// Another store of the site is the remote already.
fn refuse_taken(source: &Store, made: &Store, plan: &Plan) -> Result<()> {
    let site = made.site();
    let pair = source.pinned(&PairRecord::key(site))?;
    let pair = pair.map(|(value, _)| PairRecord::read(&value)).transpose()?;
    match pair.filter(|pair| pair.generation == plan.generation && pair.site != made.id()) {
        None => Ok(()),
        Some(pair) => Err(Error::conflict(format!(
            "store {} is the remote {site} by now, and this one will never be: remove its folder",
            pair.site
        ))
        .at_path(made.root())),
    }
}

/// Where the last subscription begins, when all of them are there.
pub(super) fn subscribed(source: &Store, made: &Store, plan: &Plan) -> Result<Option<Lsn>> {
    let catalog = Catalog::load(source)?;
    let remote = catalog.remote(made.site());
    let Some(remote) = remote.filter(|remote| remote.generation == plan.generation) else {
        return Ok(None);
    };
    refuse_taken(source, made, plan)?;
    let known: Option<Vec<Lsn>> = plan
        .wanted
        .iter()
        .map(|wanted| find(&catalog, remote, wanted).map(|one| one.id.lsn()))
        .collect();
    Ok(known.and_then(|known| known.into_iter().max()))
}

fn find<'a>(
    catalog: &'a Catalog,
    remote: &'a Remote,
    (publication, value): &(String, Option<String>),
) -> Option<&'a Subscription> {
    let is_it =
        |one: &&Subscription| one.is_in_force() && one.publication == *publication && one.value == *value;
    catalog.subscriptions_of(remote).find(is_it)
}

/// The subscriptions, those that are missing made now; returns where the last one begins.
pub(super) fn subscribe(source: &Store, made: &Store, plan: &Plan) -> Result<Lsn> {
    refuse_changed(source, plan, Lsn::MAX)?;
    let definitions = Definitions::new(source);
    let catalog = definitions.catalog()?;
    let site = made.site();
    let remote = catalog.remote(site);
    let Some(remote) = remote.filter(|remote| remote.generation == plan.generation) else {
        return Err(Error::conflict(format!(
            "remote {site} was removed, or made anew, by another command meanwhile; remove the new store's folder, drop the hold extract-{site} (`milepost hold drop`) and begin again"
        )));
    };
    let mut last = Lsn::ZERO;
    for wanted in &plan.wanted {
        let id = match find(&catalog, remote, wanted) {
            Some(known) => known.id,
            None => {
                let new = NewSubscription {
                    remote: site.clone(),
                    publication: wanted.0.clone(),
                    value: wanted.1.clone(),
                    start: Start::Now,
                };
                definitions.add_subscription(new)?.id
            }
        };
        last = last.max(id.lsn());
    }
    refuse_changed(source, plan, last)?;
    Ok(last)
}

/// What was copied was chosen by the publications as they stood when the copy began.
fn refuse_changed(source: &Store, plan: &Plan, at: Lsn) -> Result<()> {
    let (before, now) = (Catalog::as_of(source, plan.as_of)?, Catalog::as_of(source, at)?);
    let is_changed =
        |(name, _): &&(String, Option<String>)| before.publication(name) != now.publication(name);
    match plan.wanted.iter().find(is_changed) {
        None => Ok(()),
        Some((name, _)) => Err(Error::conflict(format!(
            "publication {name} was changed while the store was made, and what is in it was chosen by what it was; remove the folder of \
             the new store, drop its hold here (`milepost hold`) and begin again"
        ))),
    }
}

/// A fresh key for both, of which no other is left here. What was sealed with those that were is late at both. Returns its id.
pub(super) fn share_key(source: &Store, made: &Store) -> Result<KeyId> {
    let (site, own) = (made.site(), source.site());
    let (ours, its) = (Keys::new(source), Keys::new(made));
    let (known, former) = (ids(source, site)?, ids(made, own)?);
    // Drawn by a process that was killed before it came here, or shared by one that was killed after.
    let shared = former.keys.into_iter().find(|id| known.keys.contains(id));
    let id = match shared {
        Some(id) => id,
        None => {
            its.drop_all(own)?;
            let line = ours.draw(site);
            its.add(own, &line, false)?;
            if known.keys.len() >= MAX_KEYS {
                ours.drop_all(site)?;
            }
            ours.add(site, &line, true)?
        }
    };
    for late in known
        .keys
        .iter()
        .chain(&known.retired)
        .filter(|late| **late != id)
    {
        ours.drop_key(site, *late)?;
        its.drop_key(own, *late)?;
    }
    Ok(id)
}

#[derive(Default)]
struct Ids {
    keys: Vec<KeyId>,
    retired: Vec<KeyId>,
}

fn ids(store: &Store, remote: &SiteName) -> Result<Ids> {
    Ok(match keys_of(store, remote)? {
        PairKeys::Sealed { ring, .. } => Ids {
            keys: ring.keys().iter().map(|one| one.key.id()).collect(),
            retired: ring.retired().to_vec(),
        },
        PairKeys::Unsealed => Ids::default(),
        PairKeys::Locked(_) | PairKeys::Damaged(_) => {
            // What is damaged or lost is replaced by a key of its own.
            Keys::new(store).drop_all(remote)?;
            Ids::default()
        }
    })
}

/// What the new site sends up: a publication of these streams, and the source's subscription to it.
pub(super) fn send_up(source: &Store, made: &Store, patterns: &[String]) -> Result<()> {
    if patterns.is_empty() {
        return Ok(());
    }
    let definitions = Definitions::new(made);
    let catalog = definitions.catalog()?;
    if catalog.publication(UP).is_none() {
        definitions.add_publication(NewPublication::new(UP, patterns, &[], None), false)?;
    }
    if catalog.subscriptions().all(|one| !one.is_in_force()) {
        definitions.add_subscription(NewSubscription {
            remote: source.site().clone(),
            publication: UP.to_owned(),
            value: None,
            start: Start::Now,
        })?;
    }
    Ok(())
}

/// What a finished store says of itself: from where on everything comes over the link, the generation of the pair, and its key.
pub(super) fn facts_of(made: &Store, source: &SiteName) -> Result<(Lsn, u32, Option<KeyId>)> {
    let catalog = Catalog::load(made)?;
    let generation = catalog.remote(source).map_or(0, |remote| remote.generation);
    let neighbour = Neighbour {
        name: source.clone(),
        generation,
    };
    let records = PairRecords::load(&neighbour, |key| Ok(made.pinned(key)?.map(|(value, _)| value)))?;
    let key = match keys_of(made, source)? {
        PairKeys::Sealed { ring, .. } => ring.keys().first().map(|one| one.key.id()),
        _ => None,
    };
    Ok((records.received.point.position.lsn, records.generation(), key))
}
