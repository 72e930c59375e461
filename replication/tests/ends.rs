//! What waits for something that is not there ends no run late and puts off nothing: a batch run leaves, and the
//! site that has what is missing hears of it.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::sync::Arc;

use milepost_engine::SiteName;
use milepost_replication::agent::{AgentOptions, Exit, Links, OpenLink, Stop, run_on};
use milepost_replication::catalog::Start;
use milepost_replication::link::{Batch, Link, LinkFuture, MessageId, PollRequest};
use milepost_replication::status::status;
use support::*;

/// Head sent forty large transactions to the shop, and the first message was lost.
fn a_gap(net: &Net) -> (tempfile::TempDir, Site, Site) {
    let dir = tempfile::tempdir().unwrap();
    let (head, shop) = (
        Site::new(dir.path(), "head", net),
        Site::new(dir.path(), "shop", net),
    );
    head.publish("all", "**", None);
    head.remote("shop");
    shop.remote("head");
    head.subscribe("shop", "all", None, Start::Now);
    let filler = "x".repeat(30_000);
    for number in 0..40 {
        // Incompressible, so that each travels alone.
        let noise: String = (0..2000u32)
            .map(|at| format!("{:08x}", (at + number).wrapping_mul(2_654_435_761)))
            .collect();
        head.commit(&[("s/1", &number.to_string()), ("s/2", &noise), ("s/3", &filler)]);
    }
    net.set_fate(|number| usize::from(number != 1));
    head.turn();
    net.set_fate(|_| 1);
    (dir, head, shop)
}

fn asked(shop: &Site) -> u64 {
    status(&shop.store, &mut |_| ()).unwrap().remotes[0].rereceive_count
}

/// What fell out of the memory came again with the next poll and counted as new: the run polled for ever, and
/// the request for the missing message never left.
#[test]
fn a_batch_run_ends_though_more_waits_behind_a_gap_than_its_memory_holds() {
    let net = Net::default();
    let (_dir, head, shop) = a_gap(&net);
    let small = AgentOptions {
        memory: 100_000,
        ..batch(false, false, false)
    };
    for _ in 0..12 {
        assert_eq!(run_here(&shop, &small, &Stop::new()), Exit::DONE);
        assert_eq!(run_here(&head, &small, &Stop::new()), Exit::DONE);
    }
    assert!(asked(&shop) > 0);
    assert_eq!(shop.received().len(), 40);
    assert_nothing_doubled(&shop);
}

/// A dry run forgets what it saw, so that whatever waits was new in every poll.
#[test]
fn a_dry_run_in_batch_ends_with_a_gap_or_a_strangers_message_on_the_link() {
    let net = Net::default();
    let (dir, _head, shop) = a_gap(&net);
    let stranger = Site::new(dir.path(), "zoo", &net);
    stranger.publish("all", "**", None);
    stranger.remote("shop");
    stranger.subscribe("shop", "all", None, Start::Now);
    stranger.commit(&[("s/1", "who is that")]);
    stranger.turn();
    let (before, waiting) = (shop.store.watermarks().durable, net.waiting("shop"));
    let dry = AgentOptions {
        apply: false,
        ..batch(true, false, false)
    };
    assert_eq!(run_here(&shop, &dry, &Stop::new()), Exit::DONE);
    assert_eq!(
        (shop.store.watermarks().durable, net.waiting("shop")),
        (before, waiting)
    );
}

/// A link on which something new is announced all the time.
struct Chatty(Arc<dyn Link>);

impl Link for Chatty {
    fn deliver<'a>(&'a self, to: &'a SiteName, message: &'a [u8]) -> LinkFuture<'a, ()> {
        self.0.deliver(to, message)
    }

    fn poll<'a>(&'a self, request: PollRequest<'a>) -> LinkFuture<'a, Batch> {
        self.0.poll(request)
    }

    fn remove<'a>(&'a self, ids: &'a [MessageId]) -> LinkFuture<'a, ()> {
        self.0.remove(ids)
    }

    fn wait_for_push(&self, _: std::time::Duration) -> LinkFuture<'_, bool> {
        Box::pin(async { Ok(true) })
    }

    fn address(&self) -> String {
        "memory://".to_owned()
    }
}

/// Every push began the pause between polls anew, so that the poll that counts patience never came.
#[test]
fn a_gap_is_asked_for_though_pushes_come_all_the_time() {
    let net = Net::default();
    let (_dir, head, shop) = a_gap(&net);
    let stop = Stop::new();
    let (chatty, own) = (net.clone(), shop.store.site().to_string());
    let open: Box<OpenLink> = Box::new(move |_| {
        let link: Arc<dyn Link> = Arc::new(Chatty(chatty.end(&own)));
        Ok(link)
    });
    let links = Links::new(open, &[], shop.runtime.handle().clone(), stop.clone());
    std::thread::scope(|scope| {
        let leave = Leave(&stop);
        let agent = scope.spawn(|| run_on(&shop.store, &links, &quick(true, false, true), &stop));
        eventually("the gap is asked for", || asked(&shop) > 0);
        eventually("what was missing came", || {
            head.turn();
            shop.received().len() == 40
        });
        drop(leave);
        assert_eq!(agent.join().unwrap(), Exit::DONE);
    });
}
