//! What is there of a transaction in parts: told with requests, and left out of what goes.

use super::*;

/// docs/replication.md, "Message": tag 8.
#[test]
fn pieces_that_are_none_or_all_of_a_transaction_are_refused() {
    let mut message = Message::bare(header());
    let mut pieces = full().header.pieces.unwrap();
    for (bytes, fine) in [
        (1, true),
        (8_999, true),
        (0, false),
        (9_000, false),
        (u64::MAX, false),
    ] {
        pieces.bytes = bytes;
        message.header.pieces = Some(pieces);
        let taken = take(&encode(&message).unwrap());
        assert_eq!(
            taken.is_ok_and(|taken| taken.header.pieces == Some(pieces)),
            fine,
            "{bytes}"
        );
    }
}

/// What is there already is known by all three: place, encoding and length.
#[test]
fn of_a_transaction_in_parts_goes_what_is_not_there_and_all_of_another_encoding() {
    let long = carried(12, &[7; 30_000]);
    let first = |there: &Pieces| {
        let mut full = Packer::new(point(1), 10_000).push(long.clone()).unwrap();
        full.leave_out(there);
        match full.next().unwrap().items.first().unwrap() {
            Item::Part(part) => part.clone(),
            Item::Transaction(_) => panic!("it is in parts"),
        }
    };
    let none = Pieces {
        point: point(12),
        digest: 0,
        total: 0,
        bytes: 1,
    };
    let part = first(&none);
    let there = Pieces {
        digest: part.digest,
        total: part.total,
        bytes: 12_345,
        ..none
    };
    assert_eq!((part.offset, first(&there).offset), (0, 12_345));
    for other in [
        Pieces {
            point: point(13),
            ..there
        },
        Pieces { digest: 1, ..there },
        Pieces {
            total: there.total + 1,
            ..there
        },
        Pieces {
            bytes: there.total,
            ..there
        },
    ] {
        assert_eq!(first(&other).offset, 0, "{other:?}");
    }
}
