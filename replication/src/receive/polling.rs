//! Polling: every link of a receive phase, each to its end. One that fails is left alone for a while, so that pushes of the others do not wait for it.

use std::collections::BTreeSet;
use std::time::Duration;

use milepost_engine::Result;

use crate::agent::LinkNumber;
use crate::link::{LinkError, MessageId, PollCursor, PollRequest};
use crate::tracking::PollCause;

use super::phase::ReceivePhase;
use super::received::Received;

/// Most messages asked of a link at a time.
const BATCH_COUNT: usize = 256;
/// Most bytes asked of a link at a time.
const BATCH_BYTES: usize = 16 << 20;

impl ReceivePhase {
    /// Links of all remotes, each once.
    #[must_use]
    pub fn links_in_use(&self) -> Vec<LinkNumber> {
        self.pairs
            .values()
            .map(|pair| pair.link)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// True when a link failed when it was polled last.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        !self.retries.is_empty()
    }

    /// How long until a link that failed may be polled again before the next poll that is due.
    #[must_use]
    pub fn until_retry(&self) -> Option<Duration> {
        self.retries.until(self.store.clock().monotonic())
    }

    /// Polls all links, or for a push those that work or may be tried again.
    pub(super) fn poll_all(&mut self, cause: PollCause, received: &mut Received) -> Result<()> {
        self.retries.look(self.store.clock().monotonic());
        let in_use = self.links_in_use();
        self.retries.retain(|number| in_use.contains(number));
        for number in in_use {
            if cause == PollCause::Push && !self.retries.may(&number) {
                continue;
            }
            let begun = self.store.clock().monotonic();
            let polled = self.poll_link(number, received)?;
            let ended = self.store.clock().monotonic();
            match polled {
                Ok(()) => self.retries.works(&number),
                Err(error) => {
                    self.retries.failed(number, ended, ended.saturating_sub(begun));
                    received.fail(number, error);
                }
            }
        }
        Ok(())
    }

    /// Polls one link to its end, applying as it goes.
    fn poll_link(&mut self, number: LinkNumber, received: &mut Received) -> Result<Result<(), LinkError>> {
        let link = self.links.get(number)?;
        self.links.begin_round(number)?;
        let mut after: Option<PollCursor> = None;
        loop {
            let held = self
                .inbox
                .keys()
                .chain(&self.done)
                .chain(&self.strangers)
                .filter(|key| key.link == number);
            let skip: BTreeSet<MessageId> = held.map(|key| key.id.clone()).collect();
            let request = PollRequest {
                after: after.as_ref(),
                skip: &skip,
                max_count: BATCH_COUNT,
                max_bytes: BATCH_BYTES,
            };
            let batch = match self.links.run(link.poll(request)) {
                Some(Ok(batch)) => batch,
                Some(Err(error)) => return Ok(Err(error)),
                None => return Ok(Ok(())),
            };
            let mut senders = BTreeSet::new();
            // A link may give what it was asked to skip.
            for incoming in batch
                .messages
                .into_iter()
                .filter(|incoming| !skip.contains(&incoming.id))
            {
                senders.extend(self.take_in(number, incoming, received)?);
            }
            for sender in senders {
                if self.is_ready(&sender) {
                    self.apply(&sender, received)?;
                }
            }
            self.settle(received)?;
            if self.beat.is_due() {
                tracing::info!(transactions = received.transactions, "receiving");
            }
            match batch.next {
                Some(next) if !self.stop.is_requested() => after = Some(next),
                _ => return Ok(Ok(())),
            }
        }
    }
}
