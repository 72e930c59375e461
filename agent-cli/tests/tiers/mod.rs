//! Five sites in three tiers, their definitions, and what each is due.
//!
//! ```text
//!                        hq
//!            directory /    \ two servers
//!                 north      south
//!         servers /              \ directory
//!             town                village
//! ```
//!
//! Everything goes up. Down go all streams to the regions, `common/**` and what is ordered from `town` to the town, by
//! value, and `common/**` alone to the village.

pub mod witness;

use super::running::Place;

pub const SITES: [&str; 5] = ["hq", "north", "south", "town", "village"];

/// Upper site, lower site, whether they meet at the servers.
const PAIRS: [(&str, &str, bool); 4] = [
    ("hq", "north", false),
    ("hq", "south", true),
    ("north", "town", true),
    ("south", "village", false),
];

/// Publisher, subscriber, publication and value of what goes down.
const DOWN: [(&str, &str, &str, Option<&str>); 5] = [
    ("hq", "north", "all", None),
    ("hq", "south", "all", None),
    ("north", "town", "common", None),
    ("north", "town", "orders", Some("town")),
    ("south", "village", "common", None),
];

/// Whether a site is to have the events of a stream that another site committed.
pub fn is_due(site: &str, stream: &str) -> bool {
    let wanted: &[&str] = match site {
        "town" => &["common/", "orders/town/"],
        "village" => &["common/"],
        _ => &[""],
    };
    wanted.iter().any(|begin| stream.starts_with(begin))
}

/// The five stores, each knowing its neighbours; the servers need not run yet.
pub fn make(servers: &[String]) -> Place {
    let place = Place::new();
    let run = |words: &[&str]| drop(place.run(words).ok());
    for site in SITES {
        // The smallest segments, so that logs and queues roll while processes die.
        run(&["init", site, "--site", site, "--segment-bytes", "1M"]);
        run(&["publication", "add", site, "all", "--streams", "**"]);
        run(&["publication", "add", site, "common", "--streams", "common/**"]);
        run(&[
            "publication",
            "add",
            site,
            "orders",
            "--streams",
            "orders/**",
            "--by-segment",
            "2",
        ]);
    }
    std::fs::create_dir(place.path("link")).unwrap();
    let folder = vec![format!("file://{}", place.path("link").display())];
    for (upper, lower, at_servers) in PAIRS {
        let links = if at_servers { servers } else { &folder };
        let down: Vec<&str> = links.iter().map(String::as_str).collect();
        // Who is below has the other server as its primary: both have clients all the time.
        let up: Vec<&str> = down.iter().rev().copied().collect();
        let every = ["--send-every", "1s", "--link"];
        run(&[&["remote", "add", upper, lower][..], &every, &down].concat());
        run(&[
            &["remote", "add", lower, upper, "--consolidated"][..],
            &every,
            &up,
        ]
        .concat());
        run(&[
            "subscription",
            "add",
            lower,
            "--remote",
            upper,
            "--publication",
            "all",
        ]);
    }
    for (from, to, publication, value) in DOWN {
        let words = [
            "subscription",
            "add",
            from,
            "--remote",
            to,
            "--publication",
            publication,
        ];
        let value: Vec<&str> = value.iter().flat_map(|value| ["--value", value]).collect();
        run(&[&words[..], &value].concat());
    }
    place
}
