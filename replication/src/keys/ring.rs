//! [`KeyRing`] and [`PairKeys`]: what a pair's keys come to, for who sends to it and who receives from it.

use super::pair_key::{KeyId, PairKey};

/// Most keys of a pair: while it gets a new one, both count.
pub const MAX_KEYS: usize = 2;
/// Ids of dropped keys that are remembered.
pub(super) const MAX_RETIRED: usize = 16;

/// A key of a pair, and how it came here.
#[derive(Debug)]
pub struct RingKey {
    /// The secret.
    pub key: PairKey,
    /// When it was added here, microseconds since 1970.
    pub added: i64,
    /// It was drawn here: whether the neighbour has it is known once a message sealed with it came.
    pub drawn_here: bool,
}

/// The keys of a pair.
#[derive(Debug, Default)]
pub struct KeyRing {
    /// Newest first, at most [`MAX_KEYS`].
    pub(super) keys: Vec<RingKey>,
    /// Dropped ones, newest first: what is sealed with one of them is late and lost.
    pub(super) retired: Vec<KeyId>,
}

impl KeyRing {
    /// A ring of these keys, newest first, and ids of dropped ones: what one file holds, so at most [`MAX_KEYS`] and sixteen.
    #[must_use]
    pub fn of(mut keys: Vec<RingKey>, mut retired: Vec<KeyId>) -> KeyRing {
        keys.truncate(MAX_KEYS);
        retired.truncate(MAX_RETIRED);
        KeyRing { keys, retired }
    }

    /// Its keys, newest first.
    #[must_use]
    pub fn keys(&self) -> &[RingKey] {
        &self.keys
    }

    /// The key of that id.
    #[must_use]
    pub fn find(&self, id: KeyId) -> Option<&PairKey> {
        self.keys.iter().map(|one| &one.key).find(|key| key.id() == id)
    }

    /// Ids of keys that were dropped, the last first.
    #[must_use]
    pub fn retired(&self) -> &[KeyId] {
        &self.retired
    }

    /// True for a key that was dropped here.
    #[must_use]
    pub fn is_retired(&self, id: KeyId) -> bool {
        self.retired.contains(&id)
    }

    /// The key that seals. `proven` is the last new key that a message of the neighbour was sealed with.
    #[must_use]
    pub fn sealing(&self, proven: Option<KeyId>) -> Option<&PairKey> {
        let newest = self.keys.first()?;
        let usable = !newest.drawn_here || proven == Some(newest.key.id());
        let former = self.keys.get(1).filter(|_| !usable);
        Some(&former.unwrap_or(newest).key)
    }

    /// Ids of its keys and of the dropped ones: another ring with the same trusts the same messages.
    fn ids(&self) -> (Vec<KeyId>, &[KeyId]) {
        let keys = self.keys.iter().map(|one| one.key.id()).collect();
        (keys, &self.retired)
    }
}

/// What a pair's keys come to.
#[derive(Debug, Default)]
pub enum PairKeys {
    /// It never had one: messages go and come as they are.
    #[default]
    Unsealed,
    /// It has: messages go sealed, and others are not taken.
    Sealed {
        /// Its keys.
        ring: KeyRing,
        /// The last new key that a message of the neighbour was sealed with.
        proven: Option<KeyId>,
    },
    /// It should have one, and there is none here that may be used, for this reason: nothing goes and nothing is taken.
    Locked(String),
    /// As that: its file is there, and damaged.
    Damaged(String),
}

impl PairKeys {
    /// True when both trust the same messages.
    #[must_use]
    pub fn trust_alike(&self, other: &PairKeys) -> bool {
        match (self, other) {
            (PairKeys::Unsealed, PairKeys::Unsealed) => true,
            (PairKeys::Sealed { ring, .. }, PairKeys::Sealed { ring: other, .. }) => {
                ring.ids() == other.ids()
            }
            (PairKeys::Locked(reason), PairKeys::Locked(other))
            | (PairKeys::Damaged(reason), PairKeys::Damaged(other)) => reason == other,
            _ => false,
        }
    }

    /// The key that seals, where one does.
    #[must_use]
    pub fn sealing(&self) -> Option<&PairKey> {
        match self {
            PairKeys::Sealed { ring, proven } => ring.sealing(*proven),
            _ => None,
        }
    }

    /// Why nothing goes and nothing is taken, where that is so.
    #[must_use]
    pub fn locked(&self) -> Option<&str> {
        match self {
            PairKeys::Locked(reason) | PairKeys::Damaged(reason) => Some(reason),
            _ => None,
        }
    }

    /// The same where a damaged file is the reason.
    #[must_use]
    pub fn damaged(&self) -> Option<&str> {
        match self {
            PairKeys::Damaged(reason) => Some(reason),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(byte: u8, drawn_here: bool) -> RingKey {
        RingKey {
            key: PairKey::from_bytes([byte; 32]),
            added: 0,
            drawn_here,
        }
    }

    fn id(byte: u8) -> KeyId {
        PairKey::from_bytes([byte; 32]).id()
    }

    fn sealing(keys: Vec<RingKey>, proven: Option<KeyId>) -> KeyId {
        let ring = KeyRing {
            keys,
            retired: Vec::new(),
        };
        ring.sealing(proven).unwrap().id()
    }

    #[test]
    fn a_new_key_seals_where_the_neighbour_surely_has_it_and_the_only_one_always() {
        assert_eq!(sealing(vec![one(1, true)], None), id(1));
        assert_eq!(sealing(vec![one(2, true), one(1, true)], None), id(1));
        assert_eq!(sealing(vec![one(2, true), one(1, true)], Some(id(1))), id(1));
        assert_eq!(sealing(vec![one(2, true), one(1, true)], Some(id(2))), id(2));
        assert_eq!(sealing(vec![one(2, false), one(1, true)], None), id(2));
    }

    #[test]
    fn rings_trust_alike_when_keys_and_dropped_ones_are_the_same() {
        let sealed = |keys, retired: &[KeyId]| PairKeys::Sealed {
            ring: KeyRing {
                keys,
                retired: retired.to_vec(),
            },
            proven: None,
        };
        let now = sealed(vec![one(1, true)], &[]);
        assert!(now.trust_alike(&sealed(vec![one(1, false)], &[])));
        assert!(!now.trust_alike(&sealed(vec![one(2, true), one(1, true)], &[])));
        assert!(!now.trust_alike(&sealed(vec![one(1, true)], &[id(3)])));
        assert!(!now.trust_alike(&PairKeys::Unsealed));
        assert!(!PairKeys::Locked("a".into()).trust_alike(&PairKeys::Locked("b".into())));
    }
}
