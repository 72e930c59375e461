//! Every option of the agent says the same in its historic spelling, its long one, the environment and the configuration
//! file; the command line wins, then the environment, then the file; and manual pages and completions know them all.
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

use running::Place;
use serde_json::Value;

/// Long name, historic words, long words, value in the environment, line in the file, value as it is shown.
type Row = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
    &'static str,
    &'static str,
    &'static str,
);

const OPTIONS: [Row; 29] = [
    ("receive", &["-r"], &["--receive"], "1", "true", "true"),
    ("scan", &["-i"], &["--scan"], "1", "true", "true"),
    ("send", &["-s"], &["--send"], "1", "true", "true"),
    ("batch", &["-b"], &["--batch"], "1", "true", "true"),
    ("no-apply", &["-a"], &["--no-apply"], "1", "true", "true"),
    ("group", &["-g", "7"], &["--group", "7"], "7", "7", "7"),
    (
        "message-bytes",
        &["-l", "60K"],
        &["--message-bytes", "60K"],
        "60K",
        "\"60K\"",
        "60K",
    ),
    ("memory", &["-m", "9M"], &["--memory", "9M"], "9M", "\"9M\"", "9M"),
    ("keep", &["-p"], &["--keep"], "1", "true", "true"),
    (
        "receive-every",
        &["-rd", "3"],
        &["--receive-every", "3"],
        "3",
        "3",
        "3",
    ),
    ("patience", &["-rp", "4"], &["--patience", "4"], "4", "4", "4"),
    (
        "urgency",
        &["-ru", "2s"],
        &["--urgency", "2s"],
        "2s",
        "\"2s\"",
        "2s",
    ),
    (
        "send-every",
        &["-sd", "5s"],
        &["--send-every", "5s"],
        "5s",
        "\"5s\"",
        "5s",
    ),
    (
        "only-backed-up",
        &["-u"],
        &["--only-backed-up"],
        "1",
        "true",
        "true",
    ),
    ("workers", &["-w", "3"], &["--workers", "3"], "3", "3", "3"),
    (
        "rotate",
        &["-x", "16M"],
        &["--rotate=16M"],
        "16M",
        "\"16M\"",
        "16M",
    ),
    (
        "server",
        &["-x", "tcpip(host=a;port=1)", "-x", "tcpip(host=b;port=2)"],
        &["--server", "milepost://a:1", "--server", "milepost://b:2"],
        "milepost://a:1,milepost://b:2",
        "[\"milepost://a:1\", \"milepost://b:2\"]",
        "milepost://a:1,milepost://b:2",
    ),
    (
        "primary-retries",
        &["-fr", "3"],
        &["--primary-retries", "3"],
        "3",
        "3",
        "3",
    ),
    (
        "primary-retry-delay",
        &["-fd", "2"],
        &["--primary-retry-delay", "2"],
        "2",
        "2",
        "2",
    ),
    (
        "send-now",
        &["--send-now", "a", "--send-now", "b"],
        &["--send-now", "a,b"],
        "a,b",
        "[\"a\", \"b\"]",
        "a,b",
    ),
    ("log", &["-o", "f"], &["--log", "f"], "f", "\"f\"", "f"),
    ("quiet", &["-q"], &["--quiet"], "1", "true", "true"),
    ("verbose", &["-vv"], &["--verbose", "--verbose"], "2", "2", "2"),
    (
        "connect-timeout",
        &["--connect-timeout", "9s"],
        &["--connect-timeout", "9s"],
        "9s",
        "\"9s\"",
        "9s",
    ),
    (
        "marker-wait",
        &["--marker-wait", "9s"],
        &["--marker-wait", "9s"],
        "9s",
        "\"9s\"",
        "9s",
    ),
    ("hook", &["--hook", "f"], &["--hook", "f"], "f", "\"f\"", "f"),
    (
        "hook-timeout",
        &["--hook-timeout", "9s"],
        &["--hook-timeout", "9s"],
        "9s",
        "\"9s\"",
        "9s",
    ),
    (
        "with-stdin",
        &["--with-stdin"],
        &["--with-stdin"],
        "1",
        "true",
        "true",
    ),
    (
        "force-file-system",
        &["--force-file-system"],
        &["--force-file-system"],
        "1",
        "true",
        "true",
    ),
];

/// What `--show-options` says of an option.
fn shown(place: &Place, words: &[&str], environment: &[(&str, &str)], option: &str) -> (String, String) {
    let mut line = vec!["agent", "hq", "--show-options", "--json"];
    line.extend(words);
    let listed = place.run_with(&line, "", environment).json();
    let one = listed.iter().find(|one| one["option"] == option);
    let text = |field: &Value| field.as_str().unwrap().to_owned();
    let one = one.unwrap_or_else(|| panic!("{option} is not shown"));
    (text(&one["value"]), text(&one["from"]))
}

fn said(value: &str, from: &str) -> (String, String) {
    (value.to_owned(), from.to_owned())
}

#[test]
fn every_option_says_the_same_in_all_four_places() {
    let place = Place::new();
    for (option, historic, long, environment, line, value) in OPTIONS {
        let name = format!("MILEPOST_{}", option.replace('-', "_").to_uppercase());
        place.write("agent.toml", format!("{option} = {line}\n"));
        for words in [historic, long] {
            assert_eq!(
                shown(&place, words, &[], option),
                said(value, "command line"),
                "{words:?}"
            );
        }
        assert_eq!(
            shown(&place, &[], &[(&name, environment)], option).1,
            "environment",
            "{name}"
        );
        let file = shown(&place, &["--config", "agent.toml"], &[], option);
        assert_eq!(file, said(value, "file"), "{option} in a file");
        let (_, from) = shown(&place, &[], &[], option);
        assert_eq!(from, "default", "{option}");
    }
}

#[test]
fn no_option_is_missing_from_the_list_and_each_stands_in_help_manual_and_completions() {
    let place = Place::new();
    let listed = place.run(&["agent", "hq", "--show-options", "--json"]).json();
    let known: Vec<&str> = OPTIONS.iter().map(|(option, ..)| *option).collect();
    for one in &listed {
        let option = one["option"].as_str().unwrap();
        // These belong to another: -ot and -os are of --log, and a file cannot name a file.
        let beside = ["log-truncate", "log-roll", "config"].contains(&option);
        assert!(beside || known.contains(&option), "{option} is not tried here");
    }
    assert_eq!(listed.len(), known.len() + 3);
    let help = place.run(&["agent", "--help"]).ok();
    let manual = place.run(&["man", "agent"]).ok();
    for option in known {
        assert!(help.contains(&format!("--{option}")), "{option} in the help");
        let spelled = format!("\\-\\-{}", option.replace('-', "\\-"));
        assert!(manual.contains(&spelled), "{option} in the manual page");
        for shell in ["bash", "zsh", "fish"] {
            let script = place.run(&["completions", shell]).ok();
            assert!(script.contains(option), "{option} for {shell}");
        }
    }
    for group in [
        "Phases:",
        "Receive phase:",
        "Scan phase:",
        "Send phase:",
        "Servers:",
        "Hooks:",
        "Log output:",
    ] {
        assert!(help.contains(group), "{group}");
    }
}

#[test]
fn the_command_line_wins_then_the_environment_then_the_file() {
    let place = Place::new();
    place.write("agent.toml", "patience = 3\n");
    let (environment, file) = ([("MILEPOST_PATIENCE", "2")], ["-c", "agent.toml"]);
    let all = ["-c", "agent.toml", "-rp", "1"];
    assert_eq!(
        shown(&place, &all, &environment, "patience"),
        said("1", "command line")
    );
    assert_eq!(
        shown(&place, &file, &environment, "patience"),
        said("2", "environment")
    );
    assert_eq!(shown(&place, &file, &[], "patience"), said("3", "file"));
    assert_eq!(shown(&place, &[], &[], "patience"), said("1", "default"));
    let table = place.run(&["agent", "hq", "--show-options", "-rp", "5"]).ok();
    let line = table.lines().find(|line| line.starts_with("--patience"));
    let words: Vec<&str> = line.unwrap().split_whitespace().collect();
    assert_eq!(words, ["--patience", "5", "command", "line"]);
}

#[test]
fn a_log_file_is_truncated_and_rolled_as_each_spelling_says() {
    let place = Place::new();
    for (words, option, value) in [
        (&["-ot", "f"][..], "log-truncate", "true"),
        (&["-ot", "f"], "log", "f"),
        (&["-o", "f", "-os", "1M"], "log-roll", "1M"),
        (&["--log", "f", "--log-roll", "1M"], "log-roll", "1M"),
        (&["--log", "f", "--log-truncate"], "log-truncate", "true"),
    ] {
        assert_eq!(shown(&place, words, &[], option), said(value, "command line"));
    }
}

#[test]
fn manual_pages_of_all_commands_are_written_and_an_unknown_one_is_refused() {
    let place = Place::new();
    let wrote = place.run(&["man", "--to", "pages"]).ok();
    for command in ["", "-agent", "-subscription", "-man"] {
        let name = format!("milepost{command}.1");
        assert!(wrote.lines().any(|line| line.ends_with(&name)), "{name}: {wrote}");
        let page = std::fs::read_to_string(place.path("pages").join(&name)).unwrap();
        assert!(page.contains(".SH NAME"), "{name}");
    }
    assert_eq!(
        place
            .run(&["man"])
            .ok()
            .lines()
            .filter(|line| line.starts_with(".TH milepost "))
            .count(),
        1
    );
    let refused = place.run(&["man", "nothing"]).fails(2);
    assert!(refused.contains("no command of milepost"), "{refused}");
    place.run(&["completions", "perl"]).fails(2);
}
