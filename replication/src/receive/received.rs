//! [`Received`]: what one poll brought.

use crate::agent::LinkNumber;
use crate::link::{LinkError, MessageId};

/// What one poll brought.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// True when something changed: a transaction applied, a note made, a message removed. Polling again may
    /// bring more.
    pub moved: bool,
    /// Transactions applied.
    pub transactions: u64,
    /// Transactions that were put in quarantine.
    pub kept: u64,
    /// Messages whose transactions were all here.
    pub duplicates: u64,
    /// Links that could not be polled, with the reason.
    pub failed_links: Vec<(LinkNumber, LinkError)>,
    /// Messages that need an operator, with the reason.
    pub quarantined: Vec<SetAside>,
}

/// A message that needs an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// Its name on its link.
    pub message: MessageId,
    /// Who sent it, as far as that can be read.
    pub sender: String,
    /// Why.
    pub reason: String,
}

impl Received {
    /// Notes that a link failed: once, however many of its requests do.
    pub(super) fn fail(&mut self, link: LinkNumber, error: LinkError) {
        if self.failed_links.iter().all(|(known, _)| *known != link) {
            self.failed_links.push((link, error));
        }
    }
}
