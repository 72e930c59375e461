//! What `status` says of a remote that waits: since when, for what, how often that was asked for, and which pieces are here.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use milepost_replication::send::Serve;
use milepost_replication::status::{Waits, status};
use support::*;

fn waits(site: &Site) -> Option<Waits> {
    let mut told = status(&site.store, &mut |_| ()).unwrap();
    told.remotes.remove(0).waits
}

#[test]
fn a_gap_is_told_with_its_range_since_when_and_how_often_over_processes_until_it_is_filled() {
    let net = Net::default();
    let (_dir, head, mut shop) = in_small_messages(&net);
    let first = head.commit(&[("s/1", "a")]);
    head.turn();
    shop.turn();
    assert_eq!(waits(&shop), None);
    head.receive();
    // One send phase: another would send again what is not confirmed.
    let mut sending = head.send_phase();
    let lost = head.commit(&[("s/1", "b")]);
    head.scan();
    sending.round(Serve::Everybody).unwrap();
    net.steal("shop");
    let behind = head.commit(&[("s/1", "c")]);
    head.scan();
    sending.round(Serve::Everybody).unwrap();
    drop(sending);
    let began = shop.store.clock().wall_micros();
    shop.receive();
    let told = waits(&shop).unwrap();
    assert_eq!(told.after, Some(first.to_string()));
    assert_eq!(
        told.up_to,
        Some(lost.to_string()),
        "{behind} came, and {lost} did not"
    );
    assert_eq!((told.asked, told.parts), (1, None));
    assert!(told.since.unwrap() >= began, "{told:?}");
    // Another process asks again, and the hole is the same.
    shop = closed(shop, |_| ());
    shop.receive();
    let again = waits(&shop).unwrap();
    assert_eq!((again.since, again.asked), (told.since, 2));
    shop.turn();
    head.turn();
    shop.receive();
    assert_eq!(shop.payloads(), ["a", "b", "c"]);
    assert_eq!(waits(&shop), None);
}

#[test]
fn pieces_of_a_transaction_are_counted() {
    let net = Net::with_fate(|number| usize::from(number != 5));
    let (_dir, head, shop) = in_small_messages(&net);
    let text: String = (0..60_000_u32)
        .map(|n| char::from(b'a' + u8::try_from(n.wrapping_mul(2_654_435_761) >> 24 & 15).unwrap()))
        .collect();
    let lsn = head.commit(&[("s/1", &text)]);
    head.turn();
    shop.receive();
    let pieces = waits(&shop).unwrap().parts.unwrap();
    assert_eq!(pieces.lsn, lsn.0);
    assert!(pieces.total > 60_000, "{pieces:?}");
    assert!(
        pieces.held > 0 && pieces.held < pieces.total && pieces.missing_from < pieces.held,
        "{pieces:?}"
    );
    head.turn();
    shop.turn();
    head.turn();
    shop.receive();
    assert_eq!((shop.payloads(), waits(&shop)), (vec![text], None));
}
