//! [`ReceivePhase`]: the phase itself, one poll at a time.

use std::collections::{BTreeMap, BTreeSet};

use milepost_engine::frame::NewFrame;
use milepost_engine::{Phase, PhaseLock, Result, SiteName, Store};

use crate::agent::{LinkNumber, Links, Stop};
use crate::catalog::{Catalog, Remote};
use crate::heartbeat::Heartbeat;
use crate::hooks::SharedHooks;
use crate::link::{Incoming, MessageId};
use crate::message::{Limits, decode, decode_header};
use crate::planted::{self, Bug};
use crate::quarantine::Gate;
use crate::retries::Retries;
use crate::send::suspended;
use crate::tracking::{
    Leave, MadeRecord, Me, NOTE, Neighbour, PairRecords, PairState, Patience, PollCause, ProbeRecord,
    Receiver, Verdict,
};

use super::ahead::Ahead;
use super::damaged::Damaged;
use super::gap::Gap;
use super::group::Group;
use super::inbox::{Inbox, MessageKey, Order};
use super::origins::Origins;
use super::parts::Parts;
use super::quarantine::{self, Kept};
use super::received::{Received, SetAside};
use super::told::{Told, tell_missing};
use super::trust::Trust;

/// How messages are received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveOptions {
    /// Transactions of fewer events share a block and a sync (`-g`).
    pub group: u32,
    /// Memory for messages that wait, in bytes (`-m`).
    pub memory: u64,
    /// Leave messages on their links (`-p`).
    pub keep: bool,
    /// False: read and check, append nothing, remove nothing (`-a`).
    pub apply: bool,
    /// When a gap is asked for.
    pub patience: Patience,
}

/// The receive phase of one store.
pub struct ReceivePhase {
    pub(super) store: Store,
    pub(super) links: Links,
    options: ReceiveOptions,
    pub(super) stop: Stop,
    pub(super) pairs: BTreeMap<SiteName, Pair>,
    pub(super) inbox: Inbox,
    pub(super) ahead: Ahead,
    group: Group,
    origins: Origins,
    told: Told,
    /// Messages that are done with: about to leave their link, kept there, or for an operator.
    pub(super) done: BTreeSet<MessageKey>,
    leaving: BTreeSet<MessageKey>,
    /// Messages that wait and whose requests are noted: looked at again they ask for nothing new.
    heard: BTreeSet<MessageKey>,
    /// Messages of sites that are no remotes (yet); they wait on their link.
    pub(super) strangers: BTreeSet<MessageKey>,
    pub(super) beat: Heartbeat,
    /// True when there may be something in quarantine.
    aside: bool,
    /// What may be in quarantine of messages that are taken, and goes once their effect is durable.
    taken: BTreeSet<Kept>,
    /// Sites that were remotes at the last look.
    known: BTreeSet<SiteName>,
    /// Links that fail.
    pub(super) retries: Retries<LinkNumber>,
    _lock: PhaseLock,
}

pub(super) struct Pair {
    neighbour: Neighbour,
    pub(super) trust: Trust,
    pub(super) receiver: Receiver,
    pub(super) link: LinkNumber,
    /// Bytes of parts held after the last poll,
    held: u64,
    /// and whether they grew since the last one that counts patience.
    grew: bool,
    /// Messages of an earlier making that were dropped, and not told of yet.
    late: u64,
    gap: Gap,
    pub(super) damaged: Damaged,
}

impl ReceivePhase {
    /// Takes the phase.
    ///
    /// # Errors
    /// `Conflict` naming the holder when another process has it.
    pub fn open(store: &Store, links: &Links, options: ReceiveOptions, stop: &Stop) -> Result<ReceivePhase> {
        let lock = store.lock_phase(Phase::Receive)?;
        if options.apply {
            quarantine::clear_unfinished(store)?;
        }
        let mut origins = Origins::new(store, Gate::new(store, options.apply));
        if options.apply {
            origins.keep_parts(Parts::open(store)?);
        }
        Ok(ReceivePhase {
            store: store.clone(),
            links: links.clone(),
            options,
            stop: stop.clone(),
            pairs: BTreeMap::new(),
            inbox: Inbox::new(options.memory),
            ahead: Ahead::new(options.memory),
            group: Group::new(options.group),
            origins,
            told: Told::default(),
            done: BTreeSet::new(),
            leaving: BTreeSet::new(),
            heard: BTreeSet::new(),
            strangers: BTreeSet::new(),
            beat: Heartbeat::new(store),
            aside: !quarantine::quarantined(store)?.is_empty(),
            taken: BTreeSet::new(),
            known: BTreeSet::new(),
            retries: Retries::at_most(options.patience.every),
            _lock: lock,
        })
    }

    /// The same with hooks; a dry run (`-a`) calls none.
    #[must_use]
    pub fn with_hooks(mut self, hooks: SharedHooks) -> ReceivePhase {
        self.origins.gate_mut().set_hooks(hooks);
        self
    }

    /// The same with so many threads that decode messages side by side (`-w`).
    #[must_use]
    pub fn with_workers(mut self, workers: u32) -> ReceivePhase {
        self.ahead.set_workers(workers);
        self
    }

    /// Polls every link once and applies what can be.
    ///
    /// # Errors
    /// Those of the store. What was applied before stays applied; the rest comes again from its link.
    pub fn poll(&mut self, cause: PollCause) -> Result<Received> {
        self.beat.begin();
        let mut received = Received::default();
        let outcome = self.poll_links(cause, &mut received);
        self.ahead.clear();
        if outcome.is_err() {
            self.done.clear();
        }
        if outcome.is_err() || !self.options.apply {
            // Positions are read anew: only what is durable counts (R2).
            self.pairs.clear();
            self.inbox.clear();
            self.group.clear();
            self.told.clear();
            self.origins.forget();
            self.leaving.clear();
            self.taken.clear();
        }
        outcome.map(|()| received)
    }

    /// False for a dry run (`-a`).
    #[must_use]
    pub fn applies(&self) -> bool {
        self.options.apply
    }

    /// Remotes whose pair is stopped, with the reason.
    #[must_use]
    pub fn stopped(&self) -> Vec<(SiteName, String)> {
        let reason = |pair: &Pair| pair.receiver.stopped().map(ToString::to_string);
        self.pairs
            .iter()
            .filter_map(|(name, pair)| Some((name.clone(), reason(pair)?)))
            .collect()
    }

    fn poll_links(&mut self, cause: PollCause, received: &mut Received) -> Result<()> {
        self.follow_catalog()?;
        self.poll_all(cause, received)?;
        let senders: Vec<_> = self.pairs.keys().cloned().collect();
        for sender in senders {
            self.apply(&sender, received)?;
        }
        let (now, wall) = (self.store.clock().monotonic(), self.store.clock().wall_micros());
        for (sender, pair) in &mut self.pairs {
            // While parts of a transaction come, what seems to be missing may be on its way.
            let held = pair.receiver.held_bytes() + self.origins.held_of(sender);
            pair.grew |= held > std::mem::replace(&mut pair.held, held);
            let cause = match cause {
                PollCause::Due if std::mem::take(&mut pair.grew) => PollCause::Transfer,
                cause => cause,
            };
            let before = pair.receiver.records().told.clone();
            pair.receiver.poll_ended(now, cause);
            pair.gap.poll_ended(&pair.receiver, &before, wall);
            pair.damaged.poll_ended();
            tell_missing(
                sender,
                &pair.receiver,
                before.ask_number,
                self.origins.gate().hooks(),
            );
        }
        self.judge_trust();
        self.settle(received)
    }

    /// Remotes as they are now: new ones join, removed ones leave, those added anew begin anew.
    fn follow_catalog(&mut self) -> Result<()> {
        let catalog = Catalog::load(&self.store)?;
        let known = self.pairs.len();
        self.pairs.retain(|name, pair| {
            catalog
                .remote(name)
                .is_some_and(|remote| remote.generation == pair.neighbour.generation)
        });
        if self.pairs.len() != known {
            // What was refused for the former pair may be welcome to the next.
            self.done.retain(|key| self.leaving.contains(key));
            self.heard.clear();
        }
        let is_new = |remote: &Remote| !self.pairs.contains_key(&remote.site);
        if catalog.remotes().any(is_new) && !planted::is(Bug::StartWithoutSync) {
            // A receiver killed between its write and its sync left frames that are not durable yet and
            // will be: positions read without them would apply the same transactions again (R1).
            self.store.sync()?;
        }
        let sites: BTreeSet<SiteName> = catalog.remotes().map(|remote| remote.site.clone()).collect();
        if !sites.is_subset(&self.known) {
            // Who was a stranger may be a remote now.
            self.strangers.clear();
        }
        self.known = sites;
        let policies = catalog
            .remotes()
            .map(|remote| (remote.site.clone(), remote.on_error));
        self.origins.gate().set_policies(policies.collect());
        for remote in catalog.remotes() {
            let link = self.links.of(remote, &catalog);
            let suspended = suspended(&self.store, remote)?.is_some();
            let made = self.store.pinned(&MadeRecord::key(&remote.site))?;
            let made = made.map(|(value, _)| MadeRecord::read(&value)).transpose()?;
            if let Some(pair) = self.pairs.get_mut(&remote.site) {
                pair.link = link;
                pair.receiver.set_suspended(suspended);
                pair.receiver.set_made(made);
                self.look_at_keys(&remote.site)?;
                continue;
            }
            let mut pair = self.begin_pair(remote, link)?;
            pair.receiver.set_suspended(suspended);
            self.pairs.insert(remote.site.clone(), pair);
        }
        Ok(())
    }

    fn begin_pair(&self, remote: &Remote, link: LinkNumber) -> Result<Pair> {
        let neighbour = Neighbour {
            name: remote.site.clone(),
            generation: remote.generation,
        };
        let records = PairRecords::load(&neighbour, |key| {
            Ok(self.store.pinned(key)?.map(|(value, _)| value))
        })?;
        let me = Me {
            name: self.store.site().clone(),
            id: self.store.id(),
        };
        let (patience, memory) = (self.options.patience, self.options.memory);
        let mut receiver = Receiver::new(me, neighbour.clone(), records, patience, memory);
        let incomplete = self.origins.incomplete_of(&neighbour.name);
        if let Some(incomplete) = incomplete.filter(|one| one.generation == receiver.records().generation()) {
            receiver.waits_for(incomplete.point);
        }
        Ok(Pair {
            trust: Trust::load(&self.store, &remote.site)?,
            gap: Gap::load(&self.store, &remote.site)?,
            damaged: Damaged::load(&self.store, &remote.site, receiver.records().generation())?,
            neighbour,
            receiver,
            link,
            held: 0,
            grew: false,
            late: 0,
        })
    }

    /// Puts one message where its sender's wait; returns the sender.
    pub(super) fn take_in(
        &mut self,
        link: LinkNumber,
        incoming: Incoming,
        received: &mut Received,
    ) -> Result<Option<SiteName>> {
        let key = MessageKey {
            link,
            id: incoming.id,
        };
        match decode_header(&incoming.bytes, &limits()) {
            Ok(header) if self.pairs.contains_key(&header.from.name) => {
                if !self.is_trusted(&header.from.name, &key, &incoming.bytes, received)? {
                    return Ok(None);
                }
                let (previous, last) = Receiver::poll_order(&header);
                if let Some(pair) = self.pairs.get(&header.from.name) {
                    let at = pair.receiver.staged().place();
                    self.inbox.stands(&header.from.name, at);
                }
                self.inbox
                    .put(&header.from.name, (previous, last, key), incoming.bytes);
                Ok(Some(header.from.name))
            }
            Ok(header) => {
                let site = header.from.name;
                tracing::warn!(message = %key.id, %site, "a message is from a site that is no remote; it stays on its link");
                self.strangers.insert(key);
                Ok(None)
            }
            Err(fault) if fault.is_loss() => {
                tracing::warn!(message = %key.id, %fault, "a message was damaged on the way");
                self.lose(None, key, &incoming.bytes, &fault.to_string())?;
                Ok(None)
            }
            Err(fault) => {
                self.set_aside(key, "unknown", &incoming.bytes, &fault.to_string(), received)?;
                Ok(None)
            }
        }
    }

    /// Applies what a sender's waiting messages allow, in order, until none moves its stream any more.
    pub(super) fn apply(&mut self, sender: &SiteName, received: &mut Received) -> Result<()> {
        let probe = self.store.pinned(&ProbeRecord::key(sender))?;
        let probe = probe.map(|(value, _)| ProbeRecord::read(&value)).transpose()?;
        loop {
            let mut moved = false;
            for order in self.inbox.orders(sender) {
                let Some(verdict) = self.receive(sender, &order, probe.as_ref())? else {
                    continue;
                };
                tracing::debug!(%sender, message = %order.2.id, ?verdict, "received");
                moved |= matches!(verdict, Verdict::Apply(_));
                if matches!(verdict, Verdict::Unsettled) && self.options.apply {
                    self.settle(received)?;
                    moved = true;
                }
                self.carry_out(sender, order, verdict, received)?;
            }
            if !moved || !self.is_ready(sender) {
                return Ok(());
            }
        }
    }

    /// True when a sender's first waiting message has no gap before it.
    pub(super) fn is_ready(&self, sender: &SiteName) -> bool {
        let staged = self.pairs.get(sender).map(|pair| pair.receiver.staged().place());
        let next = self.inbox.first(sender).map(|(previous, _, _)| *previous);
        next.is_some() && next <= staged
    }

    fn receive(
        &mut self,
        sender: &SiteName,
        order: &Order,
        probe: Option<&ProbeRecord>,
    ) -> Result<Option<Verdict>> {
        let decoded = self.decoded_ahead(sender, order);
        let (Some(pair), Some(bytes)) = (self.pairs.get_mut(sender), self.inbox.get(sender, order)) else {
            return Ok(None);
        };
        match decoded.unwrap_or_else(|| decode(bytes, &limits(), pair.trust.keys())) {
            Ok(mut message) => {
                let asks = message.header.requests.is_some();
                if asks && self.heard.contains(&order.2) {
                    (message.header.requests, message.header.pieces) = (None, None);
                }
                let verdict = pair.receiver.receive(&message, probe, &self.origins)?;
                if asks && verdict.is_waiting() {
                    self.heard.insert(order.2.clone());
                }
                Ok(Some(verdict))
            }
            Err(fault) => {
                let header = decode_header(bytes, &limits()).ok();
                let verdict = pair
                    .receiver
                    .receive_fault(&fault, header.as_ref(), &self.origins)?;
                Ok(Some(verdict))
            }
        }
    }

    fn carry_out(
        &mut self,
        sender: &SiteName,
        order: Order,
        verdict: Verdict,
        received: &mut Received,
    ) -> Result<()> {
        let leave = verdict.leave();
        match verdict {
            Verdict::Apply(apply) => {
                received.transactions += milepost_engine::width::to_u64(apply.transactions);
                received.kept += milepost_engine::width::to_u64(apply.kept);
                received.moved = true;
                if self.options.apply {
                    self.told.note(sender, &apply, self.origins.gate().hooks());
                    self.origins.stage(&apply.staged);
                    self.group.push(&self.store, sender, apply.frames)?;
                }
            }
            Verdict::Duplicate => received.duplicates += 1,
            Verdict::OtherGeneration { ours, theirs } if theirs < ours => {
                tracing::debug!(%sender, theirs, ours, "a message of an earlier making of the pair is dropped, and its sender told");
                if let Some(pair) = self.pairs.get_mut(sender) {
                    pair.late += 1;
                }
            }
            Verdict::Refused(refusal) => return self.refuse(sender, &order, &refusal, received).map(drop),
            Verdict::Stopped(reason) => return self.refuse(sender, &order, &reason, received).map(drop),
            Verdict::FormerSite(former) => {
                // It leaves its link only where it is kept, and is no link but that copy when it is retried.
                if let Some(copy) = self.refuse(sender, &order, &former, received)?
                    && !copy.is_message(&order.2.id)
                {
                    self.leave(order.2);
                }
                return Ok(());
            }
            _ => {}
        }
        if leave == Leave::WhenDurable {
            if self.aside && self.options.apply {
                // What needed an operator is taken now: its cause is gone.
                let bytes = self.inbox.get(sender, &order).unwrap_or_default();
                self.taken.insert(Kept::of(sender.as_str(), bytes));
            }
            self.inbox.remove(sender, &order);
            self.leave(order.2);
        }
        Ok(())
    }

    /// Makes positions and notes durable, then lets messages leave (R2).
    pub(super) fn settle(&mut self, received: &mut Received) -> Result<()> {
        if !self.options.apply {
            return Ok(());
        }
        let mut note = NewFrame::of_kind(NOTE, Vec::new());
        for (name, pair) in &mut self.pairs {
            let notes = pair.receiver.notes()?.into_iter().chain(pair.trust.notes(name)?);
            let notes = notes.chain(pair.gap.note(name)?);
            let notes = notes.chain(pair.damaged.note(name, &pair.receiver)?);
            notes.for_each(|record| note.pin(record));
        }
        if !note.pinned().is_empty() {
            received.moved = true;
            self.group.push_note(note);
        }
        self.group.flush(&self.store)?;
        for sender in self.group.take_senders() {
            if let Some(pair) = self.pairs.get_mut(&sender) {
                pair.receiver.durable();
            }
        }
        for (name, pair) in &mut self.pairs {
            match std::mem::take(&mut pair.late) {
                0 => {}
                messages => {
                    tracing::warn!(sender = %name, messages, "messages of an earlier making of the pair are dropped, and their sender is told")
                }
            }
            pair.receiver.noted();
            pair.trust.noted();
            pair.gap.noted();
            pair.damaged.noted(&self.store, name)?;
        }
        self.origins.settled()?;
        let pairs = self.pairs.iter().map(|(name, pair)| (name, &pair.receiver));
        self.origins.settle_parts(&pairs.collect())?;
        let lsns = self.group.take_lsns();
        self.told.settled(lsns, self.origins.gate().hooks());
        // Before they leave their link: were it interrupted, they come again and are forgotten then.
        quarantine::forget(&self.store, &self.taken)?;
        self.taken.clear();
        self.remove_leaving(received)
    }

    fn remove_leaving(&mut self, received: &mut Received) -> Result<()> {
        if self.options.keep {
            self.leaving.clear();
            return Ok(());
        }
        let mut by_link: BTreeMap<LinkNumber, Vec<MessageId>> = BTreeMap::new();
        for key in &self.leaving {
            by_link.entry(key.link).or_default().push(key.id.clone());
        }
        for (number, ids) in by_link {
            match self.links.finish(self.links.get(number)?.remove(&ids)) {
                Some(Ok(())) => {
                    received.moved = true;
                    for id in ids {
                        let key = MessageKey { link: number, id };
                        self.leaving.remove(&key);
                        self.done.remove(&key);
                    }
                }
                // They stay done, and leave at the next poll.
                Some(Err(error)) => received.fail(number, error),
                None => {}
            }
        }
        Ok(())
    }

    pub(super) fn leave(&mut self, key: MessageKey) {
        self.heard.remove(&key);
        self.done.insert(key.clone());
        if self.options.apply {
            self.leaving.insert(key);
        }
    }

    fn refuse(
        &mut self,
        sender: &SiteName,
        order: &Order,
        reason: &dyn std::fmt::Display,
        received: &mut Received,
    ) -> Result<Option<Kept>> {
        let bytes = self.inbox.get(sender, order).unwrap_or_default().to_vec();
        self.inbox.remove(sender, order);
        self.set_aside(
            order.2.clone(),
            sender.as_str(),
            &bytes,
            &reason.to_string(),
            received,
        )
    }

    /// Keeps a copy of what is not ours to take, if there is room, and leaves the message on its link (R6).
    fn set_aside(
        &mut self,
        key: MessageKey,
        sender: &str,
        bytes: &[u8],
        reason: &str,
        received: &mut Received,
    ) -> Result<Option<Kept>> {
        tracing::error!(message = %key.id, sender, reason, "a message needs an operator");
        let mut copy = None;
        if self.options.apply {
            copy = quarantine::keep(&self.store, sender, bytes, reason)?;
            self.aside = true;
        }
        received.quarantined.push(SetAside {
            message: key.id.clone(),
            sender: sender.to_owned(),
            reason: reason.to_owned(),
        });
        self.done.insert(key);
        Ok(copy)
    }
}

pub(super) fn limits() -> Limits {
    Limits::default()
}
