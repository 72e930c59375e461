//! Bundles as bytes and files: the layout kept for ever, damage at every byte, names that are taken, what is left over.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use milepost_engine::clock::SystemRng;
use milepost_engine::{Chain, Epoch, ErrorKind, Lsn, Position, SiteName, StoreId};
use tempfile::TempDir;

use super::layout::{HEAD_LEN, HEADER_LEN, Head, Header, HeaderFault, MAGIC};
use super::writer::remove_left_over;
use super::*;
use crate::golden::{Records, assert_laid_out, kept_records};
use crate::keys::PairKeys;
use crate::link::{Link, LinkError, MAX_MESSAGE_BYTES, MessageId, PollRequest};
use crate::message::Point;
use crate::tracking::PairState;

fn site(name: &str) -> SiteName {
    SiteName::new(name).unwrap()
}

fn header() -> Header {
    let mut acknowledged = Ranges::default();
    [1, 2, 3, 5]
        .into_iter()
        .for_each(|number| acknowledged.add(number));
    Header {
        id: 0x0123_4567_89ab_cdef_0011_2233_4455_6677,
        number: 0x0102_0304_0506_0708,
        bytes: 0x1112_1314_1516_1718,
        count: 0x2122_2324,
        heads_crc: 0x3132_3334,
        created: 0x4142_4344_4546_4748,
        from: site("hq"),
        from_id: StoreId(0x5152_5354_5556_5758_595a_5b5c_5d5e_5f60),
        to: site("till-3"),
        to_id: StoreId(0x6162_6364_6566_6768_696a_6b6c_6d6e_6f70),
        epoch: Epoch(0x7172_7374_7576_7778),
        more: true,
        acknowledged_epoch: Epoch(0x0182_8384_8586_8788),
        acknowledged,
    }
}

/// Written out from docs/replication.md, and not from the encoder.
#[test]
fn a_header_and_a_head_are_laid_out_as_their_page_says_and_kept_ones_are_read() {
    let head = Head::of(7, b"message").unwrap();
    let records: Records = vec![
        ("header".to_owned(), header().encode()),
        ("head".to_owned(), head.encode(header().id)),
    ];
    let kept = kept_records("bundle", &records);
    assert_eq!(kept, records);
    let [(_, bytes), (_, head_bytes)] = &kept[..] else {
        panic!("two records");
    };
    assert_eq!(Header::decode(bytes), Ok(header()));
    assert_eq!(Head::decode(head_bytes, header().id), Some(head));
    let mut unsealed = bytes.clone();
    unsealed[12..16].fill(0);
    let crc = crc32fast::hash(&unsealed).to_le_bytes();
    let name = |text: &str| [text.as_bytes(), &vec![0; 64 - text.len()]].concat();
    let ranges = [1_u64, 3, 5, 5].map(u64::to_le_bytes).concat();
    assert_laid_out(
        "header",
        bytes,
        &[
            (0, b"MPB\x01\r\n\x1a\n"),
            (8, &1_u16.to_le_bytes()),
            (10, &1_u16.to_le_bytes()),
            (12, &crc),
            (16, &0x0123_4567_89ab_cdef_0011_2233_4455_6677_u128.to_le_bytes()),
            (32, &0x0102_0304_0506_0708_u64.to_le_bytes()),
            (40, &0x1112_1314_1516_1718_u64.to_le_bytes()),
            (48, &0x2122_2324_u32.to_le_bytes()),
            (52, &0x3132_3334_u32.to_le_bytes()),
            (56, &0x4142_4344_4546_4748_u64.to_le_bytes()),
            (64, &0x5152_5354_5556_5758_595a_5b5c_5d5e_5f60_u128.to_le_bytes()),
            (80, &0x6162_6364_6566_6768_696a_6b6c_6d6e_6f70_u128.to_le_bytes()),
            (96, &0x7172_7374_7576_7778_u64.to_le_bytes()),
            (104, &0x0182_8384_8586_8788_u64.to_le_bytes()),
            (112, &[2, 6]),
            (114, &2_u16.to_le_bytes()),
            (116, &[0; 4]),
            (120, &name("hq")),
            (184, &name("till-3")),
            (248, &ranges),
            (280, &[0; 232]),
        ],
    );
    assert_head_laid_out(head_bytes);
}

fn assert_head_laid_out(head_bytes: &[u8]) {
    let crc = crc32fast::hash(&head_bytes[..28]).to_le_bytes();
    let id = &0x0011_2233_4455_6677_u64.to_le_bytes();
    assert_laid_out(
        "head",
        head_bytes,
        &[
            (0, b"MPR\x01"),
            (4, &7_u32.to_le_bytes()),
            (8, &7_u32.to_le_bytes()),
            (12, &crc32fast::hash(b"message").to_le_bytes()),
            (16, id),
            (24, &[0; 4]),
            (28, &crc),
        ],
    );
}

/// The records are bincode: what is kept must be what is written, and read as it was.
#[test]
fn the_records_of_bundles_are_written_as_they_were_kept_and_read_again() {
    let position = Position {
        epoch: Epoch(7),
        lsn: Lsn(0x1_0203),
        chain: Chain(0x1122_3344_5566_7788),
    };
    let mut outgoing = Outgoing {
        epoch: Epoch(7),
        ..Outgoing::default()
    };
    outgoing.add(Exported {
        number: 9,
        id: header().id,
        created: 1_700_000_000_000_000,
        messages: 3,
        transactions: 300,
        bytes: 70_000,
        last: Point::live(position),
    });
    let incoming = Incoming {
        epoch: Epoch(8),
        taken: header().acknowledged,
        acknowledged_epoch: Epoch(7),
        acknowledged: Ranges::of(vec![(2, 9)]).unwrap(),
    };
    let pins = [
        outgoing.pin(&site("bern")).unwrap(),
        incoming.pin(&site("bern")).unwrap(),
    ];
    let text = |key: Vec<u8>| String::from_utf8(key).unwrap();
    let records: Records = pins
        .into_iter()
        .map(|pin| (text(pin.key), pin.value.unwrap()))
        .collect();
    let kept = kept_records("bundle-records", &records);
    assert_eq!(kept, records);
    assert_eq!(kept[0].0, "bundles/out/bern");
    assert_eq!(Outgoing::read(&kept[0].1).unwrap(), outgoing);
    assert_eq!(Incoming::read(&kept[1].1).unwrap(), incoming);
}

#[test]
fn what_a_header_claims_is_bounded_and_a_newer_version_is_told_as_that() {
    let mut bytes = header().encode();
    bytes[8] = 2;
    bytes[12..16].fill(0);
    let crc = crc32fast::hash(&bytes);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(Header::decode(&bytes), Err(HeaderFault::Version(2)));
    let refused = |change: fn(&mut Header)| {
        let mut header = header();
        change(&mut header);
        assert_eq!(Header::decode(&header.encode()), Err(HeaderFault::Damaged));
    };
    refused(|header| header.number = 0);
    // More messages than the file could hold.
    refused(|header| header.bytes = 5_000);
    assert_eq!(Head::of(0, b""), None);
    assert_eq!(Head::of(0, &vec![0; MAX_MESSAGE_BYTES + 1]), None);
    let large = Head {
        index: 0,
        len: u32::MAX,
        crc: 0,
    };
    assert_eq!(Head::decode(&large.encode(1), 1), None);
    assert_eq!(
        Head::decode(&Head::of(0, b"x").unwrap().encode(1), 2),
        None,
        "another bundle's"
    );
}

fn messages() -> Vec<Vec<u8>> {
    vec![vec![1; 30], b"second".to_vec(), vec![3; 64], vec![4; 1]]
}

fn made(dir: &Path, number: u64) -> (Header, PathBuf) {
    let (hq, bern) = (site("hq"), site("bern"));
    let mut writer = BundleWriter::begin(dir, &hq, &bern, &SystemRng).unwrap();
    for message in messages() {
        writer.append(&message).unwrap();
    }
    let whole = Header {
        from: hq,
        to: bern,
        number,
        more: false,
        ..header()
    };
    writer.finish(whole, None).unwrap()
}

fn read_all(bundle: &Bundle) -> Vec<Option<Vec<u8>>> {
    (0..bundle.header().count)
        .map(|index| match bundle.read(index).unwrap() {
            Carried::Whole(bytes) => Some(bytes),
            Carried::Lost => None,
        })
        .collect()
}

/// Every byte is flipped in turn: no wrong message is ever given, what the flip did not touch is whole, and every flip outside
/// of padding is told.
#[test]
fn a_bundle_damaged_at_any_byte_still_gives_every_message_that_was_not_hit() {
    let dir = TempDir::new().unwrap();
    let (header, path) = made(dir.path(), 3);
    let whole = fs::read(&path).unwrap();
    assert_eq!(whole.len() as u64, header.bytes);
    let bundle = Bundle::open(&path).unwrap();
    assert!(bundle.damage().is_empty() && bundle.lost().is_empty());
    assert_eq!(bundle.header(), &header);
    let mut at = HEADER_LEN;
    let mut bounds = Vec::new();
    for message in messages() {
        bounds.push((at, at + HEAD_LEN + message.len()));
        at += HEAD_LEN + message.len().next_multiple_of(8);
    }
    for place in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[place] ^= 0x40;
        fs::write(&path, &bytes).unwrap();
        let bundle = Bundle::open(&path).unwrap();
        assert_eq!(bundle.header(), &header, "byte {place}");
        let hit: Vec<bool> = bounds
            .iter()
            .map(|(from, to)| (*from..*to).contains(&place))
            .collect();
        for ((read, message), hit) in read_all(&bundle).into_iter().zip(messages()).zip(&hit) {
            assert_eq!(read, (!hit).then_some(message), "byte {place}");
        }
        let in_header = place < HEADER_LEN || place >= whole.len() - HEADER_LEN;
        let in_head = bounds
            .iter()
            .any(|(from, _)| (*from..from + HEAD_LEN).contains(&place));
        let is_told = !bundle.damage().is_empty() || !bundle.lost().is_empty();
        assert_eq!(is_told, in_header || in_head, "byte {place}");
    }
}

#[test]
fn a_bundle_cut_at_any_length_gives_the_messages_that_are_whole_or_says_that_it_is_none() {
    let dir = TempDir::new().unwrap();
    let (_, path) = made(dir.path(), 3);
    let whole = fs::read(&path).unwrap();
    for len in 0..whole.len() {
        fs::write(&path, &whole[..len]).unwrap();
        let opened = Bundle::open(&path);
        if len < HEADER_LEN {
            let error = opened.unwrap_err();
            assert!(
                matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Corrupt),
                "{error}"
            );
            continue;
        }
        let bundle = opened.unwrap();
        assert!(!bundle.damage().is_empty(), "cut at {len}");
        let mut end = HEADER_LEN;
        for (read, message) in read_all(&bundle).into_iter().zip(messages()) {
            let is_there = end + HEAD_LEN + message.len() <= len;
            end += HEAD_LEN + message.len().next_multiple_of(8);
            assert_eq!(read, is_there.then_some(message), "cut at {len}");
        }
    }
}

#[test]
fn what_is_no_bundle_is_told_and_both_headers_damaged_is_corrupt() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.mpb");
    for bytes in [vec![], vec![0; 5_000], b"a letter".to_vec()] {
        fs::write(&path, bytes).unwrap();
        assert_eq!(Bundle::open(&path).unwrap_err().kind(), ErrorKind::Invalid);
    }
    assert_eq!(Bundle::open(dir.path()).unwrap_err().kind(), ErrorKind::Invalid);
    let (_, path) = made(dir.path(), 1);
    let mut bytes = fs::read(&path).unwrap();
    let copy = bytes.len() - HEADER_LEN;
    bytes[100] ^= 1;
    bytes[copy + 100] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = Bundle::open(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("--again"), "{error}");
}

#[test]
fn a_bundle_replaces_no_file_and_leaves_nothing_where_it_was_not_finished() {
    let dir = TempDir::new().unwrap();
    let (hq, bern) = (site("hq"), site("bern"));
    let taken = dir.path().join("letter.mpb");
    fs::write(&taken, b"a letter").unwrap();
    let mut writer = BundleWriter::begin(dir.path(), &hq, &bern, &SystemRng).unwrap();
    writer.append(b"x").unwrap();
    let refused = writer.finish(header(), Some(&taken)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert_eq!(fs::read(&taken).unwrap(), b"a letter");
    drop(BundleWriter::begin(dir.path(), &hq, &bern, &SystemRng).unwrap());
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        1,
        "only the letter is there"
    );
}

/// Beside a killed export's file lie those of other sites, and whole bundles.
#[test]
fn what_a_killed_export_left_is_no_bundle_and_goes_with_the_next_and_nothing_else_does() {
    let dir = TempDir::new().unwrap();
    let (hq, bern) = (site("hq"), site("bern"));
    let writer = BundleWriter::begin(dir.path(), &hq, &bern, &SystemRng).unwrap();
    let left = writer.temporary().to_owned();
    std::mem::forget(writer);
    assert!(Bundle::open(&left).is_err());
    let (_, whole) = made(dir.path(), 1);
    let others = [
        ".hq-basel-0123456789abcdef.mpb.tmp",
        ".bern-hq-0123456789abcdef.mpb.tmp",
        ".hq-bern-notes.mpb.tmp",
    ];
    for name in others {
        fs::write(dir.path().join(name), b"x").unwrap();
    }
    assert_eq!(remove_left_over(dir.path(), &hq, &bern).unwrap(), 1);
    assert!(!left.exists() && whole.exists());
    assert!(others.iter().all(|name| dir.path().join(name).exists()));
}

#[tokio::test]
async fn a_bundles_link_takes_what_fits_for_its_addressee_and_gives_it_there_until_it_is_removed() {
    let dir = TempDir::new().unwrap();
    let (hq, bern) = (site("hq"), site("bern"));
    let writer = BundleWriter::begin(dir.path(), &hq, &bern, &SystemRng).unwrap();
    let most = writer.len_with(100) + 200;
    let link = BundleLink::new(bern.clone(), PairKeys::Unsealed, writer, Some(most));
    link.deliver(&bern, &[1; 100]).await.unwrap();
    assert!(matches!(
        link.deliver(&hq, b"x").await,
        Err(LinkError::Invalid { .. })
    ));
    assert!(matches!(
        link.deliver(&bern, b"").await,
        Err(LinkError::Invalid { .. })
    ));
    assert!(matches!(
        link.deliver(&bern, &[2; 200]).await,
        Err(LinkError::NotNow { .. })
    ));
    link.deliver(&bern, &[3; 100]).await.unwrap();
    let filled = link.take().unwrap();
    assert!(filled.full.is_some());
    let whole = Header {
        from: hq,
        to: bern,
        ..header()
    };
    let (header, path) = filled.writer.finish(whole, None).unwrap();
    assert!(header.bytes <= most);
    assert_given_until_removed(&path).await;
}

async fn assert_given_until_removed(path: &Path) {
    let carried = CarriedLink::new(vec![Bundle::open(path).unwrap()]);
    let skip = BTreeSet::new();
    let request = PollRequest {
        after: None,
        skip: &skip,
        max_count: 1,
        max_bytes: 1,
    };
    let first = carried.poll(request).await.unwrap();
    let next = PollRequest {
        after: first.next.as_ref(),
        ..request
    };
    let second = carried.poll(next).await.unwrap();
    assert_eq!(
        (&first.messages[0].bytes[..], &second.messages[0].bytes[..]),
        (&[1; 100][..], &[3; 100][..])
    );
    assert_eq!(second.next, None);
    let foreign = [first.messages[0].id.clone(), MessageId::new("../etc")];
    assert!(matches!(
        carried.remove(&foreign).await,
        Err(LinkError::Invalid { .. })
    ));
    carried.remove(&foreign[..1]).await.unwrap();
    carried.remove(&foreign[..1]).await.unwrap();
    assert_eq!(carried.poll(request).await.unwrap().messages, second.messages);
    assert_eq!(carried.came_to(0), (1, vec![]));
    assert!(
        fs::read(path).unwrap().starts_with(&MAGIC),
        "the file stays as it is"
    );
}
