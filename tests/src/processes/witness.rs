//! [`Witness`]: knows what was submitted and what was acknowledged, lives outside the killed processes,
//! and judges the log by it.

use std::collections::HashMap;

use milepost_engine::{Lsn, Store};

use super::shape::Tag;
use super::worker::Digest;

/// What is known of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Submitted, and nothing heard since: it may be whole or absent.
    Open,
    /// Acknowledged at this LSN.
    Acknowledged(Lsn),
    /// Refused by its expectation: absent.
    Refused,
}

/// The record of a run.
#[derive(Default)]
pub struct Witness {
    fates: HashMap<Tag, Fate>,
    acknowledged: u64,
    /// Last acknowledged LSN of each author.
    last: HashMap<u64, Lsn>,
}

impl Witness {
    /// Takes a line that a worker said.
    ///
    /// # Panics
    /// When the line tells of a failed commit, or contradicts an earlier one.
    pub fn hear(&mut self, line: &str) {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["submit", tag] => {
                let earlier = self.fates.insert(tag.parse().unwrap(), Fate::Open);
                assert_eq!(earlier, None, "{tag} was submitted twice");
            }
            ["ack", tag, lsn] => {
                let (tag, lsn): (Tag, _) = (tag.parse().unwrap(), Lsn(lsn.parse().unwrap()));
                self.settle(tag, Fate::Acknowledged(lsn));
                self.acknowledged += 1;
                let before = self.last.insert(tag.author(), lsn);
                assert!(
                    before.is_none_or(|before| before < lsn),
                    "{tag} at {lsn} was committed behind what its author committed before"
                );
            }
            ["refuse", tag] => self.settle(tag.parse().unwrap(), Fate::Refused),
            // Nobody fails because others die (E5).
            _ => panic!("a worker said: {line}"),
        }
    }

    fn settle(&mut self, tag: Tag, fate: Fate) {
        let earlier = self.fates.insert(tag, fate);
        assert_eq!(
            earlier,
            Some(Fate::Open),
            "{tag} was settled without being submitted once"
        );
    }

    /// Number of acknowledged transactions.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Number of acknowledged transactions of one writer, over all its incarnations.
    #[must_use]
    pub fn acknowledged_by(&self, writer: u64) -> usize {
        let of_writer =
            |(tag, fate): &(&Tag, &Fate)| tag.0 >> 56 == writer && matches!(fate, Fate::Acknowledged(_));
        self.fates.iter().filter(of_writer).count()
    }

    /// Compares a store's whole log with the record: every acknowledged transaction once and where it
    /// was acknowledged, no refused one, nothing that was not submitted, nothing twice, all in LSN order
    /// and byte for byte (E1, E2, E5). Returns the digest of what is there.
    ///
    /// # Panics
    /// At the first difference.
    pub fn judge(&self, store: &Store) -> Digest {
        let mut found: HashMap<Tag, Lsn> = HashMap::new();
        let (mut digest, mut before) = (Digest::default(), None);
        let mut scan = store.scan(Lsn::ZERO).unwrap();
        while let Some(frame) = scan.next().unwrap() {
            assert!(before < Some(frame.lsn()), "E2: frames stand in LSN order");
            before = Some(frame.lsn());
            let Some(tag) = Tag::of(&frame) else { continue };
            let earlier = found.insert(tag, frame.lsn());
            assert_eq!(
                earlier,
                None,
                "E1: {tag} is there twice, the second time at {}",
                frame.lsn()
            );
            match self.fates.get(&tag) {
                None => panic!("{tag} at {} was never submitted", frame.lsn()),
                Some(Fate::Refused) => panic!("{tag} at {} was refused", frame.lsn()),
                Some(Fate::Acknowledged(lsn)) => {
                    assert_eq!(*lsn, frame.lsn(), "{tag} stands elsewhere than acknowledged");
                }
                Some(Fate::Open) => {}
            }
            digest.add(tag, frame.lsn());
        }
        for (tag, fate) in &self.fates {
            if let Fate::Acknowledged(lsn) = fate {
                assert!(
                    found.contains_key(tag),
                    "E1: {tag}, acknowledged at {lsn}, is lost"
                );
            }
        }
        digest
    }
}
