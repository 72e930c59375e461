//! Handing messages to a link: what goes out, sealed where its pair has a key, what is noted first, and who is told.
//!
//! Guarantees: a pair that should have a key and has none that may be used is sent nothing.

use std::sync::Arc;

use milepost_engine::frame::NewFrame;
use milepost_engine::width::to_u64;
use milepost_engine::{Durability, Result, SiteName};

use crate::hooks::{MessageSent, SharedHooks};
use crate::keys::{PairKeys, draw_nonce};
use crate::link::{Link, LinkError};
use crate::message::{Message, Packed, encode, encode_sealed};
use crate::planted::{self, Bug};
use crate::quarantine::trouble_with;
use crate::receive::quarantined;
use crate::tracking::{NOTE, PairState, ProbeRecord, SendAction, Went};

use super::phase::{Pair, SendPhase, Sent};

impl SendPhase {
    /// The same with hooks.
    #[must_use]
    pub fn with_hooks(mut self, hooks: SharedHooks) -> SendPhase {
        self.hooks = hooks;
        self
    }

    /// What messages say of what could not be applied here (R6), as of now.
    pub(super) fn look_at_quarantine(&mut self) -> Result<()> {
        let aside = quarantined(&self.store)?;
        for (site, pair) in &mut self.pairs {
            pair.sender.report(trouble_with(&self.store, site, &aside)?);
        }
        Ok(())
    }

    /// Delivers messages one after the other; of a range of that number, which goes on behind them where it is cut.
    pub(super) fn deliver_packed(
        &self,
        (pair, range): (&mut Pair, Option<u64>),
        link: &dyn Link,
        packed: impl IntoIterator<Item = Packed>,
        sent: &mut Sent,
    ) -> Result<Result<(), LinkError>> {
        for one in packed {
            let message = one.under(pair.sender.header(&self.own_end()));
            let went = range.map(|number| (number, Went::of(&message)));
            if let Err(error) = self.deliver(pair, link, message, sent)? {
                return Ok(Err(error));
            }
            if let Some((number, went)) = went {
                pair.sender.of_range(number, went);
            }
        }
        Ok(Ok(()))
    }

    /// Hands one message to the link, sealed where its pair has a key. Everything in it is durable here (R2): the queue
    /// is made of what the scan read, and the scan stops at durable.
    pub(super) fn deliver(
        &self,
        pair: &mut Pair,
        link: &dyn Link,
        mut message: Message,
        sent: &mut Sent,
    ) -> Result<Result<(), LinkError>> {
        if self.is_outdated(pair)? {
            return Ok(Err(LinkError::not_now(
                link.address(),
                "what was known of the remote has changed",
            )));
        }
        if message.header.requests.is_some() {
            message.header.pieces = self.pieces_of(pair);
        }
        let bytes = match &pair.keys {
            PairKeys::Locked(reason) | PairKeys::Damaged(reason) => {
                return Ok(Err(LinkError::invalid(reason)));
            }
            keys => match keys.sealing().filter(|_| !planted::is(Bug::KeyNotUsed)) {
                Some(key) => encode_sealed(&message, key, draw_nonce(&**self.store.rng()))?,
                None => encode(&message)?,
            },
        };
        let name = pair.remote.site.clone();
        match self.links.finish(link.deliver(&name, &bytes)) {
            Some(Ok(())) => {
                pair.sender.delivered(&message, self.now());
                self.note_transfer(pair)?;
                sent.messages += 1;
                sent.bytes += to_u64(bytes.len());
                if let Some(hooks) = &self.hooks {
                    hooks.message_sent(&MessageSent {
                        to: &name,
                        bytes: bytes.len(),
                        transactions: message.items.len(),
                        last: message.header.last,
                    });
                }
                tracing::debug!(to = %name, last = %message.header.last.place(), bytes = bytes.len(), "sent");
                Ok(Ok(()))
            }
            Some(Err(error)) => Ok(Err(error)),
            None => Ok(Err(LinkError::not_now(link.address(), "the agent is leaving"))),
        }
    }

    /// A probe is durable before it leaves, so that any receive phase can judge its answer.
    pub(super) fn pin_probe(&self, pair: &Pair, record: &ProbeRecord) -> Result<()> {
        let note = self.note_of(&pair.remote.site, record)?;
        self.append_notes(note.into_iter().collect())
    }

    /// The probes of a round, with one sync for all of them: with many remotes that do not answer, one each would take longest.
    pub(super) fn pin_probes(&mut self, due: &[SiteName]) -> Result<()> {
        let (rng, mut notes) = (Arc::clone(self.store.rng()), Vec::new());
        for name in due {
            let now = self.store.clock().monotonic();
            let probes = |pair: &&mut Pair| pair.serves_normally() && pair.sender.may_probe(now);
            if self.pairs.get_mut(name).filter(probes).is_none() {
                continue;
            }
            let Some(mut pair) = self.pairs.remove(name) else {
                continue;
            };
            let after = pair.sender.log_sent().place();
            // What is wrong with it is told when its turn comes.
            let newest = self.with_sources(&mut pair, |stream, sources| stream.peek(sources, after));
            let action = newest.map(|newest| pair.sender.next(now, newest, &mut || rng.next_u64()));
            if let Ok(Some(SendAction::Probe(record))) = action {
                notes.extend(self.note_of(name, &record)?);
            }
            self.pairs.insert(name.clone(), pair);
        }
        self.append_notes(notes)
    }

    /// The note that makes a probe durable, unless it is.
    fn note_of(&self, name: &SiteName, record: &ProbeRecord) -> Result<Option<NewFrame>> {
        let pin = record.pin(name)?;
        let known = self.store.pinned(&pin.key)?;
        if known.map(|(value, _)| value) == pin.value {
            return Ok(None);
        }
        let mut note = NewFrame::of_kind(NOTE, Vec::new());
        note.pin(pin);
        Ok(Some(note))
    }

    fn append_notes(&self, notes: Vec<NewFrame>) -> Result<()> {
        if notes.is_empty() {
            return Ok(());
        }
        self.store.append_frames(notes, Durability::Synced).map(|_| ())
    }
}
