//! What is asked for between two sites that share nothing but what somebody carries, while sticks are lost.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::as_conversions
)]

mod support;

use std::fs;
use std::sync::mpsc;
use std::time::Duration;

use milepost_replication::bundle::{Made, import};
use support::assert_nothing_doubled;
use support::bundles::{Pair, importing, taken};

/// What is never heard of again.
fn lose(made: Option<Made>) {
    fs::remove_file(made.unwrap().path).unwrap();
}

/// Both sites' first bundles are lost, and both ask for them in two bundles that wait for what is missing. Each of the two asks in other words than the
/// other: looked at over and over they were new for ever, and the import wrote notes until the disk was full.
#[test]
fn two_bundles_that_wait_and_ask_are_heard_once_and_their_import_ends_r3() {
    let pair = Pair::new();
    let both = |payload: &str| {
        pair.hq.commit(&[("s/1", payload)]);
        pair.island.commit(&[("s/2", payload)]);
    };
    both("first");
    lose(pair.to_island());
    lose(pair.to_hq());
    let mut asking = Vec::new();
    for payload in ["second", "third"] {
        both(payload);
        pair.time.pass();
        taken(&pair.island, &pair.to_island().unwrap().path);
        asking.push(pair.to_hq().unwrap());
    }
    let stick = pair.dir.path().join("to-hq");
    fs::create_dir(&stick).unwrap();
    for made in &asking {
        fs::copy(&made.path, stick.join(made.path.file_name().unwrap())).unwrap();
    }
    let (store, from) = (pair.hq.store.clone(), stick.clone());
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let options = importing(&from);
        let done = import(&store, &options);
        tell.send(done.map(|imported| imported.transactions).unwrap())
    });
    let transactions = told
        .recv_timeout(Duration::from_secs(120))
        .expect("the import ends");
    assert_eq!(transactions, 0, "all of it waits for the first");
    // What they asked for is on its way back, and so is what hq asks for.
    pair.to_island().unwrap();
    taken(&pair.island, &pair.stick());
    assert_eq!(pair.island.payloads(), ["first", "second", "third"]);
    taken(&pair.hq, &pair.to_hq().unwrap().path);
    taken(&pair.hq, &stick);
    assert_eq!(pair.hq.payloads(), ["first", "second", "third"]);
}

/// The stick with the answer is lost as well, and whoever asked says no more than that it still misses it: it goes again with the next bundle.
#[test]
fn what_was_asked_for_and_lost_with_its_stick_goes_again_with_the_next_r3() {
    let pair = Pair::new();
    pair.hq.commit(&[("s/1", "lost")]);
    lose(pair.to_island());
    pair.hq.commit(&[("s/1", "waits for it")]);
    taken(&pair.island, &pair.to_island().unwrap().path);
    taken(&pair.hq, &pair.to_hq().unwrap().path);
    lose(pair.to_island());
    pair.island.commit(&[("s/2", "no question")]);
    let back = pair.to_hq().unwrap();
    assert_eq!(taken(&pair.hq, &back.path).transactions, 1);
    taken(&pair.island, &pair.to_island().unwrap().path);
    taken(&pair.island, &pair.stick());
    assert_eq!(pair.island.payloads(), ["lost", "waits for it"]);
    assert_nothing_doubled(&pair.island);
}
