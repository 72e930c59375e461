//! The embedded message store over real engine stores, two handles standing for two server processes.

use std::collections::BTreeSet;
use std::path::Path;

use tempfile::TempDir;

use super::*;

fn site(name: &str) -> SiteName {
    SiteName::new(name).unwrap()
}

fn key(id: u128) -> MessageKey {
    MessageKey { from: site("hq"), id }
}

fn open(dir: &Path, limits: MailboxLimits) -> EmbeddedStore {
    EmbeddedStore::open_or_init(dir, Options::new().segment_bytes(1 << 20), limits).unwrap()
}

fn two_servers(dir: &TempDir, limits: MailboxLimits) -> (EmbeddedStore, EmbeddedStore) {
    (open(dir.path(), limits), open(dir.path(), limits))
}

async fn put(store: &EmbeddedStore, to: &str, id: u128, message: &[u8]) -> Result<(), StoreError> {
    store.put(site(to), key(id), message.to_vec()).await
}

async fn poll_after(store: &EmbeddedStore, to: &str, after: u64, max_count: usize) -> Delivery {
    let request = MailboxPoll {
        after,
        max_count,
        max_bytes: 1 << 20,
        skip: BTreeSet::new(),
    };
    store.poll(site(to), request).await.unwrap()
}

async fn waiting(store: &EmbeddedStore, to: &str) -> Vec<(u128, Vec<u8>)> {
    let delivery = poll_after(store, to, 0, 1000).await;
    delivery
        .messages
        .into_iter()
        .map(|one| (one.key.id, one.message))
        .collect()
}

#[tokio::test]
async fn what_is_put_through_one_server_is_given_by_another_and_removed_for_both() {
    let dir = TempDir::new().unwrap();
    let (a, b) = two_servers(&dir, MailboxLimits::default());
    put(&a, "bern", 1, b"one").await.unwrap();
    put(&b, "bern", 2, b"two").await.unwrap();
    put(&a, "basel", 3, b"three").await.unwrap();
    let both = vec![(1, b"one".to_vec()), (2, b"two".to_vec())];
    assert_eq!(waiting(&a, "bern").await, both);
    assert_eq!(waiting(&b, "bern").await, both);
    b.remove(site("bern"), vec![key(1), key(77)]).await.unwrap();
    b.remove(site("basel"), vec![key(2)]).await.unwrap();
    assert_eq!(waiting(&a, "bern").await, both[1..]);
    assert_eq!(waiting(&b, "bern").await, both[1..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_upload_through_two_servers_at_once_waits_once() {
    let dir = TempDir::new().unwrap();
    let (a, b) = two_servers(&dir, MailboxLimits::default());
    for id in 0..20 {
        let (one, other) = tokio::join!(put(&a, "bern", id, b"same"), put(&b, "bern", id, b"same"));
        one.unwrap();
        other.unwrap();
    }
    assert_eq!(waiting(&a, "bern").await.len(), 20);
    assert_eq!(waiting(&b, "bern").await, waiting(&a, "bern").await);
    let appended = a.shared.store.watermarks().appended;
    put(&a, "bern", 7, b"same").await.unwrap();
    assert_eq!(
        a.shared.store.watermarks().appended,
        appended,
        "a repeat costs the log nothing"
    );
    a.remove(site("bern"), (0..20).map(key).collect()).await.unwrap();
    put(&b, "bern", 3, b"same").await.unwrap();
    assert_eq!(
        waiting(&b, "bern").await,
        [],
        "a repeat after the removal is acknowledged and not stored"
    );
}

/// Everything acknowledged is there after the processes are gone, and nothing removed comes back (E1).
#[tokio::test]
async fn a_store_that_is_opened_again_gives_what_was_not_removed() {
    let dir = TempDir::new().unwrap();
    for round in 0..3_u128 {
        let store = open(dir.path(), MailboxLimits::default());
        for id in 0..50 {
            put(&store, "bern", round * 100 + id, &[7; 300]).await.unwrap();
        }
        let removed = (0..50)
            .filter(|id| *id != 49 - round)
            .map(|id| key(round * 100 + id))
            .collect();
        store.remove(site("bern"), removed).await.unwrap();
    }
    let store = open(dir.path(), MailboxLimits::default());
    let ids: Vec<u128> = waiting(&store, "bern")
        .await
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    assert_eq!(ids, [49, 148, 247]);
    store
        .remove(site("bern"), ids.iter().map(|id| key(*id)).collect())
        .await
        .unwrap();
    put(&store, "bern", 999, b"last").await.unwrap();
    drop(store);
    let store = open(dir.path(), MailboxLimits::default());
    assert_eq!(waiting(&store, "bern").await, [(999, b"last".to_vec())]);
    let pinned = store.shared.store.pinned(PINNED_OLDEST).unwrap().unwrap();
    let all = store
        .shared
        .store
        .scan(Lsn::ZERO)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .lsn();
    assert!(
        word(&pinned.0).unwrap() > all.0,
        "opening does not read what was removed"
    );
}

/// Without the cache every message is read back from the log, through other mailboxes' messages and
/// across segments of 1 MiB.
#[tokio::test]
async fn messages_read_back_from_the_log_are_the_ones_that_were_put() {
    let dir = TempDir::new().unwrap();
    let limits = MailboxLimits {
        recent_bytes: 0,
        ..MailboxLimits::default()
    };
    let store = open(dir.path(), limits);
    let message = |id: u128| vec![id as u8; 1000 + 997 * (id as usize % 50)];
    for id in 0..120 {
        put(
            &store,
            if id % 3 == 0 { "bern" } else { "basel" },
            id,
            &message(id),
        )
        .await
        .unwrap();
    }
    let mut after = 0;
    let mut seen = Vec::new();
    loop {
        let delivery = poll_after(&store, "bern", after, 7).await;
        for one in delivery.messages {
            assert_eq!(one.message, message(one.key.id));
            seen.push(one.key.id);
        }
        after = delivery.next;
        if after == 0 {
            break;
        }
    }
    assert_eq!(seen, (0..120).step_by(3).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_full_mailbox_is_not_now_until_somebody_polls_and_others_are_not_concerned() {
    let dir = TempDir::new().unwrap();
    let limits = MailboxLimits {
        messages: 3,
        bytes: 100,
        mailboxes: 2,
        ..MailboxLimits::default()
    };
    let store = open(dir.path(), limits);
    for id in 0..3 {
        put(&store, "bern", id, b"x").await.unwrap();
    }
    assert!(matches!(
        put(&store, "bern", 9, b"x").await,
        Err(StoreError::Full(_))
    ));
    put(&store, "bern", 2, b"x").await.unwrap();
    put(&store, "basel", 4, &[0; 90]).await.unwrap();
    assert!(matches!(
        put(&store, "basel", 5, &[0; 11]).await,
        Err(StoreError::Full(_))
    ));
    assert!(matches!(
        put(&store, "chur", 6, b"x").await,
        Err(StoreError::Full(_))
    ));
    store.remove(site("bern"), vec![key(0)]).await.unwrap();
    put(&store, "bern", 9, b"x").await.unwrap();
}

#[tokio::test]
async fn a_known_key_with_other_bytes_is_refused_not_acknowledged() {
    let dir = TempDir::new().unwrap();
    let (a, b) = two_servers(&dir, MailboxLimits::default());
    put(&a, "bern", 1, b"one").await.unwrap();
    assert!(matches!(
        put(&b, "bern", 1, b"other").await,
        Err(StoreError::Refused(_))
    ));
}

#[tokio::test]
async fn the_newest_session_of_a_site_holds_its_mailbox_on_every_server_and_after_reopening() {
    let dir = TempDir::new().unwrap();
    let (a, b) = two_servers(&dir, MailboxLimits::default());
    assert!(a.claim(site("bern"), 100, true).await.unwrap());
    assert!(b.claim(site("bern"), 100, false).await.unwrap());
    assert!(
        b.claim(site("bern"), 50, true).await.unwrap(),
        "newer by when it came, not by its number"
    );
    assert!(!a.claim(site("bern"), 100, false).await.unwrap());
    assert!(a.claim(site("basel"), 100, false).await.unwrap());
    drop((a, b));
    let c = open(dir.path(), MailboxLimits::default());
    assert!(!c.claim(site("bern"), 100, false).await.unwrap());
    assert!(c.claim(site("bern"), 50, false).await.unwrap());
}

#[tokio::test]
async fn an_arrival_through_one_server_is_told_at_another() {
    let dir = TempDir::new().unwrap();
    let (a, b) = two_servers(&dir, MailboxLimits::default());
    let mut arrivals = b.arrivals();
    arrivals.mark_unchanged();
    assert_eq!(b.last_arrival(&site("bern")), 0);
    put(&a, "bern", 1, b"one").await.unwrap();
    arrivals.changed().await.unwrap();
    assert!(b.last_arrival(&site("bern")) > 0);
    assert_eq!(b.last_arrival(&site("basel")), 0);
}

/// The largest message the store names must be one it keeps, even with the smallest segments, and one
/// that it cannot keep must not end the server.
#[tokio::test]
async fn the_largest_message_fits_a_segment_and_one_beyond_is_refused() {
    let dir = TempDir::new().unwrap();
    let store = open(
        dir.path(),
        MailboxLimits {
            recent_bytes: 0,
            ..MailboxLimits::default()
        },
    );
    let largest = vec![3; store.max_message()];
    assert_eq!(largest.len(), 512 << 10);
    put(&store, "bern", 1, &largest).await.unwrap();
    assert!(matches!(
        put(&store, "bern", 2, &vec![3; 2 << 20]).await,
        Err(StoreError::Refused(_))
    ));
    assert_eq!(waiting(&store, "bern").await, [(1, largest)]);
}
