//! [`Witness`]: knows what was submitted and what was acknowledged, lives outside the killed processes,
//! and judges the log by it.

use std::collections::HashMap;

use milepost_engine::{Error, Lsn, Store};

use super::findings::{Difference, Findings};
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
    /// Never acknowledged; found at this LSN after a crash, so it stays there.
    Kept(Lsn),
    /// Never acknowledged; not found after a crash, so it never comes back.
    Gone,
}

/// The record of a run.
#[derive(Default)]
pub struct Witness {
    fates: HashMap<Tag, Fate>,
    acknowledged: u64,
    /// Last acknowledged LSN of each author.
    last: HashMap<u64, Lsn>,
    /// What watchers have seen of the log.
    seen: Vec<Digest>,
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
            ["seen", count, hash] => self.seen.push(Digest {
                count: count.parse().unwrap(),
                hash: u64::from_str_radix(hash, 16).unwrap(),
            }),
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
    /// and byte for byte; what watchers saw is its beginning (E1, E2, E5).
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn compare(&self, store: &Store) -> Result<Findings, Error> {
        Ok(self.read(store)?.0)
    }

    /// [`Witness::compare`] after a crash that ended all workers: what is there of the transactions whose
    /// fate was open stays, and what is not never comes back.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn conclude(&mut self, store: &Store) -> Result<Findings, Error> {
        let (findings, found) = self.read(store)?;
        for (tag, fate) in &mut self.fates {
            if *fate == Fate::Open {
                *fate = found.get(tag).map_or(Fate::Gone, |lsn| Fate::Kept(*lsn));
            }
        }
        self.seen.clear();
        Ok(findings)
    }

    /// [`Witness::compare`], for tests that end at the first difference. Returns the digest of what is there.
    ///
    /// # Panics
    /// When the log differs from the record or cannot be read.
    pub fn judge(&self, store: &Store) -> Digest {
        let findings = self.compare(store).unwrap();
        if let Some(first) = findings.told.first() {
            panic!("{first}");
        }
        findings.digest
    }

    fn read(&self, store: &Store) -> Result<(Findings, HashMap<Tag, Lsn>), Error> {
        let mut found = HashMap::new();
        let (mut findings, mut before) = (Findings::default(), None);
        let mut seen: HashMap<u64, Vec<u64>> = HashMap::new();
        for digest in &self.seen {
            seen.entry(digest.count).or_default().push(digest.hash);
        }
        let mut scan = store.scan(Lsn::ZERO)?;
        while let Some(frame) = scan.next()? {
            let lsn = frame.lsn();
            if before >= Some(lsn) {
                findings.note(Difference::Torn, format!("E2: {lsn} stands behind {before:?}"));
            }
            before = Some(lsn);
            match Tag::compared(&frame) {
                Ok(Some(tag)) => self.meet(tag, lsn, &mut found, &mut findings),
                Ok(None) => {}
                Err(text) => findings.note(Difference::Torn, text),
            }
            if let Some(hashes) = seen.get_mut(&findings.digest.count) {
                hashes.retain(|hash| *hash != findings.digest.hash);
            }
        }
        for (count, hashes) in seen.iter().filter(|(_, hashes)| !hashes.is_empty()) {
            let text = format!("E2: {} readers saw {count} other transactions", hashes.len());
            findings.note(Difference::Lost, text);
        }
        self.miss(&found, &mut findings);
        Ok((findings, found))
    }

    /// Takes a transaction that is in the log.
    fn meet(&self, tag: Tag, lsn: Lsn, found: &mut HashMap<Tag, Lsn>, findings: &mut Findings) {
        if let Some(earlier) = found.insert(tag, lsn) {
            let text = format!("E1: {tag} is there twice, at {earlier} and at {lsn}");
            findings.note(Difference::Doubled, text);
            return;
        }
        let wrong = match self.fates.get(&tag) {
            None => "was never submitted",
            Some(Fate::Refused) => "was refused",
            Some(Fate::Gone) => "was gone after an earlier crash",
            Some(Fate::Acknowledged(_) | Fate::Kept(_) | Fate::Open) => "",
        };
        if !wrong.is_empty() {
            findings.note(Difference::Phantom, format!("{tag} at {lsn} {wrong}"));
        }
        findings.digest.add(tag, lsn);
    }

    /// Looks for what must be in the log.
    fn miss(&self, found: &HashMap<Tag, Lsn>, findings: &mut Findings) {
        for (tag, fate) in &self.fates {
            let (lsn, what) = match fate {
                Fate::Acknowledged(lsn) => (lsn, "acknowledged"),
                Fate::Kept(lsn) => (lsn, "found after an earlier crash"),
                Fate::Open | Fate::Refused | Fate::Gone => continue,
            };
            match found.get(tag) {
                Some(stands) if stands != lsn => {
                    let text = format!("{tag} stands at {stands}, {what} at {lsn}");
                    findings.note(Difference::Lost, text);
                }
                None => findings.note(Difference::Lost, format!("E1: {tag}, {what} at {lsn}, is lost")),
                Some(_) => findings.verified += u64::from(matches!(fate, Fate::Acknowledged(_))),
            }
        }
    }
}
