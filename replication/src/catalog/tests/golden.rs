//! The bytes of definitions: pinned in the log for as long as it is there, and in every base behind it.

use milepost_engine::codec;

use super::record::{Definition, End, PublicationBytes, Record, RemoteBytes, SubscriptionBytes};
use super::*;
use crate::golden::{Records, assert_laid_out, kept_records};

/// Where the frame lies that carries the definition.
const AT: Lsn = Lsn(0x4000);

/// The record of a definition: its key and its value.
fn pinned<T: bincode::Encode>(key: Vec<u8>, bytes: &T) -> (String, Vec<u8>) {
    let frame = record::frame(key, bytes).unwrap();
    assert_eq!((frame.kind().0, frame.body_len()), (65, 0));
    let [pinned] = frame.pinned() else {
        panic!("one record")
    };
    (
        String::from_utf8(pinned.key.clone()).unwrap(),
        pinned.value.clone().unwrap(),
    )
}

fn publications() -> Vec<(&'static str, PublicationBytes)> {
    let article = |streams: &str, kinds: &[&str]| Article {
        streams: streams.to_owned(),
        kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
    };
    let publication = |previous, version, value| PublicationBytes {
        previous: Lsn(previous),
        version,
        value,
    };
    let both = vec![
        article("orders/**", &["placed", "billed"]),
        article("bills/*", &[]),
    ];
    let whole = vec![article("**", &[])];
    let (segment, header) = (SubscribeBy::Segment(2), SubscribeBy::Header("shop".to_owned()));
    vec![
        ("all", publication(0, 1, Some((whole.clone(), None)))),
        ("by-header", publication(0x300, 3, Some((whole, Some(header))))),
        ("by-segment", publication(0x200, 2, Some((both, Some(segment))))),
        ("removed", publication(0x400, 4, None)),
    ]
}

fn remotes() -> Vec<(&'static str, RemoteBytes)> {
    let remote = |previous, added, value| RemoteBytes {
        previous: Lsn(previous),
        generation: 3,
        added: Lsn(added),
        value,
    };
    let links = || vec!["milepost://a:7001".to_owned(), "file:///mnt/x".to_owned()];
    vec![
        ("at", remote(0, 0, Some((links(), Schedule::AtMinute(90), true)))),
        (
            "every",
            remote(0x200, 0x100, Some((links(), Schedule::EverySeconds(60), false))),
        ),
        (
            "never",
            remote(0x200, 0x100, Some((links(), Schedule::None, false))),
        ),
        ("removed", remote(0x300, 0x100, None)),
    ]
}

fn subscriptions() -> Vec<SubscriptionBytes> {
    let subscription =
        |id, value: Option<&str>, from: Option<u64>, end, until: Option<u64>| SubscriptionBytes {
            previous: Lsn(id),
            id: Lsn(id),
            remote: "bern".to_owned(),
            publication: "orders".to_owned(),
            value: value.map(str::to_owned),
            from: from.map(Lsn),
            end,
            until: until.map(Lsn),
        };
    vec![
        subscription(0, None, None, End::Open, None),
        subscription(0, Some("be"), Some(0x100), End::Open, None),
        subscription(0x200, Some("be"), Some(0x100), End::Ended, None),
        subscription(0x200, None, Some(0x200), End::Revoked, Some(0x300)),
    ]
}

fn kept() -> Records {
    let mut written = Records::new();
    for (name, bytes) in publications() {
        written.push(pinned(record::publication_key(name), &bytes));
    }
    for (name, bytes) in remotes() {
        written.push(pinned(record::remote_key(&name.parse().unwrap()), &bytes));
    }
    for (word, bytes) in (0x0123_4567_89ab_cdef..).zip(subscriptions()) {
        written.push(pinned(record::subscription_key(word), &bytes));
    }
    let kept = kept_records("catalog", &written);
    assert_eq!(kept, written);
    kept
}

/// What the bytes are read as, in the order of [`kept`].
fn definitions() -> Vec<Definition> {
    let publications = publications()
        .into_iter()
        .map(|(name, bytes)| Definition::Publication {
            name: name.to_owned(),
            value: bytes.value.map(|(articles, by)| Publication {
                name: name.to_owned(),
                version: bytes.version,
                since: AT,
                articles,
                by,
            }),
        });
    let remotes = remotes().into_iter().map(|(name, bytes)| Definition::Remote {
        name: name.parse().unwrap(),
        value: bytes.value.map(|(links, schedule, consolidated)| Remote {
            site: name.parse().unwrap(),
            since: AT,
            added: if name == "at" { AT } else { Lsn(0x100) },
            generation: 3,
            links,
            schedule,
            consolidated,
            on_error: OnError::Stop,
            limits: RemoteLimits::default(),
        }),
    });
    let ranges = [
        (AT, AT, None, None),
        (AT, Lsn(0x100), None, None),
        (Lsn(0x200), Lsn(0x100), Some(AT), None),
        (Lsn(0x200), Lsn(0x200), Some(Lsn(0x300)), Some(AT)),
    ];
    let subscriptions = subscriptions().into_iter().zip(ranges).map(|(bytes, range)| {
        let (id, from, until, revoked) = range;
        Definition::Subscription(Subscription {
            id: SubscriptionId(id.0),
            remote: "bern".parse().unwrap(),
            publication: bytes.publication,
            value: bytes.value,
            from,
            until,
            revoked,
        })
    });
    publications.chain(remotes).chain(subscriptions).collect()
}

#[test]
fn definitions_of_version_1_are_written_and_read_as_ever() {
    let kept = kept();
    for ((key, value), definition) in kept.iter().zip(definitions()) {
        let record = Record::decode(key.as_bytes(), value, AT).unwrap();
        assert_eq!(record.definition, definition, "{key}");
        let previous = if key.contains("publication") {
            record::body::<PublicationBytes>(value, AT).unwrap().previous
        } else if key.contains("remote") {
            record::body::<RemoteBytes>(value, AT).unwrap().previous
        } else {
            record::body::<SubscriptionBytes>(value, AT).unwrap().previous
        };
        // docs/format.md, "Catalog": the version, then `previous`.
        assert_eq!(
            value[..10],
            [&[1, 0][..], &previous.0.to_le_bytes()].concat(),
            "{key}"
        );
    }
    assert_eq!(kept.len(), definitions().len());
}

/// The parts of a value, one behind another: bincode has no offsets of its own.
fn assert_value((key, value): &(String, Vec<u8>), parts: &[&[u8]]) {
    let mut fields = vec![(0, &[1, 0][..])];
    let mut at = 2;
    for part in parts {
        fields.push((at, *part));
        at += part.len();
    }
    assert_laid_out(key, value, &fields);
}

/// A text as `engine::codec` writes it.
fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

fn word(word: u64) -> [u8; 8] {
    word.to_le_bytes()
}

#[test]
fn publications_and_remotes_of_version_1_are_laid_out_as_their_page_says() {
    let kept = kept();
    let (yes, no) = (&[1][..], &[0][..]);
    let (one, two, three, four) = (&[1, 0, 0, 0], &[2, 0, 0, 0], &[3, 0, 0, 0], &[4, 0, 0, 0]);
    // docs/format.md, "Catalog".
    let whole = [&word(1)[..], &text("**"), &word(0)].concat();
    assert_value(&kept[0], &[&word(0), one, yes, &whole, no]);
    assert_value(
        &kept[1],
        &[&word(0x300), three, yes, &whole, yes, one, &text("shop")],
    );
    let both = [
        &word(2)[..],
        &text("orders/**"),
        &word(2),
        &text("placed"),
        &text("billed"),
        &text("bills/*"),
        &word(0),
    ];
    let segment = [0, 0, 0, 0, 2, 0];
    assert_value(&kept[2], &[&word(0x200), two, yes, &both.concat(), yes, &segment]);
    assert_value(&kept[3], &[&word(0x400), four, no]);
    let links = [&word(2)[..], &text("milepost://a:7001"), &text("file:///mnt/x")].concat();
    let at = [2, 0, 0, 0, 90, 0];
    assert_value(&kept[4], &[&word(0), three, &word(0), yes, &links, &at, yes]);
    let (every, added) = ([&one[..], &word(60)].concat(), word(0x100));
    assert_value(&kept[5], &[&word(0x200), three, &added, yes, &links, &every, no]);
    assert_value(&kept[6], &[&word(0x200), three, &added, yes, &links, &[0; 4], no]);
    assert_value(&kept[7], &[&word(0x300), three, &added, no]);
}

#[test]
fn subscriptions_of_version_1_are_laid_out_as_their_page_says() {
    let kept = kept();
    let (yes, no) = (&[1][..], &[0][..]);
    let who = [text("bern"), text("orders")].concat();
    let (be, zero, from) = (text("be"), word(0), word(0x100));
    // docs/format.md, "Catalog": previous, id, remote, publication, value, from, end, until.
    assert_value(&kept[8], &[&zero, &zero, &who, no, no, &[0; 4], no]);
    assert_value(&kept[9], &[&zero, &zero, &who, yes, &be, yes, &from, &[0; 4], no]);
    let id = word(0x200);
    assert_value(
        &kept[10],
        &[&id, &id, &who, yes, &be, yes, &from, &[1, 0, 0, 0], no],
    );
    let end = [&[2, 0, 0, 0][..], yes, &word(0x300)].concat();
    assert_value(&kept[11], &[&id, &id, &who, no, yes, &id, &end]);
    // A word more is no definition, so each field was read.
    let longer = [&kept[11].1[2..], &[0]].concat();
    assert!(codec::decode::<SubscriptionBytes>(&longer).is_err());
}

#[test]
fn a_remote_with_a_policy_is_of_version_2_and_one_without_stays_of_version_1() {
    let (_, bytes) = remotes().remove(1);
    let site = "every".parse().unwrap();
    let frame = record::remote_frame(&site, bytes, OnError::GoOn, RemoteLimits::default()).unwrap();
    let [pinned] = frame.pinned() else {
        panic!("one record")
    };
    let key = String::from_utf8(pinned.key.clone()).unwrap();
    let written = vec![(key, pinned.value.clone().unwrap())];
    let kept = kept_records("catalog-policy", &written);
    assert_eq!(kept, written);
    let (key, value) = &kept[0];
    let record = Record::decode(key.as_bytes(), value, AT).unwrap();
    let Definition::Remote {
        value: Some(remote), ..
    } = record.definition
    else {
        panic!("a remote")
    };
    assert_eq!((remote.on_error, remote.added), (OnError::GoOn, Lsn(0x100)));
    // docs/format.md, "Catalog": version, what version 1 has, the policy.
    let links = [&word(2)[..], &text("milepost://a:7001"), &text("file:///mnt/x")].concat();
    let every = [&[1, 0, 0, 0][..], &word(60)].concat();
    let rest = [
        &word(0x200)[..],
        &[3, 0, 0, 0],
        &word(0x100),
        &[1],
        &links,
        &every,
        &[0],
    ]
    .concat();
    let fields: &[(usize, &[u8])] = &[(0, &[2, 0]), (2, &rest), (2 + rest.len(), &[1, 0, 0, 0])];
    assert_laid_out(key, value, fields);
    let (_, bytes) = remotes().remove(1);
    let frame = record::remote_frame(&site, bytes, OnError::Stop, RemoteLimits::default()).unwrap();
    assert_eq!(frame.pinned()[0].value.as_ref().unwrap(), &self::kept()[5].1);
    let newer = [&[4, 0], &value[2..]].concat();
    assert!(Record::decode(key.as_bytes(), &newer, AT).is_err());
}

#[test]
fn a_remote_with_limits_is_of_version_3() {
    let (_, bytes) = remotes().remove(1);
    let site = "every".parse().unwrap();
    let limits = RemoteLimits {
        bytes: Some(0x1122),
        age: Some(0x3344),
        at_limit: AtLimit::Suspend,
    };
    let frame = record::remote_frame(&site, bytes, OnError::GoOn, limits).unwrap();
    let value = frame.pinned()[0].value.clone().unwrap();
    let key = String::from_utf8(frame.pinned()[0].key.clone()).unwrap();
    let written = vec![(key, value)];
    let kept = kept_records("catalog-limits", &written);
    assert_eq!(kept, written);
    let (key, value) = &kept[0];
    let record = Record::decode(key.as_bytes(), value, AT).unwrap();
    let Definition::Remote {
        value: Some(remote), ..
    } = record.definition
    else {
        panic!("a remote")
    };
    assert_eq!((remote.limits, remote.on_error), (limits, OnError::GoOn));
    // docs/format.md, "Catalog": version, what version 2 has, the limits.
    let policy = &kept_records("catalog-policy", &Records::new())[0].1;
    let limits = [&[1][..], &word(0x1122), &[1], &word(0x3344), &[1, 0, 0, 0]].concat();
    let rest = &policy[2..];
    let fields: &[(usize, &[u8])] = &[(0, &[3, 0]), (2, rest), (2 + rest.len(), &limits)];
    assert_laid_out(key, value, fields);
}
