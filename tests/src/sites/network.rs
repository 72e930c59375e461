//! [`Network`]: mailboxes that lose, repeat, reorder, delay, cut and corrupt what they took (R3).

use std::time::Duration;

use crate::SimRng;

/// See the module.
pub struct Network {
    parcels: Vec<Parcel>,
    /// Everything ever taken, to be replayed.
    archive: Vec<(usize, usize, Vec<u8>)>,
    rng: SimRng,
    /// False once the faults stop.
    pub faulty: bool,
    next: u64,
    /// Messages taken so far.
    pub taken: u64,
}

struct Parcel {
    id: u64,
    from: usize,
    to: usize,
    visible: Duration,
    bytes: Vec<u8>,
}

impl Network {
    /// An empty network.
    #[must_use]
    pub fn new(rng: SimRng) -> Network {
        Network {
            parcels: Vec::new(),
            archive: Vec::new(),
            rng,
            faulty: true,
            next: 0,
            taken: 0,
        }
    }

    /// Takes a message; false when the link could not be reached. Taken means durable for the sender, and
    /// lost all the same when it is faulty enough.
    pub fn deliver(&mut self, from: usize, to: usize, bytes: &[u8], now: Duration) -> bool {
        if self.faulty && self.rng.chance(1, 12) {
            return false;
        }
        self.taken += 1;
        self.archive.push((from, to, bytes.to_vec()));
        if !self.faulty {
            self.put(from, to, bytes.to_vec(), now);
            return true;
        }
        let copies = *self.rng.pick(&[0, 1, 1, 1, 1, 1, 1, 2]);
        for _ in 0..copies {
            let mut bytes = bytes.to_vec();
            match self.rng.below(16) {
                0 => {
                    let at = self.rng.index(bytes.len());
                    bytes[at] ^= 1 << self.rng.below(8);
                }
                1 => bytes.truncate(self.rng.index(bytes.len())),
                _ => {}
            }
            let delay = *self.rng.pick(&[0, 0, 0, 20, 90, 300, 2000]);
            self.put(
                from,
                to,
                bytes,
                now + Duration::from_secs(self.rng.below(delay + 1)),
            );
        }
        true
    }

    /// Brings an old message back.
    pub fn replay(&mut self, now: Duration) {
        if !self.archive.is_empty() {
            let (from, to, bytes) = self.rng.pick(&self.archive).clone();
            self.put(from, to, bytes, now);
        }
    }

    /// The faults stop; what is on its way arrives.
    pub fn heal(&mut self, now: Duration) {
        self.faulty = false;
        self.parcels
            .iter_mut()
            .for_each(|parcel| parcel.visible = parcel.visible.min(now));
    }

    /// What waits for `to` from `from`, in any order.
    pub fn poll(&mut self, from: usize, to: usize, now: Duration) -> Vec<(u64, Vec<u8>)> {
        let waits = |parcel: &&Parcel| parcel.from == from && parcel.to == to && parcel.visible <= now;
        let mut found: Vec<_> = self
            .parcels
            .iter()
            .filter(waits)
            .map(|parcel| (parcel.id, parcel.bytes.clone()))
            .collect();
        for index in (1..found.len()).rev() {
            found.swap(index, self.rng.index(index + 1));
        }
        found
    }

    /// Removes messages; a faulty link forgets to.
    pub fn remove(&mut self, ids: &[u64]) {
        let keeps = self.faulty && self.rng.chance(1, 20);
        self.parcels.retain(|parcel| keeps || !ids.contains(&parcel.id));
    }

    fn put(&mut self, from: usize, to: usize, bytes: Vec<u8>, visible: Duration) {
        self.next += 1;
        self.parcels.push(Parcel {
            id: self.next,
            from,
            to,
            visible,
            bytes,
        });
    }
}
