//! [`Subscription`]: a range of positions over which a remote is due a publication.

use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};
use milepost_engine::{Error, Lsn, SiteName};
use serde::Serialize;

use crate::message::Place;

/// LSN of the frame that made the subscription: ascending, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct SubscriptionId(pub u64);

impl SubscriptionId {
    /// The position at which the subscription was made: live transactions behind it are due, earlier
    /// ones are its history.
    #[must_use]
    pub fn lsn(self) -> Lsn {
        Lsn(self.0)
    }
}

impl fmt::Display for SubscriptionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for SubscriptionId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let number = text.parse();
        number
            .map(SubscriptionId)
            .map_err(|_| Error::invalid(format!("subscription id {text:?} is no number")))
    }
}

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum Start {
    /// With the transactions behind its own frame.
    #[default]
    Now,
    /// With the oldest transaction of the log.
    Beginning,
    /// With the transactions at or behind this LSN.
    At(Lsn),
}

/// A range of positions over which a remote is due a publication's events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Subscription {
    /// Its id.
    pub id: SubscriptionId,
    /// Who is due.
    #[serde(serialize_with = "crate::catalog::record::site_as_text")]
    pub remote: SiteName,
    /// What.
    pub publication: String,
    /// The value chosen, where the publication asks for one.
    pub value: Option<String>,
    /// Transactions at or behind this LSN are due. Below the id: the stretch up to the id is its
    /// history, read from the log.
    #[serde(serialize_with = "crate::catalog::record::lsn_as_number")]
    pub from: Lsn,
    /// Transactions before this LSN are due; `None` while it goes on.
    #[serde(serialize_with = "crate::catalog::record::lsn_as_number_if_any")]
    pub until: Option<Lsn>,
    /// LSN of the frame that revoked it: what was unsent then is dropped, unless a later subscription that was
    /// there already asked for it too.
    #[serde(serialize_with = "crate::catalog::record::is_some")]
    pub revoked: Option<Lsn>,
}

impl Subscription {
    /// True when a live transaction at `lsn` is within the range.
    #[must_use]
    pub fn covers_live(&self, lsn: Lsn) -> bool {
        self.id.lsn() < lsn && self.until.is_none_or(|until| lsn < until)
    }

    /// True when a transaction at `lsn` belongs to the history that the subscription began with.
    #[must_use]
    pub fn covers_history(&self, lsn: Lsn) -> bool {
        self.from <= lsn && lsn < self.id.lsn()
    }

    /// The commit of its history that lies at or before the place `after` of the remote's stream, zero for
    /// none yet; `None` when `after` lies behind its whole history, or it has none.
    #[must_use]
    pub fn history_behind(&self, after: Place) -> Option<Lsn> {
        let starts = self.id.lsn();
        let ahead = self.has_history() && starts >= after.at;
        let back = if after.at == starts { after.back } else { Lsn::ZERO };
        ahead.then_some(back)
    }

    /// True when it began before the position at which it was made.
    #[must_use]
    pub fn has_history(&self) -> bool {
        self.from < self.id.lsn()
    }

    /// True while it goes on.
    #[must_use]
    pub fn is_in_force(&self) -> bool {
        self.until.is_none()
    }
}
