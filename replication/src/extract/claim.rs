//! [`Claim`]: one store at a time is made for a remote, and meanwhile the source keeps its log.
//!
//! It is a hold of the source's (`extract-<remote>`), which survives who took it and names the store that is being made. Two
//! stores made side by side would both be the remote, and only one of them would ever be believed.

use milepost_engine::{Error, Hold, Lsn, Result, SiteName, Store, StoreId};

/// The claim of one remote.
pub(super) struct Claim<'a> {
    source: &'a Store,
    remote: &'a SiteName,
    name: String,
}

impl<'a> Claim<'a> {
    pub(super) fn of(source: &'a Store, remote: &'a SiteName) -> Claim<'a> {
        let name = format!("extract-{remote}");
        Claim { source, remote, name }
    }

    /// Takes it for the store that is being made, `None` while there is none yet, and keeps the log from `from` on. True when it
    /// was not there.
    ///
    /// # Errors
    /// `Conflict` when another store is being made; as [`Store::move_hold`].
    pub(super) fn take(&self, made: Option<StoreId>, from: Lsn) -> Result<bool> {
        let mut is_new = false;
        self.source.move_hold(&self.name, |known| {
            is_new = known.is_none();
            let (nobody, ours) = (self.owner(None), self.owner(made));
            match known {
                None => Ok(Some(Hold::new("extract", &ours, Lsn(from.0.saturating_sub(1))))),
                Some(known) if known.owner == ours => Ok(None),
                Some(known) if known.owner == nobody => Ok(Some(Hold {
                    owner: ours,
                    ..known.clone()
                })),
                Some(known) => Err(self.refused(&known.owner)),
            }
        })?;
        Ok(is_new)
    }

    /// The store is finished, or was never begun.
    pub(super) fn end(&self) -> Result<()> {
        self.source.drop_hold(&self.name).map(drop)
    }

    /// Ends what a process left that was killed after it had finished this store.
    pub(super) fn end_of(&self, made: StoreId) -> Result<()> {
        let ours = self.owner(Some(made));
        let is_ours = |hold: &milepost_engine::NamedHold| {
            hold.name == self.name && hold.hold.as_ref().is_ok_and(|hold| hold.owner == ours)
        };
        match self.source.holds()?.iter().any(is_ours) {
            true => self.end(),
            false => Ok(()),
        }
    }

    fn owner(&self, made: Option<StoreId>) -> String {
        let into = made.map_or_else(String::new, |made| format!(" into store {made}"));
        format!(
            "milepost extract or resync of {}{into}, until it is done",
            self.remote
        )
    }

    fn refused(&self, owner: &str) -> Error {
        let (site, hold) = (self.remote, &self.name);
        Error::conflict(format!(
            "a store of {site} is being made elsewhere ({owner}): run the command again on its folder; or, when that is given up, remove \
             the folder and drop the hold {hold} (`milepost hold drop`)"
        ))
        .at_path(self.source.root())
    }
}
