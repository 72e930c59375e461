//! What the worker process of `remotes` does: two batch runs of an agent's scan and send phases on a store, and a look at
//! its own memory meanwhile.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use milepost_engine::clock::{Clock, SystemClock};
use milepost_engine::{Options, SiteName, Store};
use milepost_replication::agent::{AgentOptions, ExitCode, Links, Phases, Stop, run_on_with};
use milepost_replication::hooks::{Hooks, MessageSent};
use milepost_replication::link::{Batch, Link, LinkFuture, MessageId, PollRequest};

use crate::workload::{processor_time, timed_ok};
use crate::{Outcome, machine};

/// Pause between two looks at the memory in use.
const LOOK: Duration = Duration::from_millis(2);

/// What the two rounds of one process came to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Told {
    /// Seconds of the first round.
    pub first_s: f64,
    /// Processor's time of the process in it.
    pub cpu_s: f64,
    /// Seconds of the second, for which nothing is new.
    pub idle_s: f64,
    /// Memory that is no mapped page of a file, at most.
    pub own_bytes: u64,
    /// All memory, at most.
    pub most_bytes: u64,
    /// Remotes that were sent something.
    pub remotes: u64,
    /// Transactions that were sent, by all.
    pub transactions: u64,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {} {} {} {} {}",
            self.first_s,
            self.cpu_s,
            self.idle_s,
            self.own_bytes,
            self.most_bytes,
            self.remotes,
            self.transactions
        )
    }
}

impl FromStr for Told {
    type Err = Box<dyn std::error::Error>;

    fn from_str(line: &str) -> Outcome<Told> {
        let words: Vec<&str> = line.split(' ').collect();
        let [first, cpu, idle, own, most, remotes, transactions] = words.as_slice() else {
            return Err(format!("a worker said {line:?}").into());
        };
        Ok(Told {
            first_s: first.parse()?,
            cpu_s: cpu.parse()?,
            idle_s: idle.parse()?,
            own_bytes: own.parse()?,
            most_bytes: most.parse()?,
            remotes: remotes.parse()?,
            transactions: transactions.parse()?,
        })
    }
}

/// Runs both rounds on the store in `dir`, once `begin` returns.
///
/// # Errors
/// What the agent says.
pub fn work(dir: &Path, begin: impl FnOnce() -> Outcome<()>) -> Outcome<Told> {
    let store = Options::new().open(dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let (taken, ended) = (Arc::new(Taken::default()), AtomicBool::new(false));
    let agent = || one_run(&store, &taken, runtime.handle());
    begin()?;
    let (outcome, own_bytes) = std::thread::scope(|scope| {
        let look = scope.spawn(|| look_at_memory(&ended));
        let began = processor_time();
        let outcome = timed_ok(agent).and_then(|first| {
            let cpu = processor_time().saturating_sub(began);
            Ok((first, cpu, timed_ok(agent)?))
        });
        ended.store(true, Ordering::Relaxed);
        (outcome, look.join())
    });
    let (first, cpu, idle) = outcome?;
    let remotes = taken.remotes.lock().unwrap_or_else(PoisonError::into_inner).len();
    Ok(Told {
        first_s: first.as_secs_f64(),
        cpu_s: cpu.as_secs_f64(),
        idle_s: idle.as_secs_f64(),
        own_bytes: own_bytes.map_err(|_| "the look at the memory panicked")?,
        most_bytes: machine::own_bytes("VmHWM"),
        remotes: u64::try_from(remotes)?,
        transactions: taken.transactions.load(Ordering::Relaxed),
    })
}

fn one_run(store: &Store, taken: &Arc<Taken>, runtime: &tokio::runtime::Handle) -> Outcome<()> {
    let options = AgentOptions {
        batch: true,
        phases: Phases::of(false, true, true),
        ..AgentOptions::default()
    };
    let stop = Stop::new();
    let open = Box::new(|_: &[String]| -> milepost_engine::Result<Arc<dyn Link>> { Ok(Arc::new(Forgets)) });
    let links = Links::new(open, &[], runtime.clone(), stop.clone());
    let taken = Arc::clone(taken);
    let exit = run_on_with(store, &links, &options, Some(taken), &stop);
    match exit.code {
        ExitCode::Done => Ok(()),
        _ => Err(format!("the agent: {exit:?}").into()),
    }
}

fn look_at_memory(ended: &AtomicBool) -> u64 {
    let mut most = 0;
    while !ended.load(Ordering::Relaxed) {
        most = machine::own_memory().max(most);
        SystemClock.sleep(LOOK);
    }
    machine::own_memory().max(most)
}

/// What went out.
#[derive(Default)]
struct Taken {
    remotes: Mutex<BTreeSet<SiteName>>,
    transactions: AtomicU64,
}

impl Hooks for Taken {
    fn message_sent(&self, sent: &MessageSent<'_>) {
        let mut remotes = self.remotes.lock().unwrap_or_else(PoisonError::into_inner);
        if sent.transactions > 0 && !remotes.contains(sent.to) {
            remotes.insert(sent.to.clone());
        }
        let transactions = u64::try_from(sent.transactions).unwrap_or(u64::MAX);
        self.transactions.fetch_add(transactions, Ordering::Relaxed);
    }
}

/// A link that takes every message and forgets it.
struct Forgets;

impl Link for Forgets {
    fn deliver<'a>(&'a self, _to: &'a SiteName, _message: &'a [u8]) -> LinkFuture<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn poll<'a>(&'a self, _request: PollRequest<'a>) -> LinkFuture<'a, Batch> {
        Box::pin(async { Ok(Batch::default()) })
    }

    fn remove<'a>(&'a self, _ids: &'a [MessageId]) -> LinkFuture<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn address(&self) -> String {
        "a link that forgets".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_worker_says_is_read_back() {
        let told = Told {
            first_s: 1.25,
            cpu_s: 0.75,
            idle_s: 0.5,
            own_bytes: 3,
            most_bytes: 4,
            remotes: 5,
            transactions: 6,
        };
        assert_eq!(told.to_string().parse::<Told>().unwrap(), told);
        assert!("1 2 3".parse::<Told>().is_err());
    }
}
