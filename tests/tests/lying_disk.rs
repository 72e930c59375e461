//! A sync that fails in one of several real processes: the error is injected into the system call, on a real
//! file system whose power is cut afterwards. Nobody acknowledges what is not on the disk, all say why they end,
//! and who opens the store then goes on (E1, E5, S1, S3).
//!
//! ```text
//! writer 0 ─ writer 1 ─ writer 2 (opened later) ─► one of them: every sync fails from its Kth on ─► all three
//!   say why ─► a fourth opens, heals, commits ─► all stopped, power cut ─► everything acknowledged is there
//! ```
//!
//! Needs root, loop devices and strace, else it is SKIPPED aloud.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "test code stops at the first surprise"
)]

use std::path::Path;
use std::process::{Command, Stdio};

use milepost_engine::Options;
use milepost_tests::processes::{Witness, Worker};
use milepost_tests::volume::{FsKind, Missing, Volume};

/// All syncs fail from the first on, from the second, and so on up to this one; `MILEPOST_SYNCS=n` says another.
const SYNCS: u64 = 4;

/// Takes a line of a writer; returns why its handle is dead, when it says so. A commit that failed and is said
/// to be absent must not be found.
fn hear(line: &str, witness: &mut Witness) -> Option<String> {
    if let Some(reason) = line.strip_prefix("roll Closed ") {
        return Some(reason.to_owned());
    }
    if line.starts_with("roll Internal ") {
        // The file of a new segment failed, which has no name yet.
        return None;
    }
    let words: Vec<&str> = line.splitn(5, ' ').collect();
    let ["fail", tag, kind, written, text] = words[..] else {
        witness.hear(line);
        return None;
    };
    // Buffered: the handle died before the commit was durable. Internal: as above, in a commit.
    assert!(
        ["Closed", "Buffered", "Internal"].contains(&kind),
        "a writer says: {line}"
    );
    if written == "-" && kind != "Buffered" {
        witness.hear(&format!("refuse {tag}"));
    }
    (kind == "Closed").then(|| text.to_owned())
}

fn start(store: &str, number: u64) -> Worker {
    let program = Path::new(env!("CARGO_BIN_EXE_store_worker"));
    Worker::start(program, &["write", store, &number.to_string(), "1"])
}

fn next_line(writer: &Worker) -> String {
    writer
        .next_line()
        .unwrap_or_else(|| panic!("a writer never ends"))
}

/// Listens until a commit is acknowledged.
fn hear_acknowledged(writer: &Worker, witness: &mut Witness) {
    loop {
        let line = next_line(writer);
        assert_eq!(hear(&line, witness), None, "{line}");
        if line.starts_with("ack ") {
            return;
        }
    }
}

/// Listens until the handle is dead, and returns why.
fn hear_dead(writer: &Worker, witness: &mut Witness) -> String {
    loop {
        if let Some(reason) = hear(&next_line(writer), witness) {
            return reason;
        }
    }
}

/// Fails every sync of a running process with EIO, from the `from`th that each of its threads makes on.
fn inject(process: u32, from: u64) -> Result<std::process::Child, Missing> {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync,fsync"]);
    let rule = format!("inject=fdatasync,fsync:error=EIO:when={from}+");
    strace.args(["-e", &rule, "-p", &process.to_string()]);
    let spawned = strace.stdin(Stdio::null()).spawn();
    spawned.map_err(|error| Missing(format!("strace cannot be run: {error}")))
}

/// True when strace may trace and inject here.
fn try_strace() -> Result<(), Missing> {
    let mut probe = Command::new("strace");
    probe.args([
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "inject=fdatasync:error=EIO",
        "true",
    ]);
    match probe.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(Missing(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        Err(error) => Err(Missing(format!("strace cannot be run: {error}"))),
    }
}

/// One run on a store of its own: `victim`'s syncs fail.
fn fail_syncs_of(victim: usize, from: u64, volume: &mut Volume, run: u64) -> Result<u64, Missing> {
    let path = volume.path().join(format!("store-{run}"));
    drop(
        Options::new()
            .segment_bytes(1 << 20)
            .init(&path, "bern".parse().unwrap())
            .unwrap(),
    );
    let (store, mut witness) = (path.to_str().unwrap(), Witness::default());
    let mut writers = Vec::new();
    for number in 0..3 {
        writers.push(start(store, number));
        writers
            .iter()
            .for_each(|writer| hear_acknowledged(writer, &mut witness));
    }
    let mut strace = inject(writers.get(victim).unwrap().id(), from)?;
    let reasons: Vec<String> = writers
        .iter()
        .map(|writer| hear_dead(writer, &mut witness))
        .collect();
    println!("syncs of writer {victim} fail from number {from} on: {reasons:?}");
    assert!(
        reasons
            .iter()
            .all(|reason| reason.contains("open the store again")),
        "{reasons:?}"
    );

    writers.push(start(store, 3));
    hear_acknowledged(writers.last().unwrap(), &mut witness);
    writers.iter().for_each(Worker::stop);
    volume.power_cut();
    for line in writers.into_iter().flat_map(Worker::kill) {
        hear(&line, &mut witness);
    }
    strace.wait().unwrap();
    volume.unmount();
    volume.mount();
    let opened = Options::new().open(&path).unwrap();
    witness.judge(&opened);
    drop(opened);
    std::fs::remove_dir_all(&path).unwrap();
    Ok(witness.acknowledged())
}

#[test]
fn no_process_acknowledges_what_a_failed_sync_left_off_the_disk_and_all_say_why() {
    let volume = try_strace().and_then(|()| Volume::make(FsKind::Ext4, 128 << 20));
    let outcome = volume.and_then(|mut volume| {
        let (mut runs, mut acknowledged) = (0, 0);
        let most = std::env::var("MILEPOST_SYNCS").map_or(SYNCS, |text| text.parse().unwrap());
        for victim in 0..3 {
            for from in 1..=most {
                acknowledged += fail_syncs_of(victim, from, &mut volume, runs)?;
                runs += 1;
            }
        }
        println!("{runs} runs, {acknowledged} acknowledged");
        Ok(())
    });
    if let Err(missing) = outcome {
        missing.say("syncs that fail in one of several processes");
    }
}
