//! Servers and failover over real sockets and a real shared store: servers that are killed, refuse,
//! hang, say "not now", cut answers off, and clients that send rubbish.

mod hostile;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;

use milepost_engine::Options;
use milepost_engine::clock::SystemRng;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use super::*;
use crate::endpoint::Endpoint;
use crate::server::{EmbeddedStore, MailboxLimits, ServerLimits, accept};
use crate::wire::{Frame, HEADER_LEN, PREAMBLE_LEN, Preamble, Scope};

/// Limits for what never comes; long enough that what comes is never late on a busy machine.
const SHORT: Duration = Duration::from_secs(2);

fn site(name: &str) -> SiteName {
    SiteName::new(name).unwrap()
}

/// A server of a group; dropping it kills it as abruptly as a task can be.
struct Server {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Server {
    async fn start(dir: &TempDir) -> Server {
        Server::start_with(dir, MailboxLimits::default()).await
    }

    async fn start_with(dir: &TempDir, mailboxes: MailboxLimits) -> Server {
        let store = EmbeddedStore::open_or_init(dir.path(), Options::new(), mailboxes).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let limits = ServerLimits {
            handshake: SHORT,
            ..ServerLimits::default()
        };
        let serving = tokio::spawn(async move {
            accept(listener, Arc::new(store), limits, std::future::pending())
                .await
                .unwrap();
        });
        Server { address, serving }
    }
}

/// A listener that does with each connection what the test says; counts them.
async fn impostor<F: Future<Output = ()> + Send + 'static>(
    meet: impl Fn(TcpStream) -> F + Send + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(meet(stream));
        }
    });
    (address, count)
}

/// A port that is taken and refuses, until it is listened on.
fn refusing_port() -> (SocketAddr, TcpSocket) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    (socket.local_addr().unwrap(), socket)
}

fn link_with(own: &str, addresses: &[SocketAddr], options: ServerLinkOptions) -> ServerLink {
    let endpoints = addresses
        .iter()
        .map(|at| Endpoint::new(at.ip().to_string(), at.port()).unwrap());
    ServerLink::new(
        site(own),
        EndpointList::new(endpoints).unwrap(),
        options,
        Arc::new(SystemRng),
    )
}

fn link(own: &str, addresses: &[SocketAddr]) -> ServerLink {
    let options = ServerLinkOptions {
        connect_timeout: SHORT,
        request_timeout: 4 * SHORT,
        ..ServerLinkOptions::default()
    };
    link_with(own, addresses, options)
}

/// One round of polling.
async fn poll(link: &ServerLink) -> Result<Vec<Incoming>, LinkError> {
    let (mut all, mut after, skip) = (Vec::new(), None, BTreeSet::new());
    loop {
        let request = PollRequest {
            after: after.as_ref(),
            skip: &skip,
            max_count: 10,
            max_bytes: 1 << 20,
        };
        let batch = link.poll(request).await?;
        all.extend(batch.messages);
        after = batch.next;
        if after.is_none() {
            return Ok(all);
        }
    }
}

async fn bodies(link: &ServerLink) -> Vec<Vec<u8>> {
    poll(link)
        .await
        .unwrap()
        .into_iter()
        .map(|one| one.bytes)
        .collect()
}

#[tokio::test]
async fn a_message_waits_at_every_server_of_the_group_until_it_is_removed() {
    let dir = TempDir::new().unwrap();
    let (a, b) = (Server::start(&dir).await, Server::start(&dir).await);
    let (hq, bern) = (link("hq", &[a.address]), link("bern", &[b.address]));
    hq.deliver(&site("bern"), b"one").await.unwrap();
    hq.deliver(&site("basel"), b"not for bern").await.unwrap();
    let came = poll(&bern).await.unwrap();
    assert_eq!(came.len(), 1);
    assert_eq!(came[0].bytes, b"one");
    assert_eq!(poll(&bern).await.unwrap(), came, "still there");
    let skip = BTreeSet::from([came[0].id.clone()]);
    let request = PollRequest {
        after: None,
        skip: &skip,
        max_count: 10,
        max_bytes: 10,
    };
    assert_eq!(
        bern.poll(request).await.unwrap(),
        Batch::default(),
        "held already"
    );
    let ids = [came[0].id.clone()];
    bern.remove(&ids).await.unwrap();
    bern.remove(&ids).await.unwrap();
    assert_eq!(poll(&bern).await.unwrap(), []);
    assert_eq!((hq.failovers(), bern.failovers()), (0, 0));
}

/// The primary is killed while messages flow through it; sender and receiver go over to the other
/// server in the middle of their work. Every message whose deliver returned Ok comes once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_mid_transfer_loses_and_doubles_nothing() {
    let dir = TempDir::new().unwrap();
    let (a, b) = (Server::start(&dir).await, Server::start(&dir).await);
    let addresses = [a.address, b.address];
    let (hq, bern) = (link("hq", &addresses), link("bern", &addresses));
    let delivered = Arc::new(AtomicUsize::new(0));
    let sending = tokio::spawn({
        let (hq, delivered) = (hq.clone(), Arc::clone(&delivered));
        async move {
            for number in 0..300_u32 {
                let message = [&number.to_le_bytes()[..], &[1; 3000]].concat();
                hq.deliver(&site("bern"), &message).await.unwrap();
                delivered.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let (mut seen, mut a) = (BTreeSet::new(), Some(a));
    while seen.len() < 300 {
        if delivered.load(Ordering::SeqCst) > 100 {
            a = None;
        }
        for message in poll(&bern).await.unwrap() {
            let number = u32::from_le_bytes(*message.bytes.first_chunk().unwrap());
            assert!(
                seen.insert(number),
                "message {number} came again after its removal"
            );
            bern.remove(&[message.id]).await.unwrap();
        }
    }
    sending.await.unwrap();
    assert!(a.is_none());
    assert_eq!(poll(&bern).await.unwrap(), []);
    assert_eq!((hq.failovers(), bern.failovers()), (1, 1));
}

/// The first server keeps the message and dies before its answer arrives: the sender cannot know and
/// asks the second, which must know the key.
#[tokio::test]
async fn an_upload_repeated_because_its_answer_was_lost_is_stored_once() {
    let dir = TempDir::new().unwrap();
    let (a, b) = (Server::start(&dir).await, Server::start(&dir).await);
    let behind = a.address;
    let greeting = PREAMBLE_LEN + HEADER_LEN + 16 + 4 + 4 + 1 + "server".len();
    let (cutting, _) = impostor(move |mut client| async move {
        let mut server = TcpStream::connect(behind).await.unwrap();
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let forward = tokio::io::copy(&mut from_client, &mut to_server);
        let back = async {
            let mut bytes = vec![0; greeting];
            from_server.read_exact(&mut bytes).await.unwrap();
            to_client.write_all(&bytes).await.unwrap();
            // The Stored is there: the message is durable. It never reaches the client.
            from_server.read_exact(&mut bytes[..HEADER_LEN]).await.unwrap();
        };
        tokio::select! { _ = forward => (), () = back => () }
    })
    .await;
    let hq = link("hq", &[cutting, b.address]);
    hq.deliver(&site("bern"), b"once").await.unwrap();
    assert_eq!(hq.failovers(), 1, "the first answer was lost");
    assert_eq!(bodies(&link("bern", &[b.address])).await, [b"once".to_vec()]);
}

#[tokio::test]
async fn a_primary_that_refuses_hangs_or_speaks_something_else_is_passed_at_once() {
    let dir = TempDir::new().unwrap();
    let good = Server::start(&dir).await;
    let (hanging, _) = impostor(|stream| async move {
        let _open = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let (closing, _) = impostor(|stream| async move { drop(stream) }).await;
    let (web, _) = impostor(|mut stream| async move {
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
    })
    .await;
    let (refusing, _held) = refusing_port();
    for bad in [refusing, hanging, closing, web] {
        let hq = link("hq", &[bad, good.address]);
        hq.deliver(&site("bern"), b"x").await.unwrap();
        assert_eq!(hq.failovers(), 1);
    }
    assert_eq!(bodies(&link("bern", &[good.address])).await.len(), 4);
}

/// Greets as a server does, then answers everything with the given answer, or not at all.
async fn greeter(answer: Option<Answer>) -> (SocketAddr, Arc<AtomicUsize>) {
    impostor(move |mut stream| {
        let answer = answer.clone();
        async move {
            let welcome = Answer::Welcome {
                store: StoreId(1),
                max_message: 1 << 20,
                name: site("server"),
            };
            let frame = welcome.to_frame(1).encode().unwrap();
            stream
                .write_all(&[&Preamble::OURS.encode()[..], &frame].concat())
                .await
                .unwrap();
            // Small requests, each of which comes in one read: the hello first.
            let (mut bytes, mut request) = ([0; 4096], 0);
            while stream.read(&mut bytes).await.unwrap_or(0) > 0 {
                if let Some(answer) = answer.as_ref().filter(|_| request > 0) {
                    let frame = answer.to_frame(request).encode().unwrap();
                    let _ = stream.write_all(&frame).await;
                }
                request += 1;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_server_that_goes_silent_or_says_not_now_counts_as_failed() {
    let dir = TempDir::new().unwrap();
    let good = Server::start(&dir).await;
    let not_now = Answer::NotNow {
        scope: Scope::Server,
        reason: "going down".to_owned(),
    };
    for answer in [None, Some(not_now)] {
        let (bad, _) = greeter(answer).await;
        let hq = link("hq", &[bad, good.address]);
        hq.deliver(&site("bern"), b"x").await.unwrap();
        assert_eq!(hq.failovers(), 1);
    }
    assert_eq!(bodies(&link("bern", &[good.address])).await.len(), 2);
}

/// The time that four megabytes may take was granted to a poll before a byte of an answer had come: a server
/// that said nothing held its client for five minutes, and the send phase behind it.
#[tokio::test]
async fn a_server_that_greets_and_then_says_nothing_is_left_for_the_next_also_by_a_poll() {
    let dir = TempDir::new().unwrap();
    let good = Server::start(&dir).await;
    let (mute, _) = greeter(None).await;
    let bern = link("bern", &[mute, good.address]);
    let polled = tokio::time::timeout(Duration::from_secs(60), poll(&bern)).await;
    assert_eq!(polled.expect("it waits for the mute server").unwrap(), []);
    assert_eq!(bern.failovers(), 1);
}

/// A list of messages that never ends kept its client polling for ever.
#[tokio::test]
async fn a_list_of_messages_that_does_not_go_on_is_refused() {
    let (liar, _) = greeter(Some(Answer::Deliver {
        store: StoreId(0),
        next: 1,
        messages: Vec::new(),
    }))
    .await;
    let error = poll(&link("bern", &[liar])).await.unwrap_err();
    assert!(error.to_string().contains("never end"), "{error}");
}

#[tokio::test]
async fn the_primary_is_tried_n_times_more_and_each_alternate_once_then_all_are_named() {
    let (primary, primary_count) = impostor(|stream| async move { drop(stream) }).await;
    let (alternate, alternate_count) = greeter(Some(Answer::NotNow {
        scope: Scope::Server,
        reason: "full house".to_owned(),
    }))
    .await;
    let (nobody, _held) = refusing_port();
    let options = ServerLinkOptions {
        primary: PrimaryRetries {
            count: 3,
            delay: Duration::from_millis(1),
        },
        connect_timeout: SHORT,
        ..ServerLinkOptions::default()
    };
    let hq = link_with("hq", &[primary, alternate, nobody], options);
    let error = hq.deliver(&site("bern"), b"x").await.unwrap_err();
    let LinkError::Unreachable { attempts } = &error else {
        panic!("{error}")
    };
    assert_eq!(attempts.len(), 6);
    let text = error.to_string();
    for part in [
        primary.to_string(),
        alternate.to_string(),
        nobody.to_string(),
        "full house".to_owned(),
    ] {
        assert!(text.contains(&part), "{text} does not name {part}");
    }
    let counts = || {
        (
            primary_count.load(Ordering::SeqCst),
            alternate_count.load(Ordering::SeqCst),
        )
    };
    assert_eq!(counts(), (4, 1));
    assert_eq!(
        poll(&hq).await.unwrap_err(),
        error,
        "the phases of a process share one ladder in a round"
    );
    assert_eq!(counts(), (4, 1));
    hq.begin_round();
    assert!(poll(&hq).await.unwrap_err().is_unreachable());
    assert_eq!(counts(), (8, 2), "the next round begins at the primary");
}

#[tokio::test]
async fn a_batch_process_climbs_one_ladder_whatever_its_phases_begin() {
    let (primary, count) = impostor(|stream| async move { drop(stream) }).await;
    let options = ServerLinkOptions {
        primary: PrimaryRetries {
            count: 3,
            delay: Duration::ZERO,
        },
        one_round: true,
        ..ServerLinkOptions::default()
    };
    let hq = link_with("hq", &[primary], options);
    for _ in 0..3 {
        hq.begin_round();
        assert!(poll(&hq).await.unwrap_err().is_unreachable());
    }
    assert_eq!(count.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn what_was_given_up_is_reached_again_in_the_next_round() {
    let dir = TempDir::new().unwrap();
    let (at, socket) = refusing_port();
    let hq = link("hq", &[at]);
    assert!(
        hq.deliver(&site("bern"), b"x")
            .await
            .unwrap_err()
            .is_unreachable()
    );
    let store = EmbeddedStore::open_or_init(dir.path(), Options::new(), MailboxLimits::default()).unwrap();
    let listener = socket.listen(16).unwrap();
    tokio::spawn(accept(
        listener,
        Arc::new(store),
        ServerLimits::default(),
        std::future::pending(),
    ));
    assert!(
        hq.deliver(&site("bern"), b"x")
            .await
            .unwrap_err()
            .is_unreachable()
    );
    hq.begin_round();
    hq.deliver(&site("bern"), b"x").await.unwrap();
}

#[tokio::test]
async fn a_full_mailbox_is_not_now_and_no_reason_to_go_to_another_server() {
    let dir = TempDir::new().unwrap();
    let limits = MailboxLimits {
        messages: 2,
        ..MailboxLimits::default()
    };
    let (a, b) = (
        Server::start_with(&dir, limits).await,
        Server::start_with(&dir, limits).await,
    );
    let hq = link("hq", &[a.address, b.address]);
    hq.deliver(&site("bern"), b"1").await.unwrap();
    hq.deliver(&site("bern"), b"2").await.unwrap();
    let error = hq.deliver(&site("bern"), b"3").await.unwrap_err();
    assert!(
        matches!(&error, LinkError::NotNow { reason, .. } if reason.contains("bern")),
        "{error}"
    );
    hq.deliver(&site("basel"), b"4").await.unwrap();
    assert_eq!(hq.failovers(), 0);
}

#[tokio::test]
async fn the_newest_session_of_a_site_polls_and_a_mere_sender_takes_nothing_over() {
    let dir = TempDir::new().unwrap();
    let (a, b) = (Server::start(&dir).await, Server::start(&dir).await);
    let (older, newer) = (link("bern", &[a.address]), link("bern", &[b.address]));
    older.deliver(&site("bern"), b"x").await.unwrap();
    assert_eq!(bodies(&older).await.len(), 1);
    newer.deliver(&site("hq"), b"y").await.unwrap();
    assert_eq!(bodies(&older).await.len(), 1, "the newer one only sends");
    assert_eq!(bodies(&newer).await.len(), 1);
    assert!(matches!(poll(&older).await, Err(LinkError::Refused { .. })));
    older.deliver(&site("hq"), b"z").await.unwrap();
    assert_eq!(bodies(&newer).await.len(), 1);
}

#[tokio::test]
async fn two_links_of_one_process_share_the_mailbox() {
    let dir = TempDir::new().unwrap();
    let (a, b) = (Server::start(&dir).await, Server::start(&dir).await);
    let options = ServerLinkOptions {
        session: Some(5),
        ..ServerLinkOptions::default()
    };
    let one = link_with("bern", &[a.address, b.address], options);
    let other = link_with("bern", &[b.address, a.address], options);
    for _ in 0..2 {
        assert_eq!(bodies(&one).await.len(), 0);
        assert_eq!(bodies(&other).await.len(), 0);
    }
}

#[tokio::test]
async fn a_connected_client_is_told_of_what_comes_through_another_server() {
    let dir = TempDir::new().unwrap();
    let (a, b) = (Server::start(&dir).await, Server::start(&dir).await);
    let (hq, bern) = (link("hq", &[a.address]), link("bern", &[b.address]));
    assert_eq!(poll(&bern).await.unwrap(), []);
    assert!(!bern.wait_for_push(SHORT).await.unwrap());
    hq.deliver(&site("basel"), b"for another").await.unwrap();
    assert!(!bern.wait_for_push(SHORT).await.unwrap());
    let (told, sent) = tokio::join!(
        bern.wait_for_push(Duration::from_secs(30)),
        hq.deliver(&bern.shared.own, b"x")
    );
    sent.unwrap();
    assert!(told.unwrap());
    assert_eq!(poll(&bern).await.unwrap().len(), 1);
    drop(b);
    assert!(
        bern.wait_for_push(Duration::from_secs(30)).await.unwrap(),
        "a lost connection is a reason to poll"
    );
}

/// The future of a delivery is dropped at various moments; the connection may hold half a frame then.
#[tokio::test]
async fn a_request_dropped_half_way_leaves_a_link_that_works() {
    let dir = TempDir::new().unwrap();
    let server = Server::start(&dir).await;
    let hq = link("hq", &[server.address]);
    let large = vec![5; 3 << 20];
    for micros in [0, 50, 200, 1000, 3000, 8000] {
        let _ = tokio::time::timeout(Duration::from_micros(micros), hq.deliver(&site("bern"), &large)).await;
        hq.deliver(&site("basel"), &[1]).await.unwrap();
    }
    assert_eq!(bodies(&link("basel", &[server.address])).await.len(), 6);
    assert!(
        bodies(&link("bern", &[server.address]))
            .await
            .iter()
            .all(|body| *body == large)
    );
}

#[tokio::test]
async fn a_cursor_and_a_removal_from_another_store_touch_nothing() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (a, b) = (Server::start(&one).await, Server::start(&two).await);
    for at in [a.address, b.address] {
        let hq = link("hq", &[at]);
        for number in 0..3_u8 {
            hq.deliver(&site("bern"), &[number]).await.unwrap();
        }
    }
    let bern = link("bern", &[a.address, b.address]);
    let request = PollRequest {
        after: None,
        skip: &BTreeSet::new(),
        max_count: 2,
        max_bytes: 100,
    };
    let first = bern.poll(request).await.unwrap();
    drop(a);
    let request = PollRequest {
        after: first.next.as_ref(),
        max_count: 9,
        ..request
    };
    assert_eq!(
        bern.poll(request).await.unwrap().messages.len(),
        3,
        "from the front of the other store"
    );
    let ids: Vec<MessageId> = first.messages.into_iter().map(|one| one.id).collect();
    bern.remove(&ids).await.unwrap();
    assert_eq!(bodies(&bern).await.len(), 3);
}
