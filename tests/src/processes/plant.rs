//! Planting a bug in a worker, by its name in `milepost_engine::planted`: a test that never failed
//! proves nothing.

/// Chooses a bug for the whole process.
///
/// # Errors
/// A sentence, for a name that is none, and without the feature `planted`.
#[cfg(feature = "planted")]
pub fn plant(name: &str) -> Result<(), String> {
    use milepost_engine::planted::{Bug, set};
    let bug = Bug::ALL.into_iter().find(|bug| format!("{bug:?}") == name);
    let bug = bug.ok_or_else(|| format!("{name} is no planted bug; there are {:?}", Bug::ALL))?;
    set(Some(bug));
    Ok(())
}

/// Chooses a bug for the whole process.
///
/// # Errors
/// Always: no bug is built in.
#[cfg(not(feature = "planted"))]
pub fn plant(name: &str) -> Result<(), String> {
    Err(format!(
        "{name} cannot be planted: build with `--features planted`"
    ))
}
