//! [`Ladder`]: which endpoint is tried next, and after which pause.
//!
//! ```text
//! primary ─ fails ─► (wait -fd, primary) × -fr ─ fails ─► alternate 1 ─► alternate 2 ─► … ─► NoServer
//! ```
//!
//! One ladder is one round: it begins at the primary, and each alternate is tried once, at once. Both
//! options concern the primary only. A ladder decides; the caller waits, connects under its own time
//! limit, and reports what came of it. Any failure counts alike: name resolution, refusal, a handshake
//! that hangs, TLS, a server that says "not now".

use std::fmt;
use std::time::Duration;

use crate::link::FailedAttempt;

use super::{Endpoint, EndpointList};

/// How stubborn a client is about its primary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrimaryRetries {
    /// More attempts on the primary after the first (`-fr`).
    pub count: u32,
    /// Pause before each of those (`-fd`).
    pub delay: Duration,
}

/// One round of attempts.
#[derive(Clone, Debug)]
pub struct Ladder {
    endpoints: Vec<Endpoint>,
    retries: PrimaryRetries,
    failed: Vec<FailedAttempt>,
    /// Attempts on the primary that failed.
    primary_failed: u32,
    /// Endpoint to try next.
    index: usize,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Try this.
    Try(Attempt),
    /// Every endpoint was tried: the next round begins at the primary again.
    GiveUp(NoServer),
}

/// An attempt to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Whom to connect to.
    pub endpoint: Endpoint,
    /// Its place in the list; 0 is the primary.
    pub index: usize,
    /// Pause before the attempt.
    pub wait: Duration,
}

/// No server could be reached (exit 4 in batch): every attempt, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoServer {
    /// Every attempt of the round with its reason; never empty.
    pub attempts: Vec<FailedAttempt>,
}

impl Ladder {
    /// A round over `list`.
    #[must_use]
    pub fn new(list: &EndpointList, retries: PrimaryRetries) -> Ladder {
        let endpoints = list.endpoints().to_vec();
        Ladder {
            endpoints,
            retries,
            failed: Vec::new(),
            primary_failed: 0,
            index: 0,
        }
    }

    /// What to do next; the same until [`Ladder::failed`] is called.
    #[must_use]
    pub fn step(&self) -> Step {
        match self.endpoints.get(self.index) {
            Some(endpoint) => {
                let again = self.index == 0 && self.primary_failed > 0;
                let wait = if again { self.retries.delay } else { Duration::ZERO };
                Step::Try(Attempt {
                    endpoint: endpoint.clone(),
                    index: self.index,
                    wait,
                })
            }
            None => Step::GiveUp(NoServer {
                attempts: self.failed.clone(),
            }),
        }
    }

    /// The attempt that [`Ladder::step`] named failed. Later calls than that are without effect.
    pub fn failed(&mut self, reason: impl Into<String>) {
        let Some(endpoint) = self.endpoints.get(self.index) else {
            return;
        };
        self.failed.push(FailedAttempt {
            endpoint: endpoint.to_string(),
            reason: reason.into(),
        });
        if self.index == 0 && self.primary_failed < self.retries.count {
            self.primary_failed += 1;
        } else {
            self.index += 1;
        }
    }
}

impl fmt::Display for NoServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no server could be reached, messages stay queued: ")?;
        // Attempts on the primary repeat one endpoint; its last reason and their number say it all.
        let mut rest = self.attempts.as_slice();
        while let Some((first, _)) = rest.split_first() {
            let same = rest
                .iter()
                .take_while(|attempt| attempt.endpoint == first.endpoint)
                .count();
            let (own, after) = rest.split_at(same);
            let last = own.last().unwrap_or(first);
            write!(f, "{last}")?;
            if same > 1 {
                write!(f, " after {same} attempts")?;
            }
            if !after.is_empty() {
                f.write_str("; ")?;
            }
            rest = after;
        }
        Ok(())
    }
}

impl std::error::Error for NoServer {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(count: u16) -> EndpointList {
        EndpointList::new((1..=count).map(|port| Endpoint::new("hq", port).unwrap())).unwrap()
    }

    /// Every attempt of a round in which all fail, as (index, wait in seconds).
    fn climb(mut ladder: Ladder) -> (Vec<(usize, u64)>, NoServer) {
        let mut attempts = Vec::new();
        loop {
            match ladder.step() {
                Step::Try(attempt) => {
                    attempts.push((attempt.index, attempt.wait.as_secs()));
                    ladder.failed(format!("reason {}", attempts.len()));
                }
                Step::GiveUp(no_server) => return (attempts, no_server),
            }
        }
    }

    #[test]
    fn attempts_follow_the_table_of_the_field() {
        let retries = |count, seconds| PrimaryRetries {
            count,
            delay: Duration::from_secs(seconds),
        };
        let table: [(u16, PrimaryRetries, &[(usize, u64)]); 5] = [
            (1, retries(0, 0), &[(0, 0)]),
            (3, retries(0, 0), &[(0, 0), (1, 0), (2, 0)]),
            // -fr 3 -fd 1: four attempts on the primary, 3 s.
            (2, retries(3, 1), &[(0, 0), (0, 1), (0, 1), (0, 1), (1, 0)]),
            // -fd alone changes nothing.
            (2, retries(0, 9), &[(0, 0), (1, 0)]),
            (1, retries(2, 0), &[(0, 0), (0, 0), (0, 0)]),
        ];
        for (count, retries, expected) in table {
            assert_eq!(
                climb(Ladder::new(&list(count), retries)).0,
                expected,
                "{count} endpoints, {retries:?}"
            );
        }
    }

    #[test]
    fn the_error_gives_a_reason_per_endpoint() {
        let retries = PrimaryRetries {
            count: 1,
            delay: Duration::ZERO,
        };
        let (_, no_server) = climb(Ladder::new(&list(2), retries));
        assert_eq!(
            no_server.to_string(),
            "no server could be reached, messages stay queued: milepost://hq:1 (reason 2) after 2 attempts; \
             milepost://hq:2 (reason 3)"
        );
    }

    proptest! {
        #[test]
        fn the_primary_is_tried_first_and_n_times_more_and_each_alternate_once(
            count in 1u16..12, more in 0u32..9, delay in 0u64..5,
        ) {
            let retries = PrimaryRetries { count: more, delay: Duration::from_secs(delay) };
            let (attempts, no_server) = climb(Ladder::new(&list(count), retries));
            let primary = attempts.iter().take_while(|(index, _)| *index == 0).count();
            prop_assert_eq!(primary, 1 + more as usize);
            let alternates: Vec<usize> = attempts[primary..].iter().map(|(index, _)| *index).collect();
            prop_assert_eq!(alternates, (1..usize::from(count)).collect::<Vec<_>>());
            prop_assert_eq!(attempts.iter().map(|(_, wait)| wait).sum::<u64>(), u64::from(more) * delay);
            prop_assert_eq!(no_server.attempts.len(), attempts.len());
        }
    }
}
