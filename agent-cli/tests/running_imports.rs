//! An import under way: another one beside it, a signal in the middle of it, and its progress bar.
#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions
)]

mod running;

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use running::Place;
use serde_json::Value;

const OPTIONS: [&str; 3] = ["--json", "--stream-field", "path"];

fn history(place: &Place, more: &[&str]) -> running::Ran {
    let words = ["import", "shop", "--input", "history.ndjson"];
    place.run(&[&words, &OPTIONS[..], more].concat())
}

fn lines(count: usize) -> Vec<String> {
    (0..count)
        .map(|n| format!(r#"{{"n":{n},"events":[{{"path":"a/{n}"}},{{"path":"b"}}]}}"#))
        .collect()
}

fn transactions(place: &Place) -> usize {
    place.run(&["export", "shop"]).ok().lines().count()
}

/// An import that reads a pipe, which stays open until the test closes it.
fn start_piped(place: &Place, more: &[&str]) -> Child {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("milepost"));
    command.args(["import", "shop", "--input", "-"]).args(OPTIONS);
    let command = command.args(more).current_dir(place.path(""));
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(Stdio::piped()).spawn().unwrap()
}

fn wait_for_transactions(place: &Place, count: usize) {
    for _ in 0..600 {
        if transactions(place) == count {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{count} transactions never came");
}

fn wait_for_end(child: &mut Child) {
    for _ in 0..400 {
        if child.try_wait().unwrap().is_some() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().unwrap();
    panic!("it did not end");
}

#[test]
fn a_second_import_into_the_store_exits_3_while_the_first_runs_and_doubles_nothing() {
    let place = Place::with_store("shop");
    let all = lines(20).join("\n") + "\n";
    place.write("history.ndjson", &all);
    let mut first = start_piped(&place, &["--resume", "--batch-lines", "4"]);
    let half = all.split_at(all.len() / 2);
    first
        .stdin
        .as_mut()
        .unwrap()
        .write_all(half.0.as_bytes())
        .unwrap();
    wait_for_transactions(&place, 8);
    for more in [&["--resume"][..], &[]] {
        let told = history(&place, more).fails(3);
        assert!(told.contains("another import into shop is running"), "{told}");
    }
    let mut input = first.stdin.take().unwrap();
    input.write_all(half.1.as_bytes()).unwrap();
    drop(input);
    assert!(first.wait_with_output().unwrap().status.success());
    assert_eq!(history(&place, &["--resume"]).one()["transactions"], 0);
    assert_eq!(transactions(&place), 20);
    place.run(&["verify", "shop"]).ok();
}

#[test]
fn a_signal_commits_the_lines_read_says_how_many_and_resume_goes_on_behind_them() {
    for signal in ["-INT", "-TERM"] {
        let place = Place::with_store("shop");
        let all = lines(20).join("\n") + "\n";
        place.write("history.ndjson", &all);
        let mut child = start_piped(&place, &["--batch-lines", "4"]);
        // Ten lines and the beginning of another: two batches are full, two lines wait in the third.
        let cut = lines(10).join("\n").len() + 15;
        let mut held_open = child.stdin.take().unwrap();
        held_open.write_all(&all.as_bytes()[..cut]).unwrap();
        wait_for_transactions(&place, 8);
        std::thread::sleep(Duration::from_millis(500));
        let id = child.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status();
        assert!(sent.unwrap().success());
        // The pipe stays open meanwhile: the import must not wait for more of it.
        wait_for_end(&mut child);
        let ended = child.wait_with_output().unwrap();
        drop(held_open);
        let told = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(1), "{told}");
        assert!(told.contains("10 lines of standard input committed"), "{told}");
        assert!(told.contains("run again with --resume"), "{told}");
        let facts: Value = serde_json::from_slice(&ended.stdout).unwrap();
        assert_eq!(
            (&facts["lines"], &facts["transactions"]),
            (&10.into(), &10.into())
        );
        assert_eq!(transactions(&place), 10);
        let done = history(&place, &["--resume"]).one();
        assert_eq!(
            (&done["resumed_after"], &done["transactions"]),
            (&10.into(), &10.into())
        );
        assert_eq!(transactions(&place), 20);
    }
}

#[test]
fn an_import_that_is_stopped_on_its_way_to_where_it_was_says_what_was_done_before() {
    let place = Place::with_store("shop");
    let all = lines(20).join("\n") + "\n";
    let ten = lines(10).join("\n") + "\n";
    place.write("history.ndjson", &ten);
    history(&place, &[]).ok();
    // One line of it has come when it is stopped; and then none at all.
    for sent in [lines(1).join("") + "\n", String::new()] {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("milepost"));
        command
            .args(["import", "shop", "--input", "-"])
            .args(&OPTIONS[1..]);
        command.arg("--resume").current_dir(place.path(""));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut held_open = child.stdin.take().unwrap();
        held_open.write_all(sent.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(700));
        let id = child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-INT", &id])
                .status()
                .unwrap()
                .success()
        );
        wait_for_end(&mut child);
        let ended = child.wait_with_output().unwrap();
        drop(held_open);
        assert_eq!(ended.status.code(), Some(1));
        let told = String::from_utf8(ended.stdout).unwrap();
        if sent.is_empty() {
            assert!(told.contains("what earlier runs did is not counted"), "{told}");
        } else {
            assert!(
                told.contains("10 lines of standard input are done: 10 before, 0 in this run"),
                "{told}"
            );
        }
    }
    place.write("history.ndjson", &all);
    let words = ["import", "shop", "--input", "history.ndjson", "--resume"];
    let told = place.run(&[&words, &OPTIONS[1..]].concat()).ok();
    assert!(
        told.contains("20 lines of history.ndjson are done: 10 before, 10 in this run"),
        "{told}"
    );
}

#[test]
fn the_progress_bar_is_gone_before_the_summary_and_before_a_refusal() {
    // The bar shows on terminals only, and after two seconds; `script` makes a terminal.
    if Command::new("script").arg("--version").output().is_err() {
        eprintln!("SKIPPED: no program `script` to make a terminal");
        return;
    }
    let ends = ["", "{\n"];
    let runs = ends.map(|end| {
        std::thread::spawn(move || {
            let place = Place::with_store("shop");
            let milepost = assert_cmd::cargo::cargo_bin!("milepost").display().to_string();
            place.write("first", lines(3).join("\n") + "\n");
            place.write("last", lines(3).join("\n") + "\n" + end);
            let piped = format!(
                "(cat first; sleep 3; cat last) | '{milepost}' import shop --input - --stream-field path \
                 --batch-lines 1"
            );
            let mut terminal = Command::new("script");
            terminal.args(["-qec", &piped, "typed"]).env("TERM", "xterm");
            let terminal = terminal.current_dir(place.path("")).stdin(Stdio::null());
            let out = terminal.output().unwrap().stdout;
            String::from_utf8(out).unwrap()
        })
    });
    for (run, end) in runs.into_iter().zip(ends) {
        let shown = run.join().unwrap();
        let (before, after) = shown.split_once("imported 6 transactions").expect(&shown);
        assert!(
            before.contains("import") && before.contains("\u{1b}["),
            "a bar was there: {shown:?}"
        );
        let cleared = before.trim_end_matches(['\r', '\n']);
        assert!(
            cleared.ends_with("\u{1b}[2K") || cleared.ends_with("\u{1b}[K"),
            "{shown:?}"
        );
        assert!(
            !after.contains('\u{1b}'),
            "nothing is drawn after the summary: {shown:?}"
        );
        assert_eq!(after.contains("line 7"), !end.is_empty(), "{shown:?}");
    }
}

#[test]
fn an_import_that_finds_no_space_says_how_to_go_on_and_doubles_nothing() {
    let place = Place::new();
    place
        .run(&["init", "shop", "--site", "shop", "--segment-bytes", "1M"])
        .ok();
    let lines: String = (0..6_000)
        .map(|n| {
            format!(
                "{{\"s\":\"s/{}\",\"n\":{n},\"p\":\"{}\"}}\n",
                n % 7,
                "x".repeat(200)
            )
        })
        .collect();
    place.write("lines", lines);
    // No file may grow beyond 600 KiB: the first segment is there, a second one cannot be made.
    let program = assert_cmd::cargo::cargo_bin!("milepost");
    let script = format!(
        "trap '' XFSZ; ulimit -f 600; exec {} import shop --input lines --flat --stream-field s",
        program.display()
    );
    let ran = std::process::Command::new("bash")
        .args(["-c", &script])
        .current_dir(place.path(""))
        .output();
    let Ok(ran) = ran else {
        eprintln!("SKIPPED: an import without space; there is no bash to limit it");
        return;
    };
    let told = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(ran.status.code(), Some(1), "{told}");
    assert!(told.contains("no space") && told.contains("--resume"), "{told}");
    let resumed = [
        "import",
        "shop",
        "--input",
        "lines",
        "--flat",
        "--stream-field",
        "s",
        "--resume",
    ];
    place.run(&resumed).ok();
    let numbers: Vec<u64> = place
        .run(&["export", "shop"])
        .json()
        .iter()
        .map(|line| line["events"][0]["payload"]["n"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (0..6_000).collect::<Vec<_>>());
}
