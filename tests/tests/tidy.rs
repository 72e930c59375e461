//! How our code reads, checked: sizes, names, module docs, who may use what, and that every invariant is
//! relied on by code and attacked by a test. A failure lists every place that breaks a rule.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

const MOST_LINES: usize = 600;
const MOST_FUNCTION_LINES: usize = 60;
const PACKAGES: [&str; 6] = ["engine", "replication", "agent-cli", "benches", "tests", "fuzz"];
const BANNED_FILES: [&str; 7] = ["utils", "util", "common", "helpers", "manager", "misc", "impls"];
const BANNED_VERBS: [&str; 4] = ["process", "handle", "do", "manage"];
/// Where the real file system begins. sled opens its files itself.
const REAL_FILES: [&str; 2] = ["engine/src/storage/", "engine/src/view/"];
const UNSAFE: &str = "engine/src/storage/sys.rs";
/// Most lines of code there, without comments, blank lines and tests.
const MOST_UNSAFE_LINES: usize = 300;
const INVARIANTS: [&str; 16] = [
    "E1", "E2", "E3", "E4", "E5", "S1", "S2", "S3", "Q1", "Q2", "R1", "R2", "R3", "R4", "R5", "R6",
];
/// Invariants that wait for a part of the house that is not built.
const NOT_YET: [&str; 0] = [];

struct Source {
    /// Path within the repository.
    name: String,
    lines: Vec<String>,
}

impl Source {
    /// Lines before the unit tests at the foot.
    fn production(&self) -> &[String] {
        let end = self.lines.iter().position(|line| line.trim() == "#[cfg(test)]");
        &self.lines[..end.unwrap_or(self.lines.len())]
    }

    /// True for files that hold only tests or the harness of tests.
    fn is_test(&self) -> bool {
        self.name.starts_with("tests/") || self.name.contains("/tests/") || self.name.ends_with("tests.rs")
    }

    /// Production lines without comments and doc comments, numbered from 1.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = self.production().iter().enumerate();
        numbered
            .map(|(at, line)| (at + 1, line.trim()))
            .filter(|(_, line)| !line.starts_with("//"))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    for package in PACKAGES {
        gather(&root().join(package), &mut found);
    }
    assert!(found.len() > 20, "the sources are where they are looked for");
    found
}

fn gather(folder: &Path, found: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        if path.is_dir() && !name.ends_with("target") && !name.contains("fuzz/corpus") {
            gather(&path, found);
        } else if name.ends_with(".rs") {
            let lines = fs::read_to_string(&path)
                .unwrap()
                .lines()
                .map(str::to_owned)
                .collect();
            found.push(Source { name, lines });
        }
    }
}

/// Fails with every place that breaks the rule.
fn none_break(rule: &str, broken: impl Fn(&Source) -> Vec<(usize, String)>) {
    let mut list = String::new();
    for source in sources() {
        for (line, what) in broken(&source) {
            writeln!(list, "  {}:{line}: {what}", source.name).unwrap();
        }
    }
    assert!(list.is_empty(), "{rule}\n{list}");
}

/// True when `word` stands in `line` by itself.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let inside = |c: char| c.is_alphanumeric() || c == '_';
        !line[..at].ends_with(inside) && !line[at + word.len()..].starts_with(inside)
    })
}

/// What a string holds is not code.
fn without_strings(line: &str) -> String {
    let outside = line.split('"').step_by(2).collect::<Vec<_>>().join("\"");
    outside.split(" //").next().unwrap_or_default().to_owned()
}

/// Name of the function that begins on a line.
fn function_name(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    let before_fn = ["pub", "pub(crate)", "pub(super)", "const", "async", "unsafe"];
    let word = words.by_ref().find(|word| !before_fn.contains(word))?;
    let name = if word == "fn" { words.next()? } else { return None };
    name.split(['(', '<']).next()
}

#[test]
fn every_file_says_at_its_head_what_it_is_for() {
    none_break("a file begins with `//!`", |source| {
        let first = source.lines.first().map(String::as_str).unwrap_or_default();
        if first.starts_with("//!") {
            Vec::new()
        } else {
            vec![(1, first.to_owned())]
        }
    });
}

#[test]
fn a_file_is_one_idea_and_a_function_fits_a_screen() {
    none_break(
        "a file has at most 600 lines before its tests, a function 60",
        |source| {
            let mut broken = Vec::new();
            let lines = source.production();
            if lines.len() > MOST_LINES {
                broken.push((lines.len(), format!("{} lines", lines.len())));
            }
            for (at, line) in source.lines.iter().enumerate() {
                let Some(name) = function_name(line) else { continue };
                let indent = &line[..line.len() - line.trim_start().len()];
                let rest = source.lines[at..].iter();
                let end = rest.clone().position(|line| {
                    let ends = [format!("{indent}}}"), format!("{indent}}};")];
                    ends.iter().any(|end| line == end)
                        || (line.starts_with(indent) && line.ends_with(';') && {
                            // A declaration in a trait has no body.
                            !rest
                                .clone()
                                .take_while(|other| *other != line)
                                .any(|other| other.ends_with('{'))
                                && !line.contains('{')
                        })
                        || (function_name(line) == Some(name) && line.ends_with('}'))
                });
                let len = end.map_or(0, |end| end + 1);
                if len > MOST_FUNCTION_LINES {
                    broken.push((at + 1, format!("{name} has {len} lines")));
                }
            }
            broken
        },
    );
}

#[test]
fn files_and_functions_are_named_for_what_they_do() {
    none_break("no file of many things, no verb that says nothing", |source| {
        let mut broken = Vec::new();
        let stem = Path::new(&source.name).file_stem().unwrap().to_str().unwrap();
        if BANNED_FILES.contains(&stem) {
            broken.push((1, format!("a file named {stem}")));
        }
        if stem != "mod" && root().join(source.name.trim_end_matches(".rs")).is_dir() {
            broken.push((1, format!("{stem}.rs beside a folder {stem}: folders use mod.rs")));
        }
        for (at, line) in source.lines.iter().enumerate() {
            let name = function_name(line).unwrap_or_default();
            let verb = name.split('_').next().unwrap_or_default();
            if BANNED_VERBS.contains(&verb) && name != "process_id" && !source.is_test() {
                broken.push((at + 1, format!("a function named {name}")));
            }
        }
        broken
    });
}

#[test]
fn unsafe_stands_in_one_file_only() {
    none_break("unsafe only in engine/src/storage/sys.rs", |source| {
        if source.name == UNSAFE || source.is_test() {
            return Vec::new();
        }
        let lines = source
            .code()
            .filter(|(_, line)| has_word(&without_strings(line), "unsafe"));
        lines.map(|(at, line)| (at, line.to_owned())).collect()
    });
}

#[test]
fn what_is_unsafe_stays_small_and_says_why_it_is_sound() {
    none_break(
        "the one file with unsafe has fewer than 300 lines of code",
        |source| {
            if source.name != UNSAFE {
                return Vec::new();
            }
            let code = source.code().filter(|(_, line)| !line.is_empty());
            let (mut count, mut broken) = (0, Vec::new());
            for (at, line) in code {
                count += 1;
                let blocks = without_strings(line).matches("unsafe {").count();
                let before = source.lines[..at - 1].iter().rev().map(|line| line.trim());
                let mut comment =
                    before.take_while(|line| line.starts_with("//") || line.starts_with("let fd"));
                if blocks > 0 && !comment.any(|line| line.starts_with("// SAFETY:")) {
                    broken.push((at, line.to_owned()));
                }
            }
            if count >= MOST_UNSAFE_LINES {
                broken.push((count, format!("{count} lines")));
            }
            broken
        },
    );
}

#[test]
fn the_engine_knows_no_async_and_meets_files_only_at_its_seam() {
    none_break(
        "no tokio in the engine, and std::fs only in the real storage and the view",
        |source| {
            if !source.name.starts_with("engine/src/") || source.is_test() {
                return Vec::new();
            }
            let real = REAL_FILES.iter().any(|place| source.name.starts_with(place));
            let lines = source.code().filter(|(_, line)| {
                let line = without_strings(line);
                has_word(&line, "tokio")
                    || (!real && (line.contains("std::fs") || line.contains("File::open")))
            });
            lines.map(|(at, line)| (at, line.to_owned())).collect()
        },
    );
}

#[test]
fn only_the_codec_speaks_to_bincode() {
    none_break("bincode is called in engine/src/codec.rs only", |source| {
        let raw = [
            "bincode::encode",
            "bincode::decode",
            "bincode::config",
            "bincode::serde",
        ];
        if source.name == "engine/src/codec.rs" || source.name == "tests/tests/tidy.rs" {
            return Vec::new();
        }
        let lines = source
            .code()
            .filter(|(_, line)| raw.iter().any(|call| line.contains(call)));
        lines.map(|(at, line)| (at, line.to_owned())).collect()
    });
}

#[test]
fn comments_give_reasons_and_hold_no_code_and_no_promises() {
    none_break(
        "no commented-out code, nothing to be done later, no path of one machine",
        |source| {
            if source.name == "tests/tests/tidy.rs" {
                return Vec::new();
            }
            let starts = [
                "let ", "fn ", "pub ", "use ", "return ", "if ", "for ", "match ", "}",
            ];
            let ends = [";", "{", "}", "},", ");"];
            let mut broken = Vec::new();
            for (at, line) in source.lines.iter().enumerate() {
                let comment = line.trim().strip_prefix("// ").unwrap_or_default();
                let is_code = starts.iter().any(|start| comment.starts_with(start))
                    && ends.iter().any(|end| comment.ends_with(end));
                let promises = [
                    "TODO",
                    "FIXME",
                    "XXX",
                    "/work/",
                    "simplified for now",
                    "todo!(",
                    "unimplemented!(",
                ];
                if is_code || promises.iter().any(|promise| line.contains(promise)) {
                    broken.push((at + 1, line.trim().to_owned()));
                }
            }
            broken
        },
    );
}

#[test]
fn every_invariant_is_relied_on_by_code_and_attacked_by_a_test() {
    let sources = sources();
    let mut missing = String::new();
    for invariant in INVARIANTS {
        let (mut code, mut test) = (false, false);
        for source in sources
            .iter()
            .filter(|source| source.name != "tests/tests/tidy.rs")
        {
            let production = source.production().len();
            for (at, line) in source.lines.iter().enumerate() {
                let in_test = source.is_test() || at >= production;
                if has_word(line, invariant) {
                    if in_test { test = true } else { code = true }
                }
            }
        }
        let waits = NOT_YET.contains(&invariant);
        if waits && code && test {
            writeln!(missing, "  {invariant} is cited, and listed as not built").unwrap();
        }
        if !waits && !code {
            writeln!(missing, "  {invariant} is cited by no code").unwrap();
        }
        if !waits && !test {
            writeln!(missing, "  {invariant} is cited by no test").unwrap();
        }
    }
    assert!(
        missing.is_empty(),
        "the invariants of ARCHITECTURE.md and who cites them\n{missing}"
    );
}

#[test]
fn the_rules_find_what_they_look_for() {
    assert_eq!(
        function_name("    pub(crate) const fn plus<T>(self, b: u64)"),
        Some("plus")
    );
    assert_eq!(function_name("    // fn is a word"), None);
    assert!(has_word("relied on (E1).", "E1") && !has_word("E11, DE1", "E1"));
    assert!(!has_word(
        &without_strings(r#"let a = "unsafe"; // unsafe"#),
        "unsafe"
    ));
    let file = "//! x\nfn a() {}\n#[cfg(test)]\nmod tests {}";
    let source = Source {
        name: "engine/src/a.rs".into(),
        lines: file.lines().map(str::to_owned).collect(),
    };
    assert_eq!((source.production().len(), source.code().count()), (2, 1));
}
