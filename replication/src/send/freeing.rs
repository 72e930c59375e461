//! What the send phase lets go: of the queue what everybody confirmed (Q2), of the log what nobody can name or ask for any
//! more ([`crate::catalog::hold_what_is_needed`]); and what becomes of a remote that needs what is gone.

use std::time::Duration;

use milepost_engine::width::to_usize;
use milepost_engine::{Error, ErrorKind, Lsn, Result, SiteName};

use crate::catalog::hold_what_is_needed;
use crate::link::{Link, LinkError};
use crate::message::{Packer, Point};
use crate::planted::{self, Bug};

use super::heirs::living;
use super::phase::{Pair, SendPhase, Sent};

/// Least bytes of log in which nothing was due that a remote is told of: more than the notes that this makes at both
/// sites, so that it ends.
const STRETCH: u64 = 16 << 10;

/// How often it is looked at most what the log may let go.
const LET_GO_AGAIN: Duration = Duration::from_secs(1);

/// How often the hold is written only to name another remote.
const TELL_AGAIN: Duration = Duration::from_secs(10);

impl SendPhase {
    /// Frees the queue up to what every remote that is due something, and is not suspended, has confirmed (Q2).
    pub(super) fn free(&mut self) -> Result<()> {
        // Who is suspended by it is so in the log, durably, before anything is freed without him (R1).
        self.judge_limits()?;
        let mut through = self.scanned;
        let mut most = Lsn::ZERO;
        for (name, pair) in &self.pairs {
            if pair.limit.suspended.is_some() {
                continue;
            }
            let subscriptions = living(self.catalog.subscriptions_of(&pair.remote));
            let mut confirmed = pair.sender.confirm_sent().place().at;
            if planted::is(Bug::FreeAtSent) {
                confirmed = pair.sender.log_sent().place().at;
            }
            let looked_at = pair.stream.nothing_behind(confirmed);
            if self.postings.next_due(name, &subscriptions, looked_at).is_some() {
                through = through.min(confirmed);
                most = most.max(confirmed);
            }
        }
        if planted::is(Bug::FreeAtMostConfirmed) && most > Lsn::ZERO {
            through = most;
        }
        if through > self.freed {
            self.postings.free(through);
            if self.store.queue_free(&self.lock, through)? > 0 {
                self.queue.forget_place();
            }
            self.freed = through;
        }
        Ok(())
    }

    /// Moves the hold on what replication needs of the log to what it needs now.
    pub(super) fn let_go(&mut self) -> Result<()> {
        if !self.frees {
            return Ok(());
        }
        let now = self.store.clock().monotonic();
        if self
            .let_go_at
            .is_some_and(|at| now.saturating_sub(at) < LET_GO_AGAIN)
        {
            return Ok(());
        }
        self.let_go_at = Some(now);
        let tell = self.told_at.is_none_or(|at| now.saturating_sub(at) >= TELL_AGAIN);
        match hold_what_is_needed(&self.store, tell) {
            Ok(moved) => {
                if moved || tell {
                    self.told_at = Some(now);
                }
                Ok(())
            }
            // Another process frees, or the disk is full: the hold stays where it is, and sending goes on.
            Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Full) => {
                tracing::warn!(%error, "the hold of replication was not moved; it is tried again");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Frees the log as far as may be: a process that ends soon leaves its store's thread no time for it.
    pub(super) fn free_log(&self) {
        if self.frees
            && let Err(error) = self.store.free()
        {
            tracing::warn!(%error, "what is confirmed was not freed; it is tried again");
        }
    }

    /// Tells a remote for which nothing was due for long how far it is, once it has confirmed all that it was
    /// sent: what it confirms lets the log go.
    pub(super) fn send_stretch(
        &mut self,
        pair: &mut Pair,
        link: &dyn Link,
        sent: &mut Sent,
    ) -> Result<Result<(), LinkError>> {
        let (Some(previous), true) = (pair.sender.at_rest(), self.frees) else {
            return Ok(Ok(()));
        };
        let Some(first) = self
            .catalog
            .subscriptions_of(&pair.remote)
            .map(|one| one.id)
            .min()
        else {
            return Ok(Ok(()));
        };
        let reached = previous.place().at.max(first.lsn());
        let scanned = self.scanned.min(self.covered());
        if scanned.0.saturating_sub(reached.0) < STRETCH {
            return Ok(Ok(()));
        }
        let frees = self
            .store
            .segment_after(reached)?
            .is_some_and(|next| next <= scanned);
        let position = match self.store.position_at(scanned) {
            // The scan is further than we looked, and what it passed is freed already.
            Err(error) if error.kind() == ErrorKind::Behind => None,
            position => position?.filter(|_| frees),
        };
        let Some(position) = position else {
            return Ok(Ok(()));
        };
        let packer = Packer::new(previous, to_usize(self.options.message_bytes));
        let stretch = packer.finish_at(Point::live(position));
        self.deliver_packed((pair, None), link, stretch, sent)
    }

    /// As [`SendPhase::serve`]; a remote that is due what was freed stops alone.
    pub(super) fn serve_if_kept(
        &mut self,
        pair: &mut Pair,
        sent: &mut Sent,
    ) -> Result<Result<(), LinkError>> {
        if let Some(reason) = pair.keys.locked() {
            // Before anything is read for it, and before a probe is noted that would not leave.
            return Ok(Err(LinkError::invalid(reason)));
        }
        if pair.limit.suspended.is_some() {
            return self.serve_suspended(pair, sent);
        }
        match self.serve(pair, sent) {
            Err(error) if error.kind() == ErrorKind::Behind => {
                let text = freed(&pair.remote.site, &error);
                if pair.behind.as_ref() != Some(&text) {
                    tracing::error!(remote = %pair.remote.site, "{text}");
                }
                pair.behind = Some(text);
                Ok(Ok(()))
            }
            served => {
                pair.behind = None;
                served
            }
        }
    }
}

impl Pair {
    /// True for a remote that is sent what it is due.
    pub(super) fn serves_normally(&self) -> bool {
        self.keys.locked().is_none() && self.limit.suspended.is_none()
    }
}

/// Why a remote is not sent to though it is due something, and the way on.
pub(crate) fn freed(remote: &SiteName, error: &Error) -> String {
    format!(
        "what {remote} is due was freed from this site's log ({error}): it went back behind what it had confirmed, made the \
         pair anew, or the hold was dropped; remove the remote here and add it again, with subscriptions from what the \
         log still has, or make its store anew with `milepost resync`"
    )
}
