//! [`Serve`]: which remotes a round serves, and one of them alone, as a bundle is made for it.

use milepost_engine::{Result, SiteName};

use super::phase::SendPhase;
use crate::catalog::Remote;
use crate::message::Point;

/// Which remotes a round serves. One that is reached by bundles alone is served only by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serve<'a> {
    /// Those whose turn has come.
    InTurn,
    /// All, whatever their schedules: a batch run.
    Everybody,
    /// Those that somebody asked for (`--send-now`), and no other.
    Asked,
    /// One, whatever its schedule and its link.
    Only(&'a SiteName),
}

impl Serve<'_> {
    pub(super) fn is_for(&self, remote: &Remote, in_turn: bool, is_asked: bool) -> bool {
        match self {
            Serve::InTurn => in_turn && !remote.is_carried(),
            Serve::Everybody => !remote.is_carried(),
            Serve::Asked => is_asked && !remote.is_carried(),
            Serve::Only(site) => **site == remote.site,
        }
    }
}

impl SendPhase {
    /// Lets the next round send a remote again what it has not confirmed: what was sent may be lost.
    ///
    /// # Errors
    /// As [`SendPhase::round`].
    pub fn send_again(&mut self, site: &SiteName) -> Result<()> {
        self.look()?;
        if let Some(pair) = self.pairs.get_mut(site) {
            pair.sender.send_again();
        }
        Ok(())
    }

    /// How far a remote was sent to (`log_sent`).
    #[must_use]
    pub fn log_sent(&self, site: &SiteName) -> Option<Point> {
        self.pairs.get(site).map(|pair| pair.sender.log_sent())
    }
}
