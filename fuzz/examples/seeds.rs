//! Writes the seeds of the target `message`: `cargo run --example seeds` in `fuzz/`. Those of the other
//! targets are golden blocks behind a mode byte, and short texts that the grammar of `segment_dir`
//! reads as breaks.

use milepost_engine::frame::NewFrame;
use milepost_engine::{Chain, Epoch, Event, Lsn, Origin, Position, StoreId};
use milepost_replication::keys::{NONCE_LEN, PairKey};
use milepost_replication::message::{
    Address, Carried, Header, Item, Lineage, Message, Part, Pieces, Point, Probe, Range, Requests, encode,
    encode_sealed,
};

fn main() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/message");
    let keep = |name: &str, mode: u8, bytes: &[u8]| {
        let seed = [&[mode], bytes].concat();
        std::fs::write(format!("{corpus}/seed-{name}"), seed).unwrap();
    };
    let mut transaction = Vec::new();
    carried(12).encode(&mut transaction).unwrap();
    keep("transaction", 2, &transaction);
    keep("bare", 1, &encode(&Message::bare(header())).unwrap());
    keep("full", 0, &encode(&full()).unwrap());
    keep("full-mended", 1, &encode(&full()).unwrap());
    let key = PairKey::from_bytes([7; 32]);
    for (name, message) in [("sealed-bare", Message::bare(header())), ("sealed-full", full())] {
        let sealed = encode_sealed(&message, &key, [3; NONCE_LEN]).unwrap();
        keep(name, 0x40, &sealed);
        keep(&format!("{name}-mended"), 0x41, &sealed);
    }
    let piece = transaction[..40].to_vec();
    let (total, digest) = (transaction.len() as u64, Part::digest_of(&transaction));
    let mut header = header();
    header.last = point(12);
    let part = Part {
        point: point(12),
        offset: 0,
        total,
        digest,
        piece: piece.into(),
    };
    keep(
        "part",
        1,
        &encode(&Message {
            header,
            items: vec![Item::Part(part)],
        })
        .unwrap(),
    );
    for kind in 0..24u8 {
        keep(
            &format!("wire-{kind}"),
            3,
            &[&[kind, 0, 4, 0][..], b"shop", &[0; 40]].concat(),
        );
    }
    // A reason longer than any, of bytes that grow when they are shown as text.
    for kind in [10, 11] {
        let reason = [&[kind, 0, 1][..], &2000_u16.to_le_bytes(), &[0xff; 2000]].concat();
        keep(&format!("wire-{kind}-long"), 3, &reason);
    }
}

fn point(lsn: u64) -> Point {
    Point::live(Position {
        epoch: Epoch(7),
        lsn: Lsn(lsn),
        chain: Chain(lsn),
    })
}

fn carried(lsn: u64) -> Carried {
    let mut frame = NewFrame::transaction();
    let event = Event::new("orders/7", "placed", *b"{}")
        .unwrap()
        .header("shop", "bern")
        .unwrap();
    frame.push_event(3, &event).unwrap();
    let origin = Origin {
        site: StoreId(9),
        name: "hub".parse().unwrap(),
        epoch: Epoch(1),
        lsn: Lsn(lsn * 2),
    };
    Carried::with_events_of(point(lsn), Some(origin), &frame)
}

fn header() -> Header {
    let to = Address {
        name: "bern".parse().unwrap(),
        id: Some(StoreId(2)),
    };
    let mut header = Header::new(("hq".parse().unwrap(), StoreId(1)), to, 4, Epoch(7));
    (header.durable, header.received) = (Lsn(1000), point(50));
    header
}

fn full() -> Message {
    let mut header = header();
    (header.previous, header.last) = (point(10), point(13));
    header.lineage = Some(Lineage {
        parent: Epoch(6),
        fork: Lsn(5),
        doubted_to: Lsn(9),
    });
    header.requests = Some(Requests {
        number: 3,
        ranges: vec![Range {
            after: Point::NONE,
            up_to: point(9),
        }],
    });
    header.probe = Some(Probe {
        nonce: 77,
        log_sent: point(13),
    });
    header.answer = Some(1);
    header.pieces = Some(Pieces {
        point: point(9),
        digest: 5,
        total: 1 << 20,
        bytes: 9_000,
    });
    Message {
        header,
        items: [12, 13].map(|lsn| Item::Transaction(carried(lsn))).to_vec(),
    }
}
