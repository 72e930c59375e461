//! What a neighbour is told of its stream: what is held of it, and what was set aside.

use milepost_engine::{Result, SiteName, Store};

use crate::message::{Point, Trouble, TroubleCase, cut};
use crate::receive::Quarantined;

use super::record::records;

/// What could not be applied of a remote's stream; `None` when all could. `aside` is what was set aside of all remotes.
///
/// # Errors
/// `Corrupt` for a record that is none; those of the store.
pub fn trouble_with(store: &Store, remote: &SiteName, aside: &[Quarantined]) -> Result<Option<Trouble>> {
    let held = records(store, Some(remote))?;
    let refused: Vec<&Quarantined> = aside.iter().filter(|one| one.sender == remote.as_str()).collect();
    let case = |point: Point, reason: &str| TroubleCase {
        point,
        reason: cut(reason, Trouble::MAX_REASON).to_owned(),
    };
    let of_refused = refused.iter().map(|one| case(Point::NONE, &one.reason));
    let of_held = held
        .iter()
        .map(|(_, record)| case(record.point, &record.cause.to_string()));
    let count = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
    let trouble = Trouble {
        held: count(held.len()),
        refused: count(refused.len()),
        cases: of_refused.chain(of_held).take(Trouble::MAX_CASES).collect(),
    };
    Ok(Some(trouble).filter(|trouble| !trouble.is_none()))
}
