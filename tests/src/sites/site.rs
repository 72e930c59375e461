//! [`Site`]: a log and the two agent processes that work on it, each of which may die anywhere.

use std::collections::BTreeMap;
use std::time::Duration;

use milepost_engine::frame::{FrameKind, NewFrame};
use milepost_engine::{Lsn, SiteName};
use milepost_replication::keys::PairKeys;
use milepost_replication::message::{Limits, Message, Place, Point, decode, decode_header};
use milepost_replication::tracking::{
    Leave, Me, NOTE, Neighbour, PairRecords, Patience, PollCause, Receiver, Sender, Verdict,
};

use super::{MemLog, Network, Record};
use crate::SimRng;

/// A bug put into the agents, which a run must notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// None.
    Nothing,
    /// What was applied is confirmed before it is durable (R2).
    ConfirmBeforeDurable,
    /// Events are appended without the received position (R1).
    ApplyWithoutMoving,
    /// The generation of a message is not looked at.
    AcceptOldGeneration,
    /// A receive process starts from durable records while frames of its predecessor are not durable yet.
    StartWithoutSync,
    /// Nothing is known by its origin: what a pair that was made anew sends again counts as new (R4).
    ForgetOrigins,
}

/// A neighbour of a site.
pub struct Peer {
    /// Number of the site.
    pub index: usize,
    /// Name and generation.
    pub neighbour: Neighbour,
    /// Commits above are due to it in this generation.
    pub start: Lsn,
    /// What was freed because it confirmed it.
    pub freed: Place,
}

/// See the module.
pub struct Site {
    /// Number.
    pub index: usize,
    /// Log.
    pub log: MemLog,
    /// Neighbours.
    pub peers: Vec<Peer>,
    /// How often each rule was met.
    pub seen: BTreeMap<&'static str, u64>,
    pub(super) planted: Planted,
    pub(super) me: Me,
    receive: Option<Vec<Receiver>>,
    pub(super) send: Option<Vec<Sender>>,
    pub(super) rng: SimRng,
    commits: u64,
}

/// A transaction as it is due: origin (site, LSN) and events.
pub type Due = ((u128, Lsn), Vec<(u32, String, Vec<u8>)>);

/// Name of a site by number.
#[must_use]
pub fn name(index: usize) -> SiteName {
    format!("site-{index}").parse().unwrap()
}

/// An event in a stream `t<bits>/…` goes to the sites whose bit is set.
fn goes_to(stream: &str, site: usize) -> bool {
    let bits: u64 = stream[1..].split('/').next().unwrap().parse().unwrap();
    bits & (1 << site) != 0
}

impl Site {
    /// A site with an empty log.
    #[must_use]
    pub fn new(index: usize, neighbours: &[usize], mut log: MemLog, planted: Planted, rng: SimRng) -> Site {
        let me = Me {
            name: name(index),
            id: log.id,
        };
        log.forget_pins = planted == Planted::ApplyWithoutMoving;
        log.forget_origins = planted == Planted::ForgetOrigins;
        let peer = |&index: &usize| Peer {
            index,
            neighbour: Neighbour {
                name: name(index),
                generation: 1,
            },
            start: Lsn::ZERO,
            freed: Place::NONE,
        };
        let peers = neighbours.iter().map(peer).collect();
        Site {
            index,
            log,
            peers,
            seen: BTreeMap::new(),
            planted,
            me,
            receive: None,
            send: None,
            rng,
            commits: 0,
        }
    }

    /// Commits a transaction of a few events; now and then a large one. Not durable yet.
    pub fn commit(&mut self) {
        let mut frame = NewFrame::transaction();
        self.commits += 1;
        for ordinal in 0..1 + self.rng.below(3) as u32 {
            let stream = format!("t{}/{}", self.rng.below(16), self.rng.below(3));
            let len = if self.rng.chance(1, 60) { 25_000 } else { 8 };
            let payload: Vec<u8> = (0..len / 8).flat_map(|_| self.rng.word().to_le_bytes()).collect();
            frame.push_raw(ordinal, &stream, "did", &[], &payload).unwrap();
        }
        self.log.append(vec![frame], &self.rng);
        if self.rng.chance(2, 3) {
            self.log.sync();
        }
    }

    /// The receive process is killed; what it wrote stays.
    pub fn kill_receive(&mut self) {
        self.receive = None;
    }

    /// The send process is killed.
    pub fn kill_send(&mut self) {
        self.send = None;
    }

    /// The power fails.
    pub fn power_cut(&mut self) {
        (self.receive, self.send) = (None, None);
        self.log.power_cut(&self.rng);
    }

    /// An operator makes the pair anew on this side: what is committed from now on is due.
    pub fn rejoin(&mut self, peer: usize) {
        self.log.sync();
        let end = self
            .log
            .records()
            .last()
            .map_or(Lsn::ZERO, |record| record.position.lsn);
        let agreed = self.peers.iter().find(|other| other.index == peer).unwrap();
        let agreed = self.load(agreed).generation();
        let peer = self.peers.iter_mut().find(|other| other.index == peer).unwrap();
        peer.neighbour.generation = peer.neighbour.generation.max(agreed) + 1;
        (peer.start, peer.freed) = (end, Place::NONE);
        (self.receive, self.send) = (None, None);
    }

    /// Position received from a peer, as the log has it.
    #[must_use]
    pub fn received(&self, peer: usize) -> Point {
        let peer = self.peers.iter().find(|other| other.index == peer).unwrap();
        self.load(peer).received.point
    }

    /// Why a pair stopped, if one did.
    #[must_use]
    pub fn stopped(&self) -> Option<String> {
        let reason = |peer: &Peer| {
            self.load(peer)
                .pair
                .and_then(|pair| pair.stopped)
                .map(|stop| stop.to_string())
        };
        let receiving = self
            .receive
            .iter()
            .flatten()
            .find_map(|receiver| receiver.stopped().map(ToString::to_string));
        self.peers.iter().find_map(reason).or(receiving)
    }

    /// True when a neighbour was found to hold less than it had told.
    #[must_use]
    pub fn saw_one_go_back(&self) -> bool {
        self.peers.iter().any(|peer| self.load(peer).told.went_back > 0)
    }

    /// Durable transactions due to site `peer`, with their places, in log order.
    pub fn due(&self, peer: usize) -> impl Iterator<Item = (&Record, Vec<&(u32, String, Vec<u8>)>)> {
        let to = name(peer);
        let local = move |record: &&Record| record.via.as_ref().is_none_or(|via| via.name != to);
        let transactions = self
            .log
            .records()
            .filter(|record| record.kind == FrameKind::TRANSACTION)
            .filter(local);
        transactions.filter_map(move |record| {
            let events: Vec<_> = record
                .events
                .iter()
                .filter(|event| goes_to(&event.1, peer))
                .collect();
            (!events.is_empty()).then_some((record, events))
        })
    }

    /// A record as the model compares it.
    #[must_use]
    pub fn known_as(&self, record: &Record, events: Vec<&(u32, String, Vec<u8>)>) -> Due {
        let origin = record
            .origin
            .as_ref()
            .map_or((self.log.id.0, record.position.lsn), |o| (o.site.0, o.lsn));
        (origin, events.into_iter().cloned().collect())
    }

    fn load(&self, peer: &Peer) -> PairRecords {
        PairRecords::load(&peer.neighbour, |key| Ok(self.log.pinned(key))).unwrap()
    }

    pub(super) fn load_for_send(&self, peer: &Peer) -> PairRecords {
        if self.planted == Planted::ConfirmBeforeDurable {
            return PairRecords::load(&peer.neighbour, |key| Ok(self.log.pinned_appended(key))).unwrap();
        }
        self.load(peer)
    }

    /// True when the process that runs dies here, with the power or by itself.
    pub(super) fn dies(&mut self, faulty: bool) -> bool {
        if !faulty || !self.rng.chance(1, 60) {
            return false;
        }
        if self.rng.chance(1, 2) {
            self.power_cut();
        }
        true
    }

    /// One poll of the receive phase.
    pub fn receive_round(&mut self, network: &mut Network, now: Duration) {
        if self.receive.is_none() {
            // What a predecessor appended must count before its records are read, or it is applied twice.
            if self.planted != Planted::StartWithoutSync {
                self.log.sync();
            }
            let patience = Patience {
                polls: self.rng.below(3) as u32,
                every: Duration::from_secs(30),
            };
            let new = |peer: &Peer| {
                Receiver::new(
                    self.me.clone(),
                    peer.neighbour.clone(),
                    self.load(peer),
                    patience,
                    1 << 20,
                )
            };
            self.receive = Some(self.peers.iter().map(new).collect());
        }
        let mut receivers = self.receive.take().unwrap();
        let mut gone = Vec::new();
        for (index, receiver) in receivers.iter_mut().enumerate() {
            match self.receive_from(index, receiver, network, now) {
                Some(settled) => gone.extend(settled),
                None => return,
            }
        }
        let pins: Vec<_> = receivers
            .iter()
            .flat_map(|receiver| receiver.notes().unwrap())
            .collect();
        if !pins.is_empty() {
            let mut note = NewFrame::of_kind(NOTE, Vec::new());
            pins.into_iter().for_each(|record| note.pin(record));
            self.log.append(vec![note], &self.rng);
            if self.dies(network.faulty) {
                return;
            }
            self.log.sync();
            receivers.iter_mut().for_each(Receiver::noted);
        }
        if self.dies(network.faulty) {
            return;
        }
        network.remove(&gone);
        self.receive = Some(receivers);
    }

    /// Takes one message; what may be among frames that are not durable yet is looked at once they are.
    fn receive_one(
        &mut self,
        peer: usize,
        receiver: &mut Receiver,
        mut message: Message,
        frames: &mut Vec<NewFrame>,
    ) -> Verdict {
        if self.planted == Planted::AcceptOldGeneration {
            message.header.generation = receiver.records().generation();
        }
        let probe = self.load(&self.peers[peer]).probe;
        loop {
            match receiver.receive(&message, probe.as_ref(), &self.log).unwrap() {
                Verdict::Apply(apply) if !apply.whole => frames.extend(apply.frames),
                Verdict::Unsettled => {}
                verdict => return verdict,
            }
            if !frames.is_empty() {
                self.log.append(std::mem::take(frames), &self.rng);
            }
            self.log.sync();
            receiver.durable();
        }
    }

    /// Takes what waits from one peer; the ids that may leave the link, or `None` when the process died.
    fn receive_from(
        &mut self,
        peer: usize,
        receiver: &mut Receiver,
        network: &mut Network,
        now: Duration,
    ) -> Option<Vec<u64>> {
        let from = self.peers[peer].index;
        let (mut whole, mut settled) = (Vec::new(), Vec::new());
        for (id, bytes) in network.poll(from, self.index, now) {
            match decode(&bytes, &Limits::default(), &PairKeys::Unsealed) {
                Ok(message) => whole.push((id, message)),
                Err(fault) => {
                    let header = decode_header(&bytes, &Limits::default()).ok();
                    let verdict = receiver
                        .receive_fault(&fault, header.as_ref(), &self.log)
                        .unwrap();
                    *self.seen.entry(rule(&verdict)).or_default() += 1;
                    if verdict.leave() == Leave::WhenDurable {
                        settled.push(id);
                    }
                }
            }
        }
        whole.sort_by_key(|(_, message)| Receiver::poll_order(&message.header));
        let mut frames = Vec::new();
        for (id, message) in whole {
            let verdict = self.receive_one(peer, receiver, message, &mut frames);
            *self.seen.entry(rule(&verdict)).or_default() += 1;
            if verdict.leave() == Leave::WhenDurable {
                settled.push(id);
            }
            if let Verdict::Apply(apply) = verdict {
                frames.extend(apply.frames);
            }
            if !frames.is_empty() && self.rng.chance(1, 2) {
                self.log.append(std::mem::take(&mut frames), &self.rng);
                if self.dies(network.faulty) {
                    return None;
                }
            }
        }
        if !frames.is_empty() {
            self.log.append(frames, &self.rng);
            if self.dies(network.faulty) {
                return None;
            }
        }
        if self.planted != Planted::ConfirmBeforeDurable {
            self.log.sync();
        }
        receiver.durable();
        receiver.poll_ended(now, PollCause::Due);
        Some(settled)
    }
}

/// The rule that decided.
fn rule(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Apply(apply) if apply.held > 0 => "held",
        Verdict::Apply(apply) if apply.overlap > 0 => "overlap",
        Verdict::Apply(_) => "apply",
        Verdict::PartWaiting | Verdict::PartKept => "part",
        Verdict::Unsettled => "unsettled",
        Verdict::Noted => "noted",
        Verdict::Duplicate => "duplicate",
        Verdict::Gap(_) => "gap",
        Verdict::Unproven(_) => "unproven",
        Verdict::OtherGeneration { .. } => "other generation",
        Verdict::PastLineage => "past lineage",
        Verdict::Lost => "lost",
        Verdict::Refused(_) => "refused",
        Verdict::Stopped(_) => "stopped",
        Verdict::FormerSite(_) => "of a former site",
    }
}
