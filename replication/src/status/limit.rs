//! [`LimitStatus`]: how a remote stands to the limits of what is kept for it, measured as the send phase does.
//!
//! What only the sending process knows (how far it sent) is taken as the log knows it, so that this may say less, and not more.

use milepost_engine::{ErrorKind, Result, Store};
use serde::Serialize;

use crate::catalog::{Remote, RemoteLimits};
use crate::send::{Kept, Level, LimitState, SuspendedRecord, limit_told, suspended};

/// How a remote stands to its limits.
#[derive(Clone, Debug, Serialize)]
pub struct LimitStatus {
    /// Bytes that are kept because it has not confirmed them.
    pub kept_bytes: u64,
    /// Since when the oldest of that is due, microseconds since 1970 by the clock here.
    pub oldest: Option<i64>,
    /// `limit_bytes`, `limit_age` in seconds, `at_limit`.
    #[serde(flatten)]
    pub limits: RemoteLimits,
    /// Of the nearer limit; 0 without any.
    pub percent: u64,
    /// `fine`, `near`, `reached` or `suspended`.
    pub state: LimitState,
    /// What was given up, when and why.
    pub suspended: Option<SuspendedStatus>,
}

/// What was given up.
#[derive(Clone, Debug, Serialize)]
pub struct SuspendedStatus {
    /// When, microseconds since 1970 by the clock here.
    pub since: i64,
    /// The last place that it had confirmed: what it was due behind that is given up.
    pub confirmed: String,
    /// The scan had come to here.
    pub scanned: u64,
    /// Why, and the way back.
    pub reason: String,
}

impl SuspendedStatus {
    fn of(record: &SuspendedRecord, remote: &Remote) -> SuspendedStatus {
        SuspendedStatus {
            since: record.since,
            confirmed: record.confirmed.to_string(),
            scanned: record.scanned.0,
            reason: record.text(remote),
        }
    }
}

impl LimitStatus {
    /// Of one that is suspended.
    pub(super) fn of_suspended(store: &Store, remote: &Remote) -> Result<Option<LimitStatus>> {
        let record = suspended(store, remote)?;
        Ok(record.map(|record| LimitStatus {
            kept_bytes: 0,
            oldest: None,
            limits: remote.limits,
            percent: 0,
            state: LimitState::Suspended,
            suspended: Some(SuspendedStatus::of(&record, remote)),
        }))
    }

    /// Of one that is not; `kept` is measured where it has limits or not.
    pub(super) fn of(store: &Store, remote: &Remote, kept: Result<Kept>) -> Result<LimitStatus> {
        let kept = match kept {
            // What it is due was freed: that is told elsewhere.
            Err(error) if error.kind() == ErrorKind::Behind => Kept::default(),
            kept => kept?,
        };
        let level = Level::of(kept, &remote.limits, store.believed_now());
        Ok(LimitStatus {
            kept_bytes: kept.bytes,
            oldest: kept.oldest,
            limits: remote.limits,
            percent: level.percent,
            state: level.state(limit_told(store, remote)?.state),
            suspended: None,
        })
    }
}
