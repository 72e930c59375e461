//! agent, serve and status: historic options as typed, exit codes, configuration, leaving.
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

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use running::Place;
use serde_json::Value;

/// Head office and a shop; the shop subscribes to everything under orders/.
fn exchange(hq_links: &[&str], shop_links: &[&str]) -> Place {
    let place = Place::with_store("hq");
    place.run(&["init", "shop", "--site", "shop"]).ok();
    place
        .run(&["publication", "add", "hq", "orders", "--streams", "orders/**"])
        .ok();
    place
        .run(
            &[
                &["remote", "add", "hq", "shop", "--send-every", "1s", "--link"],
                hq_links,
            ]
            .concat(),
        )
        .ok();
    place
        .run(
            &[
                &[
                    "remote",
                    "add",
                    "shop",
                    "hq",
                    "--send-every",
                    "1s",
                    "--consolidated",
                    "--link",
                ],
                shop_links,
            ]
            .concat(),
        )
        .ok();
    place
        .run(&[
            "subscription",
            "add",
            "hq",
            "--remote",
            "shop",
            "--publication",
            "orders",
        ])
        .ok();
    place
}

fn over_directory() -> Place {
    let place = Place::new();
    let link = format!("file://{}", place.path("link").display());
    drop(place);
    let place = exchange(&[&link], &[&link]);
    std::fs::create_dir_all(link.trim_start_matches("file://")).unwrap();
    place
}

fn commit(place: &Place, number: u32) {
    let data = number.to_string();
    place
        .run(&["append", "hq", "orders/1", "--kind", "placed", "--data", &data])
        .ok();
}

fn at_shop(place: &Place) -> Vec<Value> {
    place
        .run(&["export", "shop", "--origin", "hq"])
        .json()
        .iter()
        .map(|t| t["events"][0]["payload"].clone())
        .collect()
}

/// A child that is killed when the test ends.
struct Running(Child);

impl Running {
    fn start(place: &Place, words: &[&str]) -> Running {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("milepost"));
        command.args(words).current_dir(place.path(""));
        Running(
            command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap(),
        )
    }

    /// A server, and its address once it listens.
    fn server(place: &Place) -> (Running, String) {
        Running::server_at(place, "127.0.0.1:0")
    }

    fn server_at(place: &Place, listen: &str) -> (Running, String) {
        let words = ["serve", "--listen", listen, "--store", "messages", "--json"];
        let mut server = Running::start(place, &words);
        let mut line = String::new();
        BufReader::new(server.0.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let told: Value = serde_json::from_str(&line).unwrap();
        (server, told["listen"].as_str().unwrap().to_owned())
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .args([signal, &self.0.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    fn code(&mut self) -> Option<i32> {
        self.0.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..600 {
        if holds() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("{what} did not come about");
}

fn runs(place: &Place, phase: &str) -> bool {
    let status = place.run(&["status", "hq", "--json"]).one();
    let phases = status["phases"].as_array().unwrap().clone();
    phases
        .iter()
        .any(|found| found["phase"] == phase && !found["holder"].is_null())
}

#[test]
fn batch_runs_with_every_historic_option_carry_commits_once_and_status_shows_it() {
    let place = over_directory();
    (0..5).for_each(|number| commit(&place, number));
    let options = "-b -g 5 -l 64K -m 16M -rd 5m -rp 2 -ru 1 -sd 30s -fr 1 -fd 1 -w 1 -v -x 1M -ot agent.log";
    for round in 0..3 {
        for site in ["hq", "shop"] {
            let words: Vec<&str> = ["agent", site].into_iter().chain(options.split(' ')).collect();
            place.run(&words).ok();
        }
        if round == 0 {
            commit(&place, 5);
        }
    }
    assert_eq!(at_shop(&place), [0, 1, 2, 3, 4, 5]);
    assert!(
        !std::fs::read_to_string(place.path("agent.log"))
            .unwrap()
            .is_empty()
    );
    let status = place.run(&["status", "hq", "--json"]).one();
    let shop = &status["remotes"][0];
    assert_eq!(
        (&shop["remote"], &shop["lag_transactions"]),
        (&"shop".into(), &0.into())
    );
    for name in [
        "log_sent",
        "confirm_sent",
        "log_received",
        "confirm_received",
        "resend_count",
        "rereceive_count",
    ] {
        assert!(shop.get(name).is_some(), "{name}");
    }
    assert!(place.run(&["status", "hq"]).ok().contains("lag"));
}

#[test]
fn a_second_process_for_a_phase_exits_3_and_names_the_holder_and_signals_end_the_first() {
    let place = over_directory();
    for signal in ["-INT", "-TERM"] {
        let mut first = Running::start(&place, &["agent", "hq", "-i", "-q"]);
        wait_for("the scan phase", || runs(&place, "scan"));
        let told = place.run(&["agent", "hq", "-i"]).fails(3);
        assert!(told.contains(&first.0.id().to_string()), "{told}");
        place.run(&["agent", "hq", "-b"]).fails(3);
        place.run(&["agent", "hq", "-b", "-r"]).ok();
        first.signal(signal);
        assert_eq!(first.code(), Some(0));
    }
}

#[test]
fn an_agent_with_stdin_leaves_when_whoever_started_it_is_gone() {
    let place = over_directory();
    let mut agent = Running::start(&place, &["agent", "hq", "--with-stdin", "-q"]);
    wait_for("the send phase", || runs(&place, "send"));
    drop(agent.0.stdin.take());
    assert_eq!(agent.code(), Some(0));
}

#[test]
fn servers_typed_the_historic_way_replace_the_list_and_an_alternate_is_taken_at_once() {
    let place = exchange(&["milepost://127.0.0.1:1"], &["milepost://127.0.0.1:1"]);
    let (_server, address) = Running::server(&place);
    let port = address.rsplit(':').next().unwrap();
    let (dead, alive) = (
        "tcpip(host=127.0.0.1;port=1)",
        format!("tcpip(host=127.0.0.1;port={port})"),
    );
    commit(&place, 1);
    for site in ["hq", "shop", "hq"] {
        place
            .run(&[
                "agent", site, "-b", "-x", dead, "-x", &alive, "-fr", "1", "-fd", "0",
            ])
            .ok();
    }
    assert_eq!(at_shop(&place), [1]);
}

#[test]
fn servers_on_the_command_line_serve_remotes_on_directories_when_none_is_on_a_server() {
    let place = over_directory();
    let (_server, address) = Running::server(&place);
    let server = format!(
        "tcpip(host=127.0.0.1;port={})",
        address.rsplit(':').next().unwrap()
    );
    commit(&place, 1);
    let told = place.run(&["agent", "hq", "-b", "-x", &server]);
    assert_eq!(told.code, 0, "{}", told.err);
    for phase in ["received", "scanned transactions=1", "sent messages="] {
        assert!(told.err.contains(phase), "{phase}: {}", told.err);
    }
    place.run(&["agent", "shop", "-b"]).ok();
    assert!(at_shop(&place).is_empty(), "nothing lies in the folder");
    place.run(&["agent", "shop", "-b", "-x", &server]).ok();
    assert_eq!(at_shop(&place), [1]);
    let add = [
        "remote",
        "add",
        "hq",
        "north",
        "--link",
        &server,
        "--send-every",
        "1s",
    ];
    let told = place.run(&add).ok();
    assert!(told.contains("milepost://127.0.0.1:"), "{told}");
    commit(&place, 2);
    place
        .run(&["agent", "hq", "-b", "-x", "tcpip(host=127.0.0.1;port=1)"])
        .fails(4);
    place.run(&["agent", "shop", "-b"]).ok();
    assert_eq!(
        at_shop(&place),
        [1, 2],
        "a remote on a directory stays there beside one on a server"
    );
}

/// They tried again with the next commit, or after `-sd` and `-rd`, which here is tomorrow.
#[test]
fn agents_that_stay_find_a_server_that_comes_later_or_comes_back() {
    let (server, address) = Running::server(&Place::new());
    drop(server);
    let link = format!("milepost://{address}");
    let place = exchange(&[&link], &[&link]);
    let _agents =
        ["hq", "shop"].map(|site| Running::start(&place, &["agent", site, "-rd", "1d", "-sd", "1d"]));
    for number in 0..3 {
        commit(&place, number);
        std::thread::sleep(std::time::Duration::from_millis(500));
        let (_server, _) = Running::server_at(&place, &address);
        let all: Vec<Value> = (0..=number).map(Value::from).collect();
        wait_for("what the server was away for", || at_shop(&place) == all);
    }
}

#[test]
fn a_message_store_is_no_site_and_a_site_no_message_store() {
    let place = over_directory();
    let (mut server, _) = Running::server(&place);
    server.signal("-TERM");
    assert_eq!(server.code(), Some(0));
    for words in [
        &["remote", "add", "messages", "x", "--link", "file:///x"][..],
        &["agent", "messages", "-b"],
        &["status", "messages"],
    ] {
        let told = place.run(words).fails(1);
        assert!(told.contains("message store"), "{words:?}: {told}");
    }
    place.run(&["verify", "messages"]).ok();
    place.run(&["init", "other", "--site", "server"]).ok();
    let told = place
        .run(&["serve", "--listen", "127.0.0.1:0", "--store", "other"])
        .fails(1);
    assert!(told.contains("site server"), "{told}");
}

/// It was refused, with the advice to allow more memory.
#[test]
fn a_transaction_larger_than_the_memory_for_messages_comes_in_parts_that_wait_on_disk() {
    let place = over_directory();
    place.write("large", vec![7; 300_000]);
    place
        .run(&["append", "hq", "orders/1", "--kind", "k", "--data", "@large"])
        .ok();
    place.run(&["agent", "hq", "-b", "-l", "10000"]).ok();
    place.run(&["agent", "shop", "-b", "-m", "100K"]).ok();
    assert_eq!(at_shop(&place).len(), 1);
    let facts = place.run(&["status", "shop", "--json"]).one();
    assert!(facts["quarantine"].as_array().unwrap().is_empty(), "{facts}");
    assert_eq!(std::fs::read_dir(place.path("shop/parts")).unwrap().count(), 0);
}

#[test]
fn a_damaged_queue_that_opening_threw_away_is_told_by_whoever_opened() {
    let place = over_directory();
    for number in 0..2 {
        // The second block of the queue says that the first was durable.
        commit(&place, number);
        place.run(&["agent", "hq", "-b"]).ok();
    }
    let queue = place.path("hq/queue/0000000000000000.mpq");
    let mut bytes = std::fs::read(&queue).unwrap();
    bytes[200] ^= 1;
    std::fs::write(&queue, bytes).unwrap();
    let told = place.run(&["verify", "hq"]);
    assert_eq!(told.code, 0, "{}", told.err);
    assert!(told.err.contains("the stable queue is damaged"), "{}", told.err);
}

#[test]
fn an_agent_without_any_schedule_says_why_it_ends() {
    let place = over_directory();
    place
        .run(&["remote", "add", "hq", "shop", "--replace", "--link", "file:///x"])
        .ok();
    let told = place.run(&["agent", "hq"]);
    assert!(told.err.contains("--send-every"), "{}", told.err);
}

#[test]
fn without_any_server_a_batch_exits_4_names_every_endpoint_and_loses_nothing() {
    let place = exchange(&["milepost://127.0.0.1:1"], &["milepost://127.0.0.1:1"]);
    commit(&place, 1);
    let told = place
        .run(&[
            "agent",
            "hq",
            "-b",
            "-x",
            "tcpip(host=127.0.0.1;port=2)",
            "--server",
            "milepost://127.0.0.1:3",
        ])
        .fails(4);
    assert!(
        told.contains("127.0.0.1:2") && told.contains("127.0.0.1:3"),
        "{told}"
    );
    assert!(place.run(&["agent", "hq", "-b"]).fails(4).contains("127.0.0.1:1"));
    let (_server, address) = Running::server(&place);
    let server = format!("milepost://{address}");
    for site in ["hq", "shop"] {
        place.run(&["agent", site, "-b", "-x", &server]).ok();
    }
    assert_eq!(at_shop(&place), [1]);
}

#[test]
fn wrong_usage_exits_2_and_says_what_is_wrong() {
    let place = over_directory();
    let cases: [(&[&str], &str); 7] = [
        (&["-w", "0"], "-w"),
        (&["-l", "100"], "-l"),
        (&["-rd", "soon"], "soon"),
        (&["-x", "tcpip(host=a)"], "tcpip"),
        (&["-fr"], "--primary-retries"),
        (&["--no-such"], "--no-such"),
        (&["-q", "-v"], "--quiet"),
    ];
    for (options, word) in cases {
        let told = place.run(&[&["agent", "hq", "-b"], options].concat()).fails(2);
        assert!(told.contains(word), "{options:?}: {told}");
    }
    place.run(&["agent"]).fails(2);
}

/// Commands, and what their refusal says.
const WRONG: [(&[&str], &str); 13] = [
    (
        &[
            "remote",
            "add",
            "hq",
            "n",
            "--link",
            "file:///x",
            "milepost://a:1",
        ],
        "alternates",
    ),
    (&["dump", "hq", "--from", "100", "--to", "50"], "--from"),
    (&["serve", "--listen", "nonsense", "--store", "m"], "HOST:PORT"),
    (&["serve", "--listen", "h:99999", "--store", "m"], "HOST:PORT"),
    (
        &["init", "x", "--site", "x", "--segment-bytes", "5K"],
        "1 MiB to 1 GiB",
    ),
    (&["init", "x", "--site", "x", "--pad-to", "1000"], "power of two"),
    (&["init", "x", "--site", "X y"], "X y"),
    (&["publication", "add", "hq", "a b", "--streams", "x"], "a b"),
    (&["publication", "add", "hq", "p", "--streams", "a/**b"], "a/**b"),
    (
        &[
            "publication",
            "add",
            "hq",
            "p",
            "--streams",
            "x",
            "--by-segment",
            "0",
        ],
        "segment",
    ),
    (&["remote", "add", "hq", "n", "--link", "/mnt/x"], "file:///DIR"),
    (
        &[
            "remote",
            "add",
            "hq",
            "n",
            "--link",
            "file:///x",
            "--send-every",
            "half a second",
        ],
        "span of time",
    ),
    (&["remote", "add", "hq", "hq", "--link", "file:///x"], "this site"),
];

#[test]
fn words_that_break_a_rule_exit_2_and_what_is_not_there_exits_1() {
    let place = over_directory();
    for command in [&["agent", "nowhere", "-b"][..], &["stat", "nowhere"]] {
        let told = place.run(command).fails(1);
        assert!(told.contains("nowhere"), "{told}");
    }
    place
        .run(&["serve", "--listen", "127.0.0.1:0", "--store", "nats://h"])
        .fails(2);
    for (words, word) in WRONG {
        let told = place.run(words).fails(2);
        assert!(told.contains(word), "{words:?}: {told}");
    }
    assert!(!place.path("x").exists());
}

#[test]
fn the_command_line_wins_over_the_environment_and_that_over_the_file() {
    // 100 is refused by the agent, so an exit code shows which value was taken.
    let place = over_directory();
    let run = |options: &[&str], environment: &[(&str, &str)]| {
        place
            .run_with(
                &[&["agent", "hq", "--config", "agent.toml"], options].concat(),
                "",
                environment,
            )
            .code
    };
    let (bad, good) = (
        ("MILEPOST_MESSAGE_BYTES", "100"),
        ("MILEPOST_MESSAGE_BYTES", "20000"),
    );
    place.write("agent.toml", "batch = true\nmessage-bytes = 100\n");
    assert_eq!(run(&[], &[]), 2, "from the file");
    assert_eq!(run(&[], &[good]), 0, "the environment over the file");
    assert_eq!(run(&["-l", "20000"], &[]), 0, "the command line over the file");
    assert_eq!(
        run(&["-l", "20000"], &[bad]),
        0,
        "the command line over the environment"
    );
    place.write(
        "agent.toml",
        "batch = true\nmessage_bytes = \"20K\"\nserver = [\"milepost://127.0.0.1:1\"]\nverbose = 1\n",
    );
    assert_eq!(run(&[], &[bad]), 2, "the environment over the file");
    assert_eq!(run(&[], &[]), 4, "the file's server");
    for (file, word) in [
        ("no-such = 1", "no-such"),
        ("batch = 3", "batch"),
        ("batch = ", "agent.toml"),
        ("config = \"x\"", "config"),
    ] {
        place.write("agent.toml", file);
        let told = place.run(&["agent", "hq", "-b", "-c", "agent.toml"]).fails(2);
        assert!(told.contains(word), "{file}: {told}");
    }
    assert!(
        place
            .run(&["agent", "hq", "-b", "-c", "missing.toml"])
            .fails(2)
            .contains("missing.toml")
    );
    let environment = [
        ("MILEPOST_BATCH", "1"),
        ("MILEPOST_VERBOSE", "2"),
        ("MILEPOST_SERVER", "milepost://127.0.0.1:1,milepost://127.0.0.1:2"),
    ];
    let ran = place.run_with(&["agent", "hq"], "", &environment);
    assert_eq!(ran.code, 4, "{}", ran.err);
    assert!(
        ran.err.contains("127.0.0.1:1") && ran.err.contains("127.0.0.1:2"),
        "{}",
        ran.err
    );
}

#[test]
fn help_of_agent_serve_and_status_has_examples_and_the_exit_codes() {
    let place = Place::new();
    for command in ["agent", "serve", "status", "demo"] {
        let help = place.run(&[command, "--help"]).ok();
        assert!(
            help.contains(&format!("  milepost {command}")) && help.contains("Exit codes:"),
            "{command}"
        );
    }
    for (command, explained) in [
        ("export", "A local commit is its own origin"),
        ("import", "--resume"),
        ("status", "confirm_received"),
        ("serve", "may share a message store"),
        ("init", "fixed for the store's life"),
    ] {
        let help = place.run(&[command, "--help"]).ok();
        let told = help.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(told.contains(explained), "{command}: {told}");
    }
    let help = place.run(&["agent", "--help"]).ok();
    for historic in [
        "-ot",
        "-os",
        "-rd",
        "-rp",
        "-ru",
        "-sd",
        "-fr",
        "-fd",
        "-x",
        "tcpip(host=",
    ] {
        assert!(help.contains(historic), "{historic}");
    }
}
