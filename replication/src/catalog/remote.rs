//! [`Remote`]: a neighbour site, how it is reached and when it is sent to.

use std::time::Duration;

use bincode::{Decode, Encode};
use milepost_engine::{Error, Lsn, Result, SiteName};
use serde::{Deserialize, Serialize};

use crate::endpoint::LinkAddress;

use super::RemoteLimits;

/// A neighbour site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Remote {
    /// Name of the site.
    #[serde(serialize_with = "crate::catalog::record::site_as_text")]
    pub site: SiteName,
    /// LSN of the frame that defined it last.
    #[serde(serialize_with = "crate::catalog::record::lsn_as_number")]
    pub since: Lsn,
    /// LSN of the frame that added it; changes when it is removed and added again.
    #[serde(serialize_with = "crate::catalog::record::lsn_as_number")]
    pub added: Lsn,
    /// How often a remote of this name was added, from 1: the pair's generation as this site proposes it.
    pub generation: u32,
    /// Link addresses: the primary first, then its alternates.
    pub links: Vec<String>,
    /// When it is sent to.
    pub schedule: Schedule,
    /// True for the one neighbour above this site.
    pub consolidated: bool,
    /// What happens when a transaction of its cannot be applied.
    pub on_error: OnError,
    /// How much may be kept for it.
    #[serde(flatten)]
    pub limits: RemoteLimits,
}

/// What happens when a transaction of a neighbour's cannot be applied (R6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnError {
    /// Its stream stands before it until the cause is gone.
    #[default]
    Stop,
    /// It is kept in quarantine, with what shares a stream with it, and all else goes on.
    GoOn,
}

impl Remote {
    /// True for one that is reached by bundles alone: agents leave it to `milepost bundle`.
    #[must_use]
    pub fn is_carried(&self) -> bool {
        let first = self.links.first();
        first.is_some_and(|text| matches!(text.parse(), Ok(LinkAddress::Bundle)))
    }

    /// True for one that agents serve, and only in batch runs.
    #[must_use]
    pub fn is_unscheduled(&self) -> bool {
        self.schedule == Schedule::None && !self.is_carried()
    }
}

/// When a remote is sent to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Neither: every process that runs the send phase is a batch run.
    #[default]
    None,
    /// Pause between sends in seconds; with 0 it is sent what it is due as soon as that is durable and scanned.
    EverySeconds(u64),
    /// Once a day, at this minute after midnight UTC, 0 to 1439.
    AtMinute(u16),
}

impl Schedule {
    /// The pause of [`Schedule::EverySeconds`].
    #[must_use]
    pub fn every(self) -> Option<Duration> {
        match self {
            Schedule::EverySeconds(seconds) => Some(Duration::from_secs(seconds)),
            Schedule::None | Schedule::AtMinute(_) => None,
        }
    }
}

/// Checks what people typed.
///
/// # Errors
/// `Invalid` with the rule that is broken.
pub(super) fn check(site: &SiteName, links: &[String], schedule: Schedule) -> Result<()> {
    if links.is_empty() {
        return Err(Error::invalid(format!(
            "remote {site} has no link; give at least one address"
        )));
    }
    let is_address = |link: &str| link.contains("://") || matches!(link.parse(), Ok(LinkAddress::Bundle));
    if let Some(empty) = links.iter().find(|link| !is_address(link)) {
        return Err(Error::invalid(format!(
            "link {empty:?} of remote {site} is no address such as file:///dir or milepost://host:port"
        )));
    }
    match schedule {
        Schedule::AtMinute(1440..) => Err(Error::invalid("a time of day is 00:00 to 23:59")),
        _ => Ok(()),
    }
}
