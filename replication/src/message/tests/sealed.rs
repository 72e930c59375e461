//! Sealed messages: only their two sites read them, and nobody else changes, exchanges or makes one. The trap in each test is
//! set by somebody who can do everything but has no key: he puts the checksums right.

use super::*;
use crate::golden::{Records, assert_laid_out, kept_records};
use crate::keys::{KeyId, KeyRing, NONCE_LEN, PairKey, RingKey};
use crate::message::envelope::CRC_AT;
use crate::message::seal::Sealing;

const NONCE: [u8; NONCE_LEN] = *b"twenty-four bytes, once.";

fn key(byte: u8) -> PairKey {
    PairKey::from_bytes([byte; 32])
}

fn keys_of(bytes: &[u8], dropped: &[KeyId]) -> PairKeys {
    let one = |byte: &u8| RingKey {
        key: key(*byte),
        added: 0,
        drawn_here: false,
    };
    PairKeys::Sealed {
        ring: KeyRing::of(bytes.iter().map(one).collect(), dropped.to_vec()),
        proven: None,
    }
}

fn keys() -> PairKeys {
    keys_of(&[1], &[])
}

fn sealed(message: &Message) -> Vec<u8> {
    encode_sealed(message, &key(1), NONCE).unwrap()
}

fn open(bytes: &[u8]) -> Result<Message, MessageFault> {
    decode(bytes, &Limits::default(), &keys())
}

fn distrusted(bytes: &[u8], keys: &PairKeys) -> Distrust {
    let checked = check_seal(bytes, &Limits::default(), keys).unwrap_err();
    let decoded = decode(bytes, &Limits::default(), keys).unwrap_err();
    assert_eq!(checked, decoded);
    match checked {
        MessageFault::Untrusted(why) => why,
        fault => panic!("{fault}"),
    }
}

fn head_len(bytes: &[u8]) -> usize {
    u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize
}

/// A small message of which every bit can be flipped, compressed or not.
fn small(payload: &[u8]) -> Message {
    let mut message = full();
    message.items = vec![Item::Transaction(carried(30, payload))];
    message
}

#[test]
fn what_is_sealed_is_opened_by_its_pair_and_nothing_of_its_events_shows() {
    let secret = noise(400, 5);
    for message in [
        full(),
        small(&secret),
        small(&[b'x'; 400]),
        Message::bare(header()),
    ] {
        let bytes = sealed(&message);
        assert_eq!(open(&bytes).unwrap(), message);
        assert_eq!(
            check_seal(&bytes, &Limits::default(), &keys()),
            Ok(Some(key(1).id()))
        );
        // Either of two keys opens.
        assert_eq!(
            decode(&bytes, &Limits::default(), &keys_of(&[2, 1], &[])).unwrap(),
            message
        );
        // Links and receivers put it in order without a key.
        assert_eq!(decode_header(&bytes, &Limits::default()).unwrap(), message.header);
        let shows = |words: &[u8]| bytes.windows(words.len()).any(|there| there == words);
        assert!(shows(b"hq") || shows(b"bern"), "the head is readable");
        for words in [&secret[..16], b"orders/7", b"placed", b"stock", b"xxxxxxxx"] {
            assert!(!shows(words), "{words:?}");
        }
    }
}

#[test]
fn the_same_message_under_another_nonce_is_other_bytes_throughout() {
    let message = small(&noise(400, 5));
    let (one, other) = (
        sealed(&message),
        encode_sealed(&message, &key(1), [9; NONCE_LEN]).unwrap(),
    );
    let body = head_len(&one);
    let alike = one[body..].iter().zip(&other[body..]).filter(|(a, b)| a == b);
    assert!(alike.count() < 20, "the keystream is another one");
}

#[test]
fn no_bit_can_be_flipped_though_the_checksums_are_put_right() {
    for message in [
        small(&[b'x'; 300]),
        small(&noise(40, 3)),
        Message::bare(full().header),
    ] {
        let bytes = sealed(&message);
        for bit in (0..bytes.len() * 8).filter(|bit| !(CRC_AT..CRC_AT + 8).contains(&(bit / 8))) {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(
                open(&flipped).unwrap_err().is_loss(),
                "bit {bit}, as the link would flip it"
            );
            let forged = forge(flipped);
            let fault = open(&forged).expect_err("a forged bit passes");
            // What cannot be put under a neighbour's name is nobody's, and stops nobody.
            if decode_header(&forged, &Limits::default()).is_ok() {
                let waits = matches!(fault, MessageFault::Untrusted(Distrust::NoKey(_)));
                assert!(fault.is_loss() || waits, "bit {bit}: {fault}");
            }
        }
    }
}

#[test]
fn no_byte_can_be_cut_off_or_added_though_lengths_and_checksums_are_put_right() {
    let bytes = sealed(&small(&noise(40, 3)));
    let head = head_len(&bytes);
    let with_body = |body: &[u8]| {
        let mut changed = bytes[..head].to_vec();
        changed[12..16].copy_from_slice(&(body.len() as u32).to_le_bytes());
        changed.extend_from_slice(body);
        forge(changed)
    };
    for len in head..bytes.len() {
        assert_eq!(
            distrusted(&with_body(&bytes[head..len]), &keys()),
            Distrust::Forged(key(1).id())
        );
    }
    let longer = [&bytes[head..], b"\0"].concat();
    assert_eq!(
        distrusted(&with_body(&longer), &keys()),
        Distrust::Forged(key(1).id())
    );
    assert_eq!(open(&with_body(&bytes[head..])).unwrap(), small(&noise(40, 3)));
}

#[test]
fn the_body_of_one_message_does_not_open_under_the_head_of_another() {
    let (one, mut other) = (small(&noise(40, 3)), small(&noise(40, 4)));
    other.header.generation += 1;
    let (one, other) = (sealed(&one), sealed(&other));
    let (head, same) = (head_len(&one), head_len(&other));
    assert_eq!((head, one.len()), (same, other.len()));
    let swapped = forge([&one[..head], &other[same..]].concat());
    assert_eq!(distrusted(&swapped, &keys()), Distrust::Forged(key(1).id()));
}

#[test]
fn a_message_that_is_sent_back_under_turned_addresses_does_not_open() {
    let message = small(b"{}");
    let bytes = sealed(&message);
    let mut turned = message.header.clone();
    std::mem::swap(&mut turned.from, &mut turned.to);
    let mut plain = encode_sealed(
        &Message {
            header: turned,
            items: message.items,
        },
        &key(1),
        NONCE,
    )
    .unwrap();
    assert!(open(&plain).is_ok(), "whoever has the key may say so");
    let head = head_len(&plain);
    plain.truncate(head);
    plain.extend_from_slice(&bytes[head..]);
    assert_eq!(distrusted(&forge(plain), &keys()), Distrust::Forged(key(1).id()));
}

#[test]
fn keys_and_seals_have_to_fit_each_other() {
    let message = small(b"{}");
    let (sealed, plain) = (sealed(&message), encode(&message).unwrap());
    let id = key(1).id();
    assert_eq!(distrusted(&plain, &keys()), Distrust::Unsealed);
    assert_eq!(distrusted(&sealed, &PairKeys::Unsealed), Distrust::NoKey(id));
    assert_eq!(distrusted(&sealed, &keys_of(&[2], &[])), Distrust::NoKey(id));
    assert_eq!(distrusted(&sealed, &keys_of(&[2], &[id])), Distrust::Dropped(id));
    let locked = PairKeys::Locked("why".to_owned());
    for bytes in [&sealed, &plain] {
        assert_eq!(distrusted(bytes, &locked), Distrust::Locked("why".to_owned()));
    }
    // Under the id of a key that is here, with another one.
    let mut under = encode_sealed(&message, &key(2), NONCE).unwrap();
    let at = head_len(&under) - 32;
    under[at..at + 8].copy_from_slice(&id.0);
    assert_eq!(distrusted(&forge(under), &keys()), Distrust::Forged(id));
    // The mark of a seal without one, and a seal without the mark.
    for mut bytes in [sealed, plain] {
        bytes[20] ^= 2;
        assert!(open(&forge(bytes)).unwrap_err().is_loss());
    }
}

/// Says another length of what is in it, and seals that: only who has the key can, and even he is not believed.
fn claiming(message: &Message, raw_len: u32) -> Vec<u8> {
    let bytes = sealed(message);
    let (head, body) = bytes.split_at(head_len(&bytes));
    let mut said = head.to_vec();
    said[CRC_AT..CRC_AT + 8].fill(0);
    let way = crate::keys::Way {
        from: &message.header.from.name,
        to: &message.header.to.name,
    };
    let raw = key(1).open(way, &NONCE, &said, body).unwrap();
    said[16..20].copy_from_slice(&raw_len.to_le_bytes());
    let sealing = Sealing {
        key: &key(1),
        nonce: NONCE,
    };
    let closed = sealing.close(&message.header, &said, &raw).unwrap();
    forge([said, closed].concat())
}

#[test]
fn a_sealed_body_that_claims_to_unpack_to_more_is_refused_before_anything_is_allocated() {
    let message = small(&[b'x'; 4_000]);
    assert_eq!(sealed(&message)[20], 3, "packed and sealed");
    let too_large = open(&claiming(&message, u32::MAX)).unwrap_err();
    assert!(matches!(too_large, MessageFault::TooLarge { .. }), "{too_large}");
    // Within the limit, and beyond what LZ4 can make of so few bytes.
    let too_much = open(&claiming(&message, 8 << 20)).unwrap_err();
    assert_eq!(
        too_much,
        MessageFault::Contradiction("its body claims to unpack to more than it can")
    );
    let (_, noisy) = golden::messages().swap_remove(2);
    let len = sealed(&noisy).len() as u32;
    assert_eq!(sealed(&noisy)[20], 2, "sealed and not packed");
    let two = open(&claiming(&noisy, len)).unwrap_err();
    assert_eq!(two, MessageFault::Contradiction("its body has two lengths"));
    let short = Limits {
        message_bytes: 100,
        ..Limits::default()
    };
    let fault = decode(&sealed(&noisy), &short, &keys()).unwrap_err();
    assert!(matches!(fault, MessageFault::TooLarge { .. }));
}

#[test]
fn sealed_messages_are_never_longer_than_asked() {
    let mut packer = Packer::new(Point::NONE, MIN_MESSAGE_BYTES);
    let mut header = full().header;
    header.durable = Lsn(u64::MAX);
    // The longest that there are.
    header.from.name = "f".repeat(64).parse().unwrap();
    header.to.name = "t".repeat(64).parse().unwrap();
    header.requests = Some(Requests {
        number: 1,
        ranges: vec![
            Range {
                after: Point::NONE,
                up_to: point(9),
            };
            Requests::MAX_RANGES
        ],
    });
    let mut packed = Vec::new();
    for lsn in 1..60 {
        packed.extend(packer.push(carried(lsn, &noise(900, lsn * 2))).unwrap());
    }
    packed.extend(packer.push(carried(60, &noise(50_000, 60))).unwrap());
    assert!(packed.len() > 10);
    for one in packed {
        let bytes = sealed(&one.under(header.clone()));
        assert!(bytes.len() <= MIN_MESSAGE_BYTES, "{}", bytes.len());
    }
}

/// The messages of version 1 whose bytes are no packer's choice, sealed.
fn kept() -> Records {
    let plain = golden::messages()
        .into_iter()
        .filter(|(name, _)| ["bare", "plain"].contains(name));
    let written: Records = plain
        .map(|(name, message)| (name.to_owned(), sealed(&message)))
        .collect();
    let kept = kept_records("sealed_messages", &written);
    assert_eq!(kept, written);
    kept
}

#[test]
fn sealed_messages_of_version_1_are_written_and_read_as_ever() {
    let messages = golden::messages()
        .into_iter()
        .filter(|(name, _)| ["bare", "plain"].contains(name));
    for ((name, bytes), (known, message)) in kept().iter().zip(messages) {
        assert_eq!(name, known);
        assert_eq!(open(bytes).unwrap(), message, "{name}");
    }
}

#[test]
fn a_sealed_message_of_version_1_is_laid_out_as_its_page_says() {
    let (_, bytes) = &kept()[0];
    let unsealed = encode(&golden::messages()[0].1).unwrap();
    // docs/replication.md, "Seal".
    let fields: &[(usize, &[u8])] = &[
        (0, &unsealed[..8]),
        (8, &272u32.to_le_bytes()),
        (12, &16u32.to_le_bytes()),
        (16, &0u32.to_le_bytes()),
        (20, &[2, 0, 0, 0]),
        (24, &bytes[24..32]),
        (32, &unsealed[32..]),
        (232, &[15, 0, 1, 0, 32, 0, 0, 0]),
        (240, &key(1).id().0),
        (248, &NONCE),
        (272, &bytes[272..288]),
    ];
    assert_laid_out("sealed", bytes, fields);
}
