//! [`Probing`]: when a neighbour that does not confirm is asked what it has.
//!
//! While something sent is unconfirmed and nothing has come of it for two send intervals (at least a
//! minute), or a claim was suspicious, a probe is sent; unanswered, it is repeated after twice the time,
//! up to a day. The repeat has the same nonce: on a link that takes a week each way, the answer to the
//! first probe must still count. At most one nonce is open per pair.

use std::time::Duration;

use crate::message::{Place, Point};

use super::state::{PairRecords, ProbeRecord};

/// How long an unconfirmed neighbour is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbingTimes {
    /// First wait.
    pub first: Duration,
    /// Longest wait.
    pub longest: Duration,
}

impl ProbingTimes {
    /// Two send intervals, at least a minute, doubling up to a day.
    #[must_use]
    pub fn for_interval(send_every: Duration) -> ProbingTimes {
        let day = Duration::from_secs(24 * 60 * 60);
        let first = send_every.saturating_mul(2).max(Duration::from_secs(60));
        ProbingTimes {
            first,
            longest: day.max(first),
        }
    }
}

/// The timer and the open probe of one pair.
#[derive(Clone, Debug)]
pub(super) struct Probing {
    times: ProbingTimes,
    open: Option<Open>,
    since: Duration,
    wait: Duration,
}

/// A probe that was drawn and not answered yet.
#[derive(Clone, Copy, Debug)]
struct Open {
    record: ProbeRecord,
    /// False until a link took it: then it does not wait.
    sent: bool,
}

impl Probing {
    pub(super) fn new(times: ProbingTimes, records: &PairRecords, now: Duration) -> Probing {
        let open = records
            .probe
            .filter(|probe| records.told.answered != Some(probe.nonce));
        let open = open.map(|record| Open { record, sent: true });
        Probing {
            times,
            open,
            since: now,
            wait: times.first,
        }
    }

    /// The neighbour moved on, asked or answered.
    pub(super) fn progress(&mut self, now: Duration) {
        (self.since, self.wait) = (now, self.times.first);
    }

    /// From now on something is unconfirmed. Later sends do not start the wait again.
    pub(super) fn began_waiting(&mut self, now: Duration) {
        if self.open.is_none() {
            self.progress(now);
        }
    }

    /// The probe to send now.
    pub(super) fn due(
        &mut self,
        now: Duration,
        log_sent: Point,
        records: &PairRecords,
        draw: &mut dyn FnMut() -> u64,
    ) -> Option<ProbeRecord> {
        let told = &records.told;
        let waited = now.saturating_sub(self.since) >= self.wait;
        self.open = self.open.filter(|open| told.answered != Some(open.record.nonce));
        if let Some(open) = self.open {
            return (waited || !open.sent).then_some(open.record);
        }
        let settled = records.probe.map_or(0, |probe| probe.suspicions);
        let suspicious = told.suspicions > settled;
        let overdue = waited && waits(log_sent.place(), records);
        if !suspicious && !overdue {
            return None;
        }
        let record = ProbeRecord {
            generation: records.generation(),
            nonce: draw(),
            log_sent,
            held: told.received,
            suspicions: told.suspicions,
        };
        self.open = Some(Open { record, sent: false });
        Some(record)
    }

    /// The probe was delivered; it is repeated after twice the time.
    pub(super) fn sent(&mut self, nonce: u64, now: Duration) {
        let Some(open) = self.open.as_mut().filter(|open| open.record.nonce == nonce) else {
            return;
        };
        self.wait = if open.sent {
            self.wait.saturating_mul(2).min(self.times.longest)
        } else {
            self.times.first
        };
        open.sent = true;
        self.since = now;
    }

    pub(super) fn wakes_at(&self, log_sent: Point, records: &PairRecords) -> Option<Duration> {
        let waiting = self.open.is_some() || waits(log_sent.place(), records);
        waiting.then(|| self.since.saturating_add(self.wait))
    }
}

fn waits(log_sent: Place, records: &PairRecords) -> bool {
    log_sent > records.told.received.place()
}
