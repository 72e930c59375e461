//! Limits on what is kept for a remote that does not confirm: who is near one is told, who is at one is suspended where its
//! definition says so.
//!
//! ```text
//! each round, a second apart, for remotes with limits:  Owed ─► Kept ─► Level ─► state ── fine
//!    near (70 %)      told once, until it is below 60 %
//!    reached, hold    told once a day; nothing is given up
//!    reached, suspend told; and once two exchanges have passed and it is still reached: suspended/<remote>, synced
//!                                            ─► and only then the queue and the log are freed without it (R1)
//! ```
//!
//! **Suspended**: nothing of our log is sent to it, nothing is kept for it. What it sends is received and confirmed as ever,
//! because that speaks of its log and not of ours; messages to it stand at what it says it has, so they claim nothing.
//! It never goes on by itself: what it is due has a hole. No remote is suspended in the round that finds it at its limit, because
//! an agent that was away for long finds a limit reached before its remotes had a chance to confirm.

use std::time::Duration;

use milepost_engine::frame::NewFrame;
use milepost_engine::{Durability, Error, ErrorKind, Pinned, Result, SiteName};

use crate::catalog::{AtLimit, Schedule};
use crate::hooks::RemoteLimit;
use crate::link::LinkError;
use crate::planted::{self, Bug};
use crate::tracking::{NOTE, PairState};

use super::heirs::living;
use super::kept::{Account, Kept, Level, Owed, Times};
use super::phase::{Pair, SendPhase, Sent};
use super::suspended::{LimitRecord, LimitState, SuspendedRecord, limit_told, suspended};

/// How often it is looked at most.
const JUDGE_AGAIN: Duration = Duration::from_secs(1);
/// How often a remote that stays at its limit is told of.
const AGAIN: Duration = Duration::from_secs(24 * 60 * 60);
/// The time that a remote is given to confirm once it was found at its limit: two exchanges, at least
const GRACE_LEAST: Duration = Duration::from_secs(60);
/// and at most.
const GRACE_MOST: Duration = Duration::from_secs(24 * 60 * 60);

/// What the phase knows of a remote's limits.
#[derive(Clone, Debug, Default)]
pub(super) struct Limit {
    /// Nothing is kept for it any more.
    pub(super) suspended: Option<SuspendedRecord>,
    told: Option<LimitRecord>,
    times: Times,
}

impl SendPhase {
    /// Reads who is suspended.
    pub(super) fn look_at_limits(&mut self) -> Result<()> {
        for pair in self.pairs.values_mut() {
            // One that this phase has suspended itself stays so.
            if pair.limit.suspended.is_none() && !planted::is(Bug::SuspendedForgotten) {
                pair.limit.suspended = suspended(&self.store, &pair.remote)?;
            }
        }
        Ok(())
    }

    /// Remotes for which nothing is kept any more, with the reason.
    #[must_use]
    pub fn suspended(&self) -> Vec<(SiteName, String)> {
        let text = |pair: &Pair| pair.limit.suspended.map(|record| record.text(&pair.remote));
        self.pairs
            .iter()
            .filter_map(|(name, pair)| Some((name.clone(), text(pair)?)))
            .collect()
    }

    /// Tells a suspended remote what of its log is here, answers it, and asks for what is missing: nothing of ours.
    pub(super) fn serve_suspended(
        &mut self,
        pair: &mut Pair,
        sent: &mut Sent,
    ) -> Result<Result<(), LinkError>> {
        // What was sent to it and not confirmed is given up with the rest: no message may stand behind that.
        pair.sender.send_again();
        if !pair.sender.tells() {
            return Ok(Ok(()));
        }
        let link = self.links.get(pair.link)?;
        let message = pair.sender.tell(&self.own_end());
        self.deliver(pair, &*link, message, sent)
    }

    /// Looks how near remotes are to their limits, tells it, and suspends who is to be.
    pub(super) fn judge_limits(&mut self) -> Result<()> {
        let now = self.store.clock().monotonic();
        let is_soon = |at| now.saturating_sub(at) < JUDGE_AGAIN;
        if self.judged_at.is_some_and(is_soon) {
            return Ok(());
        }
        self.judged_at = Some(now);
        let limited = self.pairs.iter().filter(|(_, pair)| {
            let told = pair.limit.told.is_some_and(|told| told.state != LimitState::Fine);
            pair.limit.suspended.is_none() && (told || !pair.remote.limits.is_none())
        });
        let limited: Vec<SiteName> = limited.map(|(name, _)| name.clone()).collect();
        for name in limited {
            let Some(mut pair) = self.pairs.remove(&name) else {
                continue;
            };
            let judged = self.judge(&mut pair);
            self.pairs.insert(name, pair);
            match judged {
                // Nobody else may notice: what is given up is given up once it can be noted.
                Err(error) if may_pass(&error) => {
                    tracing::warn!(%error, "how a remote stands to its limits could not be noted; it is tried again");
                }
                judged => judged?,
            }
        }
        Ok(())
    }

    fn judge(&mut self, pair: &mut Pair) -> Result<()> {
        let told = match pair.limit.told {
            Some(told) => told,
            None => limit_told(&self.store, &pair.remote)?,
        };
        pair.limit.told = Some(told);
        let kept = self.kept_for(pair)?;
        let (limits, now) = (pair.remote.limits, self.store.believed_now());
        let level = Level::of(kept, &limits, now);
        let state = level.state(told.state);
        let wall = self.store.clock().wall_micros();
        let stays = state == told.state;
        let gives_up = limits.at_limit == AtLimit::Suspend && level.is_reached();
        // Nothing is given up by a clock that nobody believes.
        let waited = now.is_some_and(|now| passed(told.since, now, self.grace(pair)));
        if gives_up && stays && waited {
            return self.suspend(pair, (kept, level));
        }
        if stays && (state != LimitState::Reached || !passed(told.told, wall, AGAIN)) {
            return Ok(());
        }
        let record = LimitRecord {
            state,
            since: if stays { told.since } else { wall },
            told: wall,
            ..told
        };
        let mut note = NewFrame::of_kind(NOTE, Vec::new());
        note.pin(match state {
            LimitState::Fine => removed(LimitRecord::key(&pair.remote.site)),
            _ => record.pin(&pair.remote.site)?,
        });
        self.store.append_frames(vec![note], Durability::Buffered)?;
        pair.limit.told = Some(record);
        self.tell_limit(pair, (kept, level), state);
        Ok(())
    }

    /// What is kept because of a remote.
    fn kept_for(&mut self, pair: &mut Pair) -> Result<Kept> {
        let (confirmed, sent) = (pair.sender.confirm_sent().place(), pair.sender.log_sent().place());
        let ahead = match sent > confirmed {
            true => None,
            // What the next turn would look for, and finds then.
            false => match self.with_sources(pair, |stream, sources| stream.peek(sources, sent)) {
                Err(error) if error.kind() == ErrorKind::Behind => None,
                ahead => ahead?,
            },
        };
        let subscriptions = living(self.catalog.subscriptions_of(&pair.remote));
        let account = Account {
            remote: &pair.remote.site,
            subscriptions: &subscriptions,
            confirmed,
            confirmed_once: pair.sender.confirmed_once(),
            sent,
            nothing_to: pair.stream.nothing_behind(confirmed.at),
            ahead,
        };
        let owed = Owed::of(&account, &self.postings);
        let sources = (&self.store, &mut self.queue);
        Kept::of(&owed, sources, self.frees, &mut pair.limit.times)
    }

    /// Gives up what a remote has not confirmed. Durable when this returns, and nothing is freed before.
    fn suspend(&mut self, pair: &mut Pair, (kept, level): (Kept, Level)) -> Result<()> {
        let record = SuspendedRecord {
            added: pair.remote.added,
            since: self.store.clock().wall_micros(),
            cause: level.cause,
            kept: level.kept,
            limit: level.limit,
            confirmed: pair.sender.confirm_sent(),
            scanned: self.scanned,
        };
        let mut note = NewFrame::of_kind(NOTE, Vec::new());
        note.pin(record.pin(&pair.remote.site)?);
        note.pin(removed(LimitRecord::key(&pair.remote.site)));
        self.store.append_frames(vec![note], Durability::Synced)?;
        pair.limit.suspended = Some(record);
        tracing::error!(remote = %pair.remote.site, "suspended: {}", record.text(&pair.remote));
        self.tell_hook(pair, (kept, level), LimitState::Suspended);
        Ok(())
    }

    fn tell_limit(&self, pair: &Pair, (kept, level): (Kept, Level), state: LimitState) {
        let (remote, percent) = (&pair.remote.site, level.percent);
        let next = match (pair.remote.limits.at_limit, state) {
            (AtLimit::Hold, _) => "all of it is kept".to_owned(),
            (AtLimit::Suspend, LimitState::Reached) => format!(
                "unless it confirms, it is suspended in {} s, and what it has not confirmed given up",
                self.grace(pair).as_secs()
            ),
            _ => "at the limit it is suspended, and what it has not confirmed given up".to_owned(),
        };
        match state {
            LimitState::Fine => {
                tracing::info!(%remote, percent, "what is kept for the remote is well below its limit again");
            }
            LimitState::Near => {
                tracing::warn!(%remote, percent, bytes = kept.bytes, "what is kept for the remote comes near its limit; {next}");
            }
            LimitState::Reached | LimitState::Suspended => {
                tracing::error!(%remote, percent, bytes = kept.bytes, "what is kept for the remote has reached its limit; {next}");
            }
        }
        if state != LimitState::Fine {
            self.tell_hook(pair, (kept, level), state);
        }
    }

    fn tell_hook(&self, pair: &Pair, (kept, level): (Kept, Level), state: LimitState) {
        if let Some(hooks) = &self.hooks {
            hooks.remote_limit(&RemoteLimit {
                remote: &pair.remote.site,
                state,
                percent: level.percent,
                kept_bytes: kept.bytes,
                oldest: kept.oldest,
                limits: pair.remote.limits,
            });
        }
    }

    /// Two exchanges.
    fn grace(&self, pair: &Pair) -> Duration {
        let every = match pair.remote.schedule {
            Schedule::EverySeconds(seconds) => Duration::from_secs(seconds),
            Schedule::AtMinute(_) => GRACE_MOST,
            // Carried, or sent to by whoever runs the phase.
            Schedule::None if pair.remote.is_carried() => GRACE_MOST,
            Schedule::None => Duration::ZERO,
        };
        let exchange = every.max(self.options.send_every);
        exchange.saturating_mul(2).clamp(GRACE_LEAST, GRACE_MOST)
    }
}

/// True when so much time lies between two moments, whichever way the clock went.
fn passed(since: i64, now: i64, pause: Duration) -> bool {
    Duration::from_micros(now.abs_diff(since)) >= pause
}

fn may_pass(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Full | ErrorKind::Unavailable)
}

fn removed(key: Vec<u8>) -> Pinned {
    Pinned { key, value: None }
}
