//! [`RemoteLimits`]: how much may be kept for a remote that does not confirm, and what happens then.
//!
//! ```text
//! remote add island --limit-bytes 10G --limit-age 30d --at-limit suspend
//! definition, version 3: … | policy | bytes: optional u64 | age in seconds: optional u64 | at limit u32: 0 hold, 1 suspend
//! ```
//!
//! Guarantees: without limits nothing is ever given up; a remote without them is written as older programs know it. Refuses:
//! limits of nothing, and a policy without a limit that it could be for.

use bincode::{Decode, Encode};
use milepost_engine::{Error, Result};
use serde::{Deserialize, Serialize};

/// How much may be kept for a remote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct RemoteLimits {
    /// Bytes of queue and log ([`crate::send::Kept`]).
    #[serde(rename = "limit_bytes")]
    pub bytes: Option<u64>,
    /// Seconds since the oldest transaction that it has not confirmed became due.
    #[serde(rename = "limit_age")]
    pub age: Option<u64>,
    /// What happens at either.
    pub at_limit: AtLimit,
}

/// What happens when a limit is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AtLimit {
    /// It is told, and all is kept.
    #[default]
    Hold,
    /// The remote is suspended: what it has not confirmed is given up.
    Suspend,
}

impl RemoteLimits {
    /// True when there is neither.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.bytes.is_none() && self.age.is_none()
    }

    /// Checks what people typed.
    ///
    /// # Errors
    /// `Invalid` with the rule that is broken.
    pub(super) fn check(&self) -> Result<()> {
        if self.bytes == Some(0) || self.age == Some(0) {
            return Err(Error::invalid(
                "a limit of nothing would be reached at once; leave it out for no limit",
            ));
        }
        if self.is_none() && self.at_limit == AtLimit::Suspend {
            return Err(Error::invalid(
                "at which limit the remote is to be suspended is not said: give a limit by bytes, by age, or both",
            ));
        }
        Ok(())
    }
}
