//! [`LinkError`]: why a link did not do what it was asked, by what the caller does next.

use std::fmt;

/// One endpoint that was tried and why it failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedAttempt {
    /// The endpoint's address.
    pub endpoint: String,
    /// Why it failed, for an operator.
    pub reason: String,
}

impl fmt::Display for FailedAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.endpoint, self.reason)
    }
}

/// Why a link did not do what it was asked. Nothing is lost by any of these: messages stay queued at
/// the sender, or waiting on the link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// No endpoint was reached: serve the other links, then exit 4 in batch; in continuous mode the
    /// next round tries again from the primary.
    #[error("cannot be reached: {}", list(.attempts))]
    Unreachable {
        /// Every attempt, in order.
        attempts: Vec<FailedAttempt>,
    },
    /// The link is there and cannot take or give this now (a full mailbox, no space): try at the next
    /// round.
    #[error("{endpoint} says not now: {reason}")]
    NotNow {
        /// Who said so.
        endpoint: String,
        /// Why, for an operator.
        reason: String,
    },
    /// The link is there and will not do this, now or later (an operator must change something).
    #[error("{endpoint} refuses: {reason}")]
    Refused {
        /// Who said so.
        endpoint: String,
        /// Why, for an operator.
        reason: String,
    },
    /// The request is wrong: change it.
    #[error("{reason}")]
    Invalid {
        /// What is wrong, for an operator.
        reason: String,
    },
}

impl LinkError {
    /// An `Unreachable` of one endpoint.
    pub fn unreachable(endpoint: impl Into<String>, reason: impl Into<String>) -> LinkError {
        LinkError::Unreachable {
            attempts: vec![FailedAttempt {
                endpoint: endpoint.into(),
                reason: reason.into(),
            }],
        }
    }

    /// A `NotNow`.
    pub fn not_now(endpoint: impl Into<String>, reason: impl Into<String>) -> LinkError {
        LinkError::NotNow {
            endpoint: endpoint.into(),
            reason: reason.into(),
        }
    }

    /// A `Refused`.
    pub fn refused(endpoint: impl Into<String>, reason: impl Into<String>) -> LinkError {
        LinkError::Refused {
            endpoint: endpoint.into(),
            reason: reason.into(),
        }
    }

    /// An `Invalid`.
    pub fn invalid(reason: impl Into<String>) -> LinkError {
        LinkError::Invalid {
            reason: reason.into(),
        }
    }

    /// True when no endpoint was reached (exit 4).
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, LinkError::Unreachable { .. })
    }
}

fn list(attempts: &[FailedAttempt]) -> String {
    let texts: Vec<String> = attempts.iter().map(ToString::to_string).collect();
    if texts.is_empty() {
        "the list of endpoints is empty".to_owned()
    } else {
        texts.join("; ")
    }
}
