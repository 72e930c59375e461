//! Worker processes: this program started again, with `worker` as its first word. A worker says `ready` on
//! standard output, begins when it reads a line, and says `done` with what it measured.
//!
//! ```text
//! commit DIR THREADS EVENTS PAYLOAD    commits single events
//! crash DIR PAYLOAD                    commits until it is killed
//! memory DIR                           scans everything; says events, and bytes of its own memory at most
//! first DIR STREAM                     opens the store and reads the first event of a stream
//! scan DIR                             scans until it is killed
//! remotes DIR                          scans and sends to all remotes, twice; says what that took
//! ```

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use milepost_engine::{Durability, Lsn, Options, StreamVersion};

use crate::workload::{Payloads, Seen};
use crate::{Outcome, machine};

/// The first word of a worker's command line.
pub const WORD: &str = "worker";
/// Blocks between two looks at the memory in use.
const LOOK: u64 = 256;

/// Processes that work at the same time.
pub struct Workers {
    all: Vec<(Child, BufReader<ChildStdout>)>,
}

impl Workers {
    /// Starts so many, and waits until all are ready.
    ///
    /// # Errors
    /// When one could not be started or ended early.
    pub fn start(count: u64, words: impl Fn() -> Vec<String>) -> Outcome<Workers> {
        let mut all = Vec::new();
        for _ in 0..count {
            let mut child = Command::new(std::env::current_exe()?)
                .arg(WORD)
                .args(words())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let out = child.stdout.take().ok_or("a worker has no output")?;
            all.push((child, BufReader::new(out)));
        }
        let mut workers = Workers { all };
        workers.hear("ready")?;
        Ok(workers)
    }

    /// Lets all begin and waits until all are done; what each said.
    ///
    /// # Errors
    /// When one ended early.
    pub fn go(&mut self) -> Outcome<Vec<String>> {
        for (child, _) in &mut self.all {
            let input = child.stdin.as_mut().ok_or("a worker has no input")?;
            input.write_all(b"go\n")?;
        }
        self.hear("done")
    }

    /// Waits for the end of all.
    ///
    /// # Errors
    /// When one failed.
    pub fn finish(self) -> Outcome<()> {
        for (mut child, out) in self.all {
            drop((child.stdin.take(), out));
            let status = child.wait()?;
            if !status.success() {
                return Err(format!("a worker ended with {status}").into());
            }
        }
        Ok(())
    }

    /// Kills all with SIGKILL.
    ///
    /// # Errors
    /// What the system says.
    pub fn kill(self) -> Outcome<()> {
        for (mut child, _) in self.all {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    fn hear(&mut self, word: &str) -> Outcome<Vec<String>> {
        let mut said = Vec::new();
        for (_, out) in &mut self.all {
            let mut line = String::new();
            out.read_line(&mut line)?;
            let rest = line.trim_end().strip_prefix(word);
            said.push(rest.ok_or("a worker ended early")?.trim().to_owned());
        }
        Ok(said)
    }
}

/// What a worker does.
///
/// # Errors
/// What the engine says, and words that are not understood.
pub fn run(words: &[String]) -> Outcome<()> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let said = match words.as_slice() {
        ["commit", dir, threads, events, payload] => {
            let (threads, events, payload) = (threads.parse()?, events.parse()?, payload.parse()?);
            crate::commit::work(Path::new(dir), threads, events, payload, begin)?;
            String::new()
        }
        ["crash", dir, payload] => commit_for_ever(Path::new(dir), payload.parse()?)?,
        ["memory", dir] => scan_and_look(Path::new(dir))?,
        ["first", dir, stream] => {
            begin()?;
            read_first(Path::new(dir), stream)?
        }
        ["scan", dir] => {
            crate::marker::scan(Path::new(dir), begin)?;
            String::new()
        }
        ["remotes", dir] => crate::remotes::round::work(Path::new(dir), begin)?.to_string(),
        _ => return Err(format!("a worker does not understand {words:?}").into()),
    };
    say(&format!("done {said}"))
}

pub(crate) fn say(line: &str) -> Outcome<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()?;
    Ok(())
}

fn begin() -> Outcome<()> {
    say("ready")?;
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

fn commit_for_ever(dir: &Path, payload: usize) -> Outcome<String> {
    let payloads = Payloads::new(1_000, payload);
    let store = Options::new().open(dir)?;
    begin()?;
    for number in (0..payloads.count()).cycle() {
        let durability = if number % 8 == 0 {
            Durability::Synced
        } else {
            Durability::Buffered
        };
        let transaction = payloads.transaction(number..number + 1)?;
        store.commit_with(transaction, durability)?.committed()?;
        if number == 200 {
            say("done")?;
        }
    }
    Ok(String::new())
}

fn scan_and_look(dir: &Path) -> Outcome<String> {
    let store = Options::new().open(dir)?;
    begin()?;
    let (mut seen, mut blocks, mut most) = (Seen::default(), 0, 0);
    let mut scan = store.scan(Lsn::ZERO)?;
    while let Some(block) = scan.next_block()? {
        for frame in block.frames() {
            for event in frame?.events() {
                seen.visit(event?.payload);
            }
        }
        blocks += 1;
        if blocks % LOOK == 0 {
            most = machine::own_memory().max(most);
        }
    }
    let most = machine::own_memory().max(most);
    Ok(format!("{} {most} {}", seen.events, machine::own_bytes("VmHWM")))
}

fn read_first(dir: &Path, stream: &str) -> Outcome<String> {
    let store = Options::new().open(dir)?;
    let first = store.read_stream(stream, StreamVersion(0))?.next();
    let event = first.ok_or("the stream has no event")??;
    Ok(event.payload.len().to_string())
}
