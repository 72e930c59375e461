//! Head office, regions and shops: three phase processes at each of five sites, over a directory and over two servers
//! with one message store, killed with SIGKILL or stopped for a while at random while all sites commit. Afterwards
//! every site has exactly what it is due of every other (R1, R4, Q1); `tiers/` says what that is.
//!
//! The witness is this process: what `import` acknowledged. A region sends only what is backed up (`-u`); half-way it is lost with its
//! disk and restored from its last backup, and no transaction goes round for that.
//! `MILEPOST_SECONDS` sets how long the killing goes on, default 30; `MILEPOST_SEED` repeats the choices of a run.
#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::disallowed_methods
)]

mod running;
mod tiers;

use std::time::{Duration, Instant};

use running::Place;
use running::chance::Chance;
use running::process::Process;
use serde_json::{Value, json};
use tiers::SITES;
use tiers::witness::{Witness, difference};

/// The region that is lost.
const LOST: &str = "north";
/// Well below the 5 s for which a commit waits for the lock that a stopped process may hold.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// What is owed for so long is lost. No run comes near it.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// All that runs, and what may happen to it.
struct Field<'a> {
    place: &'a Place,
    witness: &'a Witness,
    processes: Vec<Process>,
    /// The one that is stopped, and since when.
    asleep: Option<(usize, Instant)>,
    chance: Chance,
    /// How many transactions of the region its last backup has for certain.
    backed_up: usize,
    kills: usize,
    stops: usize,
}

impl<'a> Field<'a> {
    /// Three phases at each site and two servers, started in any order.
    fn start(place: &'a Place, witness: &'a Witness, servers: &[String]) -> Field<'a> {
        let mut waiting: Vec<Process> = SITES.into_iter().flat_map(phases).collect();
        for (at, url) in servers.iter().enumerate() {
            let address = url.trim_start_matches("milepost://");
            let words = ["serve", "--listen", address, "--store", "messages", "-q"];
            waiting.push(Process::new(&format!("server-{at}"), &words));
        }
        let mut field = Field {
            place,
            witness,
            processes: Vec::new(),
            asleep: None,
            chance: Chance::new(),
            backed_up: 0,
            kills: 0,
            stops: 0,
        };
        while !waiting.is_empty() {
            let mut chosen = waiting.swap_remove(field.chance.below(waiting.len()));
            chosen.start(place);
            field.processes.push(chosen);
        }
        field
    }

    /// Kills or stops one process after another until `end`; the region is lost half-way.
    fn disturb(&mut self, end: Instant) {
        let half_way = Instant::now() + end.saturating_duration_since(Instant::now()) / 2;
        let mut is_lost = false;
        self.back_up();
        while Instant::now() < end {
            if self
                .asleep
                .is_some_and(|(_, since)| since.elapsed() > LONGEST_SLEEP)
            {
                self.wake();
            }
            let victim = self.chance.below(self.processes.len());
            match self.chance.below(48) {
                0 => self.back_up(),
                1..10 => self.put_to_sleep(victim),
                _ => self.kill(victim),
            }
            if !is_lost && Instant::now() >= half_way && self.has_more_than_its_backup() {
                self.lose_the_region();
                is_lost = true;
            }
        }
        self.wake();
    }

    fn kill(&mut self, victim: usize) {
        self.asleep.take_if(|(asleep, _)| *asleep == victim);
        self.processes[victim].kill();
        self.kills += 1;
        std::thread::sleep(Duration::from_millis(self.chance.below(120) as u64));
        self.processes[victim].start(self.place);
    }

    /// Stops one, until the next is stopped or it is time to wake it.
    fn put_to_sleep(&mut self, victim: usize) {
        self.wake();
        self.processes[victim].stop();
        self.asleep = Some((victim, Instant::now()));
        self.stops += 1;
    }

    fn wake(&mut self) {
        if let Some((asleep, _)) = self.asleep.take() {
            self.processes[asleep].go_on();
        }
    }

    /// Backs the region up.
    fn back_up(&mut self) {
        // Who sleeps may hold what the backup waits for, and nobody else would wake it.
        self.wake();
        let committed = self.witness.of(LOST).numbers.len();
        self.place.run(&["backup", LOST, "backup"]).ok();
        self.backed_up = committed;
    }

    fn has_more_than_its_backup(&self) -> bool {
        self.witness.of(LOST).numbers.len() > self.backed_up
    }

    /// The region's disk is gone: its store is made of the last backup. What it had committed since is lost with it, and
    /// nobody else has any of that.
    fn lose_the_region(&mut self) {
        self.wake();
        let mut own = self.witness.of(LOST);
        let phases = |process: &&mut Process| process.name.starts_with(LOST);
        self.processes.iter_mut().filter(phases).for_each(Process::kill);
        std::fs::remove_dir_all(self.place.path(LOST)).unwrap();
        self.place.run(&["restore", "backup", LOST]).ok();
        let kept = self.place.run(&["export", LOST, "--origin", LOST]).json().len();
        assert!(
            kept >= self.backed_up,
            "{kept} of {} that were backed up",
            self.backed_up
        );
        println!(
            "{LOST} is restored without its last {} transactions",
            own.numbers.len() - kept
        );
        own.numbers.truncate(kept);
        drop(own);
        for process in self.processes.iter_mut().filter(phases) {
            process.start(self.place);
        }
    }

    /// Waits until no site owes another anything.
    fn wait_until_nothing_is_owed(&mut self) {
        let (started, mut quiet) = (Instant::now(), 0);
        // A transaction is overlooked by a look at all sites only if it went a hop on meanwhile, and none has more than four.
        while quiet < 5 {
            self.back_up();
            quiet = if self.is_something_owed() { 0 } else { quiet + 1 };
            if started.elapsed() > LONGEST_WAIT {
                panic!("something is still owed after {LONGEST_WAIT:?}\n{}", self.told());
            }
        }
        println!("nothing is owed after {:?} more", started.elapsed());
    }

    fn is_something_owed(&self) -> bool {
        let mut owed = 0;
        for site in SITES {
            let status = self.place.run(&["status", site, "--json"]).one();
            let is_troubled = |remote: &Value| !remote["stopped"].is_null() || !remote["reported"].is_null();
            let remotes = status["remotes"].as_array().unwrap();
            if remotes.iter().any(is_troubled) || status["quarantine"] != json!([]) {
                panic!("{site} refuses something\n{}", self.told());
            }
            owed += remotes
                .iter()
                .map(|remote| remote["lag_transactions"].as_u64().unwrap())
                .sum::<u64>();
        }
        owed > 0
    }

    /// What all sites and processes say, for whoever reads a failure.
    fn told(&self) -> String {
        let status = SITES.iter().map(|site| self.place.run(&["status", site]).out);
        let errors = self.processes.iter().map(Process::last_words);
        let seed = format!("MILEPOST_SEED={}\n", self.chance.seed);
        std::iter::once(seed).chain(status).chain(errors).collect()
    }

    /// All leave by SIGTERM, each with 0.
    fn leave(&mut self) {
        for process in &mut self.processes {
            let code = process.leave();
            assert_eq!(code, Some(0), "{}", process.name);
        }
    }
}

fn phases(site: &'static str) -> [Process; 3] {
    let more: &[&str] = if site == LOST {
        &["-l", "10000", "-u"]
    } else {
        &["-l", "10000"]
    };
    ["-r", "-i", "-s"].map(|phase| Process::phase(site, phase, more))
}

/// Two servers, the primary first, at an address of this run's own: no client is ever given one of these ports as its own
/// while their server is dead, for clients come from 127.0.0.1.
fn servers() -> [String; 2] {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    [7001, 7002].map(|port| format!("milepost://127.{high}.{low}.77:{port}"))
}

/// Commits at a site until `end`.
fn write(place: &Place, witness: &Witness, site: &str, end: Instant) {
    for round in 0.. {
        if Instant::now() >= end {
            break;
        }
        witness.commit(place, site, 1 + round % 9);
        std::thread::sleep(Duration::from_millis(round % 5 * 40));
    }
}

#[test]
fn what_is_committed_anywhere_is_once_with_all_who_subscribe_however_processes_of_the_tiers_die() {
    let seconds = std::env::var("MILEPOST_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let (servers, witness) = (servers(), Witness::default());
    let place = tiers::make(&servers);
    let mut field = Field::start(&place, &witness, &servers);
    println!("MILEPOST_SEED={}", field.chance.seed);
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(30));
    std::thread::scope(|scope| {
        for site in SITES {
            scope.spawn(|| write(&place, &witness, site, end));
        }
        field.disturb(end);
    });
    field.wait_until_nothing_is_owed();
    let committed = SITES.map(|site| witness.of(site).numbers.len());
    let counts = format!(
        "{} kills, {} stops, committed {committed:?}",
        field.kills, field.stops
    );
    assert!(
        field.kills > 10 && committed.iter().all(|count| *count > 10),
        "{counts}: too busy a machine to prove anything"
    );
    field.leave();
    match witness.compare(&place) {
        Ok(received) => println!("{counts}, received {received}"),
        Err(what) => panic!("{what}\nafter {counts}\n{}", field.told()),
    }
    for store in SITES.into_iter().chain(["messages"]) {
        place.run(&["verify", store]).ok();
    }
}

#[test]
fn a_transaction_that_is_missing_doubled_moved_or_changed_is_told() {
    let due = [
        json!({"events": ["a"]}),
        json!({"events": ["b"]}),
        json!({"events": ["c"]}),
    ];
    let [a, b, c] = due.clone();
    assert_eq!(difference(&due, &due), None);
    for found in [
        vec![],
        vec![a.clone(), c.clone()],
        vec![a.clone(), b.clone()],
        vec![a.clone(), b.clone(), c.clone(), a.clone()],
        vec![a.clone(), a.clone(), b.clone(), c.clone()],
        vec![b.clone(), a.clone(), c.clone()],
        vec![a, b, json!({"events": ["C"]})],
    ] {
        assert!(difference(&found, &due).is_some(), "{found:?}");
    }
}
