//! [`Probing`]: when a neighbour that does not confirm is asked what it has.
//!
//! While something sent is unconfirmed and nothing has come of it for two send intervals (at least a
//! minute), or a claim was suspicious, a probe is sent; unanswered, it is repeated after twice the time,
//! up to a day. The repeat has the same nonce: on a link that takes a week each way, the answer to the
//! first probe must still count. At most one nonce is open per pair.
//!
//! A process that starts with something unconfirmed has waited long enough: in batch, that is the next run.
//! How often and when an open probe was sent is in the `sent/` record, so that a batch run every minute does
//! not put one on the link every minute; a wall clock that jumps only moves the next probe.

use std::time::Duration;

use crate::message::{Place, Point};

use super::sender::Now;
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

    /// The wait after `times` that were in vain.
    pub(super) fn after(self, times: u32) -> Duration {
        let doubled = 1_u32.checked_shl(times).unwrap_or(u32::MAX);
        self.first.saturating_mul(doubled).min(self.longest)
    }
}

/// The timer and the open probe of one pair.
#[derive(Clone, Debug)]
pub(super) struct Probing {
    times: ProbingTimes,
    open: Option<Open>,
    since: Duration,
    /// Waited before `since`, in processes that are gone.
    before: Duration,
    wait: Duration,
}

/// A probe that was drawn and not answered yet.
#[derive(Clone, Copy, Debug)]
struct Open {
    record: ProbeRecord,
    /// How often a link took it; while it is 0 it does not wait.
    sent: u32,
    /// When it did last, microseconds since 1970.
    sent_at: i64,
}

impl Probing {
    pub(super) fn new(times: ProbingTimes, records: &PairRecords, log_sent: Point, now: Now) -> Probing {
        let open = records
            .probe
            .filter(|probe| records.told.answered != Some(probe.nonce));
        let known = |record: &ProbeRecord| records.sent.filter(|sent| sent.probe == record.nonce);
        let open = open.map(|record| Open {
            record,
            sent: known(&record).map_or(0, |sent| sent.probe_times),
            sent_at: known(&record).map_or(0, |sent| sent.probe_at),
        });
        let (mut wait, mut before) = (times.first, Duration::ZERO);
        match open.filter(|open| open.sent > 0) {
            Some(open) => {
                wait = times.after(open.sent - 1);
                // A clock that went back says nothing of how long it was.
                let waited = now.wall_micros.checked_sub(open.sent_at);
                before = waited
                    .and_then(|micros| u64::try_from(micros).ok())
                    .map_or(wait, Duration::from_micros);
            }
            None if waits(log_sent.place(), records) => before = wait,
            None => {}
        }
        Probing {
            times,
            open,
            since: now.monotonic,
            before,
            wait,
        }
    }

    /// Nonce of the open probe, how often it was sent and when last; zeros for none.
    pub(super) fn sent_so_far(&self) -> (u64, u32, i64) {
        let sent = self.open.filter(|open| open.sent > 0);
        sent.map_or((0, 0, 0), |open| (open.record.nonce, open.sent, open.sent_at))
    }

    /// The neighbour moved on, asked or answered.
    pub(super) fn progress(&mut self, now: Duration) {
        (self.since, self.before, self.wait) = (now, Duration::ZERO, self.times.first);
    }

    /// From now on something is unconfirmed. Later sends do not start the wait again.
    pub(super) fn began_waiting(&mut self, now: Duration) {
        if self.open.is_none() {
            self.progress(now);
        }
    }

    /// True when there is a probe to send now, should nothing else come first.
    pub(super) fn is_due(&self, now: Duration, log_sent: Point, records: &PairRecords) -> bool {
        let mut asked = self.clone();
        asked.due(now, log_sent, records, &mut || 0).is_some()
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
        let waited = now.saturating_sub(self.since).saturating_add(self.before) >= self.wait;
        self.open = self.open.filter(|open| told.answered != Some(open.record.nonce));
        if let Some(open) = self.open {
            return (waited || open.sent == 0).then_some(open.record);
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
        self.open = Some(Open {
            record,
            sent: 0,
            sent_at: 0,
        });
        Some(record)
    }

    /// The probe was delivered; it is repeated after twice the time.
    pub(super) fn sent(&mut self, nonce: u64, now: Now) {
        let Some(open) = self.open.as_mut().filter(|open| open.record.nonce == nonce) else {
            return;
        };
        self.wait = if open.sent > 0 {
            self.wait.saturating_mul(2).min(self.times.longest)
        } else {
            self.times.first
        };
        (open.sent, open.sent_at) = (open.sent.saturating_add(1), now.wall_micros);
        (self.since, self.before) = (now.monotonic, Duration::ZERO);
    }

    pub(super) fn wakes_at(&self, log_sent: Point, records: &PairRecords) -> Option<Duration> {
        let waiting = self.open.is_some() || waits(log_sent.place(), records);
        waiting.then(|| self.since.saturating_add(self.wait.saturating_sub(self.before)))
    }
}

fn waits(log_sent: Place, records: &PairRecords) -> bool {
    log_sent > records.told.received.place()
}
