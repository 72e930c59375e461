//! Power cuts on real file systems, as many as one likes:
//! `cargo run --release -p milepost-tests --bin powercut -- --cuts 1000 [--seconds S] [--seed N] [--fs ext4,xfs]`.
//!
//! Needs root and loop devices. The last line counts; exit code 1 when something was found, 77 when no file
//! system could be had: SKIPPED, with the reason on stderr. `--plant BUG`, with `--features planted`, gives the
//! writers a bug that must be found.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use indicatif::{ProgressBar, ProgressStyle};
use milepost_tests::powercut::{Report, Settings, run};
use milepost_tests::processes::worker;

const SKIPPED: u8 = 77;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| !word.starts_with("--")) {
        // Started by a run, as one of its processes.
        worker::main(&words);
        return ExitCode::SUCCESS;
    }
    let settings = match settings(words) {
        Ok(settings) => settings,
        Err(word) => {
            eprintln!(
                "{word}: usage is powercut [--cuts N] [--seconds S] [--seed N] [--fs ext4,xfs] [--plant BUG]"
            );
            return ExitCode::from(2);
        }
    };
    // The run ends after its cut, so that it is counted and everything is unmounted and removed.
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [2, 15] {
        if let Err(error) = signal_hook::flag::register(signal, Arc::clone(&stop)) {
            eprintln!("signal {signal} ends the run at once: {error}");
        }
    }
    let bar = bar(&settings);
    let outcome = run(&settings, &stop, |report: &Report| {
        if let Some(bar) = &bar {
            bar.set_position(report.cuts);
            bar.set_message(format!("{} acknowledged", report.acknowledged()));
        }
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    match outcome {
        Err(missing) => {
            missing.say("powercut");
            ExitCode::from(SKIPPED)
        }
        Ok(report) => {
            for (kind, missing) in &report.left_out {
                missing.say(&format!("powercut on {}", kind.name()));
            }
            for text in &report.told {
                println!("{text}");
            }
            if let Some(kept) = &report.kept {
                println!("a copy of the store is kept in {}", kept.display());
            }
            println!("{report}; seed {}", settings.seed);
            ExitCode::from(u8::from(report.is_bad()))
        }
    }
}

fn settings(words: Vec<String>) -> Result<Settings, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    Settings::new(own).parsed(words.into_iter())
}

/// Progress, for a person at a terminal.
fn bar(settings: &Settings) -> Option<ProgressBar> {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} cuts {eta} {msg}").ok()?;
    let terminal = std::io::stderr().is_terminal();
    terminal.then(|| ProgressBar::new(settings.cuts).with_style(style))
}
