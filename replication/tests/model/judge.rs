//! The comparison: each store's log against what was committed and what was defined, event by event.

use std::collections::{BTreeMap, BTreeSet};

use milepost_engine::Lsn;
use milepost_replication::message::Place;

use super::defined::{Due, Making, Publications};
use super::logged::{HeldName, Logged, Told, What};

/// What was committed at a site, in order.
pub type Commits = BTreeMap<Lsn, Vec<Told>>;

/// An event, by where it was first committed.
type Id = (String, Lsn, u32);

/// A publisher's side of a pair, as the judge needs it.
pub struct Side<'a> {
    pub publisher: &'a str,
    pub publications: &'a Publications,
    pub log: &'a [Logged],
    pub makings: &'a [Making],
}

/// A site's own commits are in its log, in order and whole, and nothing else is its own.
pub fn own_commits_are_there(site: &str, log: &[Logged], commits: &Commits) -> Result<(), String> {
    let own = log.iter().filter(|one| one.via.is_none());
    let here: Vec<(Lsn, Vec<&Told>)> = own
        .map(|one| (one.lsn, one.events.iter().map(|(_, told)| told).collect()))
        .collect();
    let made: Vec<(Lsn, Vec<&Told>)> = commits
        .iter()
        .map(|(lsn, events)| (*lsn, events.iter().collect()))
        .collect();
    if here == made {
        return Ok(());
    }
    Err(format!(
        "{site} does not hold its own commits: {} of {} (E1)",
        here.len(),
        made.len()
    ))
}

/// Every event is here once, as it was committed, and none is back at its origin (R1, R4).
pub fn events_are_genuine_and_single(
    site: &str,
    log: &[Logged],
    commits: &BTreeMap<String, &Commits>,
) -> Result<(), String> {
    let mut seen: BTreeSet<Id> = BTreeSet::new();
    for one in log.iter().filter(|one| one.is_applied()) {
        let (origin, lsn) = &one.origin;
        if one.via.is_some() && origin == site {
            return Err(format!(
                "{site} got its own transaction {lsn} back (R4), {}",
                told(one)
            ));
        }
        let committed = commits.get(origin).and_then(|commits| commits.get(lsn));
        for (ordinal, event) in &one.events {
            let original = committed.and_then(|events| events.get(*ordinal as usize));
            if original != Some(event) {
                return Err(format!(
                    "{site} holds what {origin} did not commit at {lsn} (R2): {}",
                    told(one)
                ));
            }
            if !seen.insert((origin.clone(), *lsn, *ordinal)) {
                return Err(format!(
                    "{site} holds {origin} {lsn} event {ordinal} twice (R1), at last {}",
                    told(one)
                ));
            }
        }
    }
    Ok(())
}

/// What came over a pair is what was due over it, in the order of its places, whole, and nothing else. Returns
/// what is still missing, which is a fault only once nothing moves any more.
pub fn stream_is_as_due(site: &str, log: &[Logged], side: &Side<'_>) -> Result<Option<String>, String> {
    let due: Vec<BTreeMap<Place, Due>> = side
        .makings
        .iter()
        .map(|making| match making.lost.as_deref() {
            Some((publications, log)) => making.due(publications, log, site),
            None => making.due(side.publications, side.log, site),
        })
        .collect();
    let mut held: BTreeSet<Id> = BTreeSet::new();
    let mut at: (u32, Place) = (0, Place::NONE);
    for one in log {
        // What was held and is applied now had its place when it was held.
        if let Some((via, generation, place)) = &one.via
            && via == side.publisher
            && matches!(one.what, What::Held(_) | What::Applied(None))
        {
            let here = (*generation, *place);
            if here <= at {
                return Err(format!("{site} went from {} to {} (R1)", spell(at), told(one)));
            }
            let making = side
                .makings
                .iter()
                .rposition(|making| making.generation <= *generation);
            let due = making.and_then(|number| due.get(number));
            let Some(due) = due else {
                return Err(format!("{site} got of an unknown generation (R5) {}", told(one)));
            };
            let passed = if at.0 == here.0 { at.1 } else { Place::NONE };
            nothing_is_skipped(site, due, (passed, *place), &held)?;
            is_whole(site, due.get(place), one, &held)?;
            at = here;
        }
        let (origin, lsn) = &one.origin;
        held.extend(
            one.events
                .iter()
                .map(|(ordinal, _)| (origin.clone(), *lsn, *ordinal)),
        );
    }
    // What a store had not sent when it was lost never comes.
    let is_there = side.makings.last().is_some_and(|making| making.lost.is_none());
    let last = due.last().into_iter().flatten().filter(|_| is_there);
    let missing = last
        .flat_map(|(place, due)| absent(due, &held).map(move |id| (place, id)))
        .next();
    Ok(missing.map(|(place, (origin, lsn, ordinal))| {
        format!(
            "{site} misses {origin} {lsn} event {ordinal}, due from {} at {} (Q1, R1)",
            side.publisher,
            spell((0, *place))
        )
    }))
}

/// What shares a stream with what is held, of the same neighbour or first committed at the same site, comes behind it (R1, R6).
/// Tells how many are held at the end, and how many ever were.
pub fn nothing_overtakes_what_is_held(site: &str, log: &[Logged]) -> Result<(usize, usize), String> {
    let mut waiting: Vec<(&HeldName, &Logged)> = Vec::new();
    let mut ever = 0;
    let streams = |one: &Logged| -> BTreeSet<String> {
        one.events.iter().map(|(_, event)| event.stream.clone()).collect()
    };
    for one in log {
        let ends = match &one.what {
            What::Held(name) => {
                ever += 1;
                waiting.push((name, one));
                continue;
            }
            What::Ended(name) => Some(name),
            What::Applied(ends) => ends.as_ref(),
        };
        let place = ends.map(|ends| waiting.iter().position(|(name, _)| *name == ends));
        if place == Some(None) {
            return Err(format!("{site} ended what was not held (R6): {}", told(one)));
        }
        let before = &waiting[..place.flatten().unwrap_or(waiting.len())];
        let via = |one: &Logged| one.via.as_ref().map(|(via, _, _)| via.clone());
        let (mine, from) = (streams(one), via(one));
        let overtaken = before.iter().find(|(_, held)| {
            let related = via(held) == from || held.origin.0 == one.origin.0;
            one.is_applied() && from.is_some() && related && !mine.is_disjoint(&streams(held))
        });
        if let Some((_, held)) = overtaken {
            return Err(format!("{site} overtook {} with {} (R6)", told(held), told(one)));
        }
        if let Some(place) = place.flatten() {
            waiting.remove(place);
        }
    }
    Ok((waiting.len(), ever))
}

/// Everything due between two places of a stream came before, over whatever way.
fn nothing_is_skipped(
    site: &str,
    due: &BTreeMap<Place, Due>,
    (from, to): (Place, Place),
    held: &BTreeSet<Id>,
) -> Result<(), String> {
    for (place, due) in due.range(from..to).filter(|(place, _)| **place > from) {
        if let Some((origin, lsn, ordinal)) = absent(due, held).next() {
            return Err(format!(
                "{site} went on to {} without {origin} {lsn} event {ordinal}, which is due at {} (R1)",
                spell((0, to)),
                spell((0, *place))
            ));
        }
    }
    Ok(())
}

/// A transaction brings all that is due of it and not here yet, and nothing that is not due.
fn is_whole(site: &str, due: Option<&Due>, one: &Logged, held: &BTreeSet<Id>) -> Result<(), String> {
    let Some(due) = due else {
        return Err(format!("{site} got what was not due there (Q1): {}", told(one)));
    };
    let brought: BTreeSet<u32> = one.events.iter().map(|(ordinal, _)| *ordinal).collect();
    if due.origin != one.origin || !brought.is_subset(&due.may) {
        let may = &due.may;
        return Err(format!(
            "{site} got more than events {may:?} of what was due there (Q1): {}",
            told(one)
        ));
    }
    match absent(due, held).find(|(_, _, ordinal)| !brought.contains(ordinal)) {
        Some((_, _, ordinal)) => Err(format!(
            "{site} got it without event {ordinal} (R1): {}",
            told(one)
        )),
        None => Ok(()),
    }
}

fn absent<'a>(due: &'a Due, held: &'a BTreeSet<Id>) -> impl Iterator<Item = Id> + 'a {
    let ids = due
        .must
        .iter()
        .map(|ordinal| (due.origin.0.clone(), due.origin.1, *ordinal));
    ids.filter(|id| !held.contains(id))
}

fn told(one: &Logged) -> String {
    let (origin, lsn) = &one.origin;
    let ordinals: Vec<u32> = one.events.iter().map(|(ordinal, _)| *ordinal).collect();
    let via = one
        .via
        .as_ref()
        .map_or(String::new(), |(via, generation, place)| {
            format!(" via {via} at {}", spell((*generation, *place)))
        });
    format!("{origin} {lsn} events {ordinals:?} logged at {}{via}", one.lsn)
}

/// A place, with its generation where it is known.
fn spell((generation, place): (u32, Place)) -> String {
    let generation = if generation > 0 {
        format!(" of generation {generation}")
    } else {
        String::new()
    };
    if place.back == Lsn::ZERO {
        format!("{}{generation}", place.at)
    } else {
        format!("({}, {}){generation}", place.at, place.back)
    }
}
