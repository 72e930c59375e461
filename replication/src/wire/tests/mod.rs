//! The wire attacked: fixed bytes, every cut, every flipped byte, claimed lengths, silence.

use std::sync::Arc;
use std::time::Duration;

use milepost_engine::StoreId;
use proptest::prelude::*;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

use super::*;

mod golden;

fn site(name: &str) -> SiteName {
    SiteName::new(name).unwrap()
}

fn key(from: &str, id: u128) -> MessageKey {
    MessageKey { from: site(from), id }
}

fn requests() -> Vec<Request> {
    vec![
        Request::Hello {
            site: site("bern"),
            session: 7,
        },
        Request::Put {
            to: site("hq"),
            id: 1 << 100,
            message: b"hello".to_vec(),
        },
        Request::Poll {
            store: StoreId(9),
            after: 5,
            max_count: 3,
            max_bytes: 1000,
            first: true,
            skip: vec![key("hq", 1), key("a.b", 2)],
        },
        Request::Remove {
            keys: vec![key("hq", u128::MAX)],
        },
        Request::Ping,
    ]
}

fn answers() -> Vec<Answer> {
    vec![
        Answer::Welcome {
            store: StoreId(3),
            max_message: 16,
            name: site("server"),
        },
        Answer::Stored,
        Answer::Deliver {
            store: StoreId(3),
            next: 8,
            messages: vec![
                Delivered {
                    key: key("hq", 4),
                    message: b"one".to_vec(),
                },
                Delivered {
                    key: key("basel", 5),
                    message: Vec::new(),
                },
            ],
        },
        Answer::Removed,
        Answer::Waiting,
        Answer::NotNow {
            scope: Scope::Request,
            reason: "full".to_owned(),
        },
        Answer::Error {
            code: ErrorCode::Superseded,
            reason: "newer".to_owned(),
        },
        Answer::Pong,
    ]
}

fn limits() -> ReadLimits {
    ReadLimits {
        max_body: 4096,
        frame: Duration::from_secs(5),
        bytes_per_second: 1 << 20,
        budget: None,
    }
}

async fn read_all(bytes: Vec<u8>, limits: ReadLimits) -> Result<Vec<Frame>, WireError> {
    let mut reader = FrameReader::new(std::io::Cursor::new(bytes), limits);
    let mut frames = Vec::new();
    while let Some(frame) = reader.next().await? {
        frames.push(frame);
    }
    Ok(frames)
}

#[test]
fn every_request_and_answer_reads_back_as_it_was_written() {
    for request in requests() {
        assert_eq!(Request::of_frame(&request.to_frame(4)).unwrap(), Some(request));
    }
    for answer in answers() {
        assert_eq!(Answer::of_frame(&answer.to_frame(4)).unwrap(), Some(answer));
    }
}

#[test]
fn a_body_cut_anywhere_is_malformed_and_more_behind_it_is_ignored() {
    let frames = requests()
        .iter()
        .map(|request| request.to_frame(1))
        .collect::<Vec<_>>();
    for frame in &frames {
        for len in 0..frame.body.len() {
            let cut = Frame {
                body: frame.body[..len].to_vec(),
                ..frame.clone()
            };
            assert!(
                Request::of_frame(&cut).is_err(),
                "kind {} cut at {len}",
                frame.kind
            );
        }
        let mut longer = frame.clone();
        longer.body.extend_from_slice(b"a later version's field");
        assert_eq!(
            Request::of_frame(&longer).unwrap(),
            Request::of_frame(frame).unwrap()
        );
    }
}

#[tokio::test]
async fn a_flipped_bit_anywhere_in_a_frame_never_yields_a_frame() {
    let bytes = requests()[2].to_frame(77).encode().unwrap();
    for at in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[at / 8] ^= 1 << (at % 8);
        assert!(read_all(damaged, limits()).await.is_err(), "bit {at}");
    }
}

/// A fuzz run found it: bytes that are no UTF-8 grow when they are shown as text, and a reason longer than
/// any that we write was kept whole, so that what was read could not be written again.
#[test]
fn a_reason_longer_than_any_is_cut_at_a_character_and_reads_back_as_itself() {
    for filling in [b"x", b"\xff"] {
        let text = filling.repeat(5000);
        let mut body = vec![1];
        body.extend_from_slice(&5000_u16.to_le_bytes());
        body.extend_from_slice(&text);
        for kind in [10, 11] {
            let frame = Frame {
                kind,
                optional: false,
                request: 1,
                body: body.clone(),
            };
            let answer = Answer::of_frame(&frame).unwrap().unwrap();
            let (Answer::Error { reason, .. } | Answer::NotNow { reason, .. }) = &answer else {
                panic!("{answer:?} gives no reason");
            };
            assert!(reason.len() > 1000 && reason.len() <= 1024, "{}", reason.len());
            assert_eq!(Answer::of_frame(&answer.to_frame(1)).unwrap(), Some(answer));
        }
    }
}

#[test]
fn an_unknown_kind_is_skipped_when_it_is_optional_and_refused_otherwise() {
    let frame = Frame {
        kind: 200,
        optional: true,
        request: 0,
        body: b"?".to_vec(),
    };
    assert_eq!(Answer::of_frame(&frame).unwrap(), None);
    assert_eq!(Request::of_frame(&frame).unwrap(), None);
    let frame = Frame {
        optional: false,
        ..frame
    };
    assert!(Answer::of_frame(&frame).is_err());
    assert!(Request::of_frame(&frame).is_err());
}

/// A count of four thousand million keys with none behind it, a length of four gigabytes: what they
/// claim must not be allocated. The test would be killed if it were.
#[tokio::test]
async fn a_claimed_length_or_count_allocates_nothing() {
    for request in [Request::Remove { keys: Vec::new() }, requests()[1].clone()] {
        let mut frame = request.to_frame(1);
        let at = if frame.kind == 3 { 16 } else { 0 };
        frame.body[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Request::of_frame(&frame).is_err());
    }
    let mut bytes = Request::Ping.to_frame(1).encode().unwrap();
    bytes[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(
        read_all(bytes.clone(), limits()).await,
        Err(WireError::Malformed(_))
    ));
    bytes[..4].copy_from_slice(&4096_u32.to_le_bytes());
    assert!(matches!(read_all(bytes, limits()).await, Err(WireError::Closed)));
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_never_ends_is_given_up_and_one_not_begun_is_waited_for() {
    let (mut theirs, ours) = tokio::io::duplex(1024);
    let mut reader = FrameReader::new(ours, limits());
    let idle = tokio::time::timeout(Duration::from_secs(3600), reader.next()).await;
    assert!(idle.is_err(), "silence between frames is the caller's to limit");
    let bytes = Request::Ping.to_frame(1).encode().unwrap();
    theirs.write_all(&bytes[..5]).await.unwrap();
    assert!(matches!(reader.next().await, Err(WireError::Silent(_))));
}

#[tokio::test]
async fn a_reader_that_is_dropped_at_any_await_loses_no_byte() {
    let (mut theirs, ours) = tokio::io::duplex(1 << 16);
    let mut reader = FrameReader::new(ours, limits());
    for round in 0..3 {
        for request in requests() {
            for byte in request.to_frame(round).encode().unwrap() {
                theirs.write_all(&[byte]).await.unwrap();
                let look = tokio::select! { biased; frame = reader.next() => Some(frame), () = tokio::task::yield_now() => None };
                if let Some(frame) = look {
                    assert_eq!(
                        Request::of_frame(&frame.unwrap().unwrap()).unwrap().as_ref(),
                        Some(&request)
                    );
                }
            }
        }
    }
    drop(theirs);
    assert!(reader.next().await.unwrap().is_none());
}

#[tokio::test]
async fn large_bodies_share_a_budget_and_give_it_back() {
    let budget = Arc::new(Semaphore::new(200));
    let limits = ReadLimits {
        max_body: 1 << 20,
        budget: Some(Arc::clone(&budget)),
        ..limits()
    };
    let put = Request::Put {
        to: site("hq"),
        id: 1,
        message: vec![1; 100 << 10],
    };
    let bytes = put.to_frame(1).encode().unwrap();
    let mut reader = FrameReader::new(std::io::Cursor::new([bytes.clone(), bytes].concat()), limits);
    for _ in 0..2 {
        assert!(reader.next().await.unwrap().is_some());
        assert_eq!(
            budget.available_permits(),
            100,
            "held while the frame is being answered"
        );
    }
    assert!(reader.next().await.unwrap().is_none());
    assert_eq!(budget.available_permits(), 200);
}

#[test]
fn versions_that_do_not_meet_part_with_both_sides_named() {
    let newer = Preamble {
        highest: 9,
        lowest: 4,
    };
    assert!(
        Preamble::OURS
            .agree(newer)
            .unwrap_err()
            .to_string()
            .contains("4 to 9")
    );
    let both = Preamble {
        highest: 9,
        lowest: 1,
    };
    assert_eq!(Preamble::OURS.agree(both).unwrap(), HIGHEST_VERSION);
    let mut damaged = newer.encode();
    damaged[9] ^= 1;
    assert!(Preamble::decode(&damaged).is_err());
}

proptest! {
    #[test]
    fn no_bytes_from_outside_panic_or_hang(kind in 0_u8..20, optional: bool, body: Vec<u8>) {
        let frame = Frame { kind, optional, request: 1, body };
        let _ = (Request::of_frame(&frame), Answer::of_frame(&frame));
    }

    #[test]
    fn no_stream_of_bytes_panics_or_hangs(bytes: Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _ = runtime.block_on(read_all(bytes, limits()));
    }
}
