//! Frames of the servers' message store: what is decoded from the payloads of a shared log, and the pinned numbers
//! beside them. A log of them is written, opened as a message store, polled, and gone on with.
//!
//! An error, or a store that gives every site its messages and comes to the end of them, whose two processes give the
//! same, and which keeps and removes what is put into it. A log of whole records gives what a plain list gives.
#![no_main]

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use milepost_engine::clock::SystemClock;
use milepost_engine::frame::{FrameKind, NewFrame};
use milepost_engine::{Durability, Options, Pinned, SiteName};
use milepost_fuzz::fixture::{self, Files};
use milepost_replication::server::{EmbeddedStore, MailboxLimits, MailboxPoll, MessageStore, StoreError};
use milepost_replication::wire::{Delivered, MessageKey};
use tokio::runtime::{Builder, Runtime};

const SITES: [&str; 4] = ["hq", "bern", "basel", "a-site-of-a-longer-name"];
const LIMITS: MailboxLimits = MailboxLimits {
    messages: 1_000,
    bytes: 1 << 20,
    mailboxes: 1_000,
    // Most messages are read back from the log.
    recent_bytes: 64,
};

/// One frame of the log, whole or not.
#[derive(Arbitrary, Debug)]
enum Step<'a> {
    Put {
        to: u8,
        from: u8,
        id: u8,
        message: &'a [u8],
    },
    Removed {
        site: u8,
        keys: Vec<(u8, u8)>,
    },
    Claimed {
        site: u8,
        session: u64,
    },
    Raw {
        kind: u8,
        body: &'a [u8],
    },
    /// A body whose first bytes, up to the names, are as they should be.
    Headed {
        kind: u8,
        lens: [u8; 2],
        rest: &'a [u8],
    },
    Pin {
        holder: bool,
        name: &'a [u8],
        value: &'a [u8],
    },
}

fuzz_target!(|steps: Vec<Step<'_>>| {
    static STORE: OnceLock<Files> = OnceLock::new();
    let files = STORE.get_or_init(fixture::message_store);
    let dir = fixture::scratch();
    fixture::write(dir.path(), files, true);
    let store = options().open(dir.path()).unwrap();
    let (mut frames, mut model) = (Vec::new(), Some(Model::default()));
    for step in steps.iter().take(32) {
        frames.push(step.frame());
        model = model.filter(|_| step.is_whole());
        if let Some(model) = &mut model {
            model.take(step);
        }
    }
    if !frames.is_empty() && store.append_frames(frames, Durability::Buffered).is_err() {
        return;
    }
    store.sync().unwrap();
    let ours = EmbeddedStore::over(store, LIMITS);
    let other = options().open(dir.path()).unwrap();
    let theirs = EmbeddedStore::over(other, LIMITS);
    assert_eq!(ours.is_ok(), theirs.is_ok(), "one log means one thing");
    if let (Ok(ours), Ok(theirs)) = (ours, theirs) {
        let seen = told(&ours, &theirs, model.as_ref());
        assert!(
            model.is_none() || seen.is_ok(),
            "whole records are read: {seen:?}"
        );
    } else {
        assert!(model.is_none(), "whole records are read");
    }
});

/// The thread that follows the log ends by itself once its store is dropped, if time passes.
fn options() -> Options {
    fixture::options().clock(Arc::new(SystemClock))
}

fn told(ours: &EmbeddedStore, theirs: &EmbeddedStore, model: Option<&Model>) -> Result<(), StoreError> {
    for (number, site) in SITES.iter().enumerate() {
        let all = polled(ours, site, 100)?;
        assert_eq!(
            polled(theirs, site, 1)?,
            all,
            "two processes give the same, in any number"
        );
        if let Some(model) = model {
            assert_eq!(all, model.of(number), "{site}");
        }
    }
    let key = MessageKey {
        from: site("new"),
        id: 1 << 100,
    };
    let message = b"put by the front door".to_vec();
    let put = || Delivered {
        key: key.clone(),
        message: message.clone(),
    };
    let before = polled(ours, SITES[0], 100)?;
    if before.iter().any(|one| one.key == key) {
        return Ok(());
    }
    run(ours.put(site(SITES[0]), key.clone(), message.clone()))?;
    let after = polled(theirs, SITES[0], 100)?;
    let kept = after.last() == Some(&put());
    // Removed before: whoever wrote that knew the key.
    assert!(kept || after == before, "what was acknowledged is given");
    run(theirs.remove(site(SITES[0]), vec![key]))?;
    assert_eq!(polled(ours, SITES[0], 100)?, before, "what was removed is not");
    assert!(run(ours.claim(site(SITES[1]), 77, true))?);
    assert!(!run(theirs.claim(site(SITES[1]), 78, false))?);
    Ok(())
}

/// All that waits for a site.
fn polled(store: &EmbeddedStore, name: &str, max_count: usize) -> Result<Vec<Delivered>, StoreError> {
    let (mut all, mut after) = (Vec::new(), 0);
    loop {
        let poll = MailboxPoll {
            after,
            max_count,
            max_bytes: 1 << 12,
            skip: BTreeSet::new(),
        };
        let delivery = run(store.poll(site(name), poll))?;
        all.extend(delivery.messages);
        if delivery.next == 0 {
            return Ok(all);
        }
        assert!(delivery.next > after, "a poll goes on");
        after = delivery.next;
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let made = || {
        Builder::new_current_thread()
            .max_blocking_threads(1)
            .build()
            .unwrap()
    };
    RUNTIME.get_or_init(made).block_on(work)
}

fn site(name: &str) -> SiteName {
    SiteName::new(name).unwrap()
}

fn nth(number: u8) -> &'static str {
    SITES[usize::from(number) % SITES.len()]
}

/// What waits, as a list of everything put, in order.
#[derive(Default)]
struct Model {
    puts: Vec<(usize, MessageKey, Vec<u8>)>,
    removed: BTreeSet<(usize, MessageKey)>,
}

impl Model {
    fn take(&mut self, step: &Step<'_>) {
        match step {
            Step::Put {
                to,
                from,
                id,
                message,
            } => {
                let (to, key) = (usize::from(*to) % SITES.len(), key(*from, *id));
                let known = self
                    .puts
                    .iter()
                    .any(|(site, other, _)| (*site, other) == (to, &key));
                if !known && !self.removed.contains(&(to, key.clone())) {
                    self.puts.push((to, key, message.to_vec()));
                }
            }
            Step::Removed { site, keys } => {
                let site = usize::from(*site) % SITES.len();
                for (from, id) in keys {
                    let key = key(*from, *id);
                    let waiting = |put: &(usize, MessageKey, Vec<u8>)| (put.0, &put.1) == (site, &key);
                    if let Some(place) = self.puts.iter().position(waiting) {
                        self.puts.remove(place);
                        self.removed.insert((site, key));
                    }
                }
            }
            _ => {}
        }
    }

    fn of(&self, site: usize) -> Vec<Delivered> {
        let waiting = self.puts.iter().filter(|(to, ..)| *to == site);
        waiting
            .map(|(_, key, message)| Delivered {
                key: key.clone(),
                message: message.clone(),
            })
            .collect()
    }
}

fn key(from: u8, id: u8) -> MessageKey {
    MessageKey {
        from: site(nth(from)),
        id: u128::from(id),
    }
}

fn kind(number: u8) -> FrameKind {
    FrameKind(FrameKind::MESSAGE_STORE_FIRST + number)
}

impl Step<'_> {
    fn is_whole(&self) -> bool {
        matches!(
            self,
            Step::Put { .. } | Step::Removed { .. } | Step::Claimed { .. }
        )
    }

    /// As docs/format.md says, "Message store".
    fn frame(&self) -> NewFrame {
        let len = |name: &str| name.len() as u8;
        match self {
            Step::Put {
                to,
                from,
                id,
                message,
            } => {
                let (to, from) = (nth(*to), nth(*from));
                let head = [1, len(to), len(from), 0, 0, 0, 0, 0];
                let id = u128::from(*id).to_le_bytes();
                let body = [&head, &id[..], to.as_bytes(), from.as_bytes(), message].concat();
                NewFrame::of_kind(kind(0), body)
            }
            Step::Removed { site, keys } => {
                let site = nth(*site);
                let mut body = [
                    &[1, len(site), 0, 0],
                    &(keys.len() as u32).to_le_bytes()[..],
                    site.as_bytes(),
                ]
                .concat();
                for (from, id) in keys {
                    let from = nth(*from);
                    body.extend_from_slice(&u128::from(*id).to_le_bytes());
                    body.push(len(from));
                    body.extend_from_slice(from.as_bytes());
                }
                NewFrame::of_kind(kind(1), body)
            }
            Step::Claimed { site, session } => {
                let site = nth(*site);
                let head = [1, len(site), 0, 0, 0, 0, 0, 0];
                let body = [&head, &session.to_le_bytes()[..], site.as_bytes()].concat();
                NewFrame::of_kind(kind(2), body)
            }
            Step::Raw { kind: number, body } => NewFrame::of_kind(kind(number % 5), body.to_vec()),
            Step::Headed {
                kind: number,
                lens,
                rest,
            } => {
                let head = [1, lens[0] % 80, lens[1] % 80, 0, 0, 0, 0, 0];
                NewFrame::of_kind(kind(number % 3), [&head, *rest].concat())
            }
            Step::Pin { holder, name, value } => {
                let mut frame = NewFrame::of_kind(kind(3), Vec::new());
                let key = match holder {
                    true => [b"message-store/holder/", *name].concat(),
                    false => b"message-store/oldest".to_vec(),
                };
                frame.pin(Pinned {
                    key,
                    value: Some(value.to_vec()),
                });
                frame
            }
        }
    }
}
