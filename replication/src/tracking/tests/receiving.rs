//! What becomes of messages: duplicates, overlaps, gaps, proofs, first contact, generations, forks.

use milepost_engine::block::{Block, BlockBuilder, BlockKind, Seal};
use milepost_engine::frame::FrameKind;
use proptest::prelude::*;

use super::*;
use crate::keys::KeyId;
use crate::message::{Distrust, Lineage, MessageFault, Packer, Part, Probe};

fn applied(verdict: Verdict) -> Apply {
    match verdict {
        Verdict::Apply(apply) => apply,
        other => unreachable!("{other:?}"),
    }
}

#[test]
fn a_duplicate_is_dropped_and_answered() {
    let mut receiver = holding(30);
    let verdict = take(&mut receiver, &data(10, &[20, 30]));
    assert!(matches!(verdict, Verdict::Duplicate) && verdict.leave() == Leave::WhenDurable);
    assert_eq!((answers_due(&receiver), receiver.staged()), (1, at(30)));
}

#[test]
fn of_an_overlap_what_is_new_is_applied_and_it_is_answered() {
    let mut receiver = holding(20);
    let apply = applied(take(&mut receiver, &data(0, &[10, 20, 30, 40])));
    assert_eq!((apply.transactions, apply.overlap, apply.to), (2, 2, at(40)));
    assert_eq!(answers_due(&receiver), 1);
}

#[test]
fn what_lies_behind_a_gap_stays_on_the_link() {
    let mut receiver = holding(20);
    let verdict = take(&mut receiver, &data(30, &[40]));
    assert!(matches!(verdict, Verdict::Gap(range) if range.after == at(20) && range.up_to == at(30)));
    assert_eq!(
        (verdict.leave(), receiver.staged(), answers_due(&receiver)),
        (Leave::Stay, at(20), 0)
    );
}

#[test]
fn the_first_message_of_a_stream_follows_nothing_and_a_later_one_is_a_gap() {
    assert!(matches!(take(&mut fresh(), &data(0, &[10])), Verdict::Apply(_)));
    assert!(matches!(take(&mut fresh(), &data(10, &[20])), Verdict::Gap(_)));
}

/// The sender is an older copy of itself: its new commits lie around the position we hold. By LSNs alone
/// the message is an overlap, and applying "what lies after" would lose what lies before (R5).
#[test]
fn an_overlap_that_does_not_name_our_position_is_not_applied_but_asked_for() {
    let mut receiver = receiver_from(holding(30).records().clone(), 9);
    let verdict = take(&mut receiver, &data(10, &[25, 35]));
    assert!(matches!(verdict, Verdict::Unproven(_)) && verdict.leave() == Leave::Stay);
    receiver.poll_ended(Duration::ZERO, PollCause::Due);
    let asks = &receiver.records().told.asks;
    assert_eq!(
        (asks[0].after, asks[0].up_to),
        (at(30), at(35)),
        "at once, whatever the patience"
    );
}

#[test]
fn our_position_with_another_chain_is_a_fork_wherever_the_message_names_it() {
    let other = Point {
        position: Position {
            chain: Chain(99),
            ..at(30).position
        },
        back: Lsn(0),
    };
    let mut follows = data(30, &[40]);
    follows.header.previous = other;
    let mut overlaps = data(10, &[30, 40]);
    overlaps.items[0] = Item::Transaction(carried(other));
    let mut ends = data(10, &[20, 30]);
    ends.header.last = other;
    ends.items[1] = Item::Transaction(carried(other));
    for message in [follows, overlaps, ends] {
        let mut receiver = holding(30);
        let verdict = take(&mut receiver, &message);
        assert!(
            matches!(verdict, Verdict::Stopped(StopReason::Parted(None, _))),
            "{verdict:?}"
        );
        // It stays stopped, also for messages that would fit and in the next process.
        let mut next = receiver_from(receiver.records().clone(), 1);
        assert!(matches!(take(&mut next, &data(30, &[40])), Verdict::Stopped(_)));
    }
}

#[test]
fn a_neighbour_is_followed_into_a_new_lineage_that_goes_on_from_our_position() {
    let new = Epoch(0xe2);
    let mut receiver = holding(30);
    let mut message = data(30, &[40]);
    message.header.epoch = new;
    message.header.last = in_epoch(new, 40);
    message.items = vec![Item::Transaction(carried(in_epoch(new, 40)))];
    assert!(matches!(take(&mut receiver, &message), Verdict::Apply(_)));
    // From now on the old lineage is late, and says nothing.
    assert!(matches!(
        take(&mut receiver, &data(40, &[50])),
        Verdict::PastLineage
    ));
    assert!(matches!(
        take(&mut receiver, &data(30, &[40])),
        Verdict::PastLineage
    ));
}

/// The trap: a restored neighbour is met by a message that leaves a gap, and one from before its restore comes after.
#[test]
fn the_lineage_that_a_neighbour_had_left_when_it_was_met_is_never_taken_for_a_newer_one() {
    let new = Epoch(0xe2);
    let restored = |previous: u64, lsn: u64| {
        let mut message = data(previous, &[lsn]);
        message.header.epoch = new;
        message.header.previous = in_epoch(new, previous);
        message.header.last = in_epoch(new, lsn);
        message.items = vec![Item::Transaction(carried(in_epoch(new, lsn)))];
        message.header.lineage = Some(Lineage {
            parent: ITS_EPOCH,
            fork: Lsn(15),
            doubted_to: Lsn(15),
        });
        message
    };
    let mut receiver = fresh();
    let verdict = take(&mut receiver, &restored(20, 30));
    assert!(
        !matches!(verdict, Verdict::Apply(_) | Verdict::PastLineage),
        "{verdict:?}"
    );
    let late = take(&mut receiver, &data(0, &[10]));
    assert!(matches!(late, Verdict::PastLineage), "{late:?}");
    for (previous, lsn) in [(0, 20), (20, 30)] {
        let verdict = take(&mut receiver, &restored(previous, lsn));
        assert!(matches!(verdict, Verdict::Apply(_)), "{verdict:?}");
    }
}

#[test]
fn a_lineage_of_which_we_hold_more_than_its_parent_gave_it_is_a_fork() {
    let new = Epoch(0xe2);
    let mut message = data(20, &[40]);
    message.header.epoch = new;
    message.header.lineage = Some(Lineage {
        parent: ITS_EPOCH,
        fork: Lsn(25),
        doubted_to: Lsn(25),
    });
    assert!(matches!(
        take(&mut holding(30), &message),
        Verdict::Stopped(StopReason::Parted(Some(Lsn(25)), _))
    ));
    // At or before the fork, the pair goes on by itself.
    let verdict = take(&mut holding(20), &message);
    assert!(matches!(verdict, Verdict::Apply(_)), "{verdict:?}");
}

/// The trap: between 25 and 45 its log has something under the parent's epoch, and so has the history that it lost. Only the chain
/// tells whose what we hold is.
#[test]
fn what_a_lineage_leaves_in_doubt_is_decided_by_the_chain_and_never_by_the_place() {
    let new = Epoch(0xe2);
    let from = |message: Message| {
        let mut message = message;
        message.header.epoch = new;
        message.header.lineage = Some(Lineage {
            parent: ITS_EPOCH,
            fork: Lsn(25),
            doubted_to: Lsn(45),
        });
        message
    };
    // It goes on from what we hold, and proves it.
    let verdict = take(&mut holding(30), &from(data(30, &[40])));
    assert!(matches!(verdict, Verdict::Apply(_)), "{verdict:?}");
    let mut receiver = holding(20);
    let verdict = take(&mut receiver, &from(data(20, &[30, 40])));
    assert!(matches!(verdict, Verdict::Apply(_)), "{verdict:?}");
    // Followed, it goes on in what is in doubt, over a gap too.
    let verdict = take(&mut receiver, &from(data(42, &[44])));
    assert!(matches!(verdict, Verdict::Gap(_)), "{verdict:?}");
    assert!(receiver.may_come(at(42)) && !receiver.may_come(at(45)));
    let verdict = take(&mut receiver, &from(data(40, &[42, 44])));
    assert!(matches!(verdict, Verdict::Apply(_)), "{verdict:?}");
    // It names another chain at our place.
    let mut other = from(data(30, &[40]));
    other.header.previous.position.chain = Chain(1);
    let verdict = take(&mut holding(30), &other);
    assert!(
        matches!(verdict, Verdict::Stopped(StopReason::Parted(Some(Lsn(25)), _))),
        "{verdict:?}"
    );
    // It does not name our place: its owner is asked.
    let verdict = take(&mut holding(30), &from(data(20, &[40])));
    assert!(matches!(verdict, Verdict::Unproven(_)), "{verdict:?}");
    // From where the new lineage began nothing of the parent's can be its.
    let verdict = take(&mut holding(50), &from(data(50, &[60])));
    assert!(
        matches!(verdict, Verdict::Stopped(StopReason::Parted(Some(Lsn(25)), _))),
        "{verdict:?}"
    );
}

/// The lineage is unknown and may as well be older than ours: a late message must not stop the pair.
#[test]
fn another_lineage_at_our_position_proves_nothing_and_stops_nothing() {
    let old = Epoch(0x0a);
    let mut message = data(10, &[30, 40]);
    message.header.epoch = old;
    message.items[0] = Item::Transaction(carried(in_epoch(old, 30)));
    assert!(matches!(take(&mut holding(30), &message), Verdict::Unproven(_)));
}

#[test]
fn first_contact_pins_site_lineage_and_generation() {
    let mut receiver = fresh();
    let mut message = data(0, &[10]);
    message.header.generation = 3;
    let apply = applied(take(&mut receiver, &message));
    let pair = receiver.records().pair.clone().unwrap();
    assert_eq!((pair.site, pair.epoch, pair.generation), (HQ, ITS_EPOCH, 3));
    let keys: Vec<_> = apply.frames[0]
        .pinned()
        .iter()
        .map(|pin| pin.key.clone())
        .collect();
    assert_eq!(
        keys,
        [b"received/hq".to_vec(), b"pair/hq".to_vec()],
        "with the first frame of all"
    );
    assert!(matches!(
        take(&mut receiver, &data(10, &[20])),
        Verdict::OtherGeneration { ours: 3, theirs: 1 }
    ));

    // On its way to the store that this one replaces, or to another one that lives.
    let mut to_other_store = data(10, &[20]);
    to_other_store.header.to.id = Some(StoreId(3));
    let late = take(&mut receiver, &to_other_store);
    assert!(matches!(late, Verdict::OtherGeneration { ours: 3, theirs: 1 }) && late.leave() != Leave::Stay);
    to_other_store.header.generation = 3;
    let lives = take(&mut receiver, &to_other_store);
    assert!(matches!(lives, Verdict::Refused(Refusal::NotForThisStore)));
    (to_other_store.header.generation, to_other_store.header.from.id) = (1, Some(StoreId(77)));
    let strange = take(&mut receiver, &to_other_store);
    assert!(matches!(strange, Verdict::Refused(Refusal::NotForThisStore)));

    let mut stranger = data(10, &[20]);
    stranger.header.generation = 3;
    stranger.header.from.id = Some(StoreId(77));
    let verdict = take(&mut receiver, &stranger);
    assert!(matches!(verdict, Verdict::Refused(Refusal::OtherSite { .. })) && verdict.leave() == Leave::Stay);

    // Of an earlier making: the store that was replaced, which may have it alone, unless it carries nothing.
    stranger.header.generation = 1;
    let former = take(&mut receiver, &stranger);
    assert!(matches!(former, Verdict::FormerSite(_)) && former.leave() != Leave::Stay);
    stranger.header.last = stranger.header.previous;
    let bare = take(&mut receiver, &Message::bare(stranger.header));
    assert!(matches!(bare, Verdict::OtherGeneration { ours: 3, theirs: 1 }));
    assert_eq!(receiver.staged(), at(10));
}

#[test]
fn a_generation_below_the_one_proposed_here_is_dropped_even_at_first_contact() {
    let neighbour = Neighbour {
        name: "hq".parse().unwrap(),
        generation: 2,
    };
    let records = PairRecords::load(&neighbour, |_| Ok(None)).unwrap();
    let me = Me {
        name: "bern".parse().unwrap(),
        id: BERN,
    };
    let mut receiver = Receiver::new(me, neighbour, records, Patience::NONE, 0);
    let verdict = take(&mut receiver, &data(0, &[10]));
    assert!(matches!(verdict, Verdict::OtherGeneration { ours: 2, theirs: 1 }));
    assert_eq!(receiver.records().pair, None);

    // Also one that was on its way to the store that this one replaces, but none of this very store.
    let mut to_other_store = data(0, &[10]);
    to_other_store.header.to.id = Some(StoreId(3));
    let late = take(&mut receiver, &to_other_store);
    assert!(matches!(late, Verdict::OtherGeneration { ours: 2, theirs: 1 }));
    to_other_store.header.from.id = Some(BERN);
    let own = take(&mut receiver, &to_other_store);
    assert!(matches!(own, Verdict::Refused(Refusal::NotForThisStore)));
}

#[test]
fn records_of_a_pair_that_was_made_anew_count_as_absent() {
    let old = holding(30).records().clone();
    let find = |key: &[u8]| {
        Ok(match key {
            b"pair/hq" => old
                .pair
                .as_ref()
                .map(|pair| milepost_engine::codec::encode(pair).unwrap()),
            b"received/hq" => Some(milepost_engine::codec::encode(&old.received).unwrap()),
            b"told/hq" => Some(milepost_engine::codec::encode(&old.told).unwrap()),
            b"reported/hq" => Some(milepost_engine::codec::encode(&old.reported).unwrap()),
            _ => None,
        })
    };
    let mut neighbour = Neighbour {
        name: "hq".parse().unwrap(),
        generation: 1,
    };
    assert_eq!(PairRecords::load(&neighbour, find).unwrap(), old);
    neighbour.generation = 2;
    let anew = PairRecords::load(&neighbour, find).unwrap();
    assert_eq!(
        (anew.pair.clone(), anew.received.point, anew.generation()),
        (None, Point::NONE, 2)
    );
}

#[test]
fn a_message_for_another_store_or_site_is_refused() {
    let mut to_other_store = data(0, &[10]);
    to_other_store.header.to.id = Some(StoreId(3));
    let mut to_other_name = data(0, &[10]);
    to_other_name.header.to.name = "basel".parse().unwrap();
    let mut from_ourselves = data(0, &[10]);
    from_ourselves.header.from.id = Some(BERN);
    for message in [to_other_store, to_other_name, from_ourselves] {
        assert!(matches!(take(&mut fresh(), &message), Verdict::Refused(_)));
    }
}

#[test]
fn our_own_transaction_that_comes_back_stops_the_pair_as_a_loop() {
    let mut receiver = holding(10);
    let mut message = data(10, &[20, 30]);
    if let Item::Transaction(carried) = &mut message.items[1] {
        carried.origin = Some(origin(BERN, 70));
    }
    assert!(matches!(
        take(&mut receiver, &message),
        Verdict::Stopped(StopReason::Loop(_))
    ));
    assert_eq!(receiver.staged(), at(10), "nothing of it is applied");
}

#[test]
fn a_position_is_told_only_once_it_is_durable() {
    let mut receiver = holding(10);
    let _ = applied(take(&mut receiver, &data(10, &[20])));
    assert_eq!(
        (receiver.staged(), receiver.records().received.point),
        (at(20), at(10))
    );
    receiver.abandon();
    assert_eq!(receiver.staged(), at(10));
    let _ = applied(take(&mut receiver, &data(10, &[20])));
    receiver.durable();
    assert_eq!(receiver.records().received.point, at(20));
}

/// R1: each frame, read back from a real block, says by itself where the stream is after it.
#[test]
fn events_and_position_are_one_frame() {
    let mut receiver = holding(10);
    let apply = applied(take(&mut receiver, &data(10, &[20, 30])));
    let mut builder = BlockBuilder::new();
    for (seq, frame) in apply.frames.into_iter().enumerate() {
        builder.push(&frame.encode(seq as u64, 0).unwrap());
    }
    let seal = Seal {
        kind: BlockKind::Log,
        close: false,
        owner: BERN.into(),
        epoch: OUR_EPOCH,
        lsn: Lsn(0),
        durable: Lsn(0),
        nonce: 1,
        chain: Chain(0),
        aux: 0,
    };
    let sealed = builder.seal(&seal, 1);
    let block = Block::check(&sealed.bytes).unwrap();
    let frames: Vec<_> = block.frames().map(|frame| frame.unwrap()).collect();
    for (frame, lsn) in frames.iter().zip([20, 30]) {
        let (via, origin) = (frame.via().unwrap().unwrap(), frame.origin().unwrap().unwrap());
        assert_eq!(
            (via.site, via.position, origin.site, origin.lsn),
            (HQ, at(lsn).position, HQ, Lsn(lsn))
        );
        let pins = frame.pinned().unwrap();
        assert_eq!(pins[0].key, b"received/hq");
        assert_eq!(
            ReceivedRecord::read(pins[0].value.unwrap()).unwrap().point,
            at(lsn)
        );
        assert_eq!(frame.event_count(), 1);
    }
}

#[test]
fn a_stretch_without_events_for_us_moves_the_position_by_a_note() {
    let mut receiver = holding(10);
    let mut message = data(10, &[20]);
    message.header.last = at(50);
    let apply = applied(take(&mut receiver, &message));
    assert_eq!((apply.transactions, apply.frames.len(), apply.to), (1, 2, at(50)));
    assert_eq!(apply.frames[1].kind(), NOTE);
    let kinds: Vec<_> = apply.frames.iter().map(|frame| frame.kind()).collect();
    assert_eq!(kinds, [FrameKind::TRANSACTION, NOTE]);
    let mut nothing = data(50, &[]);
    nothing.header.last = at(60);
    assert_eq!(applied(take(&mut receiver, &nothing)).transactions, 0);
    assert_eq!(receiver.staged(), at(60));
}

#[test]
fn parts_wait_on_the_link_until_their_transaction_is_whole_and_are_no_news_afterwards() {
    let mut receiver = holding(10);
    let noise: Vec<u8> = (0..30_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let mut frame = NewFrame::transaction();
    frame
        .push_event(0, &Event::new("big", "came", noise).unwrap())
        .unwrap();
    let mut packer = Packer::new(at(10), 10_000);
    let packed = packer
        .push(Carried::with_events_of(at(20), None, &frame))
        .unwrap();
    let mut messages: Vec<_> = packed.into_iter().map(|packed| packed.under(header())).collect();
    messages.swap(0, 2);
    let (last, first) = messages.split_last().unwrap();
    for message in first {
        let verdict = take(&mut receiver, message);
        assert!(matches!(verdict, Verdict::PartWaiting) && verdict.leave() == Leave::Stay);
    }
    assert_eq!(applied(take(&mut receiver, last)).transactions, 1);
    receiver.durable();
    for message in first {
        assert!(matches!(take(&mut receiver, message), Verdict::Duplicate));
    }
    assert_eq!(answers_due(&receiver), 0);
    // In a process that did not join them they are duplicates like any other.
    let mut next = receiver_from(receiver.records().clone(), 1);
    assert!(matches!(take(&mut next, last), Verdict::Duplicate));
    assert_eq!(answers_due(&next), 1);
}

#[test]
fn a_transaction_beyond_the_limit_is_refused_before_it_is_held() {
    let mut receiver = holding(10);
    let mut message = data(10, &[20]);
    let part = Part {
        point: at(20),
        offset: 0,
        total: u64::MAX,
        digest: 1,
        piece: vec![0; 10].into(),
    };
    message.items = vec![Item::Part(part)];
    assert!(matches!(
        take(&mut receiver, &message),
        Verdict::Refused(Refusal::TooLarge(_))
    ));
    assert_eq!(receiver.held_bytes(), 0);
}

#[test]
fn every_probe_is_answered_and_answers_and_confirmations_are_not() {
    let mut receiver = holding(10);
    let mut probe = Message::bare(header());
    probe.header.probe = Some(Probe {
        nonce: 5,
        log_sent: at(40),
    });
    assert!(matches!(take(&mut receiver, &probe), Verdict::Noted));
    assert_eq!(
        (answers_due(&receiver), receiver.records().told.nonce),
        (1, Some(5))
    );
    let mut confirmation = Message::bare(header());
    confirmation.header.received = ours(20);
    confirmation.header.confirmed = ours(20);
    confirmation.header.answer = Some(9);
    assert!(matches!(take(&mut receiver, &confirmation), Verdict::Noted));
    assert_eq!(answers_due(&receiver), 1);
}

/// The trap: a head that would stop the pair, or begin it anew, of a message that nobody vouches for.
#[test]
fn the_head_of_a_message_that_is_not_believed_changes_nothing() {
    let mut receiver = holding(10);
    let before = receiver.records().clone();
    let mut anew = header();
    anew.generation += 1;
    for distrust in [Distrust::NoKey(KeyId([1; 8])), Distrust::Locked("why".into())] {
        let fault = MessageFault::Untrusted(distrust.clone());
        let verdict = receiver
            .receive_fault(&fault, Some(&anew), &Ours::default())
            .unwrap();
        assert!(matches!(&verdict, Verdict::Refused(Refusal::Untrusted(why)) if *why == distrust));
        assert_eq!(verdict.leave(), Leave::Stay);
        assert_eq!(receiver.records(), &before);
    }
    let forged = MessageFault::Untrusted(Distrust::Forged(KeyId([1; 8])));
    let verdict = receiver.receive_fault(&forged, Some(&anew), &Ours::default());
    assert!(matches!(verdict.unwrap(), Verdict::Lost));
    assert_eq!(receiver.records(), &before);
}

#[test]
fn a_fault_stops_its_own_pair_only_and_a_newer_program_goes_on() {
    let newer = MessageFault::NeedsNewer {
        version: 1,
        what: "a field".into(),
    };
    let mut receiver = holding(10);
    let mut strange = header();
    strange.generation = 0;
    assert!(matches!(
        receiver
            .receive_fault(&newer, Some(&strange), &Ours::default())
            .unwrap(),
        Verdict::OtherGeneration { .. }
    ));
    assert!(matches!(
        receiver
            .receive_fault(&MessageFault::Damaged("x"), None, &Ours::default())
            .unwrap(),
        Verdict::Lost
    ));
    assert_eq!(receiver.stopped(), None);
    let verdict = receiver
        .receive_fault(&newer, Some(&header()), &Ours::default())
        .unwrap();
    assert!(
        matches!(verdict, Verdict::Stopped(StopReason::NeedsNewer(1, _))) && verdict.leave() == Leave::Stay
    );
    assert!(receiver.stopped().is_some());
    assert_eq!(
        receiver_from(receiver.records().clone(), 1).stopped(),
        None,
        "this program reads version 1"
    );
}

proptest! {
    /// The rule itself, against its text: any cuts of one stream, in any order, any number of times.
    #[test]
    fn any_cuts_in_any_order_apply_each_transaction_once_and_in_order(
        cuts in proptest::collection::vec((0u64..12, 1u64..6), 1..60),
    ) {
        let (mut receiver, mut model, mut got) = (fresh(), 0, Vec::new());
        for (start, len) in cuts {
            let (previous, last) = (start * 10, (start + len) * 10);
            let lsns: Vec<u64> = (start + 1..=start + len).map(|n| n * 10).collect();
            let verdict = take(&mut receiver, &data(previous, &lsns));
            if last <= model {
                prop_assert!(matches!(verdict, Verdict::Duplicate));
            } else if previous > model {
                prop_assert!(matches!(verdict, Verdict::Gap(_)));
            } else {
                let apply = applied(verdict);
                prop_assert_eq!(apply.to, at(last));
                got.extend(lsns.into_iter().filter(|lsn| *lsn > model));
                prop_assert_eq!(apply.transactions as u64, (last - model) / 10);
                model = last;
            }
            prop_assert_eq!(receiver.staged(), at(model));
        }
        prop_assert_eq!(got, (1..=model / 10).map(|n| n * 10).collect::<Vec<_>>());
    }
}
