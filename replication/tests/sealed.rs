//! Two real sites with a key over a shared folder that somebody else can read and write: he learns no event, and whatever he
//! does with the folder, the sites hold what they would hold without him.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions
)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use milepost_replication::agent::{ExitCode, Links, Stop, run_on};
use milepost_replication::catalog::Start;
use milepost_replication::keys::{DistrustRecord, KeyId, KeyLine, Keys, keys_of};
use milepost_replication::link::DirectoryLink;
use milepost_replication::message::{Limits, decode_header, encode};
use milepost_replication::send::Serve;
use milepost_replication::status::{RemoteStatus, status};
use milepost_replication::tracking::{PairState, PollCause};
use support::{Net, Site, assert_nothing_doubled, batch, name};

/// Sites joined by a folder, whose every file an attacker has seen.
struct Joined {
    hq: Site,
    bern: Site,
    folder: PathBuf,
    /// Every message that ever lay there, by mailbox and name.
    seen: BTreeMap<(String, String), Vec<u8>>,
    _dir: tempfile::TempDir,
}

const SECRET: &str = "the price of article 17 is four francs";

fn joined() -> Joined {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("exchange");
    fs::create_dir(&folder).unwrap();
    let site = |site: &str| Site::new(dir.path(), site, &Net::default());
    let (hq, bern) = (site("hq"), site("bern"));
    hq.publish("all", "**", None);
    hq.remote("bern");
    bern.remote("hq");
    bern.publish("up", "sales/**", None);
    hq.subscribe("bern", "all", None, Start::Beginning);
    bern.subscribe("hq", "up", None, Start::Beginning);
    Joined {
        hq,
        bern,
        folder,
        seen: BTreeMap::new(),
        _dir: dir,
    }
}

/// The same with a key that hq drew.
fn sealed() -> (Joined, KeyLine) {
    let joined = joined();
    let line = Keys::new(&joined.hq.store).add_fresh(&name("bern")).unwrap();
    Keys::new(&joined.bern.store)
        .add(&name("hq"), &line, false)
        .unwrap();
    (joined, line)
}

fn files(folder: &Path, mailbox: &str) -> BTreeMap<String, Vec<u8>> {
    let Ok(list) = fs::read_dir(folder.join(mailbox)) else {
        return BTreeMap::new();
    };
    let file = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        (name, fs::read(entry.path()).unwrap())
    };
    list.map(file).collect()
}

impl Joined {
    /// One batch run of an agent.
    fn run(&mut self, of: &str) -> ExitCode {
        let site = if of == "hq" { &self.hq } else { &self.bern };
        let (own, folder) = (site.store.site().clone(), self.folder.clone());
        let rng = std::sync::Arc::clone(site.store.rng());
        let stop = Stop::new();
        let open = move |_: &[String]| -> milepost_engine::Result<std::sync::Arc<dyn milepost_replication::link::Link>> {
            let link = DirectoryLink::new(folder.clone(), own.clone(), std::sync::Arc::clone(&rng));
            Ok(std::sync::Arc::new(link))
        };
        let links = Links::new(Box::new(open), &[], site.runtime.handle().clone(), stop.clone());
        let exit = run_on(&site.store, &links, &batch(true, true, true), &stop);
        for mailbox in ["hq", "bern"] {
            for (file, bytes) in files(&self.folder, mailbox) {
                self.seen.insert((mailbox.to_owned(), file), bytes);
            }
        }
        exit.code
    }

    fn rounds(&mut self, rounds: usize) {
        for _ in 0..rounds {
            assert_eq!(self.run("hq"), ExitCode::Done);
            assert_eq!(self.run("bern"), ExitCode::Done);
        }
    }

    fn put(&self, mailbox: &str, number: usize, bytes: &[u8]) {
        let sender = if mailbox == "hq" { "bern" } else { "hq" };
        let file = self
            .folder
            .join(mailbox)
            .join(format!("{sender}-{number:016x}.mp"));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, bytes).unwrap();
    }

    fn waiting(&self, mailbox: &str) -> usize {
        files(&self.folder, mailbox).len()
    }

    /// All that both sites hold: transactions, and how far each is with the other.
    fn held(&self) -> String {
        let of = |site: &Site, remote: &str| {
            let facts = remote_status(site, remote);
            format!(
                "{:?} {} {}",
                site.transactions(),
                facts.log_received,
                facts.confirm_sent
            )
        };
        format!("{}\n{}", of(&self.hq, "bern"), of(&self.bern, "hq"))
    }
}

fn remote_status(site: &Site, remote: &str) -> RemoteStatus {
    let facts = status(&site.store, &mut |_| {}).unwrap();
    let mut remotes = facts.remotes.into_iter();
    remotes.find(|one| one.remote == remote).unwrap()
}

fn sealing(site: &Site, remote: &str) -> KeyId {
    keys_of(&site.store, &name(remote))
        .unwrap()
        .sealing()
        .unwrap()
        .id()
}

/// Work at both sites, small and in parts.
fn work(joined: &mut Joined) {
    for number in 0..6 {
        joined
            .hq
            .commit(&[("orders/1", SECRET), ("stock", &number.to_string())]);
        joined.bern.commit(&[("sales/3", SECRET)]);
        joined.rounds(1);
    }
    let large = format!("{SECRET}{}", "x".repeat(120_000));
    let noise: String = (0..120_000u64)
        .map(|at| char::from(b'a' + (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 59) as u8))
        .collect();
    joined.hq.commit(&[("orders/2", &large), ("orders/3", &noise)]);
    joined.rounds(3);
}

#[test]
fn what_lies_in_the_folder_shows_no_event_and_everything_arrives() {
    let (mut joined, _) = sealed();
    work(&mut joined);
    assert_eq!(joined.bern.received().len(), 7);
    assert_eq!(joined.hq.received().len(), 6);
    assert!(joined.seen.len() > 16, "{}", joined.seen.len());
    for ((mailbox, file), bytes) in &joined.seen {
        assert_eq!(
            bytes[20] & 2,
            2,
            "{mailbox}/{file} is sealed, with data or without"
        );
        for words in [SECRET, "orders", "sales/3", "stock", "xxxxxxxxxxxx"] {
            let shows = bytes.windows(words.len()).any(|there| there == words.as_bytes());
            assert!(!shows, "{mailbox}/{file} shows {words:?}");
        }
    }
}

/// The trap: he keeps every message that ever was, and puts all of them back, again and again, into both mailboxes, while
/// the sites go on.
#[test]
fn all_that_ever_was_sent_changes_nothing_when_it_is_sent_again() {
    let (mut joined, _) = sealed();
    work(&mut joined);
    let before = joined.held();
    let all: Vec<_> = joined.seen.clone().into_iter().collect();
    for round in 0..3 {
        for (number, ((mailbox, _), bytes)) in all.iter().enumerate() {
            joined.put(mailbox, round << 32 | number << 8, bytes);
            // To the one who sent it, too.
            let other = if mailbox == "hq" { "bern" } else { "hq" };
            let sender = decode_header(bytes, &Limits::default()).unwrap().from.name;
            assert_eq!(sender.as_str(), other);
            joined.put(other, round << 32 | number << 8 | 1, bytes);
        }
        joined.rounds(3);
        assert_eq!(joined.held(), before, "round {round}");
        // What a site sent itself is from no remote of its, and waits; the rest is known, and gone.
        for (mailbox, sender) in [("hq", "bern"), ("bern", "hq")] {
            let of_the_other = |bytes: &&Vec<u8>| {
                decode_header(bytes, &Limits::default())
                    .unwrap()
                    .from
                    .name
                    .as_str()
                    == sender
            };
            assert_eq!(
                files(&joined.folder, mailbox)
                    .values()
                    .filter(of_the_other)
                    .count(),
                0
            );
        }
    }
    for site in [&joined.hq, &joined.bern] {
        assert_nothing_doubled(site);
    }
    joined.hq.commit(&[("orders/4", "more")]);
    joined.rounds(2);
    assert_eq!(joined.bern.payloads().last().unwrap(), "more");
    for (site, remote) in [(&joined.hq, "bern"), (&joined.bern, "hq")] {
        assert_eq!(remote_status(site, remote).stopped, None);
        assert_eq!(remote_status(site, remote).lag_transactions, 0);
    }
}

fn summed(mut bytes: Vec<u8>) -> Vec<u8> {
    let head_len = u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize;
    bytes[24..32].fill(0);
    let sums = [&bytes[..head_len], &bytes].map(|covered| crc32fast::hash(covered).to_le_bytes());
    bytes[24..32].copy_from_slice(&sums.concat());
    bytes
}

/// The trap: he writes heads that would stop a pair, begin it anew, move its positions or say what was asked for, over bodies
/// that he saw, and without any seal.
#[test]
fn no_head_that_he_writes_begins_stops_or_moves_anything() {
    let (mut joined, _) = sealed();
    work(&mut joined);
    let before = joined.held();
    let to_bern: Vec<_> = joined
        .seen
        .iter()
        .filter(|((mailbox, _), _)| mailbox == "bern")
        .map(|(_, bytes)| bytes.clone())
        .collect();
    let mut number = 0;
    let mut put = |joined: &Joined, bytes: Vec<u8>| {
        number += 1;
        joined.put("bern", 1 << 40 | number << 4, &summed(bytes));
    };
    for bytes in to_bern.iter().rev().take(4) {
        // Generation, epoch, durable end, and every point, each one higher, over the same body.
        for at in [80, 88, 96, 104, 112, 136, 144, 168, 176, 200, 208] {
            let mut changed = bytes.clone();
            changed[at] = changed[at].wrapping_add(1);
            put(&joined, changed);
        }
    }
    // What he has no key for he can still say: that a newer program is needed, and that he is hq.
    let head = decode_header(to_bern.last().unwrap(), &Limits::default()).unwrap();
    for what in 0..3 {
        let mut header = head.clone();
        header.generation += what;
        header.received = header.last;
        let plain = encode(&milepost_replication::message::Message::bare(header)).unwrap();
        put(&joined, plain);
    }
    assert_eq!(
        joined.run("bern"),
        ExitCode::Quarantined,
        "an operator should know"
    );
    for (file, bytes) in files(&joined.folder, "bern") {
        // One that contradicts itself is of nobody; the others count as lost.
        assert!(decode_header(&bytes, &Limits::default()).is_err(), "{file}");
        fs::remove_file(joined.folder.join("bern").join(file)).unwrap();
    }
    let facts = remote_status(&joined.bern, "hq");
    assert_eq!((facts.stopped, facts.generation), (None, 1));
    assert!(facts.distrusted.is_some());
    joined.rounds(2);
    assert_eq!(joined.held(), before);
    joined.hq.commit(&[("orders/4", "more")]);
    joined.rounds(2);
    assert_eq!(joined.bern.payloads().last().unwrap(), "more");
    assert_eq!(
        remote_status(&joined.bern, "hq").distrusted,
        None,
        "all is well again"
    );
}

#[test]
fn one_site_has_the_key_first_and_nothing_is_lost_meanwhile() {
    let mut joined = joined();
    joined.hq.commit(&[("orders/1", "unsealed")]);
    joined.rounds(2);
    assert_eq!(joined.bern.payloads(), ["unsealed"]);
    // On its way unsealed when hq gets the key.
    joined.bern.commit(&[("sales/1", "late")]);
    assert_eq!(joined.run("bern"), ExitCode::Done);
    let line = Keys::new(&joined.hq.store).add_fresh(&name("bern")).unwrap();
    joined.hq.commit(&[("orders/2", "sealed")]);
    assert_eq!(joined.run("hq"), ExitCode::Quarantined);
    assert!(joined.hq.payloads().is_empty(), "it was not taken");
    let told = remote_status(&joined.hq, "bern").distrusted.unwrap();
    assert!(told.contains("not sealed"), "{told}");
    assert_eq!(joined.waiting("hq"), 0);
    let waits = joined.waiting("bern");
    assert!(waits > 0);
    assert_eq!(joined.run("bern"), ExitCode::Quarantined);
    assert_eq!(joined.bern.payloads(), ["unsealed"], "it cannot be read");
    assert_eq!(joined.waiting("bern"), waits, "and waits");
    let told = remote_status(&joined.bern, "hq").distrusted.unwrap();
    assert!(
        told.contains(&line.key.id().to_string()) && told.contains("key add"),
        "{told}"
    );
    Keys::new(&joined.bern.store)
        .add(&name("hq"), &line, false)
        .unwrap();
    for _ in 0..4 {
        joined.run("bern");
        joined.run("hq");
    }
    joined.rounds(1);
    assert_eq!(joined.bern.payloads(), ["unsealed", "sealed"]);
    assert_eq!(joined.hq.payloads(), ["late"], "it was asked for and came sealed");
    assert_eq!(joined.waiting("hq") + joined.waiting("bern"), 0);
    // The next word from each shows that all is well.
    joined.hq.commit(&[("orders/3", "x")]);
    joined.bern.commit(&[("sales/3", "x")]);
    joined.rounds(2);
    for (site, remote) in [(&joined.hq, "bern"), (&joined.bern, "hq")] {
        assert_eq!(remote_status(site, remote).distrusted, None);
        assert_eq!(remote_status(site, remote).key, Some(line.key.id().to_string()));
    }
}

/// A key replaced while messages go: drawn here and there, added first here and first there.
#[test]
fn a_key_is_replaced_without_a_message_that_the_other_cannot_open() {
    for drawn_at_hq in [true, false] {
        let (mut joined, first) = sealed();
        let mut number = 0;
        let mut goes_on = |joined: &mut Joined| {
            number += 1;
            joined.hq.commit(&[("orders/1", &number.to_string())]);
            joined.bern.commit(&[("sales/1", &number.to_string())]);
            // Every run ends well: nothing came that could not be opened.
            joined.rounds(2);
            assert_eq!(joined.bern.payloads().last(), Some(&number.to_string()));
            assert_eq!(joined.hq.payloads().last(), Some(&number.to_string()));
        };
        goes_on(&mut joined);
        let pick = |joined: &Joined, drawer: bool| match drawer == drawn_at_hq {
            true => (joined.hq.store.clone(), name("bern")),
            false => (joined.bern.store.clone(), name("hq")),
        };
        let (drawer, its_remote) = pick(&joined, true);
        let second = Keys::new(&drawer).add_fresh(&its_remote).unwrap();
        goes_on(&mut joined);
        for (site, remote) in [(&joined.hq, "bern"), (&joined.bern, "hq")] {
            assert_eq!(
                sealing(site, remote),
                first.key.id(),
                "the other has no other yet"
            );
        }
        let (reader, its_remote) = pick(&joined, false);
        Keys::new(&reader).add(&its_remote, &second, false).unwrap();
        goes_on(&mut joined);
        for (site, remote) in [(&joined.hq, "bern"), (&joined.bern, "hq")] {
            assert_eq!(sealing(site, remote), second.key.id(), "both have seen it");
        }
        for (store, remote) in [(&joined.hq.store, "bern"), (&joined.bern.store, "hq")] {
            Keys::new(store).drop_key(&name(remote), first.key.id()).unwrap();
        }
        goes_on(&mut joined);
        // What he kept of the former key is late, whoever is told of it.
        let old = joined.seen.iter().find(|((mailbox, _), bytes)| {
            mailbox == "bern" && bytes.windows(8).any(|there| there == first.key.id().0)
        });
        let old = old.unwrap().1.clone();
        joined.put("bern", 1 << 40, &old);
        joined.rounds(1);
        assert_eq!(joined.waiting("bern"), 0);
        assert_nothing_doubled(&joined.bern);
    }
}

#[test]
fn a_pair_whose_key_is_gone_sends_nothing_takes_nothing_and_goes_on_with_a_new_one() {
    let (mut joined, lost) = sealed();
    joined.rounds(2);
    let keys = joined.hq.root.join("keys");
    fs::remove_dir_all(&keys).unwrap();
    joined.hq.commit(&[("orders/1", SECRET)]);
    joined.bern.commit(&[("sales/1", "up")]);
    assert_eq!(joined.run("bern"), ExitCode::Done);
    let seen = joined.seen.len();
    assert_ne!(joined.run("hq"), ExitCode::Done);
    assert_eq!(joined.seen.len(), seen, "nothing left hq, sealed or not");
    assert!(joined.hq.payloads().is_empty());
    let facts = remote_status(&joined.hq, "bern");
    assert!(facts.locked.unwrap().contains(&lost.key.id().to_string()));
    let fresh = Keys::new(&joined.hq.store).add_fresh(&name("bern")).unwrap();
    Keys::new(&joined.bern.store)
        .add(&name("hq"), &fresh, false)
        .unwrap();
    // What bern had sealed with the lost key can be read by nobody any more.
    assert_eq!(joined.run("hq"), ExitCode::Quarantined);
    Keys::new(&joined.hq.store)
        .drop_key(&name("bern"), lost.key.id())
        .unwrap();
    for _ in 0..4 {
        joined.run("hq");
        joined.run("bern");
    }
    joined.rounds(1);
    assert_eq!(joined.bern.payloads(), [SECRET]);
    assert_eq!(joined.hq.payloads(), ["up"]);
    assert_eq!(joined.waiting("hq") + joined.waiting("bern"), 0);
}

#[test]
fn messages_go_unsealed_again_only_when_both_are_told_to() {
    let (mut joined, _) = sealed();
    joined.hq.commit(&[("orders/1", "one")]);
    joined.rounds(2);
    assert!(Keys::new(&joined.hq.store).drop_all(&name("bern")).unwrap());
    joined.hq.commit(&[("orders/1", "two")]);
    joined.run("hq");
    assert_eq!(
        joined.run("bern"),
        ExitCode::Quarantined,
        "bern still asks for a seal"
    );
    assert_eq!(joined.bern.payloads(), ["one"]);
    assert!(Keys::new(&joined.bern.store).drop_all(&name("hq")).unwrap());
    for _ in 0..4 {
        joined.run("bern");
        joined.run("hq");
    }
    assert_eq!(joined.bern.payloads(), ["one", "two"]);
    let key = DistrustRecord::key(&name("hq"));
    assert!(joined.bern.store.pinned(&key).unwrap().is_none());
}

/// The trap: both phases have looked at the pair before, and what they know of it is in memory.
#[test]
fn phases_that_run_see_keys_change_between_their_rounds() {
    let dir = tempfile::tempdir().unwrap();
    let net = Net::default();
    let (hq, bern) = (
        Site::new(dir.path(), "hq", &net),
        Site::new(dir.path(), "bern", &net),
    );
    hq.publish("all", "**", None);
    hq.remote("bern");
    bern.remote("hq");
    hq.subscribe("bern", "all", None, Start::Beginning);
    let (mut sending, mut receiving) = (hq.send_phase(), bern.receive_phase());
    hq.commit(&[("orders/1", "one")]);
    hq.scan();
    sending.round(Serve::Everybody).unwrap();
    receiving.poll(PollCause::Due).unwrap();
    hq.commit(&[("orders/1", "two")]);
    hq.scan();
    sending.round(Serve::Everybody).unwrap();
    let lost = net.steal("bern");
    assert!(!lost.is_empty() && lost.iter().all(|bytes| bytes[20] & 2 == 0));
    let line = Keys::new(&hq.store).add_fresh(&name("bern")).unwrap();
    sending.round(Serve::Everybody).unwrap();
    let waiting = net.waiting("bern");
    assert!(waiting > 0, "it goes again, sealed");
    let received = receiving.poll(PollCause::Due).unwrap();
    assert_eq!(received.quarantined.len(), waiting);
    assert!(
        received.quarantined[0]
            .reason
            .contains(&line.key.id().to_string())
    );
    assert_eq!(net.waiting("bern"), waiting, "it waits");
    assert!(
        receiving.poll(PollCause::Due).unwrap().quarantined.is_empty(),
        "and is told once"
    );
    Keys::new(&bern.store).add(&name("hq"), &line, false).unwrap();
    receiving.poll(PollCause::Due).unwrap();
    assert_eq!(bern.payloads(), ["one", "two"]);
    assert_eq!(net.waiting("bern"), 0);
    assert!(!receiving.distrusts());
    // A second one, which hq is to seal with once it hears that bern has it.
    let second = Keys::new(&hq.store).add_fresh(&name("bern")).unwrap();
    sending.round(Serve::Everybody).unwrap();
    Keys::new(&bern.store).add(&name("hq"), &second, false).unwrap();
    receiving.poll(PollCause::Due).unwrap();
    bern.send();
    hq.receive();
    net.steal("bern");
    hq.commit(&[("orders/1", "three")]);
    hq.scan();
    sending.round(Serve::Everybody).unwrap();
    let sealed = net.steal("bern");
    let under = |bytes: &Vec<u8>| bytes.windows(8).any(|there| there == second.key.id().0);
    assert!(!sealed.is_empty() && sealed.iter().all(under));
}

/// Names on the wire that would lead out of a folder, were they used as they are.
#[test]
fn a_name_in_a_message_is_never_a_path() {
    let (mut joined, _) = sealed();
    joined.hq.commit(&[("orders/1", "x")]);
    joined.rounds(1);
    let from = joined
        .seen
        .iter()
        .find(|((mailbox, _), _)| mailbox == "bern")
        .unwrap();
    let bytes = from.1.clone();
    for (number, evil) in [
        &b"../x"[..],
        b"/etc",
        b"..",
        b".x",
        b"a/b",
        b"A",
        b"\0",
        b"x\n",
        b"\xff\xfe",
    ]
    .iter()
    .enumerate()
    {
        // In place of "hqbern": the sender's name, then ours.
        let mut names = [*evil, b"bern"].concat();
        names.resize(8, 0);
        let mut changed = bytes.clone();
        assert_eq!(&changed[72..78], b"hqbern");
        changed[64..66].copy_from_slice(&(evil.len() as u16).to_le_bytes());
        changed[72..80].copy_from_slice(&names);
        joined.put("bern", number, &summed(changed));
    }
    let before: Vec<_> = list(joined.bern.root.parent().unwrap());
    assert_eq!(joined.run("bern"), ExitCode::Quarantined);
    let after = list(joined.bern.root.parent().unwrap());
    let new: Vec<_> = after.iter().filter(|path| !before.contains(path)).collect();
    let quarantine = joined.bern.root.join("quarantine");
    let log = joined.bern.root.join("log");
    let ours = |path: &&&PathBuf| {
        path.starts_with(&quarantine) || path.starts_with(&log) || path.starts_with(&joined.folder)
    };
    let names = list(&quarantine)
        .into_iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned());
    let kept: Vec<String> = names.filter(|name| name.ends_with(".mp")).collect();
    assert_eq!(kept.len(), 9, "{kept:?}");
    let ours_in_it = |name: &String| name.starts_with("unknown-");
    assert!(
        kept.iter().all(ours_in_it),
        "they are kept under a name of ours: {kept:?}"
    );
    assert_eq!(
        new.iter().filter(|path| !ours(path)).collect::<Vec<_>>(),
        Vec::<&&PathBuf>::new()
    );
}

fn list(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(list(&path));
        }
        found.push(path);
    }
    found
}
