//! Keys of pairs: an operator draws one at a site and adds it at the other some time later, draws the next, and drops the former once both seal
//! with the new one. And somebody on the links who alters, strips and forges what is sealed, so that nothing but the seal tells.
//!
//! ```text
//! settled ── drawn at one site ──► drawn ── added at the other ──► settled, or with two keys ── the former dropped ──► settled
//!                                                                  where the new one was drawn first, once it seals there
//! ```
//!
//! No message goes open from a site that has a key of its addressee, and nothing that was forged is believed: the judge would see what came of it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use milepost_engine::SiteName;
use milepost_replication::keys::{KeyId, KeyLine, Keys, keys_of};
use milepost_replication::link::{Batch, Link, LinkError, LinkFuture, MessageId, PollRequest};
use milepost_replication::message::{Limits, Message, decode_header, encode};

use super::chance::Chance;
use super::shape::NAMES;
use super::world::World;

/// Flag of a sealed message (docs/replication.md, "Message").
const SEALED: u16 = 2;
const FLAGS_AT: usize = 20;

/// The keys of a world.
pub struct Sealing {
    chance: Chance,
    pairs: Vec<Pair>,
    books: Books,
}

struct Pair {
    sites: [usize; 2],
    key: Option<KeyId>,
    step: Step,
}

enum Step {
    Settled,
    /// One site has it, the other does not yet.
    Drawn(usize, KeyLine),
    /// Both have the new one and the former, which goes first where the new one was drawn.
    Two(usize, KeyId),
    /// This site alone has the former still.
    Left(usize, KeyId),
}

/// What links know of it.
#[derive(Clone)]
pub struct Books {
    held: Arc<Mutex<Held>>,
    chance: Chance,
}

#[derive(Default)]
struct Held {
    /// Sender and addressee, of whose messages each is sealed from now on.
    sealed: BTreeSet<(String, String)>,
    open: Option<String>,
    forged: u64,
    is_calm: bool,
}

impl Sealing {
    pub fn new(chance: Chance, pairs: &[(usize, usize)]) -> Sealing {
        let books = Books {
            held: Arc::default(),
            chance: Chance::new(chance.below(u64::MAX)),
        };
        let pair = |(one, other): &(usize, usize)| Pair {
            sites: [*one, *other],
            key: None,
            step: Step::Settled,
        };
        Sealing {
            pairs: pairs.iter().map(pair).collect(),
            books,
            chance,
        }
    }

    /// The link of a site, with somebody on it.
    pub fn end(&self, own: &str, link: Arc<dyn Link>) -> Arc<dyn Link> {
        Arc::new(End {
            books: self.books.clone(),
            own: own.to_owned(),
            link,
        })
    }

    /// Nobody forges any more.
    pub fn calm(&self) {
        self.books.held().is_calm = true;
    }

    /// How many messages were forged.
    pub fn forged(&self) -> u64 {
        self.books.held().forged
    }

    /// # Errors
    /// A message that went open from a site that has a key.
    pub fn check(&self) -> Result<(), String> {
        self.books.held().open.clone().map_or(Ok(()), Err)
    }
}

impl World {
    /// Now and then an operator does something about keys.
    pub fn maybe_change_keys(&mut self) -> Result<(), String> {
        let Some(mut sealing) = self.sealing.take() else {
            return Ok(());
        };
        let changed = if sealing.chance.percent(12) {
            let number = sealing.chance.below(sealing.pairs.len() as u64) as usize;
            match sealing.pairs[number]
                .sites
                .iter()
                .any(|site| self.sites[*site].is_absent)
            {
                true => Ok(()),
                false => self.change_keys(&mut sealing, number),
            }
        } else {
            Ok(())
        };
        self.sealing = Some(sealing);
        changed
    }

    /// A store was made of `site`, with this key of the pair or none.
    pub fn have_key(&mut self, site: usize, source: usize, key: Option<KeyId>) {
        let Some(sealing) = &mut self.sealing else { return };
        let is_it = |pair: &&mut Pair| pair.sites.contains(&site) && pair.sites.contains(&source);
        let Some(pair) = sealing.pairs.iter_mut().find(is_it) else {
            return;
        };
        (pair.key, pair.step) = (key, Step::Settled);
        for (from, to) in [(site, source), (source, site)] {
            sealing.books.open(from, to);
            if key.is_some() {
                sealing.books.seal(from, to);
            }
        }
    }

    /// Whatever was drawn is added at the other site, too.
    pub fn hand_out_keys(&mut self) -> Result<(), String> {
        let Some(mut sealing) = self.sealing.take() else {
            return Ok(());
        };
        sealing.calm();
        let drawn = |pair: &Pair| matches!(pair.step, Step::Drawn(..));
        let waiting: Vec<usize> = (0..sealing.pairs.len())
            .filter(|number| drawn(&sealing.pairs[*number]))
            .collect();
        let done = waiting
            .into_iter()
            .try_for_each(|number| self.change_keys(&mut sealing, number));
        self.sealing = Some(sealing);
        done
    }

    fn change_keys(&mut self, sealing: &mut Sealing, number: usize) -> Result<(), String> {
        let Sealing { chance, pairs, books } = sealing;
        let pair = &mut pairs[number];
        let other = |site: usize| {
            if pair.sites[0] == site {
                pair.sites[1]
            } else {
                pair.sites[0]
            }
        };
        let told = |error: milepost_engine::Error| {
            format!("an operator of keys is refused though nothing fails: {error}")
        };
        let remote = |site: usize| SiteName::new(NAMES[site]).map_err(told);
        match std::mem::replace(&mut pair.step, Step::Settled) {
            Step::Settled => {
                let site = chance.pick(&pair.sites);
                let store = self.sites[site].desk().map_err(told)?;
                let line = Keys::new(&store).add_fresh(&remote(other(site))?).map_err(told)?;
                books.seal(site, other(site));
                self.tell(format!(
                    "{} draws key {} for {}",
                    NAMES[site],
                    line.key.id(),
                    NAMES[other(site)]
                ));
                pair.step = Step::Drawn(site, line);
                self.maybe_leave_desk(site);
            }
            Step::Drawn(drawn_at, line) => {
                let site = other(drawn_at);
                let store = self.sites[site].desk().map_err(told)?;
                let id = Keys::new(&store)
                    .add(&remote(drawn_at)?, &line, false)
                    .map_err(told)?;
                books.seal(site, drawn_at);
                self.tell(format!("{} adds key {id} of {}", NAMES[site], NAMES[drawn_at]));
                if let Some(former) = pair.key.replace(id) {
                    pair.step = Step::Two(drawn_at, former);
                }
                self.maybe_leave_desk(site);
            }
            Step::Two(site, former) => {
                let store = self.sites[site].desk().map_err(told)?;
                let seals = keys_of(&store, &remote(other(site))?).map_err(told)?;
                pair.step = match seals.sealing().map(|key| key.id()) == pair.key {
                    true => {
                        self.drop_key(site, other(site), former)?;
                        Step::Left(other(site), former)
                    }
                    false => Step::Two(site, former),
                };
            }
            Step::Left(site, former) => self.drop_key(site, other(site), former)?,
        }
        Ok(())
    }

    fn drop_key(&mut self, site: usize, other: usize, key: KeyId) -> Result<(), String> {
        let told = |error: milepost_engine::Error| format!("an operator may not drop a key: {error}");
        let store = self.sites[site].desk().map_err(told)?;
        let remote = SiteName::new(NAMES[other]).map_err(told)?;
        Keys::new(&store).drop_key(&remote, key).map_err(told)?;
        self.tell(format!("{} drops key {key} of {remote}", NAMES[site]));
        self.maybe_leave_desk(site);
        Ok(())
    }
}

impl Books {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seal(&self, from: usize, to: usize) {
        let pair = (NAMES[from].to_owned(), NAMES[to].to_owned());
        self.held().sealed.insert(pair);
    }

    fn open(&self, from: usize, to: usize) {
        let pair = (NAMES[from].to_owned(), NAMES[to].to_owned());
        self.held().sealed.remove(&pair);
    }

    /// Looks at a message, and sometimes has one that its sender never made.
    fn forge(&self, from: &str, to: &str, message: &[u8]) -> Option<Vec<u8>> {
        let mut held = self.held();
        let flags = message.get(FLAGS_AT..FLAGS_AT + 2);
        let is_sealed = flags.is_some_and(|flags| u16::from_le_bytes([flags[0], flags[1]]) & SEALED != 0);
        if !is_sealed {
            if held.sealed.contains(&(from.to_owned(), to.to_owned())) {
                held.open = Some(format!(
                    "Seal: a message of {from} goes open to {to}, of which it has a key"
                ));
            }
            return None;
        }
        if held.is_calm || !self.chance.percent(10) {
            return None;
        }
        held.forged += 1;
        // Who has no key yet believes what is open.
        let is_known = held.sealed.contains(&(to.to_owned(), from.to_owned()));
        Some(match self.chance.below(3) {
            0 if is_known => self.open_claim(message)?,
            1 => self.raised(message)?,
            _ => self.altered(message),
        })
    }

    /// A message without a seal that says that all of the addressee's log is there.
    fn open_claim(&self, message: &[u8]) -> Option<Vec<u8>> {
        let mut header = decode_header(message, &Limits::default()).ok()?;
        let more = 1 + self.chance.below(3_000);
        for point in [&mut header.received, &mut header.confirmed] {
            point.position.lsn.0 += more;
        }
        header.last = header.previous;
        header.requests = None;
        header.pieces = None;
        encode(&Message::bare(header)).ok()
    }

    /// The same message, which says that it has more.
    fn raised(&self, message: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = message.to_vec();
        let at = received_at(message)? + 8;
        let said = u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?);
        let more = said + 1 + self.chance.below(3_000);
        bytes[at..at + 8].copy_from_slice(&more.to_le_bytes());
        Some(with_sums(bytes))
    }

    /// The same message but for a bit of what is encrypted.
    fn altered(&self, message: &[u8]) -> Vec<u8> {
        let mut bytes = message.to_vec();
        let begins = head_len(message);
        let at = begins + self.chance.below((message.len() - begins) as u64) as usize;
        bytes[at] ^= 1 << self.chance.below(8);
        with_sums(bytes)
    }
}

/// With checksums that fit.
fn with_sums(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[24..32].fill(0);
    let head = crc32fast::hash(&bytes[..head_len(&bytes)]);
    let whole = crc32fast::hash(&bytes);
    bytes[24..28].copy_from_slice(&head.to_le_bytes());
    bytes[28..32].copy_from_slice(&whole.to_le_bytes());
    bytes
}

fn head_len(message: &[u8]) -> usize {
    u32::from_le_bytes([message[8], message[9], message[10], message[11]]) as usize
}

/// Where its claim of what it received begins.
fn received_at(message: &[u8]) -> Option<usize> {
    let len = |at: usize| {
        Some(usize::from(u16::from_le_bytes([
            *message.get(at)?,
            *message.get(at + 1)?,
        ])))
    };
    let names = (len(64)? + len(66)?).next_multiple_of(8);
    Some(72 + names + 8 + 8 + 8 + 32 + 32)
}

struct End {
    books: Books,
    own: String,
    link: Arc<dyn Link>,
}

impl Link for End {
    fn deliver<'a>(&'a self, to: &'a SiteName, message: &'a [u8]) -> LinkFuture<'a, ()> {
        Box::pin(async move {
            if let Some(forged) = self.books.forge(&self.own, to.as_str(), message) {
                drop(self.link.deliver(to, &forged).await);
                if self.books.chance.percent(50) {
                    return Ok::<(), LinkError>(());
                }
            }
            self.link.deliver(to, message).await
        })
    }

    fn poll<'a>(&'a self, request: PollRequest<'a>) -> LinkFuture<'a, Batch> {
        self.link.poll(request)
    }

    fn remove<'a>(&'a self, ids: &'a [MessageId]) -> LinkFuture<'a, ()> {
        self.link.remove(ids)
    }

    fn address(&self) -> String {
        self.link.address()
    }
}
