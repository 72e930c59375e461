//! [`Contest`]: several systems measured side by side, one round of each after the other (A B C, A B C, …),
//! so that a machine that slows down slows all of them. A peer that fails is left out and says why;
//! when Milepost or the limit fails, the run fails.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::Outcome;

/// What a system is in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The engine of this repository.
    Milepost,
    /// What the machine can do at best: no system is faster.
    Limit,
    /// Another way of the engine that a row is compared with.
    Baseline,
    /// An embedded log or store of others.
    Peer,
}

/// All rounds of one system.
#[derive(Clone, Debug)]
pub struct Series {
    /// What it is called.
    pub system: String,
    /// Version of a peer.
    pub version: Option<String>,
    /// What it is.
    pub role: Role,
    /// False for a peer whose promise is weaker than what is measured: it is shown, and not the best one.
    pub compared: bool,
    /// Each round, in seconds or, for memory, in bytes.
    pub samples: Vec<f64>,
    /// Why a peer has no rounds.
    pub left_out: Option<String>,
    /// Remotes that were served, where that is what is measured.
    pub remotes: Option<u64>,
}

impl Series {
    /// A system that could not take part.
    pub fn left_out(system: &str, version: Option<String>, why: String) -> Series {
        Series {
            system: system.to_owned(),
            version,
            role: Role::Peer,
            compared: true,
            samples: Vec::new(),
            left_out: Some(why),
            remotes: None,
        }
    }

    /// Rounds of Milepost that were measured elsewhere.
    pub fn milepost(samples: Vec<f64>) -> Series {
        Series {
            system: "milepost".to_owned(),
            version: None,
            role: Role::Milepost,
            compared: true,
            samples,
            left_out: None,
            remotes: None,
        }
    }

    /// With so many remotes.
    pub fn with_remotes(self, count: u64) -> Series {
        Series {
            remotes: Some(count),
            ..self
        }
    }
}

type Round<'a> = Box<dyn FnMut() -> Outcome<Duration> + 'a>;

/// Systems that take turns.
#[derive(Default)]
pub struct Contest<'a> {
    entrants: Vec<(Series, Option<Round<'a>>)>,
}

impl<'a> Contest<'a> {
    /// Nobody yet.
    pub fn new() -> Contest<'a> {
        Contest::default()
    }

    /// Adds Milepost; `round` does one round and returns how long the measured part took.
    pub fn milepost(&mut self, round: impl FnMut() -> Outcome<Duration> + 'a) {
        self.add("milepost", None, Role::Milepost, Box::new(round));
    }

    /// Adds the physical limit.
    pub fn limit(&mut self, round: impl FnMut() -> Outcome<Duration> + 'a) {
        self.add("limit", None, Role::Limit, Box::new(round));
    }

    /// Adds another way of the engine to compare with.
    pub fn baseline(&mut self, name: &str, round: impl FnMut() -> Outcome<Duration> + 'a) {
        self.add(name, None, Role::Baseline, Box::new(round));
    }

    /// Adds a peer; one that is not `compared` is shown, and not the best one.
    pub fn peer(
        &mut self,
        name: &str,
        version: Option<String>,
        compared: bool,
        round: impl FnMut() -> Outcome<Duration> + 'a,
    ) {
        self.add(name, version, Role::Peer, Box::new(round));
        if let Some((series, _)) = self.entrants.last_mut() {
            series.compared = compared;
        }
    }

    /// Notes a peer that takes no part.
    pub fn absent(&mut self, name: &str, version: Option<String>, why: String) {
        self.entrants.push((Series::left_out(name, version, why), None));
    }

    fn add(&mut self, system: &str, version: Option<String>, role: Role, round: Round<'a>) {
        let series = Series {
            system: system.to_owned(),
            version,
            role,
            compared: true,
            samples: Vec::new(),
            left_out: None,
            remotes: None,
        };
        self.entrants.push((series, Some(round)));
    }

    /// Runs so many rounds of each.
    ///
    /// # Errors
    /// What Milepost, the limit or the baseline says.
    pub fn run(mut self, rounds: usize) -> Outcome<Vec<Series>> {
        for _ in 0..rounds {
            for (series, round) in &mut self.entrants {
                let Some(once) = round else { continue };
                if series.role != Role::Peer {
                    series.samples.push(once()?.as_secs_f64());
                    continue;
                }
                match catching(once) {
                    Ok(took) => series.samples.push(took.as_secs_f64()),
                    Err(error) => {
                        series.left_out = Some(error.to_string());
                        series.samples.clear();
                        *round = None;
                    }
                }
            }
        }
        Ok(self.entrants.into_iter().map(|(series, _)| series).collect())
    }
}

/// A peer's panic is its own, not the bench's.
pub fn catching<T>(work: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(outcome) => outcome,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(format!("it panicked: {}", text.unwrap_or("without a word")).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn systems_take_turns_and_a_peer_that_fails_is_left_out_with_its_reason() {
        let turns = RefCell::new(String::new());
        let turn = |name: char| {
            turns.borrow_mut().push(name);
            Ok(Duration::from_secs(1))
        };
        let mut contest = Contest::new();
        contest.milepost(|| turn('m'));
        contest.peer("p", None, true, || turn('p'));
        contest.peer("bad", None, true, || {
            turn('b').and_then(|_| Err("no space".into()))
        });
        contest.peer("worse", None, true, || panic!("oh"));
        let series = contest.run(3).unwrap();
        assert_eq!(*turns.borrow(), "mpbmpmp");
        assert_eq!(series[1].samples, [1.0; 3]);
        assert_eq!(series[2].left_out.as_deref(), Some("no space"));
        assert_eq!(series[3].left_out.as_deref(), Some("it panicked: oh"));
    }

    #[test]
    fn when_milepost_fails_the_run_fails() {
        let mut contest = Contest::new();
        contest.milepost(|| Err("broken".into()));
        assert_eq!(contest.run(1).unwrap_err().to_string(), "broken");
    }
}
