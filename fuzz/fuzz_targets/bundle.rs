//! A bundle that was carried through anything: a whole one, changed by a list of flips, cuts and moves, or bytes as they come.
//! Byte 1: which of these; byte 2: whether checksums are made right again.
//!
//! It ends in an error or in a bundle whose every message is one that was written, or lost (R3); with forged checksums in messages of
//! a length that the file holds. Nothing allocates more than that.
#![no_main]

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use milepost_engine::clock::Rng;
use milepost_engine::{Epoch, SiteName, StoreId};
use milepost_fuzz::fixture::{self, Break, Files};
use milepost_replication::bundle::layout::{HEAD_LEN, HEADER_LEN, Head, Header};
use milepost_replication::bundle::{Bundle, BundleWriter, Carried, Ranges};

/// Ids that are the same in every run.
struct Sevens;

impl Rng for Sevens {
    fn next_u64(&self) -> u64 {
        7
    }
}

fn messages() -> [Vec<u8>; 4] {
    [vec![1; 30], b"second".to_vec(), vec![3; 640], vec![4]]
}

/// A whole bundle, made once.
fn whole() -> &'static Vec<u8> {
    static WHOLE: OnceLock<Vec<u8>> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let dir = fixture::scratch();
        let site = |name: &str| SiteName::new(name).unwrap();
        let mut writer = BundleWriter::begin(dir.path(), &site("hq"), &site("bern"), &Sevens).unwrap();
        messages()
            .iter()
            .for_each(|message| writer.append(message).unwrap());
        let header = Header {
            id: 0,
            number: 3,
            bytes: 0,
            count: 0,
            heads_crc: 0,
            created: 7,
            from: site("hq"),
            from_id: StoreId(1),
            to: site("bern"),
            to_id: StoreId(2),
            epoch: Epoch(3),
            more: false,
            acknowledged_epoch: Epoch(4),
            acknowledged: Ranges::of(vec![(1, 2), (5, 9)]).unwrap(),
        };
        let (_, path) = writer.finish(header, None).unwrap();
        fs::read(path).unwrap()
    })
}

/// Makes both headers' checksums right again, and those of all heads that look like one.
fn mend(bytes: &mut [u8]) {
    let copy = bytes.len().saturating_sub(HEADER_LEN);
    for at in [0, copy] {
        if let Some(header) = bytes.get_mut(at..at + HEADER_LEN) {
            header[12..16].fill(0);
            let crc = crc32fast::hash(header).to_le_bytes();
            header[12..16].copy_from_slice(&crc);
        }
    }
    let mut at = HEADER_LEN;
    while let Some(head) = bytes.get_mut(at..at + HEAD_LEN) {
        if head.starts_with(b"MPR") {
            let crc = crc32fast::hash(&head[..28]).to_le_bytes();
            head[28..].copy_from_slice(&crc);
        }
        at += 8;
    }
}

fuzz_target!(|input: (bool, bool, Vec<Break<'_>>, &[u8])| {
    let (raw, mended, breaks, bytes) = input;
    let mut files = Files::from([("bundle".to_owned(), whole().clone())]);
    fixture::broken(&mut files, &breaks[..breaks.len().min(8)]);
    let mut carried = match raw {
        true => bytes.to_vec(),
        false => files.remove("bundle").unwrap_or_default(),
    };
    if mended {
        mend(&mut carried);
    }
    let _ = Header::decode(&carried).map(|header| assert_eq!(Header::decode(&header.encode()), Ok(header)));
    let _ = Head::decode(&carried, 0);
    let dir = fixture::scratch();
    let path = dir.path().join("x.mpb");
    fs::write(&path, &carried).unwrap();
    look(&path, carried.len(), raw || mended);
});

fn look(path: &Path, len: usize, forged: bool) {
    let Ok(bundle) = Bundle::open(path) else { return };
    assert!(
        bundle.messages().count() * (HEAD_LEN + 1) <= len,
        "no more messages than the file holds"
    );
    assert!(bundle.lost().len() <= bundle.messages().count() + 1);
    let known = messages();
    for (index, message_len) in bundle.messages() {
        assert!(message_len <= len);
        if let Carried::Whole(message) = bundle.read(index).unwrap() {
            assert_eq!(message.len(), message_len);
            assert!(
                forged || known.get(index as usize) == Some(&message),
                "a message that nobody wrote"
            );
        }
    }
}
