//! What changes while a long round goes on counts from the next message on: keys, removals, suspensions.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::as_conversions
)]

mod support;

use milepost_replication::keys::Keys;
use milepost_replication::send::Serve;
use support::*;

/// Flags of a message (docs/replication.md, "Message").
fn is_sealed(message: &[u8]) -> bool {
    message[20] & 2 != 0
}

/// Does something when the link is handed so many messages.
fn at(net: &Net, when: u64, what: impl FnOnce() + Send + 'static) {
    let mut what = Some(what);
    net.set_fate(move |number| {
        if number >= when
            && let Some(what) = what.take()
        {
            what();
        }
        1
    });
}

/// 531 messages went open behind a `key add` that had returned, the last one four seconds later.
#[test]
fn a_key_that_is_added_seals_from_the_next_message_on_and_all_before_it_goes_again() {
    let large = large(800_000);
    for payloads in [vec![large.as_str()], vec![&large[..4_000]; 200]] {
        let net = Net::default();
        let (_dir, head, shop) = in_small_messages(&net);
        for payload in &payloads {
            head.commit(&[("s/1", payload)]);
        }
        head.scan();
        let store = head.store.clone();
        let (lines, lined) = std::sync::mpsc::channel();
        at(&net, 20, move || {
            let line = Keys::new(&store).add_fresh(&name("shop")).unwrap();
            lines.send(line).unwrap();
        });
        let before = net.delivered();
        let sent = head.send_phase().round(Serve::Everybody).unwrap();
        assert!(sent.failed_links.is_empty(), "{:?}", sent.failed_links);
        let all = net.steal("shop");
        let open = all.iter().filter(|message| !is_sealed(message)).count();
        // That one was made before.
        assert_eq!(open as u64, 20 - before);
        for message in all {
            net.put("shop", message);
        }
        let line = lined.recv().unwrap();
        Keys::new(&shop.store).add(&name("head"), &line, false).unwrap();
        while shop.receive().moved {}
        assert!(
            shop.payloads() == payloads,
            "all of it came sealed in the same round"
        );
        assert_nothing_doubled(&shop);
    }
}

#[test]
fn no_more_than_a_few_messages_go_to_a_remote_that_was_removed() {
    let net = Net::default();
    let (_dir, head, _shop) = in_small_messages(&net);
    head.commit(&[("s/1", &large(900_000))]);
    head.scan();
    let store = head.store.clone();
    at(&net, 20, move || {
        let definitions = milepost_replication::catalog::Definitions::new(&store);
        let catalog = milepost_replication::catalog::Catalog::load(&store).unwrap();
        let remote = catalog.remote(&name("shop")).unwrap();
        for one in catalog.subscriptions_of(remote) {
            definitions.remove_subscription(one.id, false).unwrap();
        }
        definitions.remove_remote(&name("shop")).unwrap();
    });
    let sent = head.send_phase().round(Serve::Everybody).unwrap();
    assert!((20..60).contains(&sent.messages), "{} messages", sent.messages);
    assert!(sent.failed_links.is_empty());
}
