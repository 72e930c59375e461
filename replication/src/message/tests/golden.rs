//! The bytes of version 1: messages wait on links for weeks, so every later program reads them.

use super::*;
use crate::golden::{Records, assert_laid_out, kept_records};

const HQ: StoreId = StoreId(0x0123_4567_89ab_cdef_0011_2233_4455_6677);
const BERN: StoreId = StoreId(0x8899_aabb_ccdd_eeff_7766_5544_3322_1100);
const EPOCH: u64 = 0xe90c;
const TIME: i64 = 1_700_000_000_000_000;

fn at(lsn: u64, back: u64) -> Point {
    Point {
        position: Position {
            epoch: Epoch(EPOCH),
            lsn: Lsn(lsn),
            chain: Chain(lsn << 32),
        },
        back: Lsn(back),
    }
}

/// The same point as its page draws it.
fn drawn(lsn: u64, back: u64) -> Vec<u8> {
    [EPOCH, lsn, back, lsn << 32].map(u64::to_le_bytes).concat()
}

/// History that was first committed at a third site, and a live commit of the sender's own.
fn transactions() -> Vec<Carried> {
    let event = |stream: &str, payload: &[u8]| Event::new(stream, "placed", payload).unwrap();
    let mut passed_on = NewFrame::transaction();
    let headed = event("orders/7", &[b'x'; 40]).header("by", "till").unwrap();
    passed_on.push_event(3, &headed).unwrap();
    let origin = Origin {
        site: StoreId(9),
        name: "hub".parse().unwrap(),
        epoch: Epoch(0xe90b),
        lsn: Lsn(77),
    };
    let mut own = NewFrame::transaction();
    own.push_event(0, &event("stock", b"")).unwrap();
    let mut items = vec![
        Carried::with_events_of(at(4_096, 128), Some(origin), &passed_on),
        Carried::with_events_of(at(8_192, 0), None, &own),
    ];
    items.iter_mut().for_each(|carried| carried.committed_at = TIME);
    items
}

/// All that a header can say.
fn header() -> Header {
    let address = |name: &str, id| Address {
        name: name.parse().unwrap(),
        id: Some(id),
    };
    let range = |after, up_to| Range { after, up_to };
    Header {
        reads: 1,
        from: address("hq", HQ),
        to: address("bern", BERN),
        generation: 4,
        epoch: Epoch(EPOCH),
        durable: Lsn(16_384),
        previous: at(2_048, 0),
        last: at(8_192, 0),
        received: at(512, 0),
        confirmed: at(384, 256),
        lineage: Some(Lineage {
            parent: Epoch(0xe90b),
            fork: Lsn(1_024),
            doubted_to: Lsn(1_024),
        }),
        requests: Some(Requests {
            number: 3,
            ranges: vec![range(Point::NONE, at(256, 0)), range(at(512, 0), at(768, 0))],
        }),
        probe: Some(Probe {
            nonce: 0x1122_3344_5566_7788,
            log_sent: at(8_192, 0),
        }),
        answer: Some(u64::MAX),
        trouble: None,
        rejoined: None,
        pieces: None,
    }
}

/// A message that says nothing, one that says all and is compressed, one whose body does not compress, and a part.
pub(super) fn messages() -> Vec<(&'static str, Message)> {
    let to = Address {
        name: "bern".parse().unwrap(),
        id: None,
    };
    let bare = Header::new(("hq".parse().unwrap(), HQ), to, 1, Epoch(EPOCH));
    let full = Message {
        header: header(),
        items: transactions().into_iter().map(Item::Transaction).collect(),
    };
    let moving = |previous, last: Point| Header {
        durable: last.position.lsn,
        previous,
        last,
        ..bare.clone()
    };
    // Zeros would be packed.
    let full_words = Point {
        position: Position {
            epoch: Epoch(0x1112_1314_1516_1718),
            lsn: Lsn(0x2122_2324_2526_2728),
            chain: Chain(0x3132_3334_3536_3738),
        },
        back: Lsn(0x0142_4344_4546_4748),
    };
    let mut frame = NewFrame::transaction();
    let event = Event::new("noise", "loud", noise(2_000, 7)).unwrap();
    frame.push_event(0x5152_5354, &event).unwrap();
    let mut noisy = Carried::with_events_of(full_words, None, &frame);
    noisy.committed_at = 0x6162_6364_6566_6768;
    let plain = Message {
        header: moving(at(4_096, 0), full_words),
        items: vec![Item::Transaction(noisy)],
    };
    let mut encoding = Vec::new();
    transactions()[1].encode(&mut encoding).unwrap();
    let part = Message {
        header: moving(at(4_096, 0), at(8_192, 0)),
        items: vec![Item::Part(Part {
            point: at(8_192, 0),
            offset: 8,
            total: encoding.len() as u64,
            digest: Part::digest_of(&encoding),
            piece: encoding[8..43].to_vec().into(),
        })],
    };
    vec![
        ("bare", Message::bare(bare)),
        ("full", full),
        ("plain", plain),
        ("part", part),
    ]
}

fn word(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// Head and body of a message as docs/replication.md says, the body unpacked: how LZ4 packs is its library's choice,
/// and every version reads what another packed. What depends on that in the head is checked here and then taken as zero.
fn opened(name: &str, bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (head_len, body_len, raw_len) = (word(bytes, 8), word(bytes, 12), word(bytes, 16));
    assert_eq!(bytes.len(), head_len + body_len, "{name}");
    let mut unsummed = bytes.to_vec();
    unsummed[24..32].fill(0);
    let sums = [&unsummed[..head_len], &unsummed].map(|covered| crc32fast::hash(covered).to_le_bytes());
    assert_eq!(bytes[24..32], sums.concat(), "{name}: checksums");
    let (head, body) = unsummed.split_at(head_len);
    let mut head = head.to_vec();
    let raw = match bytes[20..24] {
        [0, 0, 0, 0] => body.to_vec(),
        [1, 0, 0, 0] => lz4_flex::block::decompress(body, raw_len).unwrap(),
        _ => panic!("{name}: flags or reserved bytes"),
    };
    assert_eq!(raw.len(), raw_len, "{name}");
    head[12..16].fill(0);
    head[20..24].fill(0);
    (head, raw)
}

fn kept() -> Records {
    let encoded = |(name, message): (&str, Message)| (name.to_owned(), encode(&message).unwrap());
    let written: Records = messages().into_iter().map(encoded).collect();
    let kept = kept_records("messages", &written);
    for ((name, kept), (_, written)) in kept.iter().zip(&written) {
        assert_eq!(opened(name, kept), opened(name, written), "{name}");
        if kept[20] == 0 && written[20] == 0 {
            assert_eq!(kept, written, "{name}");
        }
    }
    assert_eq!(kept.len(), written.len());
    kept
}

#[test]
fn messages_of_version_1_are_written_and_read_as_ever() {
    let kept = kept();
    for ((name, bytes), (known, message)) in kept.iter().zip(messages()) {
        assert_eq!(name, known);
        assert_eq!(take(bytes).unwrap(), message, "{name}");
    }
    assert_eq!(
        (kept[1].1[20], kept[2].1[20]),
        (1, 0),
        "a packed body, and a plain one"
    );
}

#[test]
fn a_head_of_version_1_is_laid_out_as_its_page_says() {
    let (head, raw) = opened("bare", &kept()[0].1);
    assert!(raw.is_empty());
    // docs/replication.md, "Message".
    let bare: &[(usize, &[u8])] = &[
        (0, &[0x4d, 0x50, 0x4d, 0x01]),
        (4, &[1, 0, 1, 0]),
        (8, &232u32.to_le_bytes()),
        (12, &[0; 20]),
        (32, &HQ.0.to_le_bytes()),
        (48, &[0; 16]),
        (64, &[2, 0, 4, 0, 0, 0, 0, 0]),
        (72, b"hqbern\0\0"),
        (80, &1u32.to_le_bytes()),
        (84, &0u32.to_le_bytes()),
        (88, &0xe90c_u64.to_le_bytes()),
        (96, &0u64.to_le_bytes()),
        (104, &[0; 4 * 32]),
    ];
    assert_laid_out("bare", &head, bare);
}

#[test]
fn a_head_of_version_1_with_all_fields_is_laid_out_as_its_page_says() {
    let (head, raw) = opened("full", &kept()[1].1);
    // docs/replication.md, "Message".
    let full: &[(usize, &[u8])] = &[
        (0, &[0x4d, 0x50, 0x4d, 0x01]),
        (4, &[1, 0, 1, 0]),
        (8, &464u32.to_le_bytes()),
        (12, &[0; 4]),
        (16, &(raw.len() as u32).to_le_bytes()),
        (20, &[0; 12]),
        (32, &HQ.0.to_le_bytes()),
        (48, &BERN.0.to_le_bytes()),
        (64, &[2, 0, 4, 0, 0, 0, 0, 0]),
        (72, b"hqbern\0\0"),
        (80, &4u32.to_le_bytes()),
        (84, &2u32.to_le_bytes()),
        (88, &0xe90c_u64.to_le_bytes()),
        (96, &16_384u64.to_le_bytes()),
        (104, &drawn(2_048, 0)),
        (136, &drawn(8_192, 0)),
        (168, &drawn(512, 0)),
        (200, &drawn(384, 256)),
        // Requests: tag, flags, len; number and two ranges.
        (232, &[1, 0, 1, 0, 136, 0, 0, 0]),
        (240, &3u64.to_le_bytes()),
        (248, &[0; 32]),
        (280, &drawn(256, 0)),
        (312, &drawn(512, 0)),
        (344, &drawn(768, 0)),
        // Probe.
        (376, &[2, 0, 1, 0, 40, 0, 0, 0]),
        (384, &0x1122_3344_5566_7788_u64.to_le_bytes()),
        (392, &drawn(8_192, 0)),
        // Answer.
        (424, &[3, 0, 0, 0, 8, 0, 0, 0]),
        (432, &[0xff; 8]),
        // Lineage.
        (440, &[4, 0, 0, 0, 16, 0, 0, 0]),
        (448, &0xe90b_u64.to_le_bytes()),
        (456, &1_024u64.to_le_bytes()),
    ];
    assert_laid_out("full", &head, full);
}

/// The sender's own transaction as it travels.
fn own() -> Vec<u8> {
    [
        &88u32.to_le_bytes()[..],
        &[1, 0, 0, 0],
        &drawn(8_192, 0),
        &1u32.to_le_bytes(),
        &[0; 4],
        &TIME.to_le_bytes(),
        // The event: payload_len, ordinal, stream_len, kind_len, headers_len.
        &0u32.to_le_bytes(),
        &0u32.to_le_bytes(),
        &[5, 0, 6, 0],
        &0u32.to_le_bytes(),
        b"stockplaced\0\0\0\0\0",
    ]
    .concat()
}

#[test]
fn items_of_version_1_are_laid_out_as_their_page_says() {
    let kept = kept();
    let (_, raw) = opened("full", &kept[1].1);
    // docs/replication.md, "Message"; docs/format.md, "Origin" and "Event".
    let passed_on: &[(usize, &[u8])] = &[
        (0, &192u32.to_le_bytes()),
        (4, &[1, 1, 0, 0]),
        (8, &drawn(4_096, 128)),
        (40, &1u32.to_le_bytes()),
        (44, &[0; 4]),
        (48, &TIME.to_le_bytes()),
        (56, &9u128.to_le_bytes()),
        (72, &0xe90b_u64.to_le_bytes()),
        (80, &77u64.to_le_bytes()),
        (88, &3u16.to_le_bytes()),
        (90, &[0; 6]),
        (96, b"hub\0\0\0\0\0"),
        // The event, then its headers: count, key_len, value_len, key, value.
        (104, &40u32.to_le_bytes()),
        (108, &3u32.to_le_bytes()),
        (112, &8u16.to_le_bytes()),
        (114, &6u16.to_le_bytes()),
        (116, &12u32.to_le_bytes()),
        (120, b"orders/7"),
        (128, b"placed"),
        (134, &1u16.to_le_bytes()),
        (136, &[2, 0, 4, 0]),
        (140, b"bytill"),
        (146, &[b'x'; 40]),
        (186, &[0; 6]),
        (192, &own()),
    ];
    assert_laid_out("full", &raw, passed_on);
    let (_, raw) = opened("part", &kept[3].1);
    let whole = own();
    let part: &[(usize, &[u8])] = &[
        (0, &120u32.to_le_bytes()),
        (4, &[2, 0, 0, 0]),
        (8, &drawn(8_192, 0)),
        (40, &8u64.to_le_bytes()),
        (48, &88u64.to_le_bytes()),
        (56, &xxhash_rust::xxh3::xxh3_128(&whole).to_le_bytes()),
        (72, &35u32.to_le_bytes()),
        (76, &[0; 4]),
        (80, &whole[8..43]),
        (115, &[0; 5]),
    ];
    assert_laid_out("part", &raw, part);
}

#[test]
fn what_could_not_be_applied_is_told_as_its_page_says() {
    let (_, mut message) = messages().remove(0);
    message.header.durable = Lsn(16_384);
    message.header.trouble = Some(Trouble {
        held: 3,
        refused: 1,
        cases: vec![
            TroubleCase {
                point: Point::NONE,
                reason: "a fork".to_owned(),
            },
            TroubleCase {
                point: at(4_096, 128),
                reason: "vetoed: no".to_owned(),
            },
        ],
    });
    let written = vec![("trouble".to_owned(), encode(&message).unwrap())];
    let kept = kept_records("trouble", &written);
    assert_eq!(kept, written);
    assert_eq!(take(&kept[0].1).unwrap(), message);
    // docs/replication.md, "Message".
    let field: &[(usize, &[u8])] = &[
        (0, &[5, 0, 0, 0, 112, 0, 0, 0]),
        (8, &3u32.to_le_bytes()),
        (12, &1u32.to_le_bytes()),
        (16, &[0; 32]),
        (48, &[6, 0, 0, 0, 0, 0, 0, 0]),
        (56, b"a fork\0\0"),
        (64, &drawn(4_096, 128)),
        (96, &[10, 0, 0, 0, 0, 0, 0, 0]),
        (104, b"vetoed: no\0\0\0\0\0\0"),
    ];
    let (head, _) = opened("trouble", &kept[0].1);
    assert_laid_out("trouble", &head[232..], field);
}

#[test]
fn that_a_pair_was_rejoined_is_told_as_its_page_says() {
    let (_, mut message) = messages().remove(0);
    message.header.rejoined = Some(Rejoined {
        since: 2,
        is_sound: true,
    });
    let written = vec![("rejoined".to_owned(), encode(&message).unwrap())];
    let kept = kept_records("message-rejoined", &written);
    assert_eq!(kept, written);
    assert_eq!(take(&kept[0].1).unwrap(), message);
    // docs/replication.md, "Message".
    let field: &[(usize, &[u8])] = &[
        (0, &[6, 0, 0, 0, 8, 0, 0, 0]),
        (8, &2u32.to_le_bytes()),
        (12, &1u32.to_le_bytes()),
    ];
    let (head, _) = opened("rejoined", &kept[0].1);
    assert_laid_out("rejoined", &head[232..], field);
}

/// Whatever a site has to say fits beside what else a head says, and a reason is cut where a letter ends.
#[test]
fn the_longest_report_fits_into_the_room_of_a_head_and_reasons_are_cut() {
    let mut full = messages().remove(1).1;
    let case = TroubleCase {
        point: at(4_096, 128),
        reason: "\u{e9}".repeat(1_000),
    };
    full.header.trouble = Some(Trouble {
        held: u32::MAX,
        refused: 7,
        cases: vec![case; 9],
    });
    full.header.rejoined = Some(Rejoined {
        since: 1,
        is_sound: false,
    });
    full.header.requests = Some(Requests {
        number: 1,
        ranges: vec![
            Range {
                after: at(1, 0),
                up_to: at(2, 0)
            };
            Requests::MAX_RANGES
        ],
    });
    let bytes = encode(&full).unwrap();
    assert!(word(&bytes, 8) <= super::super::envelope::HEAD_ROOM);
    let trouble = take(&bytes).unwrap().header.trouble.unwrap();
    assert_eq!(trouble.cases.len(), Trouble::MAX_CASES);
    assert!(
        trouble
            .cases
            .iter()
            .all(|case| case.reason == "\u{e9}".repeat(120))
    );
}
