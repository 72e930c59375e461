//! Clients that send rubbish, say nothing, or ask for what must not be: the server stays, and holds only
//! what was put honestly.

use super::*;

/// Rubbish of many kinds, then one honest client: the server must still be there and hold only what
/// was put honestly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_bytes_cost_their_sender_the_connection_and_nobody_else_anything() {
    let dir = TempDir::new().unwrap();
    let server = Server::start(&dir).await;
    for attack in attacks() {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(&attack).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // It ends: by the server's word, or by its limit for greetings.
        let _ = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer))
            .await
            .unwrap();
    }
    let hq = link("hq", &[server.address]);
    hq.deliver(&site("bern"), b"honest").await.unwrap();
    assert_eq!(
        bodies(&link("bern", &[server.address])).await,
        [b"honest".to_vec()]
    );
    assert_eq!(hq.failovers(), 0);
}

#[tokio::test]
async fn a_client_that_says_nothing_is_let_go() {
    let dir = TempDir::new().unwrap();
    let server = Server::start(&dir).await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let mut bytes = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(30), silent.read_to_end(&mut bytes)).await;
    assert!(end.is_ok(), "the server waits for ever for a greeting");
    assert_eq!(bytes, Preamble::OURS.encode());
}

#[tokio::test]
async fn an_endpoint_under_tls_is_never_spoken_to_in_the_clear() {
    let (listening, count) = impostor(|stream| async move { drop(stream) }).await;
    let endpoint: Endpoint = format!("milepost+tls://{listening}").parse().unwrap();
    let endpoints = EndpointList::new([endpoint]).unwrap();
    let hq = ServerLink::new(
        site("hq"),
        endpoints,
        ServerLinkOptions::default(),
        Arc::new(SystemRng),
    );
    assert!(
        hq.deliver(&site("bern"), b"x")
            .await
            .unwrap_err()
            .to_string()
            .contains("TLS")
    );
    assert_eq!(count.load(Ordering::SeqCst), 0);
}

/// Openings of many kinds that no honest client makes.
fn attacks() -> Vec<Vec<u8>> {
    let preamble = Preamble::OURS.encode().to_vec();
    let hello = Request::Hello {
        site: site("mallory"),
        session: 1,
    }
    .to_frame(1)
    .encode()
    .unwrap();
    let put = Request::Put {
        to: site("bern"),
        id: 1,
        message: vec![1; 1000],
    }
    .to_frame(2)
    .encode()
    .unwrap();
    let greeted = [preamble.clone(), hello.clone()].concat();
    let mut huge = Frame {
        kind: 3,
        optional: false,
        request: 2,
        body: Vec::new(),
    }
    .encode()
    .unwrap();
    huge[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut flipped = put.clone();
    flipped[500] ^= 1;
    let liar = Frame {
        kind: 7,
        optional: false,
        request: 2,
        body: vec![0xff; 8],
    }
    .encode()
    .unwrap();
    let mut attacks = vec![
        Vec::new(),
        preamble.clone(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        [preamble.clone(), put.clone()].concat(),
        [preamble.clone(), huge.clone()].concat(),
        [greeted.clone(), huge].concat(),
        [greeted.clone(), put[..700].to_vec()].concat(),
        [greeted.clone(), flipped].concat(),
        [greeted.clone(), liar].concat(),
        [greeted.clone(), hello].concat(),
    ];
    for _ in 0..50 {
        let noise: Vec<u8> = (0..40)
            .flat_map(|_| milepost_engine::clock::Rng::next_u64(&SystemRng).to_le_bytes())
            .collect();
        attacks.push(noise.clone());
        attacks.push([greeted.clone(), noise].concat());
    }
    attacks
}
