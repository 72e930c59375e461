//! Decoding of what comes from other sites: whole messages, sealed or not, transactions within them, and frames of
//! the wire. Any bytes end in a fault or in a value that reads back as itself. First byte: what the
//! rest is, and whether checksums are made right first; with 0x40 a message is one of a pair that has a key, and
//! only what that key sealed opens.
#![no_main]

use libfuzzer_sys::fuzz_target;
use milepost_fuzz::mend;
use milepost_replication::keys::{KeyRing, NONCE_LEN, PairKey, PairKeys, RingKey};
use milepost_replication::message::{
    Carried, Item, Joiner, Limits, Message, MessageFault, check_seal, decode, decode_header, encode,
    encode_sealed,
};
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
        kind @ 0..2 => {
            let mut bytes = rest.to_vec();
            if kind == 1 {
                mend::message(&mut bytes);
            }
            if mode & 0x40 == 0 {
                message(bytes);
            } else {
                sealed(&bytes);
            }
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
    let Ok(message) = decode(&bytes, &LIMITS, &PairKeys::Unsealed) else {
        return;
    };
    assert_eq!(header.as_ref(), Ok(&message.header));
    let again = encode(&message).unwrap();
    let read = decode(&again, &Limits::default(), &PairKeys::Unsealed);
    assert_eq!(read.as_ref(), Ok(&message));
    between_two(&message, &bytes);
    let mut joiner = Joiner::new(1 << 16);
    for item in &message.items {
        match item {
            Item::Transaction(carried) => transaction(carried),
            Item::Part(part) => drop(joiner.join(part)),
        }
        assert!(joiner.held() <= 1 << 16, "what a peer makes us hold is bounded");
    }
}

/// The key that `cargo run --example seeds` seals with.
fn key() -> PairKey {
    PairKey::from_bytes([7; 32])
}

fn keys() -> PairKeys {
    let one = RingKey {
        key: key(),
        added: 0,
        drawn_here: false,
    };
    PairKeys::Sealed {
        ring: KeyRing::of(vec![one], Vec::new()),
        proven: None,
    }
}

/// What opens is what the key's owner wrote, to the byte; what does not is of nobody, or lost.
fn sealed(bytes: &[u8]) {
    let opened = decode(bytes, &LIMITS, &keys());
    match check_seal(bytes, &LIMITS, &keys()) {
        Ok(under) => assert_eq!(under, Some(key().id())),
        Err(fault) => {
            assert_eq!(opened, Err(fault.clone()));
            if decode_header(bytes, &LIMITS).is_ok() {
                assert!(
                    fault.is_loss() || matches!(fault, MessageFault::Untrusted(_)),
                    "{fault}"
                );
            }
        }
    }
    if let Ok(message) = opened {
        let at = u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize - NONCE_LEN;
        let nonce = bytes[at..at + NONCE_LEN].try_into().unwrap();
        assert_eq!(encode_sealed(&message, &key(), nonce).unwrap(), bytes);
    }
}

/// A message that its sender seals, and somebody in between changes, checksums and all.
fn between_two(message: &Message, random: &[u8]) {
    let mut bytes = encode_sealed(message, &key(), [3; NONCE_LEN]).unwrap();
    assert_eq!(decode(&bytes, &Limits::default(), &keys()).as_ref(), Ok(message));
    let bit = random
        .iter()
        .fold(0usize, |sum, byte| sum.wrapping_mul(31) + usize::from(*byte))
        % (bytes.len() * 8);
    if (24..32).contains(&(bit / 8)) {
        return;
    }
    bytes[bit / 8] ^= 1 << (bit % 8);
    mend::message(&mut bytes);
    assert!(decode(&bytes, &Limits::default(), &keys()).is_err(), "bit {bit}");
}

fn transaction(carried: &Carried) {
    let mut again = Vec::new();
    carried.encode(&mut again).unwrap();
    assert_eq!(Carried::decode(&again).as_ref(), Ok(carried));
    // What is applied must be readable for ever: a bad event is refused before it is in the log.
    let frame = carried.frame();
    assert_eq!(frame.event_count(), carried.event_count());
    assert!(
        carried
            .events()
            .all(|event| event.and_then(|event| event.to_event()).is_ok())
    );
    let pushed = carried.frame_with(|_| true).unwrap();
    assert_eq!(
        pushed.body(),
        frame.body(),
        "what is shared is what our writer writes"
    );
    assert_eq!(pushed.stream_hashes(), frame.stream_hashes());
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
