//! `--send-now`: remotes are sent to at once, by this process or by the one that runs the send phase, and then it leaves.
//!
//! ```text
//! the wish is noted in the log ─► send phase free? ─ yes ─► scan (unless another process does), marker, send to them
//!                    ▲                             └ no ──► wait until its holder has noted that it did
//!                    └───────────── it left before ───────────┘
//! ```

use milepost_engine::{Error, ErrorKind, Lsn, Phase, Result, SiteName, Store};

use crate::catalog::{Catalog, Remote};
use crate::heartbeat::Heartbeat;
use crate::hooks::SharedHooks;
use crate::scan::ScanPhase;
use crate::send::{SendPhase, Serve, ask_to_send, sent_now, suspended};
use crate::tracking::{Neighbour, PairRecords};

use super::run::{Asides, Running, Told, exit_of_quarantine, exit_of_suspended, send_options};
use super::{AgentOptions, Exit, ExitCode, LOOK_EVERY, Links, Phases, Stop, batch};

/// Sends to the remotes that `options` name, or sees to it that it is done.
pub(super) fn run(
    store: &Store,
    links: &Links,
    options: &AgentOptions,
    hooks: &SharedHooks,
    stop: &Stop,
) -> Exit {
    let done = check(store, &options.send_now).and_then(|()| {
        let asked = ask_to_send(store, &options.send_now)?;
        tracing::info!(%asked, "asked for {}", names(&options.send_now));
        loop {
            if let Some(running) = open(store, links, options, hooks, stop)? {
                let told = Told::begin(&running.options, hooks.clone());
                let exit = batch::run(running);
                drop(told);
                return Ok(exit);
            }
            if let Some(exit) = wait(store, asked, options, stop)? {
                return Ok(exit);
            }
        }
    });
    match done {
        Ok(exit) => exit,
        Err(error) if error.kind() == ErrorKind::Invalid => Exit::because(ExitCode::Usage, error.to_string()),
        Err(error) => Exit::failed(&error),
    }
}

fn check(store: &Store, sites: &[SiteName]) -> Result<()> {
    let catalog = Catalog::load(store)?;
    let carried = |site: &&SiteName| catalog.remote(site).is_some_and(Remote::is_carried);
    if let Some(site) = sites.iter().find(carried) {
        return Err(Error::invalid(format!(
            "--send-now {site}: it is reached by bundles alone; `milepost bundle export` makes one"
        )));
    }
    let Some(unknown) = sites.iter().find(|site| catalog.remote(site).is_none()) else {
        return Ok(());
    };
    let known: Vec<SiteName> = catalog.remotes().map(|remote| remote.site.clone()).collect();
    let known = if known.is_empty() {
        "this site has none; `milepost remote add` makes one".to_owned()
    } else {
        format!("this site has {}", names(&known))
    };
    Err(Error::invalid(format!(
        "--send-now {unknown}: there is no such remote; {known}"
    )))
}

/// The phases this process runs for it; `None` when another one sends.
fn open(
    store: &Store,
    links: &Links,
    options: &AgentOptions,
    hooks: &SharedHooks,
    stop: &Stop,
) -> Result<Option<Running>> {
    let links = links.clone().for_one_round();
    let send = match SendPhase::open(store, &links, send_options(options, true), stop) {
        Err(error) if error.kind() == ErrorKind::Conflict => return Ok(None),
        send => send?.with_hooks(hooks.clone()),
    };
    let scan = match ScanPhase::open(store) {
        Err(error) if error.kind() == ErrorKind::Conflict => None,
        scan => Some(scan?),
    };
    Ok(Some(Running {
        store: store.clone(),
        links,
        options: AgentOptions {
            phases: Phases {
                receive: false,
                scan: scan.is_some(),
                send: true,
            },
            ..options.clone()
        },
        stop: stop.clone(),
        receive: None,
        scan,
        send: Some(send),
        serve: Serve::Asked,
    }))
}

/// Waits until the process that sends has done so; `None` when it left before.
fn wait(store: &Store, asked: Lsn, options: &AgentOptions, stop: &Stop) -> Result<Option<Exit>> {
    let (clock, mut beat) = (store.clock(), Heartbeat::new(store));
    let started = clock.monotonic();
    loop {
        // Before the wishes: who left a moment later had noted what it did.
        let holder = store.phase_holder(Phase::Send)?;
        let mut left = Vec::new();
        for site in &options.send_now {
            if sent_now(store, site)? < asked {
                left.push(site.clone());
            }
        }
        if left.is_empty() {
            return stopped(store, &options.send_now).map(Some);
        }
        let Some(holder) = holder else {
            return Ok(None);
        };
        if beat.is_due() {
            tracing::info!(by = holder, "waiting for {} to be sent to", names(&left));
        }
        if clock.monotonic().saturating_sub(started) >= options.marker_wait || stop.is_requested() {
            let text = format!(
                "{} asked for at LSN {asked} and not sent to yet: {holder} sends and has not done so: its link may be down, \
                 see its log. The wish stays noted",
                names(&left)
            );
            return Ok(Some(Exit::because(ExitCode::Failed, text)));
        }
        clock.sleep(LOOK_EVERY);
    }
}

/// A pair that is stopped was looked at, and nothing was sent; nor is one that is suspended.
fn stopped(store: &Store, sites: &[SiteName]) -> Result<Exit> {
    let (catalog, mut all, mut given_up) = (Catalog::load(store)?, Vec::new(), Vec::new());
    for remote in sites.iter().filter_map(|site| catalog.remote(site)) {
        if let Some(record) = suspended(store, remote)? {
            given_up.push((remote.site.clone(), record.text(remote)));
        }
        let neighbour = Neighbour {
            name: remote.site.clone(),
            generation: remote.generation,
        };
        let records = PairRecords::load(&neighbour, |key| Ok(store.pinned(key)?.map(|(value, _)| value)))?;
        let reason = records.pair.and_then(|pair| pair.stopped);
        all.extend(reason.map(|reason| (neighbour.name, reason.to_string())));
    }
    Ok(exit_of_quarantine(&all, &Asides::default()).and(exit_of_suspended(&given_up)))
}

fn names(sites: &[SiteName]) -> String {
    let names: Vec<&str> = sites.iter().map(SiteName::as_str).collect();
    names.join(", ")
}
