//! First copies: a ready store for a new remote, made where its data are ([`extract`]), and one that replaces a damaged one
//! ([`resync`]).
//!
//! ```text
//! extract   plan ─► copy what is due up to now ─► subscriptions from S on ─► copy up to S ─► ready: received to S
//! resync    the same, and before the subscriptions the remote is made anew: generation raised, pair tied to the new store
//! ```
//!
//! **One atomic point.** The new store has everything that it is due before the last subscription's frame, at the places that it
//! would have had over the link, and says that it received all up to there (R1). The subscriptions begin at or before that frame,
//! so what is committed from then on comes over the link; what both bring is known by its place and comes once. Writers and agents
//! of the source go on meanwhile.
//!
//! **Killed at any moment**, the new store is unfinished, which its pinned plan says: the same command goes on where it was, and
//! agents refuse the store until then.

mod begin;
pub mod carried;
mod claim;
mod copy;
mod finish;
mod handed;
mod plan;

pub use plan::refuse_unfinished;

use std::path::Path;
use std::sync::Arc;

use milepost_engine::storage::Storage;
use milepost_engine::{ErrorKind, Lsn, Options, Result, SiteName, Store};

use crate::agent::Stop;
use crate::catalog::Schedule;
use crate::keys::KeyId;
use crate::planted::{self, Bug};

use carried::Packed;
use claim::Claim;
use copy::Copier;
use plan::Plan;

/// What is wished for.
#[derive(Clone)]
pub struct Extract {
    /// The site whose store is made: a remote of the store that is copied.
    pub remote: SiteName,
    /// What it subscribes to: publication, and value where it asks for one. Empty: what it has ([`resync`]).
    pub wanted: Vec<(String, Option<String>)>,
    /// The first LSN that is copied; [`Lsn::ZERO`] for all of the log.
    pub from: Lsn,
    /// How the new site reaches this one; empty: as this one reaches it.
    pub links: Vec<String>,
    /// When the new site sends; `None`: as this one sends to it.
    pub schedule: Option<Schedule>,
    /// Patterns of the streams that the new site sends up.
    pub up: Vec<String>,
    /// Draws a key for the pair and puts it into both stores. A pair that has one gets a fresh one in any case.
    pub fresh_key: bool,
    /// How the new store is made and opened.
    pub options: Options,
}

/// How far a copy is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Where it began.
    pub from: Lsn,
    /// Where it is in the source's log.
    pub at: Lsn,
    /// Where it ends.
    pub end: Lsn,
    /// What was copied, by this process.
    pub copied: Copied,
}

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Transactions.
    pub transactions: u64,
    /// Events.
    pub events: u64,
}

/// A store that was made.
#[derive(Debug)]
pub struct Extracted {
    /// The store.
    pub store: Store,
    /// What this process copied.
    pub copied: Copied,
    /// From this position of the source's log on, everything comes over the link.
    pub starts: Lsn,
    /// Generation of the pair.
    pub generation: u32,
    /// Id of the key that both have.
    pub key: Option<KeyId>,
}

/// A store that was made and packed into one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InFile {
    /// The file.
    pub packed: Packed,
    /// What this process copied: nothing when a former one was killed only after that.
    pub copied: Copied,
    /// As [`Extracted::starts`].
    pub starts: Lsn,
    /// Generation of the pair.
    pub generation: u32,
    /// Id of the key that the pair has, which is in a file of its own.
    pub key: Option<KeyId>,
}

/// Where the new store is made.
enum To<'a> {
    Folder(&'a Path),
    Storage(Arc<dyn Storage>),
}

/// What a store is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A new remote: [`extract`].
    Extract,
    /// One that had a store: [`resync`].
    Resync,
}

/// Makes a store in `to` for a remote that was never heard from and has no subscriptions: with all that it is due of the log,
/// its subscriptions beginning where that ends.
///
/// # Errors
/// `Invalid` for a remote or publication that is not there, or a start that is not retained; `Conflict` when the remote has
/// subscriptions or was heard from, another store is being made for it, the folder holds something else, or another command changed
/// what was copied by;
/// `Unavailable` when it was asked to stop; those of both stores. Except for `Invalid` and `Conflict`, run again, it goes on.
pub fn extract(
    source: &Store,
    wish: &Extract,
    to: &Path,
    stop: &Stop,
    tell: &mut dyn FnMut(Progress),
) -> Result<Extracted> {
    make(source, wish, Purpose::Extract, (To::Folder(to), stop), tell)
}

/// Makes a store in `to` that replaces the one a remote had, with the subscriptions that are in force: all that came from the
/// remote comes back to it, whatever it subscribes to. The pair begins anew under a higher generation, tied to the new store; what the former one had and had not
/// sent is lost.
///
/// # Errors
/// As [`extract`]; `Conflict` while transactions of the remote are in quarantine.
pub fn resync(
    source: &Store,
    wish: &Extract,
    to: &Path,
    stop: &Stop,
    tell: &mut dyn FnMut(Progress),
) -> Result<Extracted> {
    make(source, wish, Purpose::Resync, (To::Folder(to), stop), tell)
}

/// [`extract`] or [`resync`] over any storage: no folder is made, a store is.
///
/// # Errors
/// As [`extract`].
pub fn make_in(
    source: &Store,
    wish: &Extract,
    purpose: Purpose,
    (to, stop): (Arc<dyn Storage>, &Stop),
    tell: &mut dyn FnMut(Progress),
) -> Result<Extracted> {
    make(source, wish, purpose, (To::Storage(to), stop), tell)
}

/// As [`extract`] or [`resync`], into one file that is carried: the store is made in a folder beside it, packed, and the folder removed.
/// `packing` is told bytes done and bytes in all of that.
///
/// # Errors
/// As [`extract`] and [`carried::pack`]. Run again, it goes on.
pub fn to_file(
    source: &Store,
    wish: &Extract,
    purpose: Purpose,
    (file, stop): (&Path, &Stop),
    tell: &mut dyn FnMut(Progress),
    packing: &mut dyn FnMut(u64, u64),
) -> Result<InFile> {
    let folder = carried::working_folder(file)?;
    let (made, copied) = match carried::finished(&wish.options, file, source.site())? {
        Some(made) => {
            begin::refuse_other_site(&made, wish)?;
            Claim::of(source, &wish.remote).end_of(made.id())?;
            (made, Copied::default())
        }
        None => {
            let extracted = make(source, wish, purpose, (To::Folder(&folder), stop), tell)?;
            (extracted.store, extracted.copied)
        }
    };
    let (starts, generation, key) = finish::facts_of(&made, source.site())?;
    Ok(InFile {
        packed: carried::pack(made, source.site(), file, packing)?,
        copied,
        starts,
        generation,
        key,
    })
}

fn make(
    source: &Store,
    wish: &Extract,
    purpose: Purpose,
    (to, stop): (To<'_>, &Stop),
    tell: &mut dyn FnMut(Progress),
) -> Result<Extracted> {
    refuse_unfinished(source)?;
    let claim = Claim::of(source, &wish.remote);
    let there = begin::find(wish, &to)?;
    if let Some(finished) = there.as_ref().filter(|there| begin::is_finished(there)) {
        claim.end_of(finished.id())?;
    }
    let is_new = claim.take(there.as_ref().map(Store::id), wish.from)?;
    let begun = begin::begin(source, wish, purpose, (&to, there));
    if begun.is_err() && is_new {
        claim.end()?;
    }
    let (made, plan) = begun?;
    claim.take(Some(made.id()), plan.from)?;
    let filled = fill(source, &made, &plan, stop, tell);
    if is_new && matches!(&filled, Err(error) if error.kind() == ErrorKind::Conflict) {
        // It will never be what it was to become.
        claim.end()?;
    }
    let (copied, starts, key) = filled?;
    finish::send_up(source, &made, &plan.up)?;
    Plan::finish(&made)?;
    claim.end()?;
    Ok(Extracted {
        store: made,
        copied,
        starts,
        generation: plan.generation,
        key,
    })
}

/// Everything up to the position from which on it comes over the link.
fn fill(
    source: &Store,
    made: &Store,
    plan: &Plan,
    stop: &Stop,
    tell: &mut dyn FnMut(Progress),
) -> Result<(Copied, Lsn, Option<KeyId>)> {
    let share_key = || {
        plan.fresh_key
            .then(|| finish::share_key(source, made))
            .transpose()
    };
    let mut copier = Copier::open(source, made, plan, stop)?;
    let (starts, key) = match finish::subscribed(source, made, plan)? {
        Some(starts) => (starts, share_key()?),
        None => {
            copier.copy_to(source.watermarks().durable, tell)?;
            if let Some(renewed) = &plan.renewed {
                finish::renew(source, made, plan, renewed)?;
            }
            // Before anything is due: what an agent sent without this key would count as lost there.
            let key = share_key()?;
            (finish::subscribe(source, made, plan)?, key)
        }
    };
    if !planted::is(Bug::CopyEndsEarly) {
        copier.copy_to(starts, tell)?;
    }
    copier.end_at(starts)?;
    finish::remember_made(source, made)?;
    Ok((copier.copied(), starts, key))
}
