//! What is sent when: data once, again only when asked; confirmations, answers, probes.

use super::*;
use crate::message::{Part, Place, Probe, Range};

const FIRST: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// The clocks `n` seconds after they began.
fn now(n: u64) -> Now {
    Now {
        monotonic: seconds(n),
        wall_micros: 1_000_000 * n as i64,
    }
}

/// Bern sends to hq: its own log is `ours`, the neighbour's `at`.
fn sender_from(records: PairRecords) -> Sender {
    sender_at(records, now(0))
}

fn sender_at(records: PairRecords, now: Now) -> Sender {
    let me = Me {
        name: "bern".parse().unwrap(),
        id: BERN,
    };
    let neighbour = Neighbour {
        name: "hq".parse().unwrap(),
        generation: 1,
    };
    let pace = Pace {
        urgency: seconds(30),
        probing: ProbingTimes {
            first: FIRST,
            longest: DAY,
        },
    };
    Sender::new(me, neighbour, records, pace, now)
}

fn records(change: impl FnOnce(&mut PairRecords)) -> PairRecords {
    let mut records = holding(10).records().clone();
    change(&mut records);
    records
}

fn next(sender: &mut Sender, now: u64, newest: u64) -> Option<SendAction> {
    let newest = Some(Place::live(Lsn(newest))).filter(|place| *place != Place::NONE);
    sender.next(seconds(now), newest, &mut || 1000 + now)
}

fn own() -> OwnEnd {
    OwnEnd {
        epoch: OUR_EPOCH,
        lineage: None,
        durable: Lsn(1000),
    }
}

/// Sends data up to `lsn` and tells the sender that the link has it.
fn send(sender: &mut Sender, lsn: u64, now: u64) {
    let mut header = sender.header(&own());
    header.last = ours(lsn);
    sender.delivered(
        &Message {
            header,
            items: vec![Item::Transaction(carried(ours(lsn)))],
        },
        self::now(now),
    );
}

fn tell(sender: &mut Sender) -> Header {
    let message = sender.tell(&own());
    sender.delivered(&message, now(0));
    message.header
}

#[test]
fn data_are_sent_once_and_after_a_restart_from_what_was_confirmed() {
    let confirmed = records(|records| (records.told.received, records.told.confirmed) = (ours(20), ours(20)));
    let mut sender = sender_from(confirmed.clone());
    assert_eq!(
        next(&mut sender, 0, 50),
        Some(SendAction::Data { previous: ours(20) })
    );
    send(&mut sender, 50, 0);
    assert_eq!((next(&mut sender, 0, 50), sender.log_sent()), (None, ours(50)));
    assert_eq!(
        next(&mut sender, 0, 60),
        Some(SendAction::Data { previous: ours(50) })
    );
    let mut again = sender_from(confirmed);
    assert_eq!(
        next(&mut again, 0, 50),
        Some(SendAction::Data { previous: ours(20) })
    );
}

#[test]
fn nothing_that_was_received_is_sent() {
    let mut sender = sender_from(records(|_| {}));
    let received = records(|records| records.told.received = ours(40));
    sender.note(received, now(1));
    assert_eq!(
        next(&mut sender, 1, 50),
        Some(SendAction::Data { previous: ours(40) })
    );
}

#[test]
fn data_never_go_again_by_time_alone() {
    let mut sender = sender_from(records(|_| {}));
    send(&mut sender, 50, 0);
    for day in 0..50 {
        let action = next(&mut sender, day * 86_400, 50);
        assert!(
            !matches!(action, Some(SendAction::Data { .. } | SendAction::Serve { .. })),
            "{action:?}"
        );
    }
}

#[test]
fn a_confirmation_goes_alone_when_nothing_else_goes_and_once() {
    let mut sender = sender_from(records(|_| {}));
    assert_eq!(next(&mut sender, 0, 0), Some(SendAction::Tell));
    let header = tell(&mut sender);
    assert_eq!(
        (header.received, header.confirmed, header.to.id),
        (at(10), at(10), Some(HQ))
    );
    assert_eq!(header.previous, header.last, "no data, so nobody answers it");
    assert_eq!(next(&mut sender, 0, 0), None);
    sender.note(holding(20).records().clone(), now(1));
    assert_eq!(next(&mut sender, 1, 0), Some(SendAction::Tell));
}

#[test]
fn what_is_owed_goes_with_data_where_data_go() {
    let mut sender = sender_from(records(|records| {
        (records.told.answers_due, records.told.nonce) = (2, Some(77));
        records.told.asks = vec![Range {
            after: at(10),
            up_to: at(30),
        }];
        records.told.ask_number = 1;
    }));
    let header = sender.header(&own());
    assert_eq!(
        (header.answer, header.requests.unwrap().ranges.len()),
        (Some(77), 1)
    );
    send(&mut sender, 50, 0);
    assert_eq!(
        next(&mut sender, 0, 50),
        None,
        "answered, asked and confirmed by the way"
    );
    assert_eq!(
        (sender.header(&own()).answer, sender.header(&own()).requests),
        (None, None)
    );
}

#[test]
fn every_answer_owed_is_given_and_an_old_wish_is_not_told() {
    let mut sender = sender_from(records(|_| {}));
    let _ = tell(&mut sender);
    sender.note(records(|records| records.told.answers_due = 1), now(1));
    assert_eq!(next(&mut sender, 1, 0), Some(SendAction::Tell));
    let _ = tell(&mut sender);
    let filled = records(|records| {
        (records.told.answers_due, records.told.ask_number) = (1, 4);
        records.told.asks = vec![Range {
            after: Point::NONE,
            up_to: at(10),
        }];
    });
    sender.note(filled, now(2));
    assert_eq!(next(&mut sender, 2, 0), None);
}

#[test]
fn unconfirmed_data_are_probed_for_with_one_nonce_at_doubling_intervals_up_to_a_day() {
    let mut sender = sender_from(records(|_| {}));
    send(&mut sender, 50, 0);
    // More data do not start the wait again.
    send(&mut sender, 60, 59);
    assert_eq!(next(&mut sender, 59, 60), None);
    let (mut now, mut wait, mut nonces) = (60, 60, Vec::new());
    for _ in 0..20 {
        assert_eq!(next(&mut sender, now - 1, 60), None, "not before {now}");
        let Some(SendAction::Probe(record)) = next(&mut sender, now, 60) else {
            unreachable!("no probe at {now}")
        };
        assert_eq!((record.log_sent, record.held), (ours(60), Point::NONE));
        nonces.push(record.nonce);
        let message = sender.probe(&record, &own());
        assert_eq!(
            message.header.probe,
            Some(Probe {
                nonce: record.nonce,
                log_sent: ours(60)
            })
        );
        assert!(!message.has_data());
        sender.delivered(&message, self::now(now));
        now += wait;
        assert_eq!(sender.wakes_at(), Some(seconds(now)));
        wait = (wait * 2).min(86_400);
    }
    nonces.dedup();
    assert_eq!(nonces, [1060], "an answer that takes a week still fits");
}

#[test]
fn a_probe_that_no_link_took_does_not_wait_and_keeps_its_nonce() {
    let mut sender = sender_from(records(|_| {}));
    send(&mut sender, 50, 0);
    let first = next(&mut sender, 60, 50);
    assert!(first.is_some());
    assert_eq!(next(&mut sender, 61, 50), first);
}

#[test]
fn an_answered_probe_is_over_and_a_confirmed_pair_is_not_probed() {
    let mut sender = sender_from(records(|_| {}));
    send(&mut sender, 50, 0);
    let Some(SendAction::Probe(record)) = next(&mut sender, 60, 50) else {
        unreachable!("due")
    };
    let message = sender.probe(&record, &own());
    sender.delivered(&message, now(60));
    let answered = records(|records| {
        records.probe = Some(record);
        records.told.answered = Some(record.nonce);
        records.told.received = ours(50);
    });
    sender.note(answered, now(70));
    assert_eq!(next(&mut sender, 1_000_000, 50), None);
    assert_eq!(sender.wakes_at(), None);
}

#[test]
fn a_probe_that_waits_for_its_answer_outlives_its_process() {
    let record = ProbeRecord {
        generation: 1,
        nonce: 5,
        log_sent: ours(50),
        ..ProbeRecord::default()
    };
    let mut killed = sender_from(records(|records| records.probe = Some(record)));
    assert_eq!(
        next(&mut killed, 0, 0),
        Some(SendAction::Probe(record)),
        "who knows whether it left"
    );
    let sent = SentRecord {
        generation: 1,
        probe: 5,
        probe_times: 1,
        ..SentRecord::default()
    };
    let mut sender = sender_from(records(|records| {
        (records.probe, records.sent) = (Some(record), Some(sent));
    }));
    let _ = tell(&mut sender);
    assert_eq!(next(&mut sender, 59, 0), None);
    assert_eq!(next(&mut sender, 60, 0), Some(SendAction::Probe(record)));
}

#[test]
fn a_suspicion_is_probed_at_once_and_once() {
    let mut sender = sender_from(records(|records| records.told.suspicions = 3));
    let Some(SendAction::Probe(record)) = next(&mut sender, 0, 0) else {
        unreachable!("due")
    };
    let message = sender.probe(&record, &own());
    sender.delivered(&message, now(0));
    assert_eq!(next(&mut sender, 1, 0), None);
    sender.note(
        records(|records| {
            records.told.suspicions = 3;
            (records.probe, records.told.answered) = (Some(record), Some(record.nonce));
        }),
        now(2),
    );
    assert_eq!(next(&mut sender, 1000, 0), None);
}

/// It asked in every round for what we believed that it had, and each time the probe that would have told us was put off.
#[test]
fn requests_of_one_that_went_back_put_off_no_probe_and_others_do() {
    let (told_lower, behind) = ((1, 60), (0, 119));
    for (suspicions, due) in [told_lower, behind] {
        let mut sender = sender_from(records(|_| {}));
        send(&mut sender, 50, 0);
        let asked = records(|records| {
            records.told.its_request = 1;
            records.told.suspicions = suspicions;
            records.probe = Some(ProbeRecord {
                generation: 1,
                suspicions,
                ..ProbeRecord::default()
            });
        });
        sender.note(asked, now(59));
        assert_eq!(next(&mut sender, due - 1, 50), None, "{suspicions}");
        let probe = next(&mut sender, due, 50);
        assert!(
            matches!(probe, Some(SendAction::Probe(_))),
            "{suspicions}: {probe:?}"
        );
    }
}

#[test]
fn a_requested_range_is_served_once_after_the_urgency_and_clipped_to_what_is_missing_and_was_sent() {
    let wanted = |number, after, up_to| {
        records(move |records| {
            records.told.serve = vec![(
                number,
                Range {
                    after: ours(after),
                    up_to: ours(up_to),
                },
            )];
            (records.told.received, records.told.confirmed) = (ours(20), ours(20));
        })
    };
    let mut sender = sender_from(wanted(1, 10, 80));
    let _ = tell(&mut sender);
    assert_eq!(
        next(&mut sender, 0, 20),
        None,
        "nothing was sent yet: it goes as data, in its turn"
    );
    send(&mut sender, 50, 0);
    assert_eq!(next(&mut sender, 1, 50), None, "collected first");
    let range = Range {
        after: ours(20),
        up_to: ours(50),
    };
    assert_eq!(
        next(&mut sender, 31, 60),
        Some(SendAction::Serve { number: 1, range }),
        "what is due behind it goes as data"
    );
    sender.served(1);
    assert_eq!(next(&mut sender, 50, 50), None);
    sender.note(wanted(2, 20, 40), now(51));
    let _ = next(&mut sender, 51, 50);
    let range = Range {
        after: ours(20),
        up_to: ours(40),
    };
    assert_eq!(
        next(&mut sender, 90, 50),
        Some(SendAction::Serve { number: 2, range })
    );
}

/// The trap: a process sends up to 50 and is killed; what it sent there is revoked. The next one begins from what is confirmed, and
/// has nothing to send that would lead the neighbour to 50, which it heard of.
#[test]
fn a_range_behind_what_this_process_sent_is_served_to_its_end_where_nothing_more_is_due_r3() {
    let range = Range {
        after: ours(20),
        up_to: ours(50),
    };
    let mut sender = sender_from(records(|records| {
        (records.told.received, records.told.confirmed) = (ours(20), ours(20));
        records.told.serve = vec![(1, range)];
    }));
    assert_eq!(
        next(&mut sender, 0, 40),
        Some(SendAction::Data { previous: ours(20) }),
        "what is due there goes as data"
    );
    assert!(
        !matches!(next(&mut sender, 0, 0), Some(SendAction::Serve { .. })),
        "collected first"
    );
    assert_eq!(
        next(&mut sender, 31, 0),
        Some(SendAction::Serve { number: 1, range })
    );
}

#[test]
fn a_neighbour_that_went_back_is_sent_to_from_there() {
    let mut sender = sender_from(records(|records| {
        (records.told.received, records.told.confirmed) = (ours(50), ours(50))
    }));
    send(&mut sender, 80, 0);
    let back = records(|records| {
        (
            records.told.received,
            records.told.confirmed,
            records.told.went_back,
        ) = (ours(30), ours(30), 1);
    });
    sender.note(back, now(1));
    assert_eq!(
        next(&mut sender, 1, 80),
        Some(SendAction::Data { previous: ours(30) })
    );
}

#[test]
fn a_part_moves_nothing_until_it_ends_its_transaction() {
    let mut sender = sender_from(records(|_| {}));
    let mut message = Message {
        header: sender.header(&own()),
        items: Vec::new(),
    };
    message.header.last = ours(50);
    let part = |offset| {
        Item::Part(Part {
            point: ours(50),
            offset,
            total: 20,
            digest: 0,
            piece: vec![0; 10].into(),
        })
    };
    message.items = vec![part(0)];
    sender.delivered(&message, now(0));
    assert_eq!(sender.log_sent(), Point::NONE);
    message.items = vec![part(10)];
    sender.delivered(&message, now(0));
    assert_eq!(sender.log_sent(), ours(50));
}

#[test]
fn a_stopped_pair_is_sent_nothing_and_a_pair_made_anew_everything() {
    let mut sender = sender_from(records(|_| {}));
    send(&mut sender, 50, 0);
    let stopped = records(|records| {
        records.pair.as_mut().unwrap().stopped = Some(StopReason::Fork("parted".into()));
    });
    sender.note(stopped, now(1));
    assert_eq!(next(&mut sender, 1_000_000, 90), None);
    let anew = Neighbour {
        name: "hq".parse().unwrap(),
        generation: 2,
    };
    sender.note(PairRecords::load(&anew, |_| Ok(None)).unwrap(), now(2));
    assert_eq!(
        next(&mut sender, 2, 90),
        Some(SendAction::Data {
            previous: Point::NONE
        })
    );
    assert_eq!(sender.header(&own()).generation, 2);
}

#[test]
fn the_first_probe_comes_after_two_send_intervals_and_at_least_a_minute() {
    assert_eq!(ProbingTimes::for_interval(seconds(1)).first, FIRST);
    assert_eq!(
        ProbingTimes::for_interval(seconds(600)),
        ProbingTimes {
            first: seconds(1200),
            longest: DAY
        }
    );
}

/// Every run of `agent -b` sent all that was unconfirmed again: a site that was away for a week found a
/// thousand copies.
#[test]
fn a_phase_that_ended_cleanly_does_not_send_again_what_its_link_took() {
    let confirmed = records(|records| (records.told.received, records.told.confirmed) = (ours(20), ours(20)));
    let mut sender = sender_from(confirmed.clone());
    assert_eq!(sender.record(), None, "nothing to say");
    send(&mut sender, 50, 0);
    let record = sender.record().unwrap();
    assert_eq!(record.log_sent, ours(50));
    let remembered = |change: &dyn Fn(&mut PairRecords)| {
        let mut records = confirmed.clone();
        records.sent = Some(record);
        change(&mut records);
        records
    };
    let mut next_run = sender_from(remembered(&|_| {}));
    assert_eq!(next_run.record(), None, "pinned already");
    assert!(
        matches!(next(&mut next_run, 0, 50), Some(SendAction::Probe(_))),
        "the link may have lost it, so the next run asks"
    );
    assert_eq!(
        next(&mut next_run, 0, 60),
        Some(SendAction::Data { previous: ours(50) })
    );
    let mut after_it_went_back = sender_from(remembered(&|records| records.told.went_back = 1));
    assert_eq!(
        next(&mut after_it_went_back, 0, 50),
        Some(SendAction::Data { previous: ours(20) })
    );
}

#[test]
fn runs_one_after_another_repeat_an_open_probe_after_twice_the_time_whatever_the_wall_clock_does() {
    let mut records =
        records(|records| (records.told.received, records.told.confirmed) = (ours(20), ours(20)));
    let mut sender = sender_from(records.clone());
    send(&mut sender, 50, 0);
    records.sent = sender.record();
    let run = |records: &PairRecords, wall: u64| {
        let at = Now {
            monotonic: seconds(5),
            wall_micros: 1_000_000 * wall as i64,
        };
        (sender_at(records.clone(), at), at)
    };
    let mut sent_at = Vec::new();
    // A run every ten seconds; the clock goes back by ten years in the middle.
    for minute in 0..200_u64 {
        let wall = if minute < 100 {
            400_000_000 + minute * 10
        } else {
            84_400_000 + minute * 10
        };
        let (mut sender, at) = run(&records, wall);
        if let Some(SendAction::Probe(record)) = sender.next(at.monotonic, None, &mut || 7) {
            records.probe = Some(record);
            sender.note(records.clone(), at);
            let message = sender.probe(&record, &own());
            sender.delivered(&message, at);
            sent_at.push(minute);
        }
        records.sent = sender.record().or(records.sent);
    }
    assert_eq!(sent_at, [0, 6, 18, 42, 90, 100]);
}

/// A site that was put back to an older copy believes that it has told everything; were it silent, its
/// neighbour would go on to hold it to more than it has.
#[test]
fn each_run_tells_again_what_was_told_until_it_did_so_in_vain_and_then_after_twice_the_time() {
    let mut records = records(|_| {});
    let mut told_at = Vec::new();
    for run in 0..60_u64 {
        // A run every 30 seconds, of a process that knows only its own time.
        let at = Now {
            monotonic: seconds(5),
            wall_micros: 1_000_000_000 + 30_000_000 * run as i64,
        };
        let mut sender = sender_at(records.clone(), at);
        if sender.next(at.monotonic, None, &mut || 7) == Some(SendAction::Tell) {
            let message = sender.tell(&own());
            sender.delivered(&message, at);
            told_at.push(run);
        }
        records.sent = sender.record().or(records.sent);
    }
    assert_eq!(told_at, [0, 2, 6, 14, 30]);
    // Once it is heard of, the doubling begins anew.
    let mut heard = sender_from(records.clone());
    records.told.its_request = 9;
    heard.note(records.clone(), now(1));
    assert_eq!(heard.record().unwrap().told_again, 0);
}

/// The trap: what it had when it asked was lost since, and what went again on its answer to a probe left that out every time.
#[test]
fn what_is_told_with_a_request_counts_for_the_ranges_that_it_made_alone() {
    let pieces = crate::message::Pieces {
        point: ours(40),
        digest: 1,
        total: 20_000,
        bytes: 7_160,
    };
    let sender = sender_from(records(|records| {
        records.asked = Some(super::super::AskedRecord {
            generation: 0,
            first: 2,
            last: 3,
            pieces: Some(pieces),
        });
    }));
    let there = [1, 2, 3, 4].map(|number| sender.is_there(number));
    assert_eq!(there, [None, Some(pieces), Some(pieces), None]);
}
