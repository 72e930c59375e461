//! A pair that is made anew in its place: links, schedule, policy, limits and subscriptions stay as they are.

use milepost_engine::{Error, Lsn, Pinned, Result, SiteName};

use super::record::{self, RemoteBytes};
use super::{Definitions, Remote};

impl Definitions<'_> {
    /// Gives the pair with `site` the next generation, with what else the frame is to pin. `known` is the definition that was
    /// looked at.
    ///
    /// # Errors
    /// `Conflict` when the remote was changed or removed since, or transactions of its are in quarantine.
    pub(crate) fn make_anew(&self, known: &Remote, generation: u32, beside: Vec<Pinned>) -> Result<Remote> {
        let site = &known.site;
        self.refuse_while_held(site, "made anew")?;
        if self.since(site)? != Some(known.since) {
            return Err(changed(site));
        }
        let bytes = RemoteBytes {
            previous: known.since,
            generation,
            added: known.added,
            value: Some((known.links.clone(), known.schedule, known.consolidated)),
        };
        let mut frame = record::remote_frame(site, bytes, known.on_error, known.limits)?;
        beside.into_iter().for_each(|pinned| frame.pin(pinned));
        let at = self.append_frame(frame)?;
        // What was set aside of the former pair is still on its link, and of another generation.
        crate::receive::clear_quarantine(self.store, site)?;
        let catalog = self.catalog()?;
        let made = catalog.remote(site).filter(|remote| remote.since == at);
        made.cloned().ok_or_else(|| changed(site))
    }

    fn since(&self, site: &SiteName) -> Result<Option<Lsn>> {
        Ok(self.catalog()?.remote(site).map(|remote| remote.since))
    }
}

fn changed(site: &SiteName) -> Error {
    Error::conflict(format!(
        "remote {site} was changed by another command meanwhile: look at it and try again"
    ))
}
