//! A reader process racing a writer process on a directory link: no message is ever accepted in part (R3 need not be asked).
//!
//! The writer is this test's own program, started again, so that nothing but the folder joins the two. Every message says its
//! number and length and is a pure function of them; the reader lists, reads and removes without a pause. A writer
//! that writes under the final name is caught, which shows that a part would be seen.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use milepost_engine::SiteName;
use milepost_engine::clock::SystemRng;
use milepost_replication::link::{DirectoryLink, Link, PollRequest};

const EVERYDAY: u64 = 5_000;
const SEED: u64 = 20_261_130;
/// The writer pauses while more than this many wait, so that a listing stays short and the race close.
const MOST_WAITING: usize = 64;

fn site(name: &str) -> SiteName {
    SiteName::new(name).unwrap()
}

fn mixed(mut state: u64) -> u64 {
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

/// Message `number`: its number, its length, and words that follow from both. A few bytes, or some pages.
fn message(number: u64) -> Vec<u8> {
    let drawn = mixed(SEED ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let words = if drawn.is_multiple_of(4) {
        drawn % 8
    } else {
        drawn % 2_500
    };
    let mut bytes = [number, words].map(u64::to_le_bytes).concat();
    for word in 0..words {
        bytes.extend_from_slice(&mixed(drawn ^ word).to_le_bytes());
    }
    bytes
}

/// The writer: does nothing unless the reader's test started it.
#[tokio::test]
async fn the_writer() {
    let Ok(dir) = std::env::var("MILEPOST_RACE_DIR") else {
        return;
    };
    let count: u64 = std::env::var("MILEPOST_RACES").unwrap().parse().unwrap();
    let planted = std::env::var_os("MILEPOST_RACE_PLANTED").is_some();
    let (hq, bern) = (site("hq"), site("bern"));
    let link = DirectoryLink::new(&dir, hq, Arc::new(SystemRng));
    let mailbox = Path::new(&dir).join("bern");
    fs::create_dir_all(&mailbox).unwrap();
    for number in 0..count {
        while number.is_multiple_of(16) && fs::read_dir(&mailbox).unwrap().count() > MOST_WAITING {
            std::thread::yield_now();
        }
        if planted {
            let path = mailbox.join(format!("hq-{number:016x}.mp"));
            let mut file = fs::File::create(path).unwrap();
            for piece in message(number).chunks(512) {
                file.write_all(piece).unwrap();
            }
        } else {
            link.deliver(&bern, &message(number)).await.unwrap();
        }
    }
}

fn writer(dir: &Path, races: u64, planted: bool) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "the_writer"])
        .env("MILEPOST_RACE_DIR", dir)
        .env("MILEPOST_RACES", races.to_string())
        .stdout(Stdio::null());
    if planted {
        command.env("MILEPOST_RACE_PLANTED", "1");
    }
    command.spawn().unwrap()
}

/// Polls, accepts and removes until every message came once; how many polls that took, or the first message that is not whole.
async fn race(races: u64, planted: bool) -> Result<u64, String> {
    let dir = tempfile::tempdir().unwrap();
    let bern = DirectoryLink::new(dir.path(), site("bern"), Arc::new(SystemRng));
    let mut writer = writer(dir.path(), races, planted);
    let (mut seen, mut polls, skip) = (BTreeSet::new(), 0, BTreeSet::new());
    let mut whole_below = 0;
    let found = loop {
        let ended = writer.try_wait().unwrap();
        let request = PollRequest {
            after: None,
            skip: &skip,
            max_count: 256,
            max_bytes: 16 << 20,
        };
        let batch = bern.poll(request).await.unwrap();
        polls += 1;
        let partial = batch.messages.iter().find_map(|one| {
            let number = one
                .bytes
                .first_chunk::<8>()
                .map(|bytes| u64::from_le_bytes(*bytes));
            let is_whole = number.is_some_and(|number| number < races && one.bytes == message(number));
            (!is_whole).then(|| format!("{} bytes of message {number:?}", one.bytes.len()))
        });
        if let Some(partial) = partial {
            break Err(partial);
        }
        let mut ids = Vec::new();
        for one in batch.messages {
            let number = u64::from_le_bytes(*one.bytes.first_chunk().unwrap());
            assert!(
                number >= whole_below && seen.insert(number),
                "message {number} came twice"
            );
            ids.push(one.id);
        }
        while seen.remove(&whole_below) {
            whole_below += 1;
        }
        bern.remove(&ids).await.unwrap();
        if let Some(status) = ended
            && ids.is_empty()
        {
            assert!(status.success(), "the writer failed");
            assert_eq!(whole_below, races, "every message came");
            break Ok(polls);
        }
    };
    let _ = writer.kill();
    let _ = writer.wait();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_is_accepted_in_part_however_closely_a_reader_races_its_writer() {
    let races = std::env::var("MILEPOST_RACES").map_or(EVERYDAY, |text| text.parse().unwrap());
    let polls = race(races, false).await.unwrap();
    println!("{races} messages raced, {polls} polls, none accepted in part; seed {SEED}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_writes_under_the_final_name_is_caught() {
    let partial = race(EVERYDAY, true).await.unwrap_err();
    assert!(partial.contains("bytes of message"), "{partial}");
}
