//! [`run`]: an agent from its options to its exit.

use std::collections::BTreeMap;

use milepost_engine::{ErrorKind, Phase, Result, Store};

use crate::catalog::{Catalog, keep_history};
use crate::extract::refuse_unfinished;
use crate::hooks::{Hooks, SharedHooks};
use crate::link::{LinkError, MessageId};
use crate::quarantine::held_of;
use crate::receive::{ReceiveOptions, ReceivePhase, SetAside, damaged_again};
use crate::scan::ScanPhase;
use crate::send::{SendOptions, SendPhase, Serve};
use crate::tracking::Patience;

use super::locked::Unusable;
use super::{AgentOptions, Exit, ExitCode, Links, Phases, Stop, batch, continuous, link_opener, send_now};

/// The phases that a process runs.
pub(super) struct Running {
    pub store: Store,
    pub links: Links,
    pub options: AgentOptions,
    pub stop: Stop,
    pub receive: Option<ReceivePhase>,
    pub scan: Option<ScanPhase>,
    pub send: Option<SendPhase>,
    /// In batch: who is sent to.
    pub serve: Serve<'static>,
}

/// Runs an agent on a store until it is done, fails, or `stop` is requested, and closes the store. Blocks;
/// must not be called from within an async runtime.
#[must_use]
pub fn run(store: Store, options: &AgentOptions, stop: &Stop) -> Exit {
    run_with(store, options, None, stop)
}

/// As [`run`], with hooks.
#[must_use]
pub fn run_with(store: Store, options: &AgentOptions, hooks: SharedHooks, stop: &Stop) -> Exit {
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            return Exit::because(
                ExitCode::Failed,
                format!("cannot start the agent's threads: {error}"),
            );
        }
    };
    let links = Links::new(
        link_opener(&store, options),
        &options.endpoints,
        runtime.handle().clone(),
        stop.clone(),
    );
    let exit = run_on_with(&store, &links, options, hooks, stop);
    let closed = store.close();
    // A link that hangs must not keep the process.
    runtime.shutdown_background();
    match closed {
        Ok(()) => exit,
        Err(error) => exit.and(Exit::failed(&error)),
    }
}

/// As [`run`], on an open store and given links.
#[must_use]
pub fn run_on(store: &Store, links: &Links, options: &AgentOptions, stop: &Stop) -> Exit {
    run_on_with(store, links, options, None, stop)
}

/// As [`run_on`], with hooks.
#[must_use]
pub fn run_on_with(
    store: &Store,
    links: &Links,
    options: &AgentOptions,
    hooks: SharedHooks,
    stop: &Stop,
) -> Exit {
    if let Err(error) = options.check() {
        return Exit::because(ExitCode::Usage, error.to_string());
    }
    if let Err(error) = refuse_unfinished(store) {
        return Exit::failed(&error);
    }
    let hooks = hooks.filter(|_| options.apply);
    if !options.send_now.is_empty() {
        return send_now::run(store, links, options, &hooks, stop);
    }
    let (batch, running) = match open(store, links, options, &hooks, stop) {
        Ok(opened) => opened,
        Err(error) if error.kind() == ErrorKind::Conflict => {
            let hint = if options.batch {
                " (with -b -r -s the scan is left to that process)"
            } else {
                ""
            };
            return Exit::because(ExitCode::PhaseHeld, format!("{error}{hint}"));
        }
        Err(error) => return Exit::failed(&error),
    };
    tracing::info!(site = %store.site(), phases = %options.phases, batch, "the agent runs");
    if batch && !options.batch {
        tracing::warn!(
            "a remote has neither --send-every nor --send-at, so this run is a batch run: one round, then it ends; \
             give every remote a schedule with `milepost remote add … --replace` for an agent that stays"
        );
    }
    let told = Told::begin(options, hooks);
    let exit = if batch {
        batch::run(running)
    } else {
        continuous::run(running)
    };
    drop(told);
    tracing::info!(code = exit.code.number(), "the agent leaves");
    exit
}

/// Tells hooks which phases run, until it is dropped.
pub(crate) struct Told {
    phases: Vec<Phase>,
    hooks: SharedHooks,
}

impl Told {
    pub(super) fn begin(options: &AgentOptions, hooks: SharedHooks) -> Told {
        let Phases { receive, scan, send } = options.phases;
        let runs = Phase::ALL.into_iter().zip([receive, scan, send]);
        Told::of(
            runs.filter(|(_, runs)| *runs).map(|(phase, _)| phase).collect(),
            hooks,
        )
    }

    /// Of these phases.
    pub(crate) fn of(phases: Vec<Phase>, hooks: SharedHooks) -> Told {
        let told = Told { phases, hooks };
        told.each(|hooks, phase| hooks.phase_began(phase));
        told
    }

    fn each(&self, tell: impl Fn(&dyn Hooks, Phase)) {
        if let Some(hooks) = &self.hooks {
            self.phases.iter().for_each(|phase| tell(&**hooks, *phase));
        }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.each(|hooks, phase| hooks.phase_ended(phase));
    }
}

/// Takes the locks of all phases before any of them works.
fn open(
    store: &Store,
    links: &Links,
    options: &AgentOptions,
    hooks: &SharedHooks,
    stop: &Stop,
) -> Result<(bool, Running)> {
    let phases = options.phases;
    if Catalog::load(store)?.remotes().next().is_some() {
        keep_history(store)?;
    }
    let batch = options.batch || (phases.send && SendPhase::is_batch_by_schedule(store)?);
    let patience = Patience {
        polls: if batch { 0 } else { options.patience },
        every: options.receive_every,
    };
    let receive = ReceiveOptions {
        group: options.group,
        memory: options.memory,
        keep: options.keep,
        apply: options.apply,
        patience,
    };
    let send = send_options(options, batch);
    let links = if batch {
        links.clone().for_one_round()
    } else {
        links.clone()
    };
    let running = Running {
        store: store.clone(),
        links: links.clone(),
        options: options.clone(),
        stop: stop.clone(),
        receive: phases
            .receive
            .then(|| ReceivePhase::open(store, &links, receive, stop))
            .transpose()?
            .map(|phase| phase.with_hooks(hooks.clone()).with_workers(options.workers())),
        scan: phases.scan.then(|| ScanPhase::open(store)).transpose()?,
        send: phases
            .send
            .then(|| SendPhase::open(store, &links, send, stop))
            .transpose()?
            .map(|phase| phase.with_hooks(hooks.clone())),
        serve: Serve::Everybody,
    };
    Ok((batch, running))
}

/// How messages are sent; a batch run collects no requests.
pub(super) fn send_options(options: &AgentOptions, batch: bool) -> SendOptions {
    SendOptions {
        message_bytes: options.message_bytes,
        urgency: if batch {
            std::time::Duration::ZERO
        } else {
            options.urgency
        },
        send_every: options.send_every,
        only_backed_up: options.only_backed_up,
    }
}

/// How a failed link ends a batch run.
pub(super) fn exit_of_link(address: &str, error: &LinkError) -> Exit {
    let code = if error.is_unreachable() {
        ExitCode::NoServer
    } else {
        ExitCode::Failed
    };
    Exit::because(code, format!("link {address}: {error}"))
}

/// What an operator does about a pair that is stopped.
pub const GO_ON: &str =
    "nothing is lost meanwhile: `milepost remote rejoin` says what both sites have, and the ways on";

/// Most senders and reasons that are counted: what strangers write may give ever new ones.
const MOST_ASIDES: usize = 256;

/// Messages that were set aside, by sender and reason: one of them, and how many.
#[derive(Default)]
pub(super) struct Asides(BTreeMap<(String, String), (MessageId, u64)>);

impl Asides {
    /// Adds what a poll set aside.
    pub(super) fn add(&mut self, more: Vec<SetAside>) {
        for one in more {
            let full = self.0.len() >= MOST_ASIDES;
            if full && !self.0.contains_key(&(one.sender.clone(), one.reason.clone())) {
                continue;
            }
            let counted = self.0.entry((one.sender, one.reason));
            counted.or_insert((one.message, 0)).1 += 1;
        }
    }

    /// What waits for keys that can be used is told with those.
    pub(super) fn forget(&mut self, unusable: &[Unusable]) {
        let same = |(sender, reason): &(String, String)| {
            unusable
                .iter()
                .any(|(site, why, _)| site.as_str() == sender && why == reason)
        };
        self.0.retain(|known, _| !same(known));
    }

    /// What was set aside is taken.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// How messages in quarantine and stopped pairs end a run.
pub(super) fn exit_of_quarantine(stopped: &[(milepost_engine::SiteName, String)], asides: &Asides) -> Exit {
    let is_told = |sender: &str, reason: &str| {
        let same =
            |(site, why): &(milepost_engine::SiteName, String)| site.as_str() == sender && why == reason;
        stopped.iter().any(same)
    };
    let stops = stopped.iter().map(|(site, reason)| {
        let waiting = match asides.0.get(&(site.to_string(), reason.clone())) {
            None => String::new(),
            Some((_, 1)) => "; 1 message of it waits on its link".to_owned(),
            Some((_, count)) => format!("; {count} messages of it wait on their link"),
        };
        format!("the pair with {site} is stopped: {reason}; {GO_ON}{waiting}")
    });
    let rest = asides
        .0
        .iter()
        .filter(|((sender, reason), _)| !is_told(sender, reason));
    let rest = rest.map(|((sender, reason), (message, count))| match count {
        1 => format!("message {message} from {sender}: {reason}"),
        _ => format!("{count} messages from {sender}, {message} the first: {reason}"),
    });
    let all: Vec<String> = stops.chain(rest).collect();
    if all.is_empty() {
        Exit::DONE
    } else {
        Exit::because(ExitCode::Quarantined, all.join("; "))
    }
}

/// How suspended remotes end a run that sends: nothing is lost that was not given up, and only an operator brings them back.
pub(super) fn exit_of_suspended(suspended: &[(milepost_engine::SiteName, String)]) -> Exit {
    let text = |(site, reason): &(milepost_engine::SiteName, String)| {
        format!("remote {site} is suspended: {reason}")
    };
    let all: Vec<String> = suspended.iter().map(text).collect();
    match all.is_empty() {
        true => Exit::DONE,
        false => Exit::because(ExitCode::Quarantined, all.join("; ")),
    }
}

/// How transactions in quarantine, and messages that come damaged over and over, end a run that receives.
pub(super) fn exit_of_held(store: &Store) -> Result<Exit> {
    let mut all = damaged_again(store)?;
    for remote in Catalog::load(store)?.remotes() {
        if let Some((count, first)) = held_of(store, &remote.site)? {
            let what = if count == 1 { "transaction" } else { "transactions" };
            all.push(format!(
                "{count} {what} of {} in quarantine, the first {first}; see `milepost quarantine list`",
                remote.site
            ));
        }
    }
    Ok(match all.is_empty() {
        true => Exit::DONE,
        false => Exit::because(ExitCode::Quarantined, all.join("; ")),
    })
}
