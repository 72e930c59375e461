//! `agent --hook` and `milepost quarantine`: what a program vetoes is held or set aside, told to its publisher, and applied or
//! dropped by an operator (R6).
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

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use running::Place;

/// Vetoes what is bad, and writes down what it is told.
const RULES: &str = r#"#!/bin/sh
while IFS= read -r line; do
    echo "$line" >> told
    ask=${line#*'"ask":'}
    ask=${ask%%,*}
    case "$line" in
    *'"event":"before-apply"'*bad*) echo '{"ask":'$ask',"ruling":"veto","reason":"bad news"}' ;;
    *'"event":"before-apply"'*) echo '{"ask":'$ask',"ruling":"apply"}' ;;
    esac
done
"#;

fn program(place: &Place, name: &str, text: &str) {
    place.write(name, text);
    let mut permissions = std::fs::metadata(place.path(name)).unwrap().permissions();
    permissions.set_mode(0o755);
    std::fs::set_permissions(place.path(name), permissions).unwrap();
}

/// `hq` publishes all to `shop`, which has this policy.
fn sites(policy: &str) -> Place {
    let place = Place::new();
    std::fs::create_dir(place.path("link")).unwrap();
    let link = format!("file://{}", place.path("link").display());
    for site in ["hq", "shop"] {
        place.run(&["init", site, "--site", site]).ok();
    }
    place
        .run(&["publication", "add", "hq", "all", "--streams", "**"])
        .ok();
    place.run(&["remote", "add", "hq", "shop", "--link", &link]).ok();
    let add = [
        "remote",
        "add",
        "shop",
        "hq",
        "--link",
        &link,
        "--on-error",
        policy,
    ];
    place.run(&add).ok();
    place
        .run(&[
            "subscription",
            "add",
            "hq",
            "--remote",
            "shop",
            "--publication",
            "all",
        ])
        .ok();
    program(&place, "rules", RULES);
    place
}

fn append(place: &Place, stream: &str, data: &str) {
    place
        .run(&["append", "hq", stream, "--kind", "noted", "--data", data])
        .ok();
    place.run(&["agent", "hq", "-b"]).ok();
}

/// Data of the events of a stream at the shop; none of one that is not there.
fn read(place: &Place, stream: &str) -> Vec<String> {
    let ran = place.run(&["read", "shop", stream, "--json"]);
    if ran.code == 1 && ran.err.contains("no event") {
        return Vec::new();
    }
    ran.json()
        .iter()
        .map(|event| event["payload"].to_string())
        .collect()
}

const AGENT: [&str; 5] = ["agent", "shop", "-b", "--hook", "./rules"];

/// One that is vetoed, one behind it, and one that goes on: with the names of the two that are held.
fn held_and_behind() -> (Place, [String; 2]) {
    let place = sites("go-on");
    append(&place, "s/1", "\"bad\"");
    append(&place, "s/1", "2");
    append(&place, "s/2", "3");
    let ended = place.run(&AGENT).fails(5);
    assert!(ended.contains("2 transactions of hq in quarantine"), "{ended}");
    let listed = place.run(&["quarantine", "list", "shop", "--json"]).json();
    let id = |number: usize| listed[number]["id"].as_str().unwrap().to_owned();
    let ids = [id(0), id(1)];
    (place, ids)
}

#[test]
fn what_a_hook_vetoes_is_held_and_listed_and_shown_while_the_rest_goes_on_r6() {
    let (place, [id, _]) = held_and_behind();
    assert_eq!(
        (read(&place, "s/1"), read(&place, "s/2")),
        (vec![], vec!["3".to_owned()])
    );
    let told = std::fs::read_to_string(place.path("told")).unwrap();
    for event in [
        "phase-began",
        "before-apply",
        "after-apply",
        "message-sent",
        "phase-ended",
    ] {
        assert!(
            told.contains(&format!(r#"{{"site":"shop","event":"{event}""#)),
            "{event}: {told}"
        );
    }
    let listed = place.run(&["quarantine", "list", "shop", "--json"]).json();
    assert_eq!(listed.len(), 2);
    let (first, second) = (&listed[0], &listed[1]);
    assert_eq!(
        (&first["type"], &first["remote"]),
        (&"transaction".into(), &"hq".into())
    );
    assert_eq!(first["reason"], "vetoed: bad news");
    assert_eq!(
        (&first["holds"], &first["events"], &first["refusals"]),
        (&1.into(), &1.into(), &1.into())
    );
    assert!(first["since"].as_i64().unwrap() > 0 && first["bytes"].as_u64().unwrap() > 0);
    assert_eq!(second["behind"].as_u64().unwrap().to_string(), id);
    let text = place.run(&["quarantine", "list", "shop", "--remote", "hq"]).ok();
    assert!(text.contains("1 waits for it"), "{text}");
    assert_eq!(
        place.run(&["quarantine", "list", "shop", "--remote", "x"]).ok(),
        ""
    );
    let shown = place
        .run(&["quarantine", "show", "shop", &id, "--json", "--raw", "raw"])
        .one();
    let transaction = &shown["transactions"][0];
    assert_eq!(transaction["origin"]["site"], "hq");
    assert_eq!(transaction["events"][0]["payload"], "bad");
    assert_eq!(
        std::fs::metadata(place.path("raw")).unwrap().len(),
        first["bytes"].as_u64().unwrap()
    );
    assert!(
        place
            .run(&["quarantine", "show", "shop", &id])
            .ok()
            .contains("s/1 noted \"bad\"")
    );
    place
        .run(&["quarantine", "show", "shop", &id, "--raw", "raw"])
        .fails(1);
}

#[test]
fn the_publisher_is_told_and_a_retry_applies_once_in_order_r1_r6() {
    let (place, [id, second]) = held_and_behind();
    place.run(&["agent", "hq", "-b"]).ok();
    let there = place.run(&["status", "hq", "--json"]).one();
    let reported = &there["remotes"][0]["reported"];
    assert_eq!((&reported["held"], &reported["refused"]), (&2.into(), &0.into()));
    assert_eq!(reported["cases"][0]["reason"], "vetoed: bad news");
    let text = place.run(&["status", "hq"]).ok();
    assert!(
        text.contains("HELD THERE        2 transactions") && text.contains("vetoed: bad news"),
        "{text}"
    );
    assert!(
        place
            .run(&["status", "shop"])
            .ok()
            .contains("HELD HERE         2 transactions of hq")
    );

    let early = place.run(&["quarantine", "retry", "shop", &second]).fails(1);
    assert!(early.contains("retry or drop that first"), "{early}");
    let again = place.run(&["quarantine", "retry", "shop", &id, "--hook", "./rules", "--json"]);
    assert_eq!(again.code, 5);
    assert!(again.out.contains(r#""outcome":"refused""#), "{}", again.out);
    place.run(&["quarantine", "retry", "shop", "17"]).fails(1);
    place.run(&["quarantine", "retry", "shop"]).fails(2);
    let done = place.run(&["quarantine", "retry", "shop", &id, "--json"]).json();
    assert_eq!(done.len(), 2);
    assert!(
        done.iter()
            .all(|one| one["outcome"] == "applied" && one["lsn"].as_u64().unwrap() > 0)
    );
    assert_eq!(read(&place, "s/1"), ["\"bad\"", "2"]);
    assert_eq!(place.run(&["quarantine", "list", "shop"]).ok(), "");
    place.run(&AGENT).ok();
    place.run(&["agent", "hq", "-b"]).ok();
    assert!(place.run(&["status", "hq", "--json"]).one()["remotes"][0]["reported"].is_null());
}

#[test]
fn by_policy_stop_the_message_is_set_aside_and_received_again_from_its_copy_r6() {
    let place = sites("stop");
    append(&place, "s/1", "1");
    place.run(&AGENT).ok();
    place.run(&["agent", "hq", "-b"]).ok();
    append(&place, "s/1", "\"bad\"");
    let ended = place.run(&AGENT).fails(5);
    assert!(ended.contains("bad news"), "{ended}");
    let listed = place.run(&["quarantine", "list", "shop", "--json"]).one();
    assert_eq!(
        (&listed["type"], &listed["remote"]),
        (&"message".into(), &"hq".into())
    );
    let id = listed["id"].as_str().unwrap().to_owned();
    let shown = place.run(&["quarantine", "show", "shop", &id, "--json"]).one();
    assert_eq!(shown["transactions"][0]["events"][0]["payload"], "bad");
    let again = place
        .run(&["quarantine", "retry", "shop", "--all", "--hook", "./rules"])
        .fails(5);
    assert!(again.contains("1 of 1 still need an operator"), "{again}");
    place.run(&["quarantine", "drop", "shop", &id]).fails(2);
    assert!(
        place
            .run(&["quarantine", "drop", "shop", &id, "--yes"])
            .ok()
            .contains("still waits on its link")
    );
    assert_eq!(place.run(&["quarantine", "list", "shop"]).ok(), "");
    // It waits there indeed.
    place.run(&AGENT).fails(5);
    place.run(&["quarantine", "retry", "shop", &id]).ok();
    assert_eq!(read(&place, "s/1"), ["1", "\"bad\""]);
    place.run(&AGENT).ok();
    assert_eq!(
        read(&place, "s/1").len(),
        2,
        "the message on the link is a duplicate"
    );
}

#[test]
fn what_is_dropped_is_never_applied_and_who_receives_is_waited_for_r6() {
    let place = sites("go-on");
    append(&place, "s/1", "\"bad\"");
    place.run(&AGENT).fails(5);
    let id = place.run(&["quarantine", "list", "shop", "--json"]).one()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("milepost"));
    command
        .current_dir(place.path(""))
        .args(["agent", "shop", "-r", "--with-stdin"]);
    let mut agent = command
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let receives = || {
        let status = place.run(&["status", "shop", "--json"]).one();
        !status["phases"][0]["holder"].is_null()
    };
    while !receives() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let refused = place.run(&["quarantine", "retry", "shop", &id]).fails(3);
    assert!(refused.contains("stop that agent first"), "{refused}");
    place.run(&["quarantine", "drop", "shop", &id, "--yes"]).fails(3);
    drop(agent.stdin.take());
    assert_eq!(agent.wait().unwrap().code(), Some(5));
    let drop = [
        "quarantine",
        "drop",
        "shop",
        &id,
        "--yes",
        "--reason",
        "by hand",
        "--json",
    ];
    assert_eq!(place.run(&drop).one()["dropped"], id.as_str());
    place.run(&["quarantine", "show", "shop", &id]).fails(1);
    place.run(&["agent", "shop", "-b"]).ok();
    assert!(read(&place, "s/1").is_empty());
}

/// Each hook fails in its own way; nothing is applied that it did not rule upon, and nothing is lost.
#[test]
fn a_hook_that_fails_ends_the_phase_with_nothing_applied_and_nothing_lost_r6() {
    let place = sites("go-on");
    append(&place, "s/1", "1");
    let answer = |text: &str| {
        format!("#!/bin/sh\nwhile read -r line; do case \"$line\" in *before-apply*) {text} ;; esac; done\n")
    };
    let hooks = [
        ("ends", "#!/bin/sh\nread -r line; exit 0\n".to_owned(), "ha"),
        ("babbles", answer("echo yes"), "neither"),
        (
            "mistakes",
            answer("echo '{\"ask\":99,\"ruling\":\"apply\"}'"),
            "answered 99",
        ),
        ("is-silent", answer("sleep 1000"), "did not answer within"),
        (
            "never-reads",
            "#!/bin/sh\nexec sleep 1000\n".to_owned(),
            "did not answer within",
        ),
        (
            "speaks-first",
            "#!/bin/sh\necho '{\"ruling\":\"apply\"}'; cat > /dev/null\n".to_owned(),
            "the hook",
        ),
        (
            "rambles",
            answer("head -c 70000 /dev/zero | tr '\\0' x; echo"),
            "64 KiB",
        ),
    ];
    for (name, text, said) in &hooks {
        program(&place, name, text);
        let path = format!("./{name}");
        let ended = place.run(&[
            "agent",
            "shop",
            "-b",
            "-r",
            "--hook",
            &path,
            "--hook-timeout",
            "1",
        ]);
        let told = ended.fails(1);
        assert!(
            told.contains(said) && told.contains("comes again"),
            "{name}: {told}"
        );
        assert!(read(&place, "s/1").is_empty(), "{name}");
    }
    let missing = place
        .run(&["agent", "shop", "-b", "--hook", "./nowhere"])
        .fails(1);
    assert!(missing.contains("nowhere"), "{missing}");
    let asked = [("MILEPOST_HOOK", "./rules")];
    assert_eq!(place.run_with(&["agent", "shop", "-b"], "", &asked).code, 0);
    assert_eq!(read(&place, "s/1"), ["1"]);
}
