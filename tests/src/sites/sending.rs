//! The send phase of a simulated [`Site`]: what the real one does, over the log in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use milepost_engine::Lsn;
use milepost_engine::frame::NewFrame;
use milepost_replication::message::{
    Carried, MIN_MESSAGE_BYTES, Message, Packed, Packer, Place, Point, encode,
};
use milepost_replication::tracking::{
    NOTE, Now, OwnEnd, Pace, PairState, ProbeRecord, ProbingTimes, SendAction, Sender,
};

use super::Network;
use super::site::{Peer, Site};

impl Site {
    /// One round of the send phase.
    ///
    /// # Errors
    /// What a correct agent never does, in words.
    pub fn send_round(&mut self, network: &mut Network, now: Duration) -> Result<(), String> {
        let mut senders = self.send.take().unwrap_or_else(|| {
            let times = ProbingTimes {
                first: Duration::from_secs(120),
                longest: Duration::from_secs(86_400),
            };
            let pace = Pace {
                urgency: Duration::from_secs(self.rng.below(2) * 40),
                probing: times,
            };
            let new = |peer: &Peer| {
                Sender::new(
                    self.me.clone(),
                    peer.neighbour.clone(),
                    self.load_for_send(peer),
                    pace,
                    wall(now),
                )
            };
            self.peers.iter().map(new).collect()
        });
        for (index, sender) in senders.iter_mut().enumerate() {
            let records = self.load_for_send(&self.peers[index]);
            let peer = &mut self.peers[index];
            peer.freed = peer.freed.max(records.told.confirmed.place());
            sender.note(records, wall(now));
            if !self.send_to(index, sender, network, now)? {
                return Ok(());
            }
        }
        if network.faulty && self.rng.chance(1, 5) {
            // A run that ends cleanly says how far it was; the next one begins there.
            let mut note = NewFrame::of_kind(NOTE, Vec::new());
            for (sender, peer) in senders.iter().zip(&self.peers) {
                let record = sender.record();
                record
                    .into_iter()
                    .for_each(|record| note.pin(record.pin(&peer.neighbour.name).unwrap()));
            }
            if !note.pinned().is_empty() {
                self.log.append(vec![note], &self.rng);
            }
            return Ok(());
        }
        self.send = Some(senders);
        Ok(())
    }

    /// Sends all that is due to one peer; false when the process died.
    fn send_to(
        &mut self,
        peer: usize,
        sender: &mut Sender,
        network: &mut Network,
        now: Duration,
    ) -> Result<bool, String> {
        let known = &self.peers[peer];
        let (to, start, freed) = (known.index, known.start, known.freed);
        let due = self.carried_to(to, start);
        let newest = due.keys().next_back().copied();
        let own = OwnEnd {
            epoch: self.log.epoch,
            lineage: None,
            durable: self.log.durable(),
        };
        for _ in 0..40 {
            let rng = self.rng.clone();
            let Some(action) = sender.next(now, newest, &mut || rng.word()) else {
                return Ok(true);
            };
            self.rng.word();
            *self.seen.entry(name_of(&action)).or_default() += 1;
            if let SendAction::Probe(record) = action {
                self.pin_probe(&record, peer);
                let message = sender.probe(&record, &own);
                if !ship(self.index, to, &message, network, now) {
                    return Ok(true);
                }
                sender.delivered(&message, wall(now));
                continue;
            }
            let messages = self.packed(&action, &due, (freed, sender.confirmed_once()), to)?;
            let mut bare = messages.is_empty().then(|| sender.tell(&own)).into_iter();
            for packed in messages {
                let message = packed.under(sender.header(&own));
                if !ship(self.index, to, &message, network, now) {
                    return Ok(true);
                }
                sender.delivered(&message, wall(now));
                if self.dies(network.faulty) {
                    return Ok(false);
                }
            }
            if let SendAction::Serve { number, .. } = action {
                sender.served(number);
                bare = None.into_iter();
            }
            for message in bare {
                if !ship(self.index, to, &message, network, now) {
                    return Ok(true);
                }
                sender.delivered(&message, wall(now));
            }
        }
        let own = self.index;
        Err(format!(
            "site {own} never finds an end of what it has to send to site {to}"
        ))
    }

    /// Everything due to a site behind `start`, by its place.
    fn carried_to(&self, to: usize, start: Lsn) -> BTreeMap<Place, Carried> {
        self.due(to)
            .filter(|(record, _)| record.position.lsn > start)
            .map(|(record, events)| {
                let point = Point::live(record.position);
                let mut frame = NewFrame::transaction();
                for (ordinal, stream, payload) in events {
                    frame.push_raw(*ordinal, stream, "did", &[], payload).unwrap();
                }
                let mut carried = Carried::with_events_of(point, record.origin.clone(), &frame);
                carried.committed_at = record.committed_at;
                (point.place(), carried)
            })
            .collect()
    }

    /// What an action sends of what is due; nothing for one without data.
    fn packed(
        &self,
        action: &SendAction,
        due: &BTreeMap<Place, Carried>,
        freed: (Place, Lsn),
        to: usize,
    ) -> Result<Vec<Packed>, String> {
        match *action {
            SendAction::Data { previous } => {
                self.has(freed, previous, to)?;
                let few = 1 + self.rng.index(8);
                let behind = (
                    std::ops::Bound::Excluded(previous.place()),
                    std::ops::Bound::Unbounded,
                );
                let chosen = due.range(behind).map(|(_, carried)| carried).take(few);
                Ok(pack(previous, chosen, None))
            }
            SendAction::Serve { range, .. } => {
                self.has(freed, range.after, to)?;
                let bounds = (
                    std::ops::Bound::Excluded(range.after.place()),
                    std::ops::Bound::Included(range.up_to.place()),
                );
                let chosen = due.range(bounds).map(|(_, carried)| carried);
                Ok(pack(range.after, chosen, Some(range.up_to)))
            }
            SendAction::Probe(_) | SendAction::Tell => Ok(Vec::new()),
        }
    }

    /// What lies after a point must not be freed yet, unless the sender knows that it was confirmed once and
    /// reads it from the log.
    fn has(&self, (freed, once): (Place, Lsn), after: Point, to: usize) -> Result<(), String> {
        if after.place() < freed && once < freed.at {
            return Err(format!(
                "site {} must send site {to} again what lies after {after}, and freed it to {freed}",
                self.index
            ));
        }
        Ok(())
    }

    fn pin_probe(&mut self, record: &ProbeRecord, peer: usize) {
        let mut note = NewFrame::of_kind(NOTE, Vec::new());
        note.pin(record.pin(&self.peers[peer].neighbour.name).unwrap());
        self.log.append(vec![note], &self.rng);
        self.log.sync();
    }
}

/// Both clocks, of which the wall clock is an hour fast.
fn wall(now: Duration) -> Now {
    Now {
        monotonic: now,
        wall_micros: 3_600_000_000 + now.as_micros() as i64,
    }
}

/// An action's name, for counting.
fn name_of(action: &SendAction) -> &'static str {
    match action {
        SendAction::Data { .. } => "data",
        SendAction::Serve { .. } => "serve",
        SendAction::Probe(_) => "probe",
        SendAction::Tell => "tell",
    }
}

fn pack<'a>(previous: Point, due: impl Iterator<Item = &'a Carried>, up_to: Option<Point>) -> Vec<Packed> {
    let mut packer = Packer::new(previous, MIN_MESSAGE_BYTES);
    let mut messages = Vec::new();
    for carried in due {
        messages.extend(packer.push(carried.clone()).unwrap());
    }
    messages.extend(match up_to {
        Some(up_to) => packer.finish_at(up_to),
        None => packer.finish(),
    });
    messages
}

fn ship(from: usize, to: usize, message: &Message, network: &mut Network, now: Duration) -> bool {
    network.deliver(from, to, &encode(message).unwrap(), now)
}
