//! [`Sender`]: what one neighbour is sent, as the send phase sees it.
//!
//! ```text
//! records of the log ─ note ─► Sender ─ next ─► Serve(range) | Data(after log_sent) | Probe | Tell
//!                                 ▲                       │ the caller packs, hands to the link
//!                                 └──── delivered ◄───────┘ once the link has it durably
//! ```
//!
//! Data go again only on a request or an answer, never on a timer: what is not confirmed for a while is
//! probed for. `log_sent` lives in memory; a phase that ends pins it ([`Sender::record`]), one that is killed
//! does not, and the next restarts from what was pinned or confirmed; sending again is harmless.

use std::collections::BTreeMap;
use std::time::Duration;

use milepost_engine::{Epoch, Lsn};

use crate::message::{
    Address, Header, Item, Lineage, Message, Pieces, Place, Point, Probe, Range, Rejoined, Requests, Trouble,
};

use super::probe::{Probing, ProbingTimes};
use super::receiver::Me;
use super::serving::{Serving, ServingRecord, Went};
use super::state::{
    ConfirmedRecord, Neighbour, PairRecord, PairRecords, ProbeRecord, SentRecord, StopReason, ToldRecord,
};
use super::transfer::{TransferRecord, Transfers};

/// What a site says of its own log in every message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnEnd {
    /// Current lineage.
    pub epoch: Epoch,
    /// Where it began, when it is not the first.
    pub lineage: Option<Lineage>,
    /// Durable end.
    pub durable: Lsn,
}

/// What the clocks say. Only what a probe waits for rests on the wall clock, and only from one process to
/// the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Since an arbitrary moment.
    pub monotonic: Duration,
    /// Microseconds since 1970.
    pub wall_micros: i64,
}

/// How a pair's send phase is paced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How long requests are collected before they are served (`-ru`).
    pub urgency: Duration,
    /// When unconfirmed data are probed for.
    pub probing: ProbingTimes,
}

/// What is to be sent next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendAction {
    /// Pack what is due in the range, and end the last message at `up_to`
    /// ([`crate::message::Packer::finish_at`]); then call [`Sender::served`].
    Serve {
        /// To be told to [`Sender::served`].
        number: u64,
        /// What the neighbour misses.
        range: Range,
    },
    /// Pack what is due after this point, as much as suits.
    Data {
        /// `previous` of the first message.
        previous: Point,
    },
    /// Make the record durable ([`super::PairState::pin`] in a note), then send a message without data.
    Probe(ProbeRecord),
    /// Send a message without data: a confirmation, an answer or requests are due.
    Tell,
}

/// The send phase's state of one pair.
#[derive(Clone, Debug)]
pub struct Sender {
    me: Me,
    neighbour: Neighbour,
    records: PairRecords,
    log_sent: Point,
    serving: Serving,
    /// Requests, by number, that came while all that they ask for was still going out for the first time, and how far that had gone then: what
    /// lies behind goes again only if it is asked for again.
    met: BTreeMap<u64, Point>,
    requested_at: Option<Duration>,
    /// Received position that the last delivered message told (`confirm_received`),
    confirm_received: Point,
    /// and what it told the neighbour to free.
    confirmed: Point,
    /// Nothing behind this is confirmed (`-u`).
    confirm_at_most: Option<Point>,
    /// This store was made of a backup, or repaired: the neighbour may hold it to more than it has, also to more than nothing.
    restored: bool,
    answers_given: u64,
    asked: u64,
    told_at: i64,
    told_again: u32,
    /// What was told before this process is to be told once more: the neighbour may hold it to more than we
    /// have, because we were put back to an older copy and do not know.
    tells_again: bool,
    pace: Pace,
    probing: Probing,
    /// What of its stream could not be applied here.
    trouble: Option<Trouble>,
    transfers: Transfers,
}

impl Sender {
    /// The state as the log holds it at `now`.
    #[must_use]
    pub fn new(me: Me, neighbour: Neighbour, records: PairRecords, pace: Pace, now: Now) -> Sender {
        let told = &records.told;
        let sent = records.sent.unwrap_or_default();
        let counts = sent.went_back == told.went_back && sent.log_sent.place() > told.confirmed.place();
        let log_sent = if counts { sent.log_sent } else { told.confirmed };
        let probing = Probing::new(pace.probing, &records, log_sent, now);
        Sender {
            me,
            neighbour,
            log_sent,
            serving: Serving::default(),
            met: BTreeMap::new(),
            requested_at: None,
            confirm_received: sent.confirm_received,
            confirmed: sent.confirm_received,
            confirm_at_most: None,
            restored: false,
            answers_given: sent.answers_given,
            asked: sent.asked,
            told_at: sent.told_at,
            told_again: sent.told_again,
            tells_again: tells_again(&sent, pace.probing, now),
            pace,
            probing,
            records,
            trouble: None,
            transfers: Transfers::default(),
        }
    }

    /// Takes the records as the log holds them now; call it whenever the log has moved, before
    /// [`Sender::next`].
    pub fn note(&mut self, records: PairRecords, now: Now) {
        if records.generation() != self.records.generation() {
            let restored = self.restored;
            *self = Sender::new(self.me.clone(), self.neighbour.clone(), records, self.pace, now);
            self.restored = restored;
            return;
        }
        let (before, told) = (&self.records.told, &records.told);
        if told.went_back != before.went_back {
            self.log_sent = told.confirmed;
            self.transfers.end();
            self.serving.forget();
        }
        // Requests of one that went back since are no progress: only the answer to a probe serves them.
        let asks = told.its_request != before.its_request && told.suspicions == before.suspicions;
        let progress = told.received != before.received || told.answered != before.answered || asks;
        if progress {
            self.probing.progress(now.monotonic);
            self.told_again = 0;
        }
        self.records = records;
    }

    /// What to pin when the phase ends; `None` when that is pinned already.
    #[must_use]
    pub fn record(&self) -> Option<SentRecord> {
        let (probe, probe_times, probe_at) = self.probing.sent_so_far();
        let record = SentRecord {
            generation: self.records.generation(),
            went_back: self.told().went_back,
            log_sent: self.log_sent(),
            confirm_received: self.confirm_received,
            answers_given: self.answers_given,
            asked: self.asked,
            told_at: self.told_at,
            told_again: self.told_again,
            probe,
            probe_times,
            probe_at,
        };
        let nothing = SentRecord {
            generation: record.generation,
            went_back: record.went_back,
            log_sent: self.told().confirmed,
            ..SentRecord::default()
        };
        let nothing = record == nothing;
        let known = self.records.sent == Some(record) || (self.records.sent.is_none() && nothing);
        (!known).then_some(record)
    }

    /// What was sent and is not confirmed is sent again: an operator knows that it is lost.
    pub fn send_again(&mut self) {
        self.log_sent = self.told().confirmed;
        self.transfers.end();
        self.serving.forget();
    }

    /// What a former process had begun to send, as the log says.
    pub fn resume(&mut self, record: Option<TransferRecord>) {
        self.transfers = Transfers::of(record, self.records.generation(), self.told().went_back);
    }

    /// What a former process had served of what the neighbour asked for, as the log says.
    pub fn resume_serving(&mut self, record: Option<ServingRecord>) {
        self.serving = Serving::of(record, self.records.generation(), self.told().went_back);
    }

    /// What to pin of it when the phase ends.
    #[must_use]
    pub fn serving_record(&self) -> ServingRecord {
        self.serving
            .record(self.records.generation(), self.told().went_back)
    }

    /// Where the range of this number goes on, or begins.
    pub fn begin_range(&mut self, number: u64, range: Range) -> Point {
        self.serving.begin(number, range)
    }

    /// The link has a message of the range of this number.
    pub fn of_range(&mut self, number: u64, went: Went) {
        let there = self.told_to_be_there(number);
        self.serving.went(went, there);
    }

    /// How far a transaction in pieces has gone out that is not out whole.
    #[must_use]
    pub fn transfer(&self) -> Option<Pieces> {
        self.transfers.current()
    }

    /// What need not go again of a transaction in parts, in the range of this number: what went, or what the neighbour said that it has.
    #[must_use]
    pub fn is_there(&self, number: u64) -> Option<Pieces> {
        self.serving
            .pieces(number)
            .or_else(|| self.told_to_be_there(number))
    }

    /// What the neighbour said that it has of a transaction in parts, with the request that made the range of this number. It counts for that
    /// alone: it may be lost since, and while anything comes nobody asks.
    fn told_to_be_there(&self, number: u64) -> Option<Pieces> {
        let asked = self.records.asked?;
        asked
            .pieces
            .filter(|_| (asked.first..=asked.last).contains(&number))
    }

    /// What to pin of it while it goes on; see [`TransferRecord`].
    #[must_use]
    pub fn transfer_to_pin(&mut self) -> Option<TransferRecord> {
        let (generation, went_back) = (self.records.generation(), self.told().went_back);
        self.transfers.pin_due(generation, went_back)
    }

    /// What to pin of it when the phase ends: a record, or that there is none; `None` when the log says so already.
    #[must_use]
    pub fn transfer_at_last(&mut self) -> Option<Option<TransferRecord>> {
        let (generation, went_back) = (self.records.generation(), self.told().went_back);
        self.transfers.pin_at_last(generation, went_back)
    }

    /// What a former send phase confirmed last, where that is known.
    pub fn confirmed_before(&mut self, record: Option<ConfirmedRecord>) {
        if let Some(record) = record.filter(|record| record.generation == self.records.generation()) {
            self.confirmed = record.point;
        }
    }

    /// From now on nothing behind `most` is confirmed (`-u`); `None` confirms all that is received.
    pub fn confirm_at_most(&mut self, most: Option<Point>) {
        self.confirm_at_most = most;
    }

    /// From now on messages say that this of the neighbour's stream could not be applied.
    pub fn report(&mut self, trouble: Option<Trouble>) {
        self.trouble = trouble;
    }

    /// This store was made of a backup or repaired ([`OwnEnd::lineage`]).
    pub fn was_restored(&mut self) {
        self.restored = true;
    }

    /// What to pin beside [`Sender::record`]: what was confirmed last, where that is not what was received. `known` is
    /// the record as it is.
    #[must_use]
    pub fn confirmed_record(&self, known: Option<ConfirmedRecord>) -> Option<ConfirmedRecord> {
        let record = ConfirmedRecord {
            generation: self.records.generation(),
            point: self.confirmed,
        };
        let needed = known.is_some() || self.confirmed != self.confirm_received;
        (needed && known != Some(record)).then_some(record)
    }

    /// What of the neighbour's stream it may let go.
    fn confirms(&self) -> Point {
        let received = self.records.received.point;
        match self.confirm_at_most {
            Some(most) if most.place() < received.place() => most,
            _ => received,
        }
    }

    /// `log_sent`.
    #[must_use]
    pub fn log_sent(&self) -> Point {
        let received = self.told().received;
        if received.place() > self.log_sent.place() {
            received
        } else {
            self.log_sent
        }
    }

    /// Generation of the pair.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.records.generation()
    }

    /// `confirm_sent`: what may be freed for this remote.
    #[must_use]
    pub fn confirm_sent(&self) -> Point {
        self.told().confirmed
    }

    /// The remote had confirmed so much before it was found to hold less ([`ToldRecord::confirmed_once`]).
    #[must_use]
    pub fn confirmed_once(&self) -> Lsn {
        self.told().confirmed_once
    }

    /// `confirm_received`.
    #[must_use]
    pub fn confirm_received(&self) -> Point {
        self.confirm_received
    }

    /// Why the pair is stopped, if it is.
    #[must_use]
    pub fn stopped(&self) -> Option<&StopReason> {
        self.pair().and_then(|pair| pair.stopped.as_ref())
    }

    /// What was sent, when the neighbour has confirmed all of it: from there on it can be told that nothing is due.
    #[must_use]
    pub fn at_rest(&self) -> Option<Point> {
        let (sent, told) = (self.log_sent(), self.told());
        let confirmed = sent.place() == told.received.place() && sent.place() == told.confirmed.place();
        (confirmed && self.stopped().is_none()).then_some(sent)
    }

    /// What to send now, or nothing. `newest` is the last place due to this remote in the queue; `draw`
    /// gives a random nonce. Ask again after each delivery; a link that fails ends the round.
    #[must_use]
    pub fn next(
        &mut self,
        now: Duration,
        newest: Option<Place>,
        draw: &mut dyn FnMut() -> u64,
    ) -> Option<SendAction> {
        if self.stopped().is_some() {
            return None;
        }
        if let Some((number, range)) = self.due_range(now, newest) {
            return Some(SendAction::Serve { number, range });
        }
        let log_sent = self.log_sent();
        if newest.is_some_and(|newest| newest > log_sent.place()) {
            return Some(SendAction::Data { previous: log_sent });
        }
        if let Some(record) = self.probing.due(now, log_sent, &self.records, draw) {
            return Some(SendAction::Probe(record));
        }
        self.owes().then_some(SendAction::Tell)
    }

    /// True when [`Sender::next`] may ask for a probe.
    #[must_use]
    pub fn may_probe(&self, now: Duration) -> bool {
        self.stopped().is_none() && self.probing.is_due(now, self.log_sent(), &self.records)
    }

    /// True when a confirmation, an answer or requests are due: all that a suspended remote is sent.
    #[must_use]
    pub fn tells(&self) -> bool {
        self.stopped().is_none() && self.owes()
    }

    /// A header with all that is owed to the neighbour; `previous` and `last` stand at `log_sent`.
    #[must_use]
    pub fn header(&self, own: &OwnEnd) -> Header {
        let to = Address {
            name: self.neighbour.name.clone(),
            id: self
                .pair()
                .map(|pair| pair.site)
                .or(self.records.made.map(|made| made.store)),
        };
        let from = (self.me.name.clone(), self.me.id);
        let mut header = Header::new(from, to, self.records.generation(), own.epoch);
        let log_sent = self.log_sent();
        (header.previous, header.last) = (log_sent, log_sent);
        header.durable = own.durable;
        header.lineage = own.lineage;
        header.received = self.records.received.point;
        header.confirmed = self.confirms();
        header.trouble.clone_from(&self.trouble);
        header.rejoined = self.records.rejoined.map(|rejoined| Rejoined {
            since: rejoined.since,
            is_sound: rejoined.is_sound,
        });
        if self.told().answers_due > self.answers_given {
            header.answer = self.told().nonce;
        }
        if self.asks() {
            let (number, ranges) = (self.told().ask_number, self.open_asks().collect());
            header.requests = Some(Requests { number, ranges });
        }
        header
    }

    /// The message for [`SendAction::Probe`], once its record is durable.
    #[must_use]
    pub fn probe(&self, record: &ProbeRecord, own: &OwnEnd) -> Message {
        let mut header = self.header(own);
        header.probe = Some(Probe {
            nonce: record.nonce,
            log_sent: record.log_sent,
        });
        Message::bare(header)
    }

    /// The message for [`SendAction::Tell`].
    #[must_use]
    pub fn tell(&self, own: &OwnEnd) -> Message {
        Message::bare(self.header(own))
    }

    /// The link has `message` durably. (A part that does not end its transaction moves nothing.)
    pub fn delivered(&mut self, message: &Message, now: Now) {
        let header = &message.header;
        let ends = message.items.iter().all(|item| match item {
            Item::Transaction(_) => true,
            Item::Part(part) => part.end() == part.total,
        });
        let first_time = header.last.place() > self.log_sent().place();
        if let ([Item::Part(part)], false, true) = (message.items.as_slice(), ends, first_time) {
            self.transfers.went(part);
        }
        if message.has_data() && ends && first_time {
            self.transfers.end();
            if self.log_sent().place() <= self.told().received.place() {
                self.probing.began_waiting(now.monotonic);
            }
            self.log_sent = header.last;
        }
        let again = header.received == self.confirm_received;
        if std::mem::take(&mut self.tells_again) && again {
            self.told_again = self.told_again.saturating_add(1);
        }
        (self.confirm_received, self.confirmed) = (header.received, header.confirmed);
        self.told_at = now.wall_micros;
        // Every message tells what we have, and so is the answer to all that was owed when it was made.
        if header.received == self.records.received.point {
            self.answers_given = self.told().answers_due;
        }
        if let Some(requests) = &header.requests {
            self.asked = requests.number;
        }
        if let Some(probe) = &header.probe {
            self.probing.sent(probe.nonce, now);
        }
    }

    /// All messages of a [`SendAction::Serve`] were delivered.
    pub fn served(&mut self, number: u64) {
        self.serving.served = self.serving.served.max(number);
        self.requested_at = None;
    }

    /// When [`Sender::next`] may have something to do though nothing comes: a wake-up for the caller.
    #[must_use]
    pub fn wakes_at(&self) -> Option<Duration> {
        let served = self.requested_at.map(|at| at.saturating_add(self.pace.urgency));
        let probed = self.probing.wakes_at(self.log_sent(), &self.records);
        [served, probed].into_iter().flatten().min()
    }

    /// The first range that was not served, once requests were collected long enough. What was not sent
    /// yet goes as data, in its turn. Where nothing more is due, a range may end behind what this process sent all the same: a former
    /// one had sent what was revoked since, and who heard of it would ask for ever.
    fn due_range(&mut self, now: Duration, newest: Option<Place>) -> Option<(u64, Range)> {
        let (log_sent, served, received) = (self.log_sent(), self.serving.served, self.told().received);
        let goes_as_data = newest.is_some_and(|newest| newest > log_sent.place());
        let serve = &self.records.told.serve;
        self.met
            .retain(|met, _| serve.iter().any(|(number, _)| number == met));
        let open = serve
            .iter()
            .filter(|(number, _)| *number > served)
            .find_map(|(number, range)| {
                let after = if range.after.place() < received.place() {
                    received
                } else {
                    range.after
                };
                if goes_as_data && newest >= Some(range.up_to.place()) {
                    self.met.entry(*number).or_insert(log_sent);
                }
                let met = self.met.get(number).copied();
                let met = met.or_else(|| goes_as_data.then_some(log_sent));
                let up_to = match met {
                    Some(met) if range.up_to.place() > met.place() => met,
                    _ => range.up_to,
                };
                let range = Range { after, up_to };
                (!range.is_empty()).then_some((*number, range))
            });
        let since = match (self.requested_at, open) {
            (_, None) => {
                self.requested_at = None;
                return None;
            }
            (Some(since), _) => since,
            (None, _) => *self.requested_at.insert(now),
        };
        open.filter(|_| now.saturating_sub(since) >= self.pace.urgency)
    }

    fn owes(&self) -> bool {
        let received = self.records.received.point;
        let tells =
            (self.restored || !received.is_none()) && (received != self.confirm_received || self.tells_again);
        let confirms = self.confirms();
        let confirms = !confirms.is_none() && confirms != self.confirmed;
        tells || confirms || self.told().answers_due > self.answers_given || self.asks()
    }

    fn asks(&self) -> bool {
        self.told().ask_number > self.asked && self.open_asks().next().is_some()
    }

    fn open_asks(&self) -> impl Iterator<Item = Range> + '_ {
        let received = self.records.received.point.place();
        self.told()
            .asks
            .iter()
            .copied()
            .filter(move |range| range.up_to.place() > received)
    }

    fn told(&self) -> &ToldRecord {
        &self.records.told
    }

    fn pair(&self) -> Option<&PairRecord> {
        self.records.pair.as_ref()
    }
}

/// A process begins by telling what was told before, after twice the time for each that did so in vain.
fn tells_again(sent: &SentRecord, times: ProbingTimes, now: Now) -> bool {
    let wait = times.after(sent.told_again);
    let waited = now
        .wall_micros
        .checked_sub(sent.told_at)
        .and_then(|micros| u64::try_from(micros).ok());
    // A clock that went back says nothing of how long it was.
    waited.is_none_or(|micros| Duration::from_micros(micros) >= wait)
}
