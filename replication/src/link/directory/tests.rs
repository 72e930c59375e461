//! The directory link attacked: races, left-overs, symlinks, pipes, foreign names.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use milepost_engine::clock::SystemRng;
use tempfile::TempDir;

use super::*;
use crate::link::MAX_MESSAGE_BYTES;

fn site(name: &str) -> SiteName {
    SiteName::new(name).unwrap()
}

fn link(dir: &TempDir, own: &str) -> DirectoryLink {
    DirectoryLink::new(dir.path(), site(own), Arc::new(SystemRng))
}

fn request(skip: &BTreeSet<MessageId>) -> PollRequest<'_> {
    PollRequest {
        after: None,
        skip,
        max_count: 100,
        max_bytes: 1 << 20,
    }
}

async fn poll(link: &DirectoryLink) -> Batch {
    link.poll(request(&BTreeSet::new())).await.unwrap()
}

/// Numbers that repeat, so that names collide.
struct Repeating(std::sync::Mutex<Vec<u64>>);

impl Rng for Repeating {
    fn next_u64(&self) -> u64 {
        self.0.lock().unwrap().pop().unwrap_or(7)
    }
}

#[tokio::test]
async fn a_message_waits_until_it_is_removed_and_removing_it_again_is_success() {
    let dir = TempDir::new().unwrap();
    let (hq, bern) = (link(&dir, "hq"), link(&dir, "bern"));
    hq.deliver(&site("bern"), b"one").await.unwrap();
    assert_eq!(poll(&hq).await, Batch::default(), "nothing waits for the sender");
    let first = poll(&bern).await;
    assert_eq!(first.messages[0].bytes, b"one");
    assert_eq!(poll(&bern).await, first, "still there");
    let ids = [first.messages[0].id.clone()];
    bern.remove(&ids).await.unwrap();
    bern.remove(&ids).await.unwrap();
    assert_eq!(poll(&bern).await, Batch::default());
    assert_eq!(
        fs::read_dir(dir.path().join("bern")).unwrap().count(),
        0,
        "and no temporary is left"
    );
}

/// A writer renames messages of many pages into place while a reader lists and reads without pause:
/// each message says its own length and content, so a part of one would show.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_racing_a_writer_never_sees_a_partial_message() {
    let dir = TempDir::new().unwrap();
    let (hq, bern) = (link(&dir, "hq"), link(&dir, "bern"));
    let done = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn({
        let done = Arc::clone(&done);
        async move {
            let mut seen = BTreeSet::new();
            loop {
                let last_look = done.load(Ordering::SeqCst);
                let batch = poll(&bern).await;
                for message in &batch.messages {
                    let (number, rest) = message.bytes.split_first_chunk::<4>().unwrap();
                    let number = u32::from_le_bytes(*number);
                    assert_eq!(
                        rest.len(),
                        20_000 + number as usize,
                        "message {number} is not whole"
                    );
                    assert!(rest.iter().all(|byte| *byte == number as u8));
                    assert!(
                        seen.insert(number),
                        "message {number} came again after its removal"
                    );
                    bern.remove(std::slice::from_ref(&message.id)).await.unwrap();
                }
                if last_look && batch.messages.is_empty() {
                    return seen.len();
                }
            }
        }
    });
    for number in 0..400_u32 {
        let mut message = number.to_le_bytes().to_vec();
        message.resize(4 + 20_000 + number as usize, number as u8);
        hq.deliver(&site("bern"), &message).await.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    assert_eq!(reader.await.unwrap(), 400);
}

#[tokio::test]
async fn left_over_temporaries_of_ones_own_go_and_nothing_else_does() {
    let dir = TempDir::new().unwrap();
    let hex = "0123456789abcdef";
    for folder in ["bern", "basel"] {
        fs::create_dir(dir.path().join(folder)).unwrap();
    }
    let own = [format!("bern/.hq-{hex}.tmp"), format!("basel/.hq-{hex}.tmp")];
    let foreign = [
        format!("bern/.hq2-{hex}.tmp"),
        format!("bern/.a-hq-{hex}.tmp"),
        format!("bern/hq-{hex}.mp"),
        "bern/.hq-notes.tmp".to_owned(),
        "bern/readme".to_owned(),
    ];
    for name in own.iter().chain(&foreign) {
        fs::write(dir.path().join(name), b"half").unwrap();
    }
    let hq = link(&dir, "hq");
    hq.begin_sending().await.unwrap();
    for name in &own {
        assert!(!dir.path().join(name).exists(), "{name} should be gone");
    }
    for name in &foreign {
        assert!(dir.path().join(name).exists(), "{name} is not ours to remove");
    }
}

#[tokio::test]
async fn temporaries_symlinks_pipes_folders_and_oversized_files_are_not_read_and_hide_nothing() {
    let dir = TempDir::new().unwrap();
    let outside = TempDir::new().unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, b"secret").unwrap();
    let mailbox = dir.path().join("bern");
    fs::create_dir(&mailbox).unwrap();
    fs::write(mailbox.join(".hq-0000000000000001.tmp"), b"half").unwrap();
    std::os::unix::fs::symlink(&secret, mailbox.join("hq-0000000000000002.mp")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        mailbox.join("hq-0000000000000003.mp"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o666),
        0,
    )
    .unwrap();
    fs::create_dir(mailbox.join("hq-0000000000000004.mp")).unwrap();
    let large = fs::File::create(mailbox.join("hq-0000000000000005.mp")).unwrap();
    large.set_len(to_len(MAX_MESSAGE_BYTES) + 1).unwrap();
    fs::write(mailbox.join("hq-0000000000000006.mp"), b"").unwrap();
    fs::write(mailbox.join("hq-0000000000000007.mp"), b"good").unwrap();
    let batch = poll(&link(&dir, "bern")).await;
    assert_eq!(batch.messages.len(), 1);
    assert_eq!(batch.messages[0].bytes, b"good");
    assert!(secret.exists());
}

fn to_len(bytes: usize) -> u64 {
    bytes as u64
}

#[tokio::test]
async fn a_mailbox_that_is_a_symlink_is_refused_for_writing_and_reading() {
    let dir = TempDir::new().unwrap();
    let outside = TempDir::new().unwrap();
    fs::write(outside.path().join("hq-0000000000000001.mp"), b"outside").unwrap();
    std::os::unix::fs::symlink(outside.path(), dir.path().join("bern")).unwrap();
    assert!(
        link(&dir, "hq")
            .deliver(&site("bern"), b"x")
            .await
            .unwrap_err()
            .is_unreachable()
    );
    let bern = link(&dir, "bern");
    assert!(
        bern.poll(request(&BTreeSet::new()))
            .await
            .unwrap_err()
            .is_unreachable()
    );
    let ids = [MessageId::new("hq-0000000000000001.mp")];
    assert!(bern.remove(&ids).await.unwrap_err().is_unreachable());
    link(&dir, "hq").begin_sending().await.unwrap();
    assert_eq!(
        fs::read_dir(outside.path()).unwrap().count(),
        1,
        "nothing outside was touched"
    );
}

#[tokio::test]
async fn an_id_with_a_path_in_it_is_refused_and_removes_nothing() {
    let dir = TempDir::new().unwrap();
    let bern = link(&dir, "bern");
    link(&dir, "hq").deliver(&site("bern"), b"x").await.unwrap();
    let good = poll(&bern).await.messages[0].id.clone();
    let bad = MessageId::new("../bern/hq-0000000000000001.mp");
    assert!(matches!(
        bern.remove(&[good, bad]).await,
        Err(LinkError::Invalid { .. })
    ));
    assert_eq!(poll(&bern).await.messages.len(), 1);
}

/// The random numbers are made to repeat: the second message draws the name of the first.
#[tokio::test]
async fn a_name_that_is_taken_is_never_replaced() {
    let dir = TempDir::new().unwrap();
    let numbers = Arc::new(Repeating(std::sync::Mutex::new(vec![2, 1, 1])));
    let hq = DirectoryLink::new(dir.path(), site("hq"), numbers);
    hq.deliver(&site("bern"), b"first").await.unwrap();
    hq.deliver(&site("bern"), b"second").await.unwrap();
    let bodies: Vec<Vec<u8>> = poll(&link(&dir, "bern"))
        .await
        .messages
        .into_iter()
        .map(|m| m.bytes)
        .collect();
    assert_eq!(bodies, [b"first".to_vec(), b"second".to_vec()]);
    for _ in 0..2 {
        let _ = hq.deliver(&site("bern"), b"third").await;
    }
    assert!(matches!(
        hq.deliver(&site("bern"), b"fourth").await,
        Err(LinkError::NotNow { .. })
    ));
}

#[tokio::test]
async fn a_round_of_small_batches_brings_every_message_once_and_skips_what_is_held() {
    let dir = TempDir::new().unwrap();
    let (hq, bern) = (link(&dir, "hq"), link(&dir, "bern"));
    for number in 0..25_u8 {
        hq.deliver(&site("bern"), &[number; 100]).await.unwrap();
    }
    let mut held = BTreeSet::new();
    for (max_count, max_bytes) in [(4, 1 << 20), (100, 350), (1, 1)] {
        let mut seen = BTreeSet::new();
        let mut after = None;
        loop {
            let request = PollRequest {
                after: after.as_ref(),
                skip: &held,
                max_count,
                max_bytes,
            };
            let batch = bern.poll(request).await.unwrap();
            assert!(batch.messages.len() <= max_count);
            assert!(batch.messages.len() == 1 || batch.messages.len() * 100 <= max_bytes);
            for message in batch.messages {
                assert!(seen.insert(message.id), "given twice in one round");
            }
            after = batch.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen.len() + held.len(), 25);
        held.extend(seen.into_iter().take(3));
    }
}

#[tokio::test]
async fn a_missing_directory_is_unreachable_and_a_missing_mailbox_is_empty() {
    let dir = TempDir::new().unwrap();
    assert_eq!(poll(&link(&dir, "bern")).await, Batch::default());
    let nowhere = DirectoryLink::new(dir.path().join("not-mounted"), site("hq"), Arc::new(SystemRng));
    assert!(
        nowhere
            .deliver(&site("bern"), b"x")
            .await
            .unwrap_err()
            .is_unreachable()
    );
    assert!(
        !dir.path().join("not-mounted").exists(),
        "a mount that is not there is not made up"
    );
}

#[tokio::test]
async fn a_message_that_is_empty_or_too_large_is_refused_before_anything_is_written() {
    let dir = TempDir::new().unwrap();
    let hq = link(&dir, "hq");
    for message in [Vec::new(), vec![0; MAX_MESSAGE_BYTES + 1]] {
        assert!(matches!(
            hq.deliver(&site("bern"), &message).await,
            Err(LinkError::Invalid { .. })
        ));
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
