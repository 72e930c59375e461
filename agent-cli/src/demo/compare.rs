//! What was due at a site, what is there, and what differs: event by event, from the stores' logs.
//!
//! ```text
//! origin's log ─ deliveries(due to this site) ─┐
//!                                              ├─ compare ─► due received missing duplicated torn out_of_order
//! site's log ─── arrivals(of this origin) ─────┘
//! ```
//!
//! An event is (origin, ordinal, stream, kind, headers, payload); all of them are compared, and no
//! counter of any agent is read. A transaction is
//! - **received** when it is there with exactly the events that were due,
//! - **torn** when it is there with other events, or was not due at all,
//! - **duplicated** once for every time it is there again (R1),
//! - **out of order** when one that its origin committed later stands before it,
//! - **missing** when it is not there.

use std::collections::HashMap;

use milepost_engine::frame::{EventRef, FrameKind, FrameRef};
use milepost_engine::{Epoch, Lsn, Result, Store, StoreId};
use serde::Serialize;

/// An event, with everything that must be equal at all sites.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    ordinal: u32,
    stream: Box<str>,
    kind: Box<str>,
    headers: Box<[u8]>,
    payload: Box<[u8]>,
}

/// Events of one transaction of an origin, as due at a site or as found there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Lineage and place at the origin.
    pub at: (Epoch, Lsn),
    /// When it was written into the log it was read from, microseconds since 1970.
    pub time: i64,
    /// The events, in order.
    pub events: Vec<Fact>,
}

/// What a comparison found, in transactions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Due.
    pub due: u64,
    /// There with exactly the events that were due.
    pub received: u64,
    /// Not there.
    pub missing: u64,
    /// There once more.
    pub duplicated: u64,
    /// There with other events than were due.
    pub torn: u64,
    /// Behind one that was committed later.
    pub out_of_order: u64,
}

impl Verdict {
    /// True when everything due is there, whole, once and in order, and nothing else is.
    pub fn is_good(&self) -> bool {
        let faults = self.missing + self.duplicated + self.torn + self.out_of_order;
        faults == 0 && self.received == self.due
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Verdict) -> Verdict {
        Verdict {
            due: self.due + other.due,
            received: self.received + other.received,
            missing: self.missing + other.missing,
            duplicated: self.duplicated + other.duplicated,
            torn: self.torn + other.torn,
            out_of_order: self.out_of_order + other.out_of_order,
        }
    }
}

/// Compares what was due with what arrived, both in the order of the logs they were read from.
pub fn compare(due: &[Delivery], arrived: &[Delivery]) -> Verdict {
    let mut waiting: HashMap<(Epoch, Lsn), (&Delivery, bool)> = due
        .iter()
        .map(|delivery| (delivery.at, (delivery, false)))
        .collect();
    let order: HashMap<(Epoch, Lsn), usize> = due
        .iter()
        .enumerate()
        .map(|(number, delivery)| (delivery.at, number))
        .collect();
    let mut verdict = Verdict {
        due: milepost_engine::width::to_u64(due.len()),
        ..Verdict::default()
    };
    let mut newest = None;
    for arrival in arrived {
        let Some((wanted, seen)) = waiting.get_mut(&arrival.at) else {
            verdict.torn += 1;
            continue;
        };
        if std::mem::replace(seen, true) {
            verdict.duplicated += 1;
            continue;
        }
        let number = order.get(&arrival.at).copied();
        if number < newest {
            verdict.out_of_order += 1;
        }
        newest = newest.max(number);
        if arrival.events == wanted.events {
            verdict.received += 1;
        } else {
            verdict.torn += 1;
        }
    }
    verdict.missing = milepost_engine::width::to_u64(waiting.values().filter(|(_, seen)| !seen).count());
    verdict
}

/// The transactions first committed at `store`, each with those of its events that `is_due` takes;
/// transactions without any are left out.
///
/// # Errors
/// As [`Store::scan`].
pub fn deliveries(store: &Store, is_due: impl Fn(&str) -> bool) -> Result<Vec<Delivery>> {
    collect(store, |frame| {
        if frame.origin()?.is_some() {
            return Ok(None);
        }
        let mut events = Vec::new();
        for event in frame.events() {
            let event = event?;
            if is_due(event.stream()?) {
                events.push(fact(&event)?);
            }
        }
        let at = (frame.epoch(), frame.lsn());
        Ok((!events.is_empty()).then(|| Delivery {
            at,
            time: frame.time(),
            events,
        }))
    })
}

/// The transactions in `store` that were first committed at `origin`, whole.
///
/// # Errors
/// As [`Store::scan`].
pub fn arrivals(store: &Store, origin: StoreId) -> Result<Vec<Delivery>> {
    collect(store, |frame| {
        let Some(from) = frame.origin()?.filter(|from| from.site == origin) else {
            return Ok(None);
        };
        let events = frame
            .events()
            .map(|event| fact(&event?))
            .collect::<Result<Vec<_>>>()?;
        Ok(Some(Delivery {
            at: (from.epoch, from.lsn),
            time: frame.time(),
            events,
        }))
    })
}

fn collect(store: &Store, read: impl Fn(&FrameRef<'_>) -> Result<Option<Delivery>>) -> Result<Vec<Delivery>> {
    let mut found = Vec::new();
    let mut scan = store.scan(store.oldest()?)?;
    while let Some(frame) = scan.next()? {
        if frame.kind() == FrameKind::TRANSACTION {
            found.extend(read(&frame)?);
        }
    }
    Ok(found)
}

fn fact(event: &EventRef<'_>) -> Result<Fact> {
    Ok(Fact {
        ordinal: event.ordinal,
        stream: event.stream()?.into(),
        kind: event.kind()?.into(),
        headers: event.headers().bytes().into(),
        payload: event.payload.into(),
    })
}

#[cfg(test)]
mod tests {
    use milepost_engine::frame::encode_headers;
    use milepost_engine::{Event, Options, Origin, Transaction};

    use super::*;

    /// A head office with five transactions of which the branch is due the events under `due/`.
    fn head_office(dir: &std::path::Path) -> Store {
        let store = Options::new()
            .init(dir.join("hq"), "hq".parse().unwrap())
            .unwrap();
        for number in 0..5 {
            let mut transaction = Transaction::new();
            for stream in ["other/x", "due/a", "due/b"] {
                let event = Event::new(stream, "set", format!("{number}"))
                    .unwrap()
                    .header("n", "1")
                    .unwrap();
                transaction.push(&event).unwrap();
            }
            store.commit(transaction).unwrap().committed().unwrap();
        }
        store
    }

    /// Writes deliveries into a branch's log as the receive phase would, and reads them back.
    fn verdict_on(change: impl Fn(&mut Vec<Delivery>)) -> Verdict {
        let dir = tempfile::tempdir().unwrap();
        let hq = head_office(dir.path());
        let branch = Options::new()
            .init(dir.path().join("branch"), "branch".parse().unwrap())
            .unwrap();
        let due = deliveries(&hq, |stream| stream.starts_with("due/")).unwrap();
        assert_eq!((due.len(), due[0].events.len()), (5, 2));
        let mut sent = due.clone();
        change(&mut sent);
        for delivery in &sent {
            let mut transaction = Transaction::new();
            let (epoch, lsn) = delivery.at;
            transaction.set_origin(Origin {
                site: hq.id(),
                name: hq.site().clone(),
                epoch,
                lsn,
            });
            for event in &delivery.events {
                let (stream, kind) = (&event.stream, &event.kind);
                transaction
                    .push_received(event.ordinal, stream, kind, &event.headers, &event.payload)
                    .unwrap();
            }
            branch.commit(transaction).unwrap().committed().unwrap();
        }
        let mut local = Transaction::new();
        local.push_parts("due/a", "set", b"the branch's own").unwrap();
        branch.commit(local).unwrap().committed().unwrap();
        compare(&due, &arrivals(&branch, hq.id()).unwrap())
    }

    #[test]
    fn a_store_with_all_that_is_due_and_its_own_commits_besides_is_good() {
        let verdict = verdict_on(|_| ());
        assert!(verdict.is_good(), "{verdict:?}");
        assert_eq!(
            verdict,
            Verdict {
                due: 5,
                received: 5,
                ..Verdict::default()
            }
        );
    }

    #[test]
    fn a_lost_transaction_is_caught_wherever_it_was() {
        for number in 0..5 {
            let verdict = verdict_on(|sent| drop(sent.remove(number)));
            assert_eq!(
                verdict,
                Verdict {
                    due: 5,
                    received: 4,
                    missing: 1,
                    ..Verdict::default()
                }
            );
            assert!(!verdict.is_good());
        }
    }

    #[test]
    fn a_doubled_transaction_is_caught_even_when_the_copy_comes_last() {
        for behind in [1, 5] {
            let verdict = verdict_on(|sent| sent.insert(behind, sent[0].clone()));
            assert_eq!(
                verdict,
                Verdict {
                    due: 5,
                    received: 5,
                    duplicated: 1,
                    ..Verdict::default()
                }
            );
            assert!(!verdict.is_good());
        }
    }

    #[test]
    fn a_torn_transaction_is_caught_whichever_part_of_an_event_differs() {
        let headers = encode_headers(&[("n".to_owned(), "2".to_owned())].into());
        let tears: [&dyn Fn(&mut Delivery); 8] = [
            &|torn| drop(torn.events.pop()),
            &|torn| torn.events.reverse(),
            &|torn| torn.events.push(torn.events[0].clone()),
            &|torn| torn.events[1].ordinal += 1,
            &|torn| torn.events[1].stream = "due/c".into(),
            &|torn| torn.events[1].kind = "Set".into(),
            &|torn| torn.events[1].headers = headers.clone().into(),
            &|torn| torn.events[1].payload = Box::default(),
        ];
        for tear in tears {
            let verdict = verdict_on(|sent| tear(&mut sent[2]));
            assert_eq!(
                verdict,
                Verdict {
                    due: 5,
                    received: 4,
                    torn: 1,
                    ..Verdict::default()
                }
            );
            assert!(!verdict.is_good());
        }
    }

    #[test]
    fn transactions_in_another_order_are_caught() {
        let verdict = verdict_on(|sent| sent.swap(1, 3));
        assert_eq!(
            verdict,
            Verdict {
                due: 5,
                received: 5,
                out_of_order: 2,
                ..Verdict::default()
            }
        );
        assert!(!verdict.is_good());
    }

    #[test]
    fn a_transaction_that_nobody_committed_is_caught() {
        let verdict = verdict_on(|sent| {
            let mut invented = sent[4].clone();
            invented.at.1 = Lsn(invented.at.1.0 + 8);
            sent.push(invented);
        });
        assert_eq!(
            verdict,
            Verdict {
                due: 5,
                received: 5,
                torn: 1,
                ..Verdict::default()
            }
        );
        assert!(!verdict.is_good());
    }
}
