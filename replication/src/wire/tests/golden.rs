//! The bytes of version 1: what programs in the field send. A change of them is a new version of the protocol.

use super::*;
use crate::golden::{Records, assert_laid_out, kept_records};

const ID: u128 = 0x0123_4567_89ab_cdef_0011_2233_4455_6677;
const STORE: StoreId = StoreId(0x8899_aabb_ccdd_eeff_7766_5544_3322_1100);
const WORD: u64 = 0x1122_3344_5566_7788;

fn asked() -> Vec<(&'static str, Request)> {
    let poll = |first, skip| Request::Poll {
        store: STORE,
        after: WORD,
        max_count: 4_096,
        max_bytes: 4 << 20,
        first,
        skip,
    };
    let hello = Request::Hello {
        site: site("till-3"),
        session: WORD,
    };
    let put = Request::Put {
        to: site("hq"),
        id: ID,
        message: b"message".to_vec(),
    };
    let keys = vec![key("hq", ID), key("a.b", 2)];
    vec![
        ("hello", hello),
        ("put", put),
        ("poll", poll(false, Vec::new())),
        ("first-poll", poll(true, keys.clone())),
        ("remove", Request::Remove { keys }),
        ("ping", Request::Ping),
    ]
}

fn answered() -> Vec<(&'static str, Answer)> {
    let reason = || "see the log".to_owned();
    let deliver = |next, messages| Answer::Deliver {
        store: STORE,
        next,
        messages,
    };
    let messages = [("hq", ID, &b"one"[..]), ("a.b", 2, b"")].map(|(from, id, message)| Delivered {
        key: key(from, id),
        message: message.to_vec(),
    });
    let welcome = Answer::Welcome {
        store: STORE,
        max_message: 16 << 20,
        name: site("server"),
    };
    let not_now = |scope| Answer::NotNow {
        scope,
        reason: reason(),
    };
    let error = |code| Answer::Error {
        code,
        reason: reason(),
    };
    vec![
        ("welcome", welcome),
        ("stored", Answer::Stored),
        ("deliver", deliver(WORD, messages.to_vec())),
        ("deliver-nothing", deliver(0, Vec::new())),
        ("removed", Answer::Removed),
        ("waiting", Answer::Waiting),
        ("not-now-server", not_now(Scope::Server)),
        ("not-now-request", not_now(Scope::Request)),
        ("refused", error(ErrorCode::Refused)),
        ("invalid", error(ErrorCode::Invalid)),
        ("superseded", error(ErrorCode::Superseded)),
        ("pong", Answer::Pong),
    ]
}

/// A request's number; what comes unasked has none.
fn number(name: &str) -> u32 {
    if name == "waiting" { 0 } else { 0x0102_0304 }
}

fn kept() -> Records {
    let mut written = vec![("preamble".to_owned(), Preamble::OURS.encode().to_vec())];
    let asked = asked()
        .into_iter()
        .map(|(name, request)| (name, request.to_frame(number(name))));
    let answered = answered()
        .into_iter()
        .map(|(name, answer)| (name, answer.to_frame(number(name))));
    written.extend(
        asked
            .chain(answered)
            .map(|(name, frame)| (name.to_owned(), frame.encode().unwrap())),
    );
    let kept = kept_records("wire", &written);
    assert_eq!(kept, written);
    kept
}

#[tokio::test]
async fn frames_of_version_1_are_written_and_read_as_ever() {
    let kept = kept();
    let (preamble, frames) = kept.split_first().unwrap();
    let theirs = Preamble::decode(preamble.1.as_slice().try_into().unwrap()).unwrap();
    assert_eq!(
        (theirs, Preamble::OURS.agree(theirs).unwrap()),
        (Preamble::OURS, 1)
    );
    let bytes = frames.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    let read = read_all(bytes, limits()).await.unwrap();
    let (requests, answers) = read.split_at(asked().len());
    assert_eq!(answers.len(), answered().len());
    for (frame, (name, request)) in requests.iter().zip(asked()) {
        assert_eq!((frame.request, frame.optional), (number(name), false), "{name}");
        assert_eq!(Request::of_frame(frame).unwrap(), Some(request), "{name}");
    }
    for (frame, (name, answer)) in answers.iter().zip(answered()) {
        assert_eq!(
            (frame.request, frame.optional),
            (number(name), name == "waiting"),
            "{name}"
        );
        assert_eq!(Answer::of_frame(frame).unwrap(), Some(answer), "{name}");
    }
}

/// A frame around a body, both as docs/replication.md says ("Frame").
fn assert_frame((name, bytes): &(String, Vec<u8>), kind: u8, body: &[(usize, &[u8])]) {
    let flags = u8::from(kind == 9);
    let len = body.iter().map(|(_, field)| field.len()).sum::<usize>() as u32;
    let crc = crc32fast::hash(&[&bytes[..12], &bytes[16..]].concat());
    let (len, crc, number) = (len.to_le_bytes(), crc.to_le_bytes(), number(name).to_le_bytes());
    let head = [kind, flags, 0, 0];
    let mut fields: Vec<(usize, &[u8])> = vec![(0, &len), (4, &head), (8, &number), (12, &crc)];
    fields.extend(body.iter().map(|(at, field)| (16 + at, *field)));
    assert_laid_out(name, bytes, &fields);
}

#[test]
fn preamble_and_requests_of_version_1_are_laid_out_as_their_page_says() {
    let kept = kept();
    let crc = crc32fast::hash(&kept[0].1[..12]).to_le_bytes();
    let fields: &[(usize, &[u8])] = &[(0, b"MILEPOST"), (8, &[1, 0]), (10, &[1, 0]), (12, &crc)];
    assert_laid_out("preamble", &kept[0].1, fields);
    let (id, store, word) = (&ID.to_le_bytes(), &STORE.0.to_le_bytes(), &WORD.to_le_bytes());
    let keys = [&id[..], b"\x02hq", &2u128.to_le_bytes(), b"\x03a.b"].concat();
    let (most, bytes) = (&4_096u32.to_le_bytes(), &(4u32 << 20).to_le_bytes());
    // docs/replication.md, the table of kinds.
    assert_frame(
        &kept[1],
        1,
        &[(0, word), (8, &[0; 8]), (16, &[6]), (17, b"till-3")],
    );
    let put: &[(usize, &[u8])] = &[
        (0, id),
        (16, &7u32.to_le_bytes()),
        (20, &[2]),
        (21, &[0; 3]),
        (24, b"hq"),
        (26, b"message"),
    ];
    assert_frame(&kept[2], 3, put);
    for (record, first, count, keys) in [(&kept[3], 0u8, 0u32, &[][..]), (&kept[4], 1, 2, &keys)] {
        let poll: &[(usize, &[u8])] = &[
            (0, store),
            (16, word),
            (24, most),
            (28, bytes),
            (32, &[first]),
            (33, &[0; 3]),
            (36, &count.to_le_bytes()),
            (40, keys),
        ];
        assert_frame(record, 5, poll);
    }
    assert_frame(&kept[5], 7, &[(0, &2u32.to_le_bytes()), (4, &[0; 4]), (8, &keys)]);
    assert_frame(&kept[6], 12, &[]);
}

#[test]
fn answers_of_version_1_are_laid_out_as_their_page_says() {
    let kept = kept();
    let answers = &kept[1 + asked().len()..];
    let (id, store, word) = (&ID.to_le_bytes(), &STORE.0.to_le_bytes(), &WORD.to_le_bytes());
    // docs/replication.md, the table of kinds.
    let welcome: &[(usize, &[u8])] = &[
        (0, store),
        (16, &(16u32 << 20).to_le_bytes()),
        (20, &[0; 4]),
        (24, &[6]),
        (25, b"server"),
    ];
    assert_frame(&answers[0], 2, welcome);
    assert_frame(&answers[1], 4, &[]);
    let deliver: &[(usize, &[u8])] = &[
        (0, store),
        (16, word),
        (24, &2u32.to_le_bytes()),
        (28, &[0; 4]),
        (32, id),
        (48, &3u32.to_le_bytes()),
        (52, &[2]),
        (53, &[0; 3]),
        (56, b"hq"),
        (58, b"one"),
        (61, &2u128.to_le_bytes()),
        (77, &0u32.to_le_bytes()),
        (81, &[3, 0, 0, 0]),
        (85, b"a.b"),
    ];
    assert_frame(&answers[2], 6, deliver);
    assert_frame(
        &answers[3],
        6,
        &[(0, store), (16, &[0; 8]), (24, &[0; 4]), (28, &[0; 4])],
    );
    assert_frame(&answers[4], 8, &[]);
    assert_frame(&answers[5], 9, &[]);
    let reason = b"see the log";
    for (record, kind, first) in [(6, 10, 0), (7, 10, 1), (8, 11, 1), (9, 11, 2), (10, 11, 3)] {
        assert_frame(
            &answers[record],
            kind,
            &[(0, &[first]), (1, &[11, 0]), (3, reason)],
        );
    }
    assert_frame(&answers[11], 13, &[]);
}
