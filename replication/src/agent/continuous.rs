//! Phases side by side until they are asked to stop: one thread each.
//!
//! A failure that may pass (no space, a stalled holder) is told and tried again; any other ends the agent,
//! the other phases finishing what they have in hand. The phases leave a link that fails alone for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use milepost_engine::{Error, ErrorKind, Lsn, News, Result, Store};

use crate::link::LinkError;
use crate::receive::ReceivePhase;
use crate::scan::ScanPhase;
use crate::send::{SendPhase, Serve};
use crate::tracking::PollCause;

use super::locked::{LockedPairs, exit_of_keys, unusable_keys};
use super::run::{Asides, Running, exit_of_held, exit_of_quarantine, exit_of_suspended};
use super::{AgentOptions, Exit, LOOK_EVERY, Links, Stop};

/// Pause before something of the store that failed is tried again, and the longest between polls that bring nothing though the
/// link says that something waits.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The first such pause; each is twice as long as the one before. A push that was overtaken by the poll before it costs no more.
const FUTILE_AFTER: Duration = Duration::from_millis(10);

/// After a round the send phase rests four times as long as that took, where both together are no longer than this: what is due to who
/// is sent to at once goes by itself where little is committed, and together where much is.
const ROUND_EVERY: Duration = Duration::from_millis(20);

/// Longest that the scan phase waits for something to scan before it looks: what comes is told of, but for what a process
/// wrote that was killed before it told.
const LOOK_WHEN_IDLE: Duration = Duration::from_secs(60);

/// Runs the phases until `stop` is requested or one of them fails for good.
pub(super) fn run(running: Running) -> Exit {
    let Running {
        store,
        links,
        options,
        stop,
        receive,
        scan,
        send,
        serve: _,
    } = running;
    let exit = Mutex::new(Exit::DONE);
    let (locked, has_pairs) = (Mutex::default(), receive.is_some() || send.is_some());
    let ended = |outcome: Result<Exit>| {
        let one = outcome.unwrap_or_else(|error| {
            tracing::error!(%error, "a phase failed");
            Exit::failed(&error)
        });
        if one.code != super::ExitCode::Done {
            stop.request();
        }
        let mut all = exit.lock().unwrap_or_else(PoisonError::into_inner);
        *all = std::mem::replace(&mut *all, Exit::DONE).and(one);
    };
    std::thread::scope(|scope| {
        // Nobody who waits looks whether to stop: all are called.
        scope.spawn(|| {
            links.until_requested(&stop);
            store.stir();
        });
        let mut phases = Vec::new();
        if let Some(phase) = receive {
            let receive = || receive_on(phase, &store, &links, (&options, &locked), &stop);
            phases.push(scope.spawn(|| ended(all_or_none(&stop, receive))));
        }
        if let Some(phase) = scan {
            let scan = || scan_on(phase, &store, &options, &stop);
            phases.push(scope.spawn(|| ended(all_or_none(&stop, scan))));
        }
        if let Some(phase) = send {
            let send = || send_on(phase, &store, (&options, &locked), &stop);
            phases.push(scope.spawn(|| ended(all_or_none(&stop, send))));
        }
        for phase in phases {
            if let Err(panic) = phase.join() {
                stop.request();
                std::panic::resume_unwind(panic);
            }
        }
        stop.request();
    });
    let exit = exit.into_inner().unwrap_or_else(PoisonError::into_inner);
    let unusable = if has_pairs {
        unusable_keys(&store)
    } else {
        Ok(Vec::new())
    };
    exit.and(unusable.map_or_else(|error| Exit::failed(&error), |unusable| exit_of_keys(&unusable)))
}

/// Runs a phase; one that panics takes the others with it, or the agent would go on without it.
fn all_or_none(stop: &Stop, phase: impl FnOnce() -> Result<Exit>) -> Result<Exit> {
    let _stops = StopsAll(stop);
    phase()
}

struct StopsAll<'a>(&'a Stop);

impl Drop for StopsAll<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.request();
        }
    }
}

/// Looks at the keys of all pairs, for whichever phase comes first, and tells what is news.
fn look_at_keys(locked: &Mutex<LockedPairs>, store: &Store) -> Result<()> {
    let mut pairs = locked.lock().unwrap_or_else(PoisonError::into_inner);
    pairs.look(store)
}

fn receive_on(
    mut phase: ReceivePhase,
    store: &Store,
    links: &Links,
    (options, locked): (&AgentOptions, &Mutex<LockedPairs>),
    stop: &Stop,
) -> Result<Exit> {
    let (mut cause, mut asides, mut said) = (PollCause::Due, Asides::default(), Said::default());
    let clock = store.clock();
    let (mut due_at, mut futile) = (clock.monotonic(), FUTILE_AFTER);
    let mut pushed = false;
    while !stop.is_requested() {
        look_at_keys(locked, store)?;
        let polled = phase.poll(cause);
        if cause == PollCause::Due {
            due_at = clock.monotonic().saturating_add(options.receive_every);
        }
        let received = match polled {
            Ok(received) => received,
            Err(error) => {
                bear(error, &mut said, store, stop)?;
                continue;
            }
        };
        for (number, error) in &received.failed_links {
            said.say(links.get(*number)?.address(), error);
        }
        if !phase.is_failing() {
            said.all_well();
        }
        if received.transactions > 0 {
            tracing::info!(transactions = received.transactions, "applied");
        }
        if received.kept > 0 {
            tracing::error!(
                transactions = received.kept,
                "put in quarantine; see `milepost quarantine list`"
            );
        }
        asides.add(received.quarantined);
        let rest = match (received.moved, pushed) {
            _ if phase.links_in_use().is_empty() => RETRY_AFTER,
            (false, true) => futile,
            _ => Duration::ZERO,
        };
        futile = after_poll(futile, received.moved);
        pause(store, rest.min(options.receive_every), stop);
        // Pushes that come all the time do not put off the poll that counts patience.
        let left = due_at.saturating_sub(clock.monotonic());
        (pushed, cause) = wait_for_mail(&phase, links, left);
    }
    let is_aside = |one: &crate::receive::Quarantined| !one.damaged;
    if !crate::receive::quarantined(store)?.iter().any(is_aside) && !phase.distrusts() {
        asides.clear();
    }
    asides.forget(&unusable_keys(store)?);
    Ok(exit_of_quarantine(&phase.stopped(), &asides).and(exit_of_held(store)?))
}

/// Waits for a push, until a link that failed may be polled again, or until the next poll is due; whether it was a push, and what the next
/// poll is.
fn wait_for_mail(phase: &ReceivePhase, links: &Links, left: Duration) -> (bool, PollCause) {
    let (in_use, again) = (phase.links_in_use(), phase.until_retry());
    let wait = again.map_or(left, |again| left.min(again));
    let pushed = !wait.is_zero() && !in_use.is_empty() && links.wait_for_push(&in_use, wait);
    // Nor do attempts after a failure count for patience.
    match pushed || wait < left {
        true => (pushed, PollCause::Push),
        false => (pushed, PollCause::Due),
    }
}

/// The next pause behind a push that brings nothing.
fn after_poll(futile: Duration, moved: bool) -> Duration {
    match moved {
        true => FUTILE_AFTER,
        false => futile.saturating_mul(2).min(RETRY_AFTER),
    }
}

fn scan_on(phase: ScanPhase, store: &Store, options: &AgentOptions, stop: &Stop) -> Result<Exit> {
    // Transactions scanned since the log was rotated last.
    let (mut phase, mut transactions, mut said) = (Some(phase), 0, Said::default());
    while !stop.is_requested() {
        // After a failure the phase begins anew where the queue says it ended (Q1).
        let mut one = match phase.take().map_or_else(|| ScanPhase::open(store), Ok) {
            Ok(one) => one,
            Err(error) => {
                bear(error, &mut said, store, stop)?;
                continue;
            }
        };
        match scan_once(&mut one, &mut transactions, store, (options, stop)) {
            Ok(()) => {
                phase = Some(one);
                said.forget();
            }
            Err(error) => {
                drop(one);
                bear(error, &mut said, store, stop)?;
            }
        }
    }
    if let Some(mut phase) = phase {
        phase.sync()?;
    }
    Ok(Exit::DONE)
}

fn scan_once(
    phase: &mut ScanPhase,
    transactions: &mut u64,
    store: &Store,
    (options, stop): (&AgentOptions, &Stop),
) -> Result<()> {
    let news = store.news();
    let scanned = phase.step()?;
    *transactions += scanned.transactions;
    if scanned.frames > 0 {
        return Ok(());
    }
    // Notes of the agent itself are no reason for a new segment.
    if let (Some(min_bytes), true) = (options.rotate, *transactions > 0)
        && store.rotate(min_bytes)?
    {
        *transactions = 0;
    }
    if !stop.is_requested() {
        let _: bool = store.wait_for_news(news, LOOK_WHEN_IDLE);
    }
    Ok(())
}

fn send_on(
    mut phase: SendPhase,
    store: &Store,
    (options, locked): (&AgentOptions, &Mutex<LockedPairs>),
    stop: &Stop,
) -> Result<Exit> {
    let (mut said, mut told) = (Said::default(), BTreeSet::new());
    while !stop.is_requested() {
        let (news, seen) = (store.news(), store.watermarks().durable);
        let begun = store.clock().monotonic();
        for site in phase.unscheduled() {
            if told.insert(site.clone()) {
                tracing::warn!(
                    %site,
                    "a remote has neither --send-every nor --send-at: it is sent to in batch runs (-b) only, and \
                     the next start of this agent is a batch run"
                );
            }
        }
        look_at_keys(locked, store)?;
        let mut sent = match phase.round(Serve::InTurn) {
            Ok(sent) => sent,
            Err(error) => {
                bear(error, &mut said, store, stop)?;
                continue;
            }
        };
        // Of a pair that is locked was told already, and it is no link that fails.
        let pairs = locked.lock().unwrap_or_else(PoisonError::into_inner);
        sent.failed_links.retain(|(site, _)| !pairs.has(site));
        drop(pairs);
        for (site, error) in &sent.failed_links {
            said.say(site.to_string(), error);
        }
        if !phase.is_failing() && sent.messages > 0 {
            said.all_well();
        }
        if sent.messages > 0 {
            tracing::info!(messages = sent.messages, transactions = sent.transactions, "sent");
        }
        let ended = store.clock().monotonic();
        wait_for_more(&mut phase, (store, seen, news), options, stop)?;
        let rested = store.clock().monotonic().saturating_sub(ended);
        pause(
            store,
            rest_after(ended.saturating_sub(begun)).saturating_sub(rested),
            stop,
        );
    }
    phase.remember()?;
    let exit = exit_of_quarantine(&phase.stopped(), &Asides::default());
    Ok(exit.and(exit_of_suspended(&phase.suspended())))
}

/// How long to rest after a round that took so long.
fn rest_after(took: Duration) -> Duration {
    took.saturating_mul(4).min(ROUND_EVERY.saturating_sub(took))
}

/// Waits until another turn opens, a timer of tracking runs out, a link that failed may be tried again, or a pause (`-sd`) has passed; while a
/// turn is open, the queue's growth ends the wait at once, and anything else in the log (a confirmation, a
/// request, a definition) within [`LOOK_EVERY`]. Where nothing moves, nothing is looked at.
fn wait_for_more(
    phase: &mut SendPhase,
    (store, seen, news): (&Store, Lsn, News),
    options: &AgentOptions,
    stop: &Stop,
) -> Result<()> {
    let clock = store.clock();
    let started = clock.monotonic();
    let timers = [
        phase.until_opening(),
        phase.until_timer().map(|until| until.max(LOOK_EVERY)),
        phase.until_retry(),
    ];
    let limit = timers
        .into_iter()
        .flatten()
        .fold(options.send_every, Duration::min);
    let (mut seen, mut news) = (seen, news);
    while !stop.is_requested() {
        let waited = clock.monotonic().saturating_sub(started);
        let Some(left) = limit.checked_sub(waited).filter(|left| !left.is_zero()) else {
            return Ok(());
        };
        if !store.wait_for_news(news, left) {
            continue;
        }
        news = store.news();
        // What commits and notes are there meanwhile is looked at together.
        let (is_open, nap) = (phase.is_open(), left.min(LOOK_EVERY));
        let grew = match is_open {
            true => phase.wait(nap)?,
            false => {
                clock.sleep(nap);
                false
            }
        };
        let durable = store.watermarks().durable;
        if (grew || durable != seen) && (is_open || phase.is_asked()?) {
            return Ok(());
        }
        seen = durable;
    }
    Ok(())
}

/// What was told of links that fail, so that a server away for a night does not fill the log.
/// The same trouble names other files and numbers each time, so it is known by its kind and its letters.
#[derive(Default)]
struct Said(BTreeMap<String, String>);

impl Said {
    fn say(&mut self, whom: String, error: &LinkError) {
        let text = error.to_string();
        if self.is_news(&whom, &text) {
            tracing::warn!(
                link = whom,
                error = text,
                "a link does not work; what it is due stays queued"
            );
        }
    }

    fn is_news(&mut self, whom: &str, text: &str) -> bool {
        let words = text
            .split_whitespace()
            .filter(|word| !word.contains(|c: char| c.is_ascii_digit()));
        let gist = words.collect::<Vec<_>>().join(" ");
        self.0.insert(whom.to_owned(), gist.clone()) != Some(gist)
    }

    fn forget(&mut self) {
        self.0.clear();
    }

    fn all_well(&mut self) {
        if !self.0.is_empty() {
            tracing::info!(
                "it works again: {}",
                self.0.keys().cloned().collect::<Vec<_>>().join(", ")
            );
            self.0.clear();
        }
    }
}

/// Tells once of a failure that may pass, and waits; hands back any other.
fn bear(error: Error, said: &mut Said, store: &Store, stop: &Stop) -> Result<()> {
    match error.kind() {
        ErrorKind::Full | ErrorKind::Unavailable => {
            if said.is_news("the store", &error.to_string()) {
                tracing::warn!(%error, "not now; trying again until it works");
            }
            pause(store, RETRY_AFTER, stop);
            Ok(())
        }
        _ => Err(error),
    }
}

fn pause(store: &Store, pause: Duration, stop: &Stop) {
    let started = store.clock().monotonic();
    while !stop.is_requested() {
        let waited = store.clock().monotonic().saturating_sub(started);
        let Some(left) = pause.checked_sub(waited).filter(|left| !left.is_zero()) else {
            return;
        };
        store.clock().sleep(left.min(LOOK_EVERY));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Said, rest_after};

    #[test]
    fn rounds_that_are_short_are_apart_and_long_ones_follow_each_other() {
        let rests = [0, 1, 4, 10, 20, 300].map(|took| rest_after(Duration::from_millis(took)).as_millis());
        assert_eq!(rests, [0, 4, 16, 10, 0, 0]);
    }

    #[test]
    fn the_same_trouble_is_told_once_though_it_names_another_file_and_again_once_it_was_away() {
        let mut said = Said::default();
        assert!(said.is_news("x", "cannot write hq-4a08.mp: no space"));
        assert!(!said.is_news("x", "cannot write hq-77b1.mp: no space"));
        assert!(said.is_news("y", "cannot write hq-77b1.mp: no space"));
        assert!(said.is_news("x", "the folder is not there"));
        said.all_well();
        assert!(said.is_news("x", "the folder is not there"));
    }
}
