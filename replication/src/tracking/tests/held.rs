//! What came another way before is known by its origin and left out (R4); what can never fit is refused by
//! itself; a pair that the neighbour made anew begins anew here.

use super::*;

const GENF: StoreId = StoreId(5);

fn from_genf(lsn: u64) -> Origin {
    Origin {
        site: GENF,
        name: "genf".parse().unwrap(),
        epoch: Epoch(0x9e),
        lsn: Lsn(lsn),
    }
}

/// A transaction at `point` with an event for each (ordinal, payload), first committed at time 7.
fn with(point: Point, origin: Option<Origin>, events: &[(u32, &str)]) -> Carried {
    let mut frame = NewFrame::transaction();
    for (ordinal, payload) in events {
        let event = Event::new("orders/1", "placed", payload.as_bytes()).unwrap();
        frame.push_event(*ordinal, &event).unwrap();
    }
    let mut carried = Carried::with_events_of(point, origin, &frame);
    carried.committed_at = 7;
    carried
}

/// A message that goes on from `previous` with these transactions.
fn message(previous: Point, items: Vec<Carried>) -> Message {
    let mut header = header();
    header.previous = previous;
    header.last = items.last().map_or(previous, |item| item.point);
    Message {
        header,
        items: items.into_iter().map(Item::Transaction).collect(),
    }
}

/// A log that has these events of `origin`.
fn log_with(origin: &Origin, events: &[(u32, &str)]) -> Ours {
    let held = HeldEvent::all_of(&with(at(1), Some(origin.clone()), events)).unwrap();
    Ours {
        held: held.into_iter().map(|event| (origin.clone(), event)).collect(),
        ..Ours::default()
    }
}

fn applied(verdict: Verdict) -> Apply {
    match verdict {
        Verdict::Apply(apply) => apply,
        other => panic!("{other:?}"),
    }
}

/// Ordinals of the transactions among the frames.
fn ordinals(apply: &Apply) -> Vec<Vec<u32>> {
    let transactions = apply.frames.iter().filter(|frame| frame.event_count() > 0);
    let ordinals = |frame: &NewFrame| {
        milepost_engine::frame::Events::new(&frame.body(), frame.event_count(), Lsn(1))
            .map(|event| event.unwrap().ordinal)
            .collect()
    };
    transactions.map(ordinals).collect()
}

#[test]
fn what_a_restored_hub_passes_on_again_is_dropped_and_the_position_moves_r4() {
    let own = log_with(&from_genf(500), &[(0, "a"), (1, "b")]);
    let mut receiver = holding(10);
    let again = with(at(20), Some(from_genf(500)), &[(0, "a"), (1, "b")]);
    let apply = applied(
        receiver
            .receive(&message(at(10), vec![again]), None, &own)
            .unwrap(),
    );
    assert_eq!((apply.transactions, apply.held, ordinals(&apply)), (0, 1, vec![]));
    assert_eq!(apply.frames.len(), 1, "the position is ours to move (R1)");
    assert_eq!(receiver.staged(), at(20));
}

/// The trap: a repair of the base kept the record of the pair and lost the one of its position, so that everything came
/// again, as if it were new.
#[test]
fn a_pair_whose_position_was_lost_takes_nothing_twice_r1() {
    let neighbour = Neighbour {
        name: "hq".parse().unwrap(),
        generation: 1,
    };
    let pair = holding(20).records().pair.clone().unwrap();
    assert_eq!(pair.held, Lsn::ZERO);
    let pinned = pair.pin(&neighbour.name).unwrap();
    let without_position = || {
        let found = |key: Vec<u8>| (key == pinned.key).then(|| pinned.value.clone()).flatten();
        let records = PairRecords::load(&neighbour, |key| Ok(found(key.to_vec()))).unwrap();
        receiver_from(records, 1)
    };
    let from_hq = Origin {
        site: HQ,
        name: neighbour.name.clone(),
        epoch: ITS_EPOCH,
        lsn: Lsn(20),
    };
    let own = log_with(&from_hq, &[(0, "a")]);
    let again = || vec![with(at(20), None, &[(0, "a")]), with(at(30), None, &[(0, "b")])];
    let mut receiver = without_position();
    let begin = Point::NONE;
    let apply = applied(receiver.receive(&message(begin, again()), None, &own).unwrap());
    assert_eq!((apply.transactions, apply.held), (1, 1));
    let forgets = |doubts| Ours {
        forgets: true,
        doubts,
        ..Ours::default()
    };
    let taken = |doubts| {
        let mut receiver = without_position();
        receiver
            .receive(&message(begin, again()), None, &forgets(doubts))
            .unwrap()
    };
    // Where all pinned records are known, nothing was received of it.
    assert_eq!(applied(taken(false)).transactions, 2);
    let verdict = taken(true);
    assert!(
        matches!(verdict, Verdict::Refused(Refusal::Forgotten { .. })),
        "{verdict:?}"
    );
}

#[test]
fn events_of_a_transaction_that_are_new_here_are_applied_without_the_others_r4() {
    let own = log_with(&from_genf(500), &[(1, "b")]);
    let mut receiver = holding(10);
    let more = with(at(20), Some(from_genf(500)), &[(0, "a"), (1, "b"), (2, "c")]);
    let apply = applied(
        receiver
            .receive(&message(at(10), vec![more]), None, &own)
            .unwrap(),
    );
    assert_eq!(ordinals(&apply), [[0, 2]]);
}

/// A site that went back commits other things at places that it had used before. Dropping them for their
/// place alone would lose them.
#[test]
fn another_event_at_the_same_place_of_its_origin_is_no_repeat() {
    let own = log_with(&from_genf(500), &[(0, "a")]);
    let mut receiver = holding(10);
    let other = with(at(20), Some(from_genf(500)), &[(0, "A")]);
    let mut later = with(at(30), Some(from_genf(500)), &[(0, "a")]);
    later.committed_at = 8;
    let apply = applied(
        receiver
            .receive(&message(at(10), vec![other]), None, &own)
            .unwrap(),
    );
    assert_eq!(apply.transactions, 1);
    receiver.durable();
    let apply = applied(
        receiver
            .receive(&message(at(20), vec![later]), None, &own)
            .unwrap(),
    );
    assert_eq!(apply.transactions, 1, "committed at another time");
}

#[test]
fn what_is_beyond_the_newest_of_its_origin_is_new_without_a_look_into_the_log() {
    // The log would say that it is held, and must not be asked.
    let mut own = log_with(&from_genf(500), &[(0, "a")]);
    own.pinned = vec![(GENF, Lsn(499))];
    let mut receiver = holding(10);
    let new = with(at(20), Some(from_genf(500)), &[(0, "a")]);
    let apply = applied(receiver.receive(&message(at(10), vec![new]), None, &own).unwrap());
    assert_eq!(apply.transactions, 1);
    let pin = apply.frames[0]
        .pinned()
        .iter()
        .find(|pin| pin.key == newest_key(GENF));
    assert_eq!(
        read_newest(pin.unwrap().value.as_ref().unwrap()).unwrap(),
        Lsn(500)
    );
}

#[test]
fn history_is_compared_unless_it_is_all_that_was_ever_received() {
    let history = |back: u64| Point {
        position: at(1000).position,
        back: Lsn(back),
    };
    let origin = Origin {
        site: HQ,
        name: "hq".parse().unwrap(),
        epoch: ITS_EPOCH,
        lsn: Lsn(40),
    };
    let first = message(Point::NONE, vec![with(history(40), None, &[(0, "a")])]);
    let second = message(history(40), vec![with(history(50), None, &[(0, "a")])]);
    // Nothing was held when it began, so what the log says is not asked.
    let mut receiver = fresh();
    assert_eq!(applied(take(&mut receiver, &first)).transactions, 1);
    receiver.durable();
    let knows = log_with(
        &Origin {
            lsn: Lsn(50),
            ..origin.clone()
        },
        &[(0, "a")],
    );
    let apply = applied(receiver.receive(&second, None, &knows).unwrap());
    assert_eq!(apply.transactions, 1);
    // The site had it from a pair that was made before.
    let mut receiver = fresh();
    let apply = applied(
        receiver
            .receive(&first, None, &log_with(&origin, &[(0, "a")]))
            .unwrap(),
    );
    assert_eq!((apply.transactions, apply.held), (0, 1));
    // A process that was started in the middle cannot know how it began, and looks.
    receiver.durable();
    let mut next = receiver_from(receiver.records().clone(), 1);
    let apply = applied(next.receive(&second, None, &knows).unwrap());
    assert_eq!((apply.transactions, apply.held), (0, 1));
}

/// The same transaction twice in one poll, on two ways: the log does not have the first yet.
#[test]
fn what_may_be_among_the_frames_that_are_not_durable_waits_for_them() {
    let mut receiver = holding(10);
    let one = |lsn| with(at(lsn), Some(from_genf(500)), &[(0, "a")]);
    let both = message(at(10), vec![one(20), one(30)]);
    let apply = applied(take(&mut receiver, &both));
    assert_eq!((apply.transactions, apply.whole), (1, false));
    assert_eq!(Verdict::Apply(apply).leave(), Leave::Stay);
    assert!(matches!(take(&mut receiver, &both), Verdict::Unsettled));
    receiver.durable();
    let own = log_with(&from_genf(500), &[(0, "a")]);
    let apply = applied(receiver.receive(&both, None, &own).unwrap());
    assert_eq!((apply.transactions, apply.held, apply.whole), (0, 1, true));
    assert_eq!(receiver.staged(), at(30));
}

/// It ended every poll with an error: nothing of anybody was received any more, and nothing sent.
#[test]
fn a_transaction_that_never_fits_is_refused_by_itself_and_what_is_before_it_applied_r6() {
    let own = Ours {
        most_events: Some(1),
        ..Ours::default()
    };
    let mut receiver = holding(10);
    let three = message(
        at(10),
        vec![
            with(at(20), None, &[(0, "a")]),
            with(at(30), None, &[(0, "b"), (1, "c")]),
            with(at(40), None, &[(0, "d")]),
        ],
    );
    let apply = applied(receiver.receive(&three, None, &own).unwrap());
    assert_eq!((apply.transactions, apply.whole, apply.to), (1, false, at(20)));
    receiver.durable();
    let verdict = receiver.receive(&three, None, &own).unwrap();
    assert!(
        matches!(verdict, Verdict::Refused(Refusal::DoesNotFit(_))),
        "{verdict:?}"
    );
    assert_eq!((receiver.staged(), receiver.stopped()), (at(20), None));
}

/// A pure subscriber dropped what was of an earlier making, said nothing, and its publisher went on for ever.
#[test]
fn a_message_of_an_earlier_making_is_dropped_and_its_sender_told() {
    let mut receiver = fresh();
    let mut anew = data(0, &[10]);
    anew.header.generation = 3;
    assert_eq!(applied(take(&mut receiver, &anew)).transactions, 1);
    let owed = answers_due(&receiver);
    let verdict = take(&mut receiver, &data(10, &[20]));
    assert!(matches!(verdict, Verdict::OtherGeneration { ours: 3, theirs: 1 }));
    assert_eq!(
        (answers_due(&receiver), verdict.leave()),
        (owed + 1, Leave::WhenDurable)
    );
}

#[test]
fn a_pair_that_the_neighbour_made_anew_begins_anew_and_forgets_no_event() {
    let mut receiver = holding(30);
    let told = receiver.records().told.generation;
    let hq = |lsn| Origin {
        site: HQ,
        name: "hq".parse().unwrap(),
        epoch: ITS_EPOCH,
        lsn: Lsn(lsn),
    };
    let own = log_with(&hq(30), &[(0, "a")]);
    let mut again = message(
        Point::NONE,
        vec![with(at(30), None, &[(0, "a")]), with(at(40), None, &[(0, "b")])],
    );
    again.header.generation = 2;
    let apply = applied(receiver.receive(&again, None, &own).unwrap());
    assert_eq!((apply.transactions, apply.held, apply.to), (1, 1, at(40)));
    let records = receiver.records();
    let pair = records.pair.clone().unwrap();
    assert_eq!(
        (pair.generation, pair.held, records.told.generation),
        (2, Lsn(30), told + 1)
    );
}

/// Two megabytes that unpack to a hundred thousand transactions made as many frames at once.
#[test]
fn a_message_of_many_transactions_becomes_frames_piece_by_piece() {
    let text = "x".repeat(40_000);
    let items: Vec<_> = (2..=100).map(|n| with(at(n * 10), None, &[(0, &text)])).collect();
    let all = message(at(10), items);
    let (mut receiver, mut transactions, mut rounds) = (holding(10), 0, 0);
    loop {
        let apply = applied(take(&mut receiver, &all));
        let bytes: usize = apply.frames.iter().map(NewFrame::encoded_len).sum();
        assert!(bytes < 1_200_000, "{bytes} bytes of frames at once");
        (transactions, rounds) = (transactions + apply.transactions, rounds + 1);
        receiver.durable();
        if apply.whole {
            break;
        }
    }
    assert_eq!((transactions, rounds, receiver.staged()), (99, 4, at(1000)));
}
