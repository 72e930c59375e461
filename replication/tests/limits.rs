//! Dead and slow remotes: who is near the limit of what is kept for it is told of once; at the limit all is kept, or the remote is
//! given up as its definition says, and nobody else notices. One that was given up never goes on by itself (R1, Q2).
#![allow(missing_docs, dead_code, clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use milepost_engine::clock::{Clock, SystemClock};
use milepost_engine::{ErrorKind, Lsn, Retention, Space};
use milepost_replication::agent::{ExitCode, Stop};
use milepost_replication::catalog::{
    AtLimit, NewRemote, NewSubscription, RemoteLimits, Schedule, Start, Subscription,
};
use milepost_replication::hooks::{Hooks, RemoteLimit};
use milepost_replication::message::{Limits, decode_header};
use milepost_replication::send::{LimitState, Serve};
use milepost_replication::status::{LimitStatus, status};
use support::freeing::{bulk, freeing, numbers, stopped, trim};
use support::*;

/// A clock that is moved by hand, from the real time on.
#[derive(Clone)]
struct Hands {
    began: i64,
    passed: Arc<AtomicI64>,
    jumped: Arc<AtomicI64>,
}

impl Hands {
    fn new() -> Hands {
        Hands {
            began: SystemClock.wall_micros(),
            passed: Arc::default(),
            jumped: Arc::default(),
        }
    }

    /// The wall clock alone.
    fn jump(&self, seconds: i64) {
        self.jumped.fetch_add(seconds * 1_000_000, Ordering::Relaxed);
    }

    fn pass(&self, seconds: u64) {
        self.sleep(Duration::from_secs(seconds));
    }
}

impl Clock for Hands {
    fn wall_micros(&self) -> i64 {
        self.began + self.passed.load(Ordering::Relaxed) + self.jumped.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.passed.load(Ordering::Relaxed).unsigned_abs())
    }

    fn sleep(&self, pause: Duration) {
        let micros = i64::try_from(pause.as_micros()).unwrap();
        self.passed.fetch_add(micros, Ordering::Relaxed);
    }
}

/// The site goes by a clock that is moved by hand.
fn by_hand(site: Site, hands: &Hands) -> Site {
    site.store.close().unwrap();
    let store = options().clock(Arc::new(hands.clone())).background(false);
    Site {
        store: store.open(&site.root).unwrap(),
        ..site
    }
}

const SUSPEND: AtLimit = AtLimit::Suspend;
const HOLD: AtLimit = AtLimit::Hold;

fn limits(bytes: Option<u64>, age: Option<u64>, at_limit: AtLimit) -> RemoteLimits {
    RemoteLimits { bytes, age, at_limit }
}

fn limited(head: &Site, remote: &str, limits: RemoteLimits, replace: bool) {
    let new = NewRemote {
        site: name(remote),
        links: vec!["memory://".to_owned()],
        schedule: Schedule::EverySeconds(1),
        consolidated: false,
        on_error: Default::default(),
        limits,
    };
    head.definitions().add_remote(new, replace).unwrap();
}

/// A publisher that frees its log, a shop that is always there, and an island with limits; the island publishes, too.
fn sites(net: &Net, hands: &Hands, of_island: RemoteLimits) -> (tempfile::TempDir, Site, Site, Site) {
    let dir = tempfile::tempdir().unwrap();
    let site = |name| by_hand(freeing(dir.path(), name, net), hands);
    let (head, shop) = (site("head"), site("shop"));
    let island = by_hand(Site::new(dir.path(), "island", net), hands);
    head.publish("all", "down/**", None);
    head.remote("shop");
    limited(&head, "island", of_island, false);
    shop.remote("head");
    island.remote("head");
    island.publish("up", "up/**", None);
    island.subscribe("head", "up", None, Start::Now);
    (dir, head, shop, island)
}

fn subscribe_both(head: &Site) {
    for remote in ["shop", "island"] {
        head.subscribe(remote, "all", None, Start::Now);
    }
}

/// Turns of these sites, a second apart.
fn turns(hands: &Hands, sites: &[&Site], rounds: usize) {
    for _ in 0..rounds {
        for site in sites {
            hands.pass(1);
            site.turn();
            trim(site);
        }
    }
}

fn limit_of(head: &Site, remote: &str) -> LimitStatus {
    let facts = status(&head.store, &mut |_| ()).unwrap();
    let remote = facts.remotes.into_iter().find(|one| one.remote == remote);
    remote.unwrap().limit
}

fn state(head: &Site) -> LimitState {
    limit_of(head, "island").state
}

/// The island is away until it is suspended.
fn until_suspended(hands: &Hands, head: &Site, shop: &Site) {
    turns(hands, &[head, shop], 2);
    assert_eq!(
        state(head),
        LimitState::Reached,
        "not in the round that finds it so"
    );
    hands.pass(121);
    turns(hands, &[head, shop], 3);
    assert_eq!(state(head), LimitState::Suspended);
}

/// Numbers of what a site received, in order.
fn received(site: &Site) -> Vec<u64> {
    let number = |payload: &String| payload.split(' ').next().unwrap().parse().unwrap();
    site.payloads().iter().map(number).collect()
}

/// What waits for the island carries nothing, stands at what it has, and probes for nothing.
fn assert_only_told(net: &Net, has: &str) {
    for bytes in net.steal("island") {
        let header = decode_header(&bytes, &Limits::default()).unwrap();
        assert_eq!((header.previous, header.probe), (header.last, None));
        assert_eq!(header.last.to_string(), has);
        net.put("island", bytes);
    }
}

/// What the publisher would do to bring it back, as `status` says.
fn bring_back(head: &Site, start: Start) {
    let catalog = head.definitions().catalog().unwrap();
    let of_it = |one: &&Subscription| one.remote == name("island") && one.is_in_force();
    for one in catalog.subscriptions().filter(of_it) {
        head.unsubscribe(one, false);
    }
    head.definitions().remove_remote(&name("island")).unwrap();
    limited(head, "island", RemoteLimits::default(), false);
    head.subscribe("island", "all", None, start);
}

/// A site that never comes back kept queue and log of its publisher for ever. It is given up at its limit; what it commits flows
/// on; and what it was sent before it may say it has, though that was freed.
#[test]
fn a_dead_remote_is_given_up_at_its_limit_and_its_siblings_never_notice_r1_q2() {
    for lost in [true, false] {
        let (net, hands) = (Net::default(), Hands::new());
        let (_dir, head, shop, island) = sites(&net, &hands, limits(Some(2 << 20), None, SUSPEND));
        subscribe_both(&head);
        bulk(&head, "down/1", 0..10);
        turns(&hands, &[&head, &shop, &island], 4);
        assert_eq!(state(&head), LimitState::Fine);
        bulk(&head, "down/1", 10..80);
        // A run that ends cleanly notes how far it sent.
        let exit = run_here(&head, &batch(true, true, true), &Stop::new());
        assert_eq!(exit.code, ExitCode::Done, "{exit:?}");
        until_suspended(&hands, &head, &shop);
        let told = limit_of(&head, "island").suspended.unwrap();
        assert!(
            told.reason.contains("is given up") && told.reason.contains("milepost resync"),
            "{told:?}"
        );
        bulk(&head, "down/1", 80..90);
        let before = net.steal("island");
        turns(&hands, &[&head, &shop], 3);
        assert_only_told(&net, &told.confirmed);
        assert_eq!(numbers(&shop, "down/1").0, 90, "the other goes on");
        assert!(numbers(&head, "down/1").1 > 70, "its log was freed");
        assert!(
            head.store.queue_bytes().unwrap() < 3 << 20,
            "so was the queue: {}",
            head.store.queue_bytes().unwrap()
        );
        if !lost {
            before.into_iter().for_each(|one| net.put("island", one));
        }
        let had = if lost { 10 } else { 80 };
        bulk(&island, "up/1", 0..5);
        turns(&hands, &[&island, &head], 1);
        if lost {
            assert!(net.waiting("island") > 0, "it is told");
            assert_only_told(&net, &told.confirmed);
        }
        turns(&hands, &[&island, &head, &shop], 5);
        assert_eq!(numbers(&island, "down/1").0, had, "nothing comes by itself");
        assert_eq!(numbers(&head, "up/1").0, 5, "what it committed comes");
        assert_eq!((stopped(&head, "island"), stopped(&island, "head")), (None, None));
        let facts = status(&island.store, &mut |_| ()).unwrap();
        assert_eq!(facts.remotes[0].lag_transactions, 0, "and is confirmed to it");
        assert_eq!(state(&head), LimitState::Suspended);

        comes_back(&hands, &head, &shop, &island);
        let all = received(&island);
        assert!(all.starts_with(&(0..had).collect::<Vec<_>>()), "{all:?}");
    }
}

/// Added again, it gets all that the log still has, in order and once, and goes on.
fn comes_back(hands: &Hands, head: &Site, shop: &Site, island: &Site) {
    let oldest = head.store.oldest().unwrap();
    bring_back(head, Start::At(Lsn(oldest.0 + 1)));
    bulk(head, "down/1", 90..95);
    bulk(island, "up/1", 5..7);
    turns(hands, &[head, island, shop], 8);
    let (all, kept) = (received(island), numbers(head, "down/1").1);
    let ascend = all.windows(2).all(|two| two[0] < two[1]);
    assert!(
        ascend && (kept..95).all(|one| all.contains(&one)),
        "{kept} {all:?}"
    );
    assert_eq!(numbers(head, "up/1").0, 7);
    assert_eq!(state(head), LimitState::Fine);
    assert_nothing_doubled(island);
}

#[derive(Default)]
struct Heard(Mutex<Vec<(LimitState, u64)>>);

impl Hooks for Heard {
    fn remote_limit(&self, limit: &RemoteLimit<'_>) {
        assert_eq!(limit.remote.as_str(), "island");
        self.0.lock().unwrap().push((limit.state, limit.percent));
    }
}

/// One process, and one after another, round after round.
#[test]
fn a_remote_near_its_limit_is_told_of_once_and_one_at_it_once_a_day_and_held_it_loses_nothing() {
    let (net, hands, heard) = (Net::default(), Hands::new(), Arc::new(Heard::default()));
    let (_dir, head, shop, island) = sites(&net, &hands, limits(Some(2 << 20), None, HOLD));
    subscribe_both(&head);
    let said = || {
        let heard = heard.0.lock().unwrap();
        heard.iter().map(|(state, _)| *state).collect::<Vec<_>>()
    };
    let rounds = |count| {
        for _ in 0..count {
            turns(&hands, &[&shop], 1);
            head.receive();
            head.scan();
            let mut phase = head.send_phase().with_hooks(Some(heard.clone()));
            for _ in 0..3 {
                hands.pass(1);
                phase.round(Serve::Everybody).unwrap();
            }
            phase.remember().unwrap();
            trim(&head);
        }
    };
    bulk(&head, "down/1", 0..10);
    rounds(2);
    assert_eq!(said(), []);
    bulk(&head, "down/1", 10..14);
    rounds(4);
    assert_eq!(said(), [LimitState::Near]);
    let percent = heard.0.lock().unwrap()[0].1;
    assert!((70..100).contains(&percent), "{percent}");
    let limit = limit_of(&head, "island");
    assert_eq!((limit.state, limit.percent), (LimitState::Near, percent));
    assert_eq!(
        limit.kept_bytes * 100 / limit.limits.bytes.unwrap(),
        percent,
        "queue and log: {limit:?}"
    );
    assert!(limit.oldest.unwrap() >= hands.began);
    bulk(&head, "down/1", 14..40);
    rounds(4);
    assert_eq!(said(), [LimitState::Near, LimitState::Reached]);
    hands.pass(600);
    rounds(2);
    assert_eq!(said().len(), 2, "and not suspended");
    hands.pass(86_400);
    rounds(4);
    assert_eq!(said()[2..], [LimitState::Reached]);
    assert_eq!(state(&head), LimitState::Reached);
    turns(&hands, &[&island, &head, &shop], 6);
    assert_eq!(numbers(&island, "down/1").0, 40);
    rounds(2);
    assert_eq!(said().len(), 3);
    assert_eq!(
        (state(&head), limit_of(&head, "island").kept_bytes),
        (LimitState::Fine, 0)
    );
    assert_eq!(head.store.pinned(b"limit/island").unwrap(), None, "forgotten");
}

#[test]
fn a_remote_that_leaves_little_unconfirmed_for_long_is_given_up_by_age_and_one_that_is_due_nothing_never() {
    let (net, hands) = (Net::default(), Hands::new());
    let (_dir, head, shop, island) = sites(&net, &hands, limits(Some(1 << 20), Some(3_600), SUSPEND));
    head.publish("none", "none/**", None);
    head.subscribe("shop", "all", None, Start::Now);
    head.subscribe("island", "none", None, Start::Beginning);
    turns(&hands, &[&island, &head, &shop], 3);
    // Of three hours and 3 MB nothing is due to it.
    for hour in 0..3 {
        bulk(&head, "down/1", hour * 20..hour * 20 + 20);
        hands.pass(3_600);
        turns(&hands, &[&head, &shop], 3);
        assert_eq!(state(&head), LimitState::Fine, "hour {hour}");
        turns(&hands, &[&island, &head], 3);
    }
    assert_eq!(limit_of(&head, "island").kept_bytes, 0);
    head.commit(&[("none/1", "0 little")]);
    turns(&hands, &[&head, &shop], 2);
    let first = limit_of(&head, "island").oldest.unwrap();
    hands.pass(2_600);
    turns(&hands, &[&head, &shop], 2);
    assert_eq!(state(&head), LimitState::Near);
    head.commit(&[("none/1", "1 later")]);
    hands.pass(1_100);
    turns(&hands, &[&head, &shop], 2);
    let limit = limit_of(&head, "island");
    assert_eq!((limit.state, limit.oldest), (LimitState::Reached, Some(first)));
    hands.pass(121);
    turns(&hands, &[&head, &shop], 2);
    let told = limit_of(&head, "island").suspended.unwrap().reason;
    assert!(told.contains("of 3600 s allowed"), "{told}");
}

/// A history is kept by the log alone; its events are old, and due only since it was asked for.
#[test]
fn a_history_under_way_counts_the_log_that_it_keeps_and_its_age_since_it_was_asked_for() {
    let (net, hands) = (Net::default(), Hands::new());
    let (_dir, head, shop, _island) = sites(&net, &hands, limits(Some(2 << 20), Some(86_000), SUSPEND));
    head.store
        .set_space(&Space {
            retention: Retention::Bytes(4 << 20),
            ..Space::default()
        })
        .unwrap();
    bulk(&head, "down/1", 0..40);
    hands.pass(80_000);
    bulk(&head, "down/1", 40..50);
    head.subscribe("island", "all", None, Start::Beginning);
    turns(&hands, &[&head, &shop], 2);
    let limit = limit_of(&head, "island");
    assert_eq!(
        (limit.kept_bytes, limit.state),
        (0, LimitState::Fine),
        "retention keeps that: {limit:?}"
    );
    assert!(limit.oldest.unwrap() > hands.began + 79_000_000_000);
    bulk(&head, "other/1", 0..60);
    until_suspended(&hands, &head, &shop);
    trim(&head);
    assert!(numbers(&head, "down/1").1 > 25, "its log was freed");
}

/// Its neighbour begins the pair anew, it asks for what it misses, its definition changes, its publisher is opened again: whatever
/// of this made it go on would leave out what was freed.
#[test]
fn nothing_but_its_removal_brings_a_suspended_remote_back_r1() {
    let (net, hands) = (Net::default(), Hands::new());
    let (_dir, mut head, shop, island) = sites(&net, &hands, limits(Some(1 << 20), None, SUSPEND));
    subscribe_both(&head);
    bulk(&head, "down/1", 0..10);
    turns(&hands, &[&head, &shop, &island], 4);
    bulk(&head, "down/1", 10..60);
    turns(&hands, &[&head, &shop], 1);
    // What came first is lost: it will ask for that.
    let mut mail = net.steal("island");
    assert!(mail.len() > 3);
    until_suspended(&hands, &head, &shop);
    net.steal("island");
    net.put("island", mail.pop().unwrap());
    limited(&head, "island", limits(Some(1 << 30), None, SUSPEND), true);
    turns(&hands, &[&island, &head, &shop], 4);
    // Its queue is lost, too: it is made again without what was given up.
    head = by_hand(
        closed(head, |root| std::fs::remove_dir_all(root.join("queue")).unwrap()),
        &hands,
    );
    assert!(head.store.has_lost_queue().unwrap());
    bulk(&head, "down/1", 60..65);
    turns(&hands, &[&island, &head, &shop], 4);
    let catalog = island.definitions().catalog().unwrap();
    island.unsubscribe(catalog.subscriptions().next().unwrap(), false);
    island.definitions().remove_remote(&name("head")).unwrap();
    island.remote("head");
    island.subscribe("head", "up", None, Start::Now);
    bulk(&island, "up/1", 0..2);
    bulk(&head, "down/1", 65..70);
    turns(&hands, &[&island, &head, &shop], 6);
    let had = received(&island);
    assert_eq!(had, (0..10).collect::<Vec<_>>());
    assert_eq!(
        (numbers(&shop, "down/1").0, numbers(&head, "up/1").0),
        (70, 2),
        "all else goes on"
    );
    assert_eq!(state(&head), LimitState::Suspended);
    assert_no_subscription_is_taken(&head);
    let exit = run_here(&head, &batch(false, true, true), &Stop::new());
    assert_eq!(exit.code, ExitCode::Quarantined);
    assert!(
        exit.message.as_ref().unwrap().contains("island is suspended"),
        "{exit:?}"
    );
    bring_back(&head, Start::Now);
    assert_eq!(head.store.pinned(b"suspended/island").unwrap(), None);
    bulk(&head, "down/1", 70..75);
    turns(&hands, &[&head, &island, &shop], 6);
    assert_eq!(received(&island)[10..], (70..75).collect::<Vec<_>>());
    let exit = run_here(&head, &batch(true, true, true), &Stop::new());
    assert_eq!(exit.code, ExitCode::Done, "{exit:?}");
}

fn assert_no_subscription_is_taken(head: &Site) {
    let new = NewSubscription {
        remote: name("island"),
        publication: "all".to_owned(),
        value: None,
        start: Start::Beginning,
    };
    let refused = head.definitions().add_subscription(new).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(refused.to_string().contains("suspended"), "{refused}");
}

/// An agent that was away finds more than the limit in the first round; its remote is there and takes it all.
#[test]
fn a_publisher_that_was_away_for_long_suspends_nobody_who_is_there() {
    let (net, hands) = (Net::default(), Hands::new());
    let (_dir, head, shop, island) = sites(&net, &hands, limits(Some(1 << 20), Some(3_600), SUSPEND));
    subscribe_both(&head);
    head.commit(&[("down/1", "0 first")]);
    head.scan();
    hands.pass(80_000);
    bulk(&head, "down/1", 1..60);
    turns(&hands, &[&head, &island, &shop], 1);
    hands.pass(30);
    turns(&hands, &[&head, &island, &shop], 5);
    hands.pass(600);
    turns(&hands, &[&head, &island, &shop], 3);
    assert_eq!(
        (state(&head), numbers(&island, "down/1").0),
        (LimitState::Fine, 60)
    );
}

/// It has two exchanges to confirm, and they are no shorter because somebody set a clock.
#[test]
fn a_clock_that_jumps_gives_nobody_up() {
    for jump in [10, -10] {
        let (net, hands) = (Net::default(), Hands::new());
        let of_island = limits(Some(100_000), None, SUSPEND);
        let (_dir, head, shop, _island) = sites(&net, &hands, of_island);
        subscribe_both(&head);
        bulk(&head, "down/1", 0..12);
        turns(&hands, &[&head, &shop], 2);
        assert_eq!(state(&head), LimitState::Reached);
        hands.jump(jump * 365 * 24 * 3600);
        for _ in 0..3 {
            hands.pass(2);
            head.send();
        }
        assert_eq!(state(&head), LimitState::Reached, "{jump}");
    }
}
