//! Begins a new store, or goes on with one that was begun.

use std::sync::Arc;

use milepost_engine::frame::FrameKind;
use milepost_engine::{Error, ErrorKind, Lsn, Options, Result, SiteName, Store};

use crate::catalog::{Catalog, Definitions, NewRemote, OnError, RemoteLimits, Start, check_wanted};
use crate::keys::{self, PairKeys, keys_of};
use crate::quarantine::held_prefix;
use crate::tracking::{PairRecord, PairState};

use super::plan::{Plan, Renewed};
use super::{Extract, Purpose, To};

impl To<'_> {
    fn open(&self, options: Options) -> Result<Store> {
        match self {
            To::Folder(folder) => options.open(folder),
            To::Storage(storage) => options.open_in(Arc::clone(storage)),
        }
    }

    fn init(&self, options: Options, site: SiteName) -> Result<Store> {
        match self {
            To::Folder(folder) => options.init(folder, site),
            To::Storage(storage) => options.init_in(Arc::clone(storage), site),
        }
    }
}

/// How far a store that replaces another raises the generation of the pair: whoever made the pair anew there and was not heard of yet had one in
/// between, and what is on its way of that store is of an earlier making whatever it says.
const GENERATIONS_AHEAD: u32 = 256;

/// The store that is there already, if there is one of the site.
///
/// # Errors
/// `Conflict` for one of another site; those of opening it.
pub(super) fn find(wish: &Extract, to: &To<'_>) -> Result<Option<Store>> {
    match to.open(wish.options.clone()) {
        Ok(there) => refuse_other_site(&there, wish).map(|()| Some(there)),
        Err(error) if error.kind() == ErrorKind::NoStore => Ok(None),
        Err(error) => Err(error),
    }
}

/// The store, made in the folder unless it is `there`, and what it is to become.
///
/// # Errors
/// `Conflict` for a folder that holds anything else; as [`plan_of`]; those of making a store.
pub(super) fn begin(
    source: &Store,
    wish: &Extract,
    purpose: Purpose,
    (to, there): (&To<'_>, Option<Store>),
) -> Result<(Store, Plan)> {
    if let Some(there) = &there {
        if let Some(plan) = Plan::of(there)? {
            refuse_other_plan(source, wish, there, &plan)?;
            return Ok((there.clone(), plan));
        }
        // Killed before its first frame, or made by hand for this.
        refuse_used(there)?;
    }
    // Before there is a folder: what is wrong leaves none.
    let plan = plan_of(source, wish, purpose)?;
    let made = match there {
        Some(there) => there,
        None => to.init(wish.options.clone(), wish.remote.clone())?,
    };
    let remote = way_up(source, wish)?;
    Definitions::new(&made).add_remote_of(remote, plan.generation, vec![plan.pin()?])?;
    Ok((made, plan))
}

pub(super) fn refuse_other_site(made: &Store, wish: &Extract) -> Result<()> {
    if made.site() == &wish.remote {
        return Ok(());
    }
    let text = format!(
        "holds a store of site {} already; choose another folder",
        made.site()
    );
    Err(Error::conflict(text).at_path(made.root()))
}

/// True for a store that is not being made, or no longer: what a killed process still claims for it keeps the log for nothing.
pub(super) fn is_finished(there: &Store) -> bool {
    matches!(Plan::of(there), Ok(None)) && refuse_used(there).is_err()
}

fn refuse_used(made: &Store) -> Result<()> {
    let mut log = made.scan(Lsn::ZERO)?;
    while let Some(frame) = log.next()? {
        if frame.kind() != FrameKind::CONTROL {
            let text = "holds a finished store already: an earlier run has made it, or choose another folder";
            return Err(Error::conflict(text).at_path(made.root()).at_lsn(frame.lsn()));
        }
    }
    Ok(())
}

fn refuse_other_plan(source: &Store, wish: &Extract, made: &Store, plan: &Plan) -> Result<()> {
    let refused = |reason: String| Err(Error::conflict(reason).at_path(made.root()));
    if plan.source != source.id() {
        return refused(format!(
            "holds a store that is being made of another one than this store of {}; choose another folder",
            source.site()
        ));
    }
    if !wish.wanted.is_empty() && wish.wanted != plan.wanted {
        return refused(
            "holds a store that is being made with other subscriptions; give the same, or none, or choose another folder"
                .to_owned(),
        );
    }
    Ok(())
}

/// What the store is to become, from what the source's catalog says now.
fn plan_of(source: &Store, wish: &Extract, purpose: Purpose) -> Result<Plan> {
    let catalog = Catalog::load(source)?;
    let site = &wish.remote;
    let Some(remote) = catalog.remote(site) else {
        return Err(Error::invalid(format!(
            "there is no remote {site}; `milepost remote add` makes it one, and says how it is reached"
        )));
    };
    let in_force: Vec<(String, Option<String>)> = catalog
        .subscriptions_of(remote)
        .filter(|one| one.is_in_force())
        .map(|one| (one.publication.clone(), one.value.clone()))
        .collect();
    let pair = source.pinned(&PairRecord::key(site))?;
    let pair = pair.map(|(value, _)| PairRecord::read(&value)).transpose()?;
    let renews = purpose == Purpose::Resync;
    match purpose {
        Purpose::Extract if pair.is_some() || !in_force.is_empty() => {
            return Err(Error::conflict(format!(
                "remote {site} has subscriptions, or was heard from: `milepost resync` makes its store anew, with the subscriptions \
                 that it has"
            )));
        }
        Purpose::Resync => refuse_while_held(source, site)?,
        Purpose::Extract => {}
    }
    let wanted = if wish.wanted.is_empty() {
        in_force
    } else {
        wish.wanted.clone()
    };
    check(&catalog, site, &wanted)?;
    let start = match wish.from {
        Lsn::ZERO => Start::Beginning,
        from => Start::At(from),
    };
    let agreed = pair.map_or(0, |pair| pair.generation).max(remote.generation);
    Ok(Plan {
        source: source.id(),
        generation: if renews {
            agreed.saturating_add(GENERATIONS_AHEAD)
        } else {
            remote.generation
        },
        wanted,
        from: Definitions::new(source)
            .first_position(start)?
            .unwrap_or_default(),
        as_of: source.watermarks().durable,
        renewed: renews.then(|| Renewed::of(remote)),
        up: wish.up.clone(),
        fresh_key: wish.fresh_key || is_sealed(source, site)?,
    })
}

/// A file that cannot be read now, of a pair of which nothing says that it is sealed, makes it none that is.
fn is_sealed(source: &Store, site: &SiteName) -> Result<bool> {
    match keys_of(source, site)? {
        PairKeys::Unsealed => Ok(false),
        PairKeys::Locked(reason) if !keys::is_noted(source, site)? => Err(Error::internal(format!(
            "whether the pair with {site} has a key cannot be told: {reason}; nothing is begun, try again"
        ))),
        _ => Ok(true),
    }
}

fn refuse_while_held(source: &Store, site: &SiteName) -> Result<()> {
    match source.pinned_with_prefix(&held_prefix(site))?.len() {
        0 => Ok(()),
        count => Err(Error::conflict(format!(
            "{count} transactions of {site} are in quarantine here, and nobody else may have them any more; retry or drop them first \
             (`milepost quarantine list`)"
        ))),
    }
}

fn check(catalog: &Catalog, site: &SiteName, wanted: &[(String, Option<String>)]) -> Result<()> {
    if wanted.is_empty() {
        return Err(Error::invalid(format!(
            "nothing is said of what {site} is due; give --subscribe PUBLICATION, or PUBLICATION=VALUE"
        )));
    }
    for (publication, value) in wanted {
        check_wanted(catalog, publication, value.as_deref())?;
    }
    Ok(())
}

/// The source as a remote of the new site: reached as given, or as the source reaches it.
fn way_up(source: &Store, wish: &Extract) -> Result<NewRemote> {
    let catalog = Catalog::load(source)?;
    let remote = catalog.remote(&wish.remote);
    let links = match (wish.links.is_empty(), remote) {
        (true, Some(remote)) => remote.links.clone(),
        _ => wish.links.clone(),
    };
    let schedule = remote.map(|remote| remote.schedule).unwrap_or_default();
    Ok(NewRemote {
        site: source.site().clone(),
        links,
        schedule: wish.schedule.unwrap_or(schedule),
        consolidated: !remote.is_some_and(|remote| remote.consolidated),
        on_error: OnError::Stop,
        limits: RemoteLimits::default(),
    })
}
