//! Decoding of what comes from other sites: whole messages, transactions within them, and frames of
//! the wire. Any bytes end in a fault or in a value that reads back as itself. First byte: what the
//! rest is, and whether checksums are made right first.
#![no_main]

use libfuzzer_sys::fuzz_target;
use milepost_fuzz::mend;
use milepost_replication::message::{Carried, Item, Joiner, Limits, decode, decode_header, encode};
use milepost_replication::wire::{Answer, Frame, Request};

const LIMITS: Limits = Limits {
    message_bytes: 1 << 20,
    raw_bytes: 1 << 20,
};

fuzz_target!(|input: &[u8]| {
    let Some((mode, rest)) = input.split_first() else {
        return;
    };
    match mode % 4 {
        0 => message(rest.to_vec()),
        1 => {
            let mut bytes = rest.to_vec();
            mend::message(&mut bytes);
            message(bytes);
        }
        2 => {
            if let Ok(carried) = Carried::decode(rest) {
                transaction(&carried);
            }
        }
        _ => wire(rest),
    }
});

fn message(bytes: Vec<u8>) {
    let header = decode_header(&bytes, &LIMITS);
    let Ok(message) = decode(&bytes, &LIMITS) else {
        return;
    };
    assert_eq!(header.as_ref(), Ok(&message.header));
    let again = encode(&message).unwrap();
    assert_eq!(decode(&again, &Limits::default()).as_ref(), Ok(&message));
    let mut joiner = Joiner::new(1 << 16);
    for item in &message.items {
        match item {
            Item::Transaction(carried) => transaction(carried),
            Item::Part(part) => drop(joiner.join(part)),
        }
        assert!(joiner.held() <= 1 << 16, "what a peer makes us hold is bounded");
    }
}

fn transaction(carried: &Carried) {
    let mut again = Vec::new();
    carried.encode(&mut again).unwrap();
    assert_eq!(Carried::decode(&again).as_ref(), Ok(carried));
    // What is applied must be readable for ever: a bad event is refused before it is in the log.
    if let Ok(frame) = carried.frame() {
        assert_eq!(frame.event_count(), carried.event_count());
        assert!(
            carried
                .events()
                .all(|event| event.and_then(|event| event.to_event()).is_ok())
        );
    }
}

fn wire(bytes: &[u8]) {
    let Some((&[kind, flags], body)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    let frame = Frame {
        kind,
        optional: flags & 1 == 1,
        request: 7,
        body: body.to_vec(),
    };
    if let Ok(Some(request)) = Request::of_frame(&frame) {
        let again = Request::of_frame(&request.to_frame(7));
        assert_eq!(format!("{again:?}"), format!("Ok(Some({request:?}))"));
    }
    if let Ok(Some(answer)) = Answer::of_frame(&frame) {
        let again = Answer::of_frame(&answer.to_frame(7));
        assert_eq!(format!("{again:?}"), format!("Ok(Some({answer:?}))"));
    }
}
