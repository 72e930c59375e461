//! [`SendPhase`]: the phase itself, one round at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use milepost_engine::frame::NewFrame;
use milepost_engine::width::to_usize;
use milepost_engine::{
    Durability, ErrorKind, Lsn, News, Phase, PhaseLock, Result, Retention, SiteName, Store,
};

use crate::agent::{LinkNumber, Links, Stop};
use crate::backup::Coverage;
use crate::catalog::{Catalog, Remote};
use crate::heartbeat::Heartbeat;
use crate::hooks::SharedHooks;
use crate::keys::{PairKeys, keys_of};
use crate::link::{Link, LinkError};
use crate::message::{Lineage, Packer, Point, Range};
use crate::planted::{self, Bug};
use crate::retries::Retries;
use crate::tracking::{
    Me, NOTE, Neighbour, Now, OwnEnd, Pace, PairRecords, PairState, ProbingTimes, SendAction, Sender,
};

use super::heirs::living;
use super::limits::Limit;
use super::outdated::Seen;
use super::postings::Postings;
use super::queue::QueueEntries;
use super::serve::Serve;
use super::stream::{Sources, Stream};
use super::turn::{Served, Turn};

/// Messages packed for one remote before what it told is looked at again.
const MESSAGES_AT_A_TIME: usize = 32;

/// How messages are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendOptions {
    /// Largest message in bytes (`-l`).
    pub message_bytes: u64,
    /// How long requests are collected (`-ru`).
    pub urgency: Duration,
    /// Pause between looks (`-sd`), from which the wait for a confirmation is derived.
    pub send_every: Duration,
    /// Send and confirm only what the last backup covers (`-u`).
    pub only_backed_up: bool,
}

/// What one round did.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// Messages handed to links.
    pub messages: u64,
    /// Transactions in them; one in parts counts once.
    pub transactions: u64,
    /// Bytes of the messages.
    pub bytes: u64,
    /// Remotes whose link failed, with the reason.
    pub failed_links: Vec<(SiteName, LinkError)>,
}

/// The send phase of one store.
pub struct SendPhase {
    pub(super) store: Store,
    pub(super) links: Links,
    pub(super) hooks: SharedHooks,
    pub(super) options: SendOptions,
    stop: Stop,
    pub(super) lock: PhaseLock,
    pub(super) queue: QueueEntries,
    pub(super) postings: Postings,
    /// Everything at or below is noted in `postings`.
    pub(super) scanned: Lsn,
    pub(super) catalog: Catalog,
    pub(super) pairs: BTreeMap<SiteName, Pair>,
    pub(super) freed: Lsn,
    begun: BTreeSet<LinkNumber>,
    beat: Heartbeat,
    /// What is confirmed is freed: retention is not forever.
    pub(super) frees: bool,
    /// When it was looked last what the log may let go.
    pub(super) let_go_at: Option<Duration>,
    /// When it was looked last how near remotes are to their limits.
    pub(super) judged_at: Option<Duration>,
    /// When the hold was last told whom it is for.
    pub(super) told_at: Option<Duration>,
    /// What the last backup covers, where that counts (`-u`).
    pub(super) coverage: Option<Coverage>,
    /// Where the store's lineage began: it changes only while nobody has the store open.
    lineage: Option<Lineage>,
    /// Wishes to be fulfilled (`--send-now`), as of the last look.
    pub(super) asked: BTreeMap<SiteName, Lsn>,
    /// Links that lead nowhere,
    pub(super) dead_links: Retries<LinkNumber>,
    /// and remotes that their links do not take anything for.
    pub(super) refused: Retries<SiteName>,
    /// A bundle is made: nothing of it counts before it has its name.
    pub(super) makes_bundle: bool,
}

pub(super) struct Pair {
    pub(super) remote: Remote,
    pub(super) link: LinkNumber,
    pub(super) sender: Sender,
    pub(super) stream: Stream,
    pub(super) turn: Turn,
    pub(super) keys: PairKeys,
    /// What it is due was freed.
    pub(super) behind: Option<String>,
    pub(super) limit: Limit,
    pub(super) seen: Seen,
}

impl SendPhase {
    /// Takes the phase.
    ///
    /// # Errors
    /// `Conflict` naming the holder when another process has it; `Corrupt` for a damaged queue.
    pub fn open(store: &Store, links: &Links, options: SendOptions, stop: &Stop) -> Result<SendPhase> {
        let lock = store.lock_phase(Phase::Send)?;
        Ok(SendPhase {
            store: store.clone(),
            links: links.clone(),
            hooks: None,
            options,
            stop: stop.clone(),
            lock,
            queue: QueueEntries::open(store)?,
            postings: Postings::default(),
            scanned: Lsn::ZERO,
            catalog: Catalog::default(),
            pairs: BTreeMap::new(),
            freed: Lsn::ZERO,
            begun: BTreeSet::new(),
            beat: Heartbeat::new(store),
            frees: false,
            let_go_at: None,
            judged_at: None,
            told_at: None,
            coverage: None,
            lineage: Lineage::of(store)?,
            asked: BTreeMap::new(),
            dead_links: Retries::at_most(options.send_every),
            refused: Retries::at_most(options.send_every),
            makes_bundle: false,
        })
    }

    /// Looks at queue, catalog and what receive noted; sends what is due; frees the queue.
    ///
    /// # Errors
    /// Those of the store. What links took stays sent; sending again is harmless.
    pub fn round(&mut self, serve: Serve<'_>) -> Result<Sent> {
        self.beat.begin();
        self.look()?;
        let mut sent = Sent::default();
        let (now, durable) = (self.now(), self.store.watermarks().durable);
        self.makes_bundle = matches!(serve, Serve::Only(_));
        let due = self.due(serve, now);
        let due = self.may_be_tried(due, serve, now);
        let (mut tried, mut failed) = (BTreeSet::new(), BTreeSet::new());
        self.begin_links(&due)?;
        self.pin_probes(&due)?;
        for name in due {
            if self.stop.is_requested() {
                break;
            }
            let Some(pair) = self.pairs.remove(&name) else {
                continue;
            };
            let before = sent.messages;
            let reachable = !failed.contains(&pair.link);
            let begun = self.store.clock().monotonic();
            let (pair, outcome) = match reachable {
                true => self.serve_as_it_is(&name, pair, &mut sent),
                false => (Some(pair), Ok(Ok(()))),
            };
            let Some(mut pair) = pair else {
                drop(outcome?);
                continue;
            };
            let served = Served {
                sent: sent.messages > before,
                all: reachable && matches!(outcome, Ok(Ok(()))) && !self.stop.is_requested(),
                durable,
            };
            let closed_at = self.store.clock().monotonic();
            let noted = pair
                .turn
                .served(served, closed_at, |target| self.is_scanned_to(target));
            let (number, closed) = (pair.link, !pair.turn.is_open());
            self.pairs.insert(name.clone(), pair);
            noted?;
            if closed {
                self.fulfil(&name)?;
            }
            let outcome = outcome?;
            if reachable {
                tried.insert(number);
                self.note_outcome((&name, number), &outcome, closed_at.saturating_sub(begun));
            }
            if let Err(error) = outcome {
                failed.extend(error.is_unreachable().then_some(number));
                sent.failed_links.push((name, error));
            }
        }
        self.note_what_works(tried.difference(&failed));
        self.free()?;
        self.let_go()?;
        Ok(sent)
    }

    /// True while the turn of some remote is open, or there is none whose turn could come: a definition
    /// may change that.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.pairs.is_empty() || self.untils().any(|until| until.is_zero())
    }

    /// How long until the next turn opens that is not open yet.
    #[must_use]
    pub fn until_opening(&self) -> Option<Duration> {
        self.untils().filter(|until| !until.is_zero()).min()
    }

    fn untils(&self) -> impl Iterator<Item = Duration> {
        let (now, wall) = (self.store.clock().monotonic(), self.store.clock().wall_micros());
        let served = self.pairs.values().filter(|pair| !pair.remote.is_carried());
        served.filter_map(move |pair| pair.turn.until(pair.remote.schedule, now, wall))
    }

    /// True when no frame before an end of the log is missing in what is scanned and noted.
    fn is_scanned_to(&self, end: Lsn) -> Result<bool> {
        let mut behind = match self.store.scan(self.scanned) {
            // The scan is further than we looked, and what it passed is freed already.
            Err(error) if error.kind() == ErrorKind::Behind => return Ok(false),
            scan => scan?,
        };
        Ok(behind.next()?.is_none_or(|frame| frame.lsn() >= end))
    }

    /// Remotes without a schedule, which a continuous agent never sends to.
    pub fn unscheduled(&self) -> impl Iterator<Item = &SiteName> {
        let none = |pair: &&Pair| pair.remote.is_unscheduled();
        self.pairs.values().filter(none).map(|pair| &pair.remote.site)
    }

    /// Address of a remote's link, for operators.
    ///
    /// # Errors
    /// `Internal` for a link of another process.
    pub fn address_of(&self, site: &SiteName) -> Result<String> {
        match self.pairs.get(site) {
            Some(pair) => Ok(self.links.get(pair.link)?.address()),
            None => Ok(site.to_string()),
        }
    }

    /// True when some remote has neither SEND EVERY nor SEND AT, so that every process that sends is a
    /// batch run.
    ///
    /// # Errors
    /// As [`Catalog::load`].
    pub fn is_batch_by_schedule(store: &Store) -> Result<bool> {
        Ok(Catalog::load(store)?.remotes().any(Remote::is_unscheduled))
    }

    /// Remotes whose pair is stopped, with the reason.
    #[must_use]
    pub fn stopped(&self) -> Vec<(SiteName, String)> {
        let reason = |pair: &Pair| {
            let stopped = pair.sender.stopped().map(ToString::to_string);
            // One that was suspended since is due none of it any more.
            let behind = pair.behind.as_ref().filter(|_| pair.limit.suspended.is_none());
            stopped.or_else(|| behind.cloned())
        };
        self.pairs
            .iter()
            .filter_map(|(name, pair)| Some((name.clone(), reason(pair)?)))
            .collect()
    }

    /// Waits until the queue grows, or `limit`.
    ///
    /// # Errors
    /// Those of the queue.
    pub fn wait(&mut self, limit: Duration) -> Result<bool> {
        self.queue.wait(limit)
    }

    /// The order matters: entries up to the scan's position first, then the catalog, which is then at
    /// least as new as any of them, so that none is taken for nobody's.
    pub(super) fn look(&mut self) -> Result<()> {
        let (news, scanned) = (self.store.news(), self.store.scanned_through());
        let postings = &mut self.postings;
        self.queue.follow(|entry, at| postings.note(entry, at))?;
        self.scanned = self.scanned.max(scanned);
        self.look_at_backup()?;
        self.look_at_wishes()?;
        let catalog = Catalog::load(&self.store)?;
        if catalog != self.catalog {
            self.pairs.values_mut().for_each(|pair| pair.stream.forget());
            self.catalog = catalog;
        }
        let now = self.now();
        // Settings that cannot be read free nothing.
        let space = self.store.space();
        self.frees = space.is_ok_and(|space| space.retention != Retention::Forever);
        let SendPhase { catalog, pairs, .. } = self;
        pairs.retain(|name, pair| {
            catalog
                .remote(name)
                .is_some_and(|remote| remote.generation == pair.remote.generation)
        });
        let remotes: Vec<Remote> = self.catalog.remotes().cloned().collect();
        for remote in remotes {
            self.look_at(remote, (now, news))?;
        }
        self.forget_failures();
        self.look_at_limits()?;
        self.look_at_quarantine()
    }

    fn look_at(&mut self, remote: Remote, (now, news): (Now, News)) -> Result<()> {
        let neighbour = Neighbour {
            name: remote.site.clone(),
            generation: remote.generation,
        };
        let mut records = PairRecords::load(&neighbour, |key| {
            Ok(self.store.pinned(key)?.map(|(value, _)| value))
        })?;
        let link = self.links.of(&remote, &self.catalog);
        let confirm_at_most = self.confirm_at_most(&remote.site, records.generation())?;
        let keys = keys_of(&self.store, &remote.site)?;
        let trusted = self
            .pairs
            .get(&remote.site)
            .map(|pair| pair.keys.trust_alike(&keys));
        if trusted == Some(false) {
            // What is on its way may be sealed with what nobody opens any more: it goes again, as after a kill.
            self.pairs.remove(&remote.site);
            self.refused.works(&remote.site);
            records.sent = None;
        }
        if let Some(pair) = self.pairs.get_mut(&remote.site) {
            pair.sender.note(records, now);
            pair.sender.confirm_at_most(confirm_at_most);
            (pair.link, pair.remote, pair.keys, pair.seen) = (link, remote, keys, Seen::at(news));
            return Ok(());
        }
        let records = (records, trusted != Some(false));
        let pair = self.begin_pair(
            (remote, neighbour, link),
            (records, now),
            (keys, Seen::at(news), confirm_at_most),
        )?;
        self.pairs.insert(pair.remote.site.clone(), pair);
        Ok(())
    }

    /// A pair that this process has not known yet, or from now on otherwise; what was sent counts if `is_trusted`.
    fn begin_pair(
        &self,
        (remote, neighbour, link): (Remote, Neighbour, LinkNumber),
        ((records, is_trusted), now): ((PairRecords, bool), Now),
        (keys, seen, confirm_at_most): (PairKeys, Seen, Option<Point>),
    ) -> Result<Pair> {
        let me = Me {
            name: self.store.site().clone(),
            id: self.store.id(),
        };
        let every = remote.schedule.every().unwrap_or(self.options.send_every);
        let probing = ProbingTimes::for_interval(every.max(self.options.send_every));
        let pace = Pace {
            urgency: self.options.urgency,
            probing,
        };
        let mut sender = Sender::new(me, neighbour, records, pace, now);
        sender.confirmed_before(self.confirmed_record(&remote.site)?);
        let begun = self.transfer_record(&remote.site)?;
        sender.resume(begun.filter(|_| is_trusted));
        let serving = self.serving_record(&remote.site)?;
        sender.resume_serving(serving.filter(|_| is_trusted));
        sender.confirm_at_most(confirm_at_most);
        if self.lineage.is_some() {
            sender.was_restored();
        }
        Ok(Pair {
            stream: Stream::new(remote.site.clone()),
            remote,
            link,
            sender,
            keys,
            turn: Turn::default(),
            behind: None,
            limit: Limit::default(),
            seen,
        })
    }

    fn begin_links(&mut self, due: &[SiteName]) -> Result<()> {
        let numbers: BTreeSet<_> = due
            .iter()
            .filter_map(|name| self.pairs.get(name).map(|pair| pair.link))
            .collect();
        for number in numbers {
            let link = self.links.get(number)?;
            self.links.begin_round(number)?;
            if !self.begun.contains(&number)
                && let Some(Ok(())) = self.links.run(link.begin_sending())
            {
                self.begun.insert(number);
            }
        }
        Ok(())
    }

    /// Sends one remote what it is due, until nothing is left or its link fails.
    pub(super) fn serve(&mut self, pair: &mut Pair, sent: &mut Sent) -> Result<Result<(), LinkError>> {
        let link = self.links.get(pair.link)?;
        let rng = Arc::clone(self.store.rng());
        while !self.stop.is_requested() {
            let now = self.store.clock().monotonic();
            let after = pair.sender.log_sent().place();
            let newest = self.with_sources(pair, |stream, sources| stream.peek(sources, after))?;
            let Some(action) = pair.sender.next(now, newest, &mut || rng.next_u64()) else {
                return self.send_stretch(pair, &*link, sent);
            };
            let outcome = match action {
                SendAction::Data { previous } => self.send_data(pair, &*link, previous, sent)?,
                SendAction::Serve { range, .. } if range.up_to.place().at > self.scanned => {
                    // It was sent before, and the queue is being made again: what it lacks is not nothing.
                    return Ok(Ok(()));
                }
                SendAction::Serve { number, range } => {
                    let outcome = self.send_range(pair, &*link, (number, range), sent)?;
                    if outcome.is_ok() {
                        pair.sender.served(number);
                    }
                    outcome
                }
                SendAction::Probe(record) => {
                    self.pin_probe(pair, &record)?;
                    let message = pair.sender.probe(&record, &self.own_end());
                    self.deliver(pair, &*link, message, sent)?
                }
                SendAction::Tell => {
                    let message = pair.sender.tell(&self.own_end());
                    self.deliver(pair, &*link, message, sent)?
                }
            };
            if outcome.is_err() {
                return Ok(outcome);
            }
        }
        Ok(Ok(()))
    }

    /// Packs and sends what is due behind `previous`, a bounded number of messages.
    fn send_data(
        &mut self,
        pair: &mut Pair,
        link: &dyn Link,
        previous: Point,
        sent: &mut Sent,
    ) -> Result<Result<(), LinkError>> {
        let mut packer = Packer::new(previous, to_usize(self.options.message_bytes));
        let (mut at, mut messages) = (previous.place(), 0);
        while messages < MESSAGES_AT_A_TIME && !self.stop.is_requested() {
            let next = self.with_sources(pair, |stream, sources| stream.next(sources, at))?;
            let Some(carried) = next else { break };
            at = carried.point.place();
            sent.transactions += 1;
            let mut full = packer.push(carried)?;
            if let Some(begun) = pair.sender.transfer() {
                full.leave_out(&begun);
            }
            if self.beat.is_due() {
                let (to, messages) = (&pair.remote.site, sent.messages);
                tracing::info!(%to, messages, transactions = sent.transactions, "sending");
            }
            let full = full.inspect(|_| messages += 1);
            if let Err(error) = self.deliver_packed((pair, None), link, full, sent)? {
                return Ok(Err(error));
            }
        }
        self.deliver_packed((pair, None), link, packer.finish(), sent)
    }

    /// Sends again what is due in a range, to its very end.
    fn send_range(
        &mut self,
        pair: &mut Pair,
        link: &dyn Link,
        (number, range): (u64, Range),
        sent: &mut Sent,
    ) -> Result<Result<(), LinkError>> {
        let from = pair.sender.begin_range(number, range);
        let mut packer = Packer::new(from, to_usize(self.options.message_bytes));
        let mut at = from.place();
        while !self.stop.is_requested() {
            // All of it was sent before, covered by a backup or not: nothing of it may be told as empty.
            let next = self.with_sources_to(pair, Lsn::MAX, |stream, sources| stream.next(sources, at))?;
            if next.is_none() && self.stop.is_requested() {
                // The search ended early, and says nothing of what is there.
                break;
            }
            let next = next.filter(|_| !planted::is(Bug::RangeToldEmpty));
            let Some(carried) = next.filter(|carried| carried.point.place() <= range.up_to.place()) else {
                let last = packer.finish_at(range.up_to);
                return self.deliver_packed((pair, Some(number)), link, last, sent);
            };
            at = carried.point.place();
            sent.transactions += 1;
            let mut full = packer.push(carried)?;
            if let Some(there) = pair.sender.is_there(number) {
                full.leave_out(&there);
            }
            if let Err(error) = self.deliver_packed((pair, Some(number)), link, full, sent)? {
                return Ok(Err(error));
            }
        }
        Ok(Err(LinkError::not_now(link.address(), "the agent is leaving")))
    }

    /// Pins how far the links took what is due, so that the next process does not send it again: at a clean
    /// end of the phase.
    ///
    /// # Errors
    /// Those of the store; then more is sent again, which is harmless.
    pub fn remember(&mut self) -> Result<()> {
        let mut note = NewFrame::of_kind(NOTE, Vec::new());
        self.transfers_at_last()?
            .into_iter()
            .for_each(|pin| note.pin(pin));
        for (name, pair) in &self.pairs {
            if let Some(record) = pair.sender.record() {
                note.pin(record.pin(name)?);
            }
            if let Some(record) = pair.sender.confirmed_record(self.confirmed_record(name)?) {
                note.pin(record.pin(name)?);
            }
        }
        if !note.pinned().is_empty() {
            self.store.append_frames(vec![note], Durability::Buffered)?;
        }
        self.free_log();
        Ok(())
    }

    pub(super) fn now(&self) -> Now {
        let clock = self.store.clock();
        Now {
            monotonic: clock.monotonic(),
            wall_micros: clock.wall_micros(),
        }
    }

    pub(super) fn own_end(&self) -> OwnEnd {
        OwnEnd {
            epoch: self.store.epoch(),
            lineage: self.lineage,
            durable: self.store.watermarks().durable,
        }
    }

    pub(super) fn with_sources<T>(
        &mut self,
        pair: &mut Pair,
        ask: impl FnOnce(&mut Stream, &mut Sources<'_>) -> Result<T>,
    ) -> Result<T> {
        let covered = self.covered();
        self.with_sources_to(pair, covered, ask)
    }

    /// The same, with what the log has up to `covered` alone.
    fn with_sources_to<T>(
        &mut self,
        pair: &mut Pair,
        covered: Lsn,
        ask: impl FnOnce(&mut Stream, &mut Sources<'_>) -> Result<T>,
    ) -> Result<T> {
        let subscriptions = living(self.catalog.subscriptions_of(&pair.remote));
        let confirmed_once = pair.sender.confirmed_once();
        let mut sources = Sources {
            store: &self.store,
            queue: &mut self.queue,
            postings: &self.postings,
            scanned: self.scanned,
            subscriptions: &subscriptions,
            confirmed_once,
            covered,
            stop: &self.stop,
        };
        ask(&mut pair.stream, &mut sources)
    }
}
