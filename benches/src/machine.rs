//! What a measurement depends on: processor, memory, kernel, file system, versions. Linux tells them in
//! files; what it does not tell is said to be unknown.

use std::fs;
use std::path::Path;

/// Lines that belong above every table.
pub fn about(folder: &Path) -> Vec<String> {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    vec![
        format!(
            "milepost {} built with Rust {} or later, {}",
            env!("CARGO_PKG_VERSION"),
            env!("CARGO_PKG_RUST_VERSION"),
            if cfg!(debug_assertions) {
                "DEBUG build: these numbers mean nothing, use --release"
            } else {
                "release build"
            }
        ),
        format!(
            "{cores} cores of {}, {} of memory, Linux {}",
            line_of("/proc/cpuinfo", "model name"),
            line_of("/proc/meminfo", "MemTotal"),
            fs::read_to_string("/proc/sys/kernel/osrelease")
                .map_or("unknown".to_owned(), |text| text.trim().to_owned()),
        ),
        format!(
            "files on {}; load of the last minute before the run {}",
            file_system(folder),
            load()
        ),
    ]
}

/// How many wanted to run in the last minute.
pub fn load() -> String {
    first_word("/proc/loadavg")
}

/// A line of this process' `/proc/self/status` that is in kB, in bytes.
pub fn own_bytes(key: &str) -> u64 {
    let text = line_of("/proc/self/status", key);
    let kib = text
        .split_whitespace()
        .next()
        .and_then(|number| number.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// This process' memory that is no mapped page of a file.
pub fn own_memory() -> u64 {
    own_bytes("RssAnon") + own_bytes("RssShmem")
}

/// What stands behind the colon of the first line that begins with `key`.
fn line_of(path: &str, key: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(key));
    let value = line.and_then(|line| line.split_once(':'));
    value.map_or("unknown".to_owned(), |(_, value)| value.trim().to_owned())
}

/// What a file says before the first space.
fn first_word(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}

/// Type and device of the mount that holds `folder`: the one with the longest path above it.
fn file_system(folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let holding = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (device, at, kind) = (fields.next()?, fields.next()?, fields.next()?);
        folder
            .starts_with(at)
            .then(|| (at.len(), format!("{kind} ({device})")))
    });
    // A later mount at the same place hides the earlier one.
    holding
        .max_by_key(|(len, _)| *len)
        .map_or("unknown".to_owned(), |(_, text)| text)
}
