//! The README's own words, typed: its first steps work as they stand there, and its Rust is what rustdoc compiles.
#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod running;

use std::path::Path;
use std::process::Command;

use running::Place;

fn file(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    std::fs::read_to_string(root.join(name)).unwrap()
}

/// The indented lines of a section.
fn commands(readme: &str, section: &str) -> Vec<String> {
    let lines = readme.lines().skip_while(|line| *line != format!("## {section}"));
    let lines = lines.skip(1).take_while(|line| !line.starts_with("## "));
    lines
        .filter_map(|line| line.strip_prefix("    "))
        .map(str::to_owned)
        .collect()
}

/// Two ports that are free now.
fn free_ports() -> [String; 2] {
    let held = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port().to_string())
}

#[test]
fn the_first_steps_work_as_they_are_written() {
    let place = Place::new();
    let [first, second] = free_ports();
    let lines = commands(&file("README.md"), "First steps by hand");
    assert!(lines.len() > 20, "{lines:?}");
    let script: String = lines
        .iter()
        .filter(|line| !line.starts_with("cargo build"))
        // A person types slower than a server starts.
        .map(|line| match line.split_once("serve --listen 127.0.0.1:") {
            Some((_, rest)) => {
                let open = format!("exec 3<>/dev/tcp/127.0.0.1/{}", &rest[..4]);
                format!("{line}\nuntil ({open}) 2>&-; do sleep 0.05; done")
            }
            None => line.clone(),
        })
        .map(|line| line.replace("7001", &first).replace("7002", &second) + "\n")
        .collect();
    let program = assert_cmd::cargo::cargo_bin!("milepost");
    let path = format!(
        "{}:{}",
        program.parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let typed = Command::new("bash")
        .args(["-ec", &script])
        .current_dir(place.path(""))
        .env("PATH", path)
        .output();
    let Ok(typed) = typed else {
        eprintln!("SKIPPED: the README's first steps; there is no bash to type them into");
        return;
    };
    let (out, err) = (
        String::from_utf8_lossy(&typed.stdout),
        String::from_utf8_lossy(&typed.stderr),
    );
    assert!(typed.status.success(), "{script}{out}{err}");
    // Once at head office, and at the shop after each of the two ways.
    assert_eq!(
        out.matches("{\"article\":17,\"count\":2}").count(),
        2,
        "{out}{err}"
    );
    assert_eq!(
        out.matches("{\"article\":18,\"count\":1}").count(),
        1,
        "{out}{err}"
    );
    assert!(out.contains("lag               0 transactions"), "{out}");
}

#[test]
fn the_rust_of_the_readme_is_that_of_the_engines_documentation() {
    let between = |text: &str, begin: &str| -> Vec<String> {
        let lines = text.lines().skip_while(|line| *line != begin).skip(1);
        lines
            .map(str::to_owned)
            .take_while(|line| !line.ends_with("```"))
            .collect()
    };
    let readme = between(&file("README.md"), "```rust");
    let documented = between(&file("engine/src/lib.rs"), "//! ```no_run");
    let documented: Vec<String> = documented
        .iter()
        .map(|line| {
            line.trim_start_matches("//!")
                .strip_prefix(' ')
                .unwrap_or_default()
                .to_owned()
        })
        .filter(|line| !line.starts_with("# "))
        .collect();
    assert!(readme.len() > 5);
    assert_eq!(readme, documented);
}
