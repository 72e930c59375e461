//! Loss that nothing behind it shows, and history that is cut short: what heals them is a probe and the
//! place of the last transaction, never a timer that sends data again.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use milepost_engine::clock::{Clock, SystemClock};
use milepost_replication::agent::Stop;
use milepost_replication::catalog::Start;
use milepost_replication::receive::ReceivePhase;
use milepost_replication::send::Serve;
use milepost_replication::status::status;
use milepost_replication::tracking::{Patience, PollCause};
use support::*;

/// The system's clock, moved ahead by hand.
#[derive(Clone, Default)]
struct Ahead(Arc<AtomicU64>);

impl Ahead {
    fn advance(&self, pause: Duration) {
        self.0
            .fetch_add(u64::try_from(pause.as_millis()).unwrap(), Ordering::Relaxed);
    }
}

impl Clock for Ahead {
    fn wall_micros(&self) -> i64 {
        SystemClock.wall_micros()
    }

    fn monotonic(&self) -> Duration {
        SystemClock.monotonic() + Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    fn sleep(&self, pause: Duration) {
        SystemClock.sleep(pause);
    }
}

/// Both sites on one clock; head publishes all to the shop.
fn on_a_clock(net: &Net) -> (tempfile::TempDir, Site, Site, Ahead) {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Ahead::default());
    let [mut head, mut shop] = ["head", "shop"].map(|site| Site::new(dir.path(), site, net));
    for site in [&mut head, &mut shop] {
        site.store = options().clock(Arc::new(clock.clone())).open(&site.root).unwrap();
    }
    head.publish("all", "**", None);
    head.remote("shop");
    shop.remote("head");
    head.subscribe("shop", "all", None, Start::Now);
    (dir, head, shop, clock)
}

#[test]
fn the_last_message_lost_is_found_missing_by_a_probe_and_sent_again_once() {
    let net = Net::default();
    let (_dir, head, shop, clock) = on_a_clock(&net);
    let (mut sending, mut answering) = (head.send_phase(), shop.send_phase());
    head.commit(&[("s/1", "lost")]);
    head.scan();
    assert_eq!(sending.round(Serve::Everybody).unwrap().transactions, 1);
    net.steal("shop");
    // Nothing is sent again while time has not come, however often one looks.
    clock.advance(Duration::from_secs(100));
    assert_eq!(sending.round(Serve::Everybody).unwrap().messages, 0);
    clock.advance(Duration::from_secs(21));
    let probed = sending.round(Serve::Everybody).unwrap();
    assert_eq!(
        (probed.messages, probed.transactions),
        (1, 0),
        "a probe carries no data"
    );
    assert_eq!(
        sending.round(Serve::Everybody).unwrap().messages,
        0,
        "one probe at a time"
    );
    shop.receive();
    assert_eq!(
        answering.round(Serve::Everybody).unwrap().messages,
        1,
        "the answer"
    );
    head.receive();
    assert_eq!(
        sending.round(Serve::Everybody).unwrap().transactions,
        1,
        "data go on the answer"
    );
    shop.receive();
    assert_eq!(shop.payloads(), ["lost"]);
    assert_eq!(sending.round(Serve::Everybody).unwrap().messages, 0);
}

#[test]
fn a_gap_is_borne_for_the_patience_given_and_then_asked_for_once() {
    let net = Net::default();
    let (_dir, head, shop, clock) = on_a_clock(&net);
    let (mut sending, mut answering) = (head.send_phase(), shop.send_phase());
    for payload in ["one", "two"] {
        head.commit(&[("s/1", payload)]);
        head.scan();
        sending.round(Serve::Everybody).unwrap();
        if payload == "one" {
            net.steal("shop");
        }
    }
    let stop = Stop::new();
    let every = Duration::from_secs(60);
    let options = milepost_replication::receive::ReceiveOptions {
        patience: Patience { polls: 2, every },
        ..shop.receive_options()
    };
    let mut receiving = ReceivePhase::open(&shop.store, &shop.links(&stop), options, &stop).unwrap();
    let asked = |site: &Site| status(&site.store, &mut |_| ()).unwrap().remotes[0].rereceive_count;
    for _ in 0..2 {
        receiving.poll(PollCause::Due).unwrap();
        receiving.poll(PollCause::Push).unwrap();
        assert_eq!(
            asked(&shop),
            0,
            "pushes do not count, and neither does the first sight"
        );
        clock.advance(every);
    }
    receiving.poll(PollCause::Due).unwrap();
    assert_eq!(asked(&shop), 1);
    assert_eq!(answering.round(Serve::Everybody).unwrap().messages, 1);
    head.receive();
    assert_eq!(
        sending.round(Serve::Everybody).unwrap().transactions,
        1,
        "the range, and nothing else"
    );
    receiving.poll(PollCause::Due).unwrap();
    assert_eq!(shop.payloads(), ["one", "two"]);
}

#[test]
fn a_history_cut_short_goes_on_behind_the_last_place_received() {
    let net = Net::default();
    let dir = tempfile::tempdir().unwrap();
    let [mut head, shop] = ["head", "shop"].map(|site| Site::new(dir.path(), site, &net));
    head.message_bytes = 10_000;
    head.publish("all", "**", None);
    head.remote("shop");
    shop.remote("head");
    let numbers: Vec<String> = (0..200).map(|number| format!("{number:x<400}")).collect();
    for number in &numbers[..150] {
        head.commit(&[("s/1", number)]);
    }
    head.subscribe("shop", "all", None, Start::Beginning);
    for number in &numbers[150..] {
        head.commit(&[("s/1", number)]);
    }
    // Three of four messages are lost on every run, and every run is a new process on both sides.
    let mut state = 1_u64;
    net.set_fate(move |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::from((state >> 60).is_multiple_of(4))
    });
    let (mut runs, mut before) = (0, 0);
    while shop.received().len() < 200 {
        head.turn();
        shop.turn();
        let now = shop.received().len();
        assert!(now >= before);
        (runs, before) = (runs + 1, now);
        assert!(runs < 300, "{now} of 200 came");
    }
    assert_eq!(shop.payloads(), numbers);
    assert_nothing_doubled(&shop);
}
