//! What was acknowledged at each of the five sites, and whether every site has of it what it is due: each transaction
//! once, in the order of its origin, byte for byte, with its first time and place; nothing else.
//!
//! A transaction is a function of its site and number, so that the witness keeps numbers alone.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use serde_json::{Value, json};

use super::super::running::Place;
use super::{SITES, is_due};

/// Numbers of a site's transactions.
#[derive(Default)]
pub struct Own {
    /// Acknowledged, in the order of the log.
    pub numbers: Vec<u64>,
    /// Never used twice, also where a site lost what it had committed.
    next: u64,
}

#[derive(Default)]
pub struct Witness {
    own: [Mutex<Own>; SITES.len()],
}

impl Witness {
    /// What a site committed; while it is held, nothing more is committed there.
    pub fn of(&self, site: &str) -> MutexGuard<'_, Own> {
        let at = SITES.iter().position(|name| *name == site).unwrap();
        self.own[at].lock().unwrap()
    }

    /// Commits `count` transactions at a site, by a process of their own.
    pub fn commit(&self, place: &Place, site: &str, count: u64) {
        let mut own = self.of(site);
        let numbers = own.next..own.next + count;
        let lines = numbers
            .clone()
            .map(|number| format!("{}\n", json!({ "events": events(site, number) })));
        let lines: String = lines.collect();
        place
            .run_with(&["import", site, "--input", "-"], &lines, &[])
            .ok();
        own.next = numbers.end;
        own.numbers.extend(numbers);
    }

    /// Compares all sites. Gives how many transactions were received, or the first difference.
    pub fn compare(&self, place: &Place) -> Result<usize, String> {
        let found = SITES.map(|site| history(place, site));
        let mut received = 0;
        for (at, site) in SITES.into_iter().enumerate() {
            let committed = as_committed(site, &self.of(site).numbers);
            let own: Vec<Value> = of(&found[at], site)
                .iter()
                .map(|line| line["events"].clone())
                .collect();
            told(site, site, &own, &committed)?;
            for (from, origin) in SITES.into_iter().enumerate().filter(|(from, _)| *from != at) {
                let due = due_to(site, of(&found[from], origin));
                told(site, origin, of(&found[at], origin), &due)?;
                received += due.len();
            }
            if let Some(stranger) = found[at].keys().find(|origin| !SITES.contains(&origin.as_str())) {
                return Err(format!("{site} has transactions of {stranger}"));
            }
        }
        Ok(received)
    }
}

/// Events of a transaction as `import` reads them: of one stream, or of all three that the site has.
fn events(site: &str, number: u64) -> Vec<Value> {
    let streams = ["common", "orders/town", "orders/village"];
    // No text in UTF-8 begins with such bytes, so a payload is printed as these characters. One in 64 takes several messages.
    let length = if number.is_multiple_of(64) {
        24_000
    } else {
        16 + 4 * (number % 50) as usize
    };
    let chosen = streams
        .iter()
        .enumerate()
        .filter(|(at, _)| number % 4 == 3 || number % 4 == *at as u64);
    let event = |(at, stream): (usize, &&str)| {
        let letter = char::from(b"abc"[at]);
        let payload = format!("////{}", format!("{number:015}{letter}").repeat(length / 16 + 1));
        json!({
            "stream": format!("{stream}/{site}"),
            "kind": "noted",
            "headers": { "number": number.to_string() },
            "payload": { "base64": payload },
        })
    };
    chosen.map(event).collect()
}

/// Events of each transaction as `export` prints them at their origin.
fn as_committed(site: &str, numbers: &[u64]) -> Vec<Value> {
    let mut versions = BTreeMap::<String, u64>::new();
    let mut committed = Vec::new();
    for number in numbers {
        let mut of_one = events(site, *number);
        for (ordinal, event) in of_one.iter_mut().enumerate() {
            let next = versions
                .entry(event["stream"].as_str().unwrap().to_owned())
                .or_default();
            event["ordinal"] = ordinal.into();
            event["version"] = (*next).into();
            *next += 1;
        }
        committed.push(of_one.into());
    }
    committed
}

/// All transactions of a site by their origin, in log order. Where they are in its own log is left out: it differs.
fn history(place: &Place, site: &str) -> BTreeMap<String, Vec<Value>> {
    let mut found = BTreeMap::<String, Vec<Value>>::new();
    for mut line in place.run(&["export", site]).json() {
        line.as_object_mut().unwrap().remove("lsn");
        let origin = line["origin"]["site"].as_str().unwrap().to_owned();
        found.entry(origin).or_default().push(line);
    }
    found
}

fn of<'a>(history: &'a BTreeMap<String, Vec<Value>>, origin: &str) -> &'a [Value] {
    history.get(origin).map_or(&[], Vec::as_slice)
}

/// What of an origin's transactions a site is due: the events that it subscribes to, and none without any.
fn due_to(site: &str, committed: &[Value]) -> Vec<Value> {
    let cut = committed.iter().cloned().map(|mut line| {
        let events = line["events"].as_array_mut().unwrap();
        events.retain(|event| is_due(site, event["stream"].as_str().unwrap()));
        line
    });
    cut.filter(|line| line["events"].as_array().is_some_and(|events| !events.is_empty()))
        .collect()
}

fn told(site: &str, origin: &str, found: &[Value], due: &[Value]) -> Result<(), String> {
    difference(found, due).map_or(Ok(()), |what| Err(format!("{site} has of {origin}: {what}")))
}

/// The first difference, if there is one.
pub fn difference(found: &[Value], due: &[Value]) -> Option<String> {
    let same = found
        .iter()
        .zip(due)
        .take_while(|(found, due)| found == due)
        .count();
    let of = |lines: &[Value]| lines.get(same).map_or("nothing".to_owned(), Value::to_string);
    (same < found.len().max(due.len())).then(|| {
        let counts = format!("{} transactions of {}", found.len(), due.len());
        format!(
            "{counts}; after {same} that agree {:.300} in place of {:.300}",
            of(found),
            of(due)
        )
    })
}
