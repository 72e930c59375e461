//! How a long-running command learns that it is to leave.
//!
//! SIGINT, SIGTERM and SIGHUP ask once; a second one leaves at once, which loses nothing (E1). With
//! `--with-stdin` the end of standard input asks too: whoever starts this program holds the other
//! end of the pipe, and even when it is killed nobody is left behind.

use std::io::Read;
use std::process;
use std::thread;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::failure::{Failure, Outcome};

/// How long a program whose starter is gone may take to leave.
const GRACE: Duration = Duration::from_secs(5);

/// Calls `ask` when a signal, or the end of standard input, asks to leave.
///
/// # Errors
/// Exit 1 when signals cannot be watched.
pub fn when_asked(with_stdin: bool, ask: impl Fn() + Clone + Send + 'static) -> Outcome {
    if with_stdin {
        let ask = ask.clone();
        thread::spawn(move || {
            // Bytes mean nothing, and a read that fails means as much as the end.
            let mut ignored = [0; 64];
            while matches!(std::io::stdin().read(&mut ignored), Ok(1..)) {}
            ask();
            thread::sleep(GRACE);
            process::exit(1);
        });
    }
    let failed = |error: std::io::Error| Failure::failed(format!("cannot watch for signals: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(failed)?;
    let (mut interrupt, mut terminate, mut hangup) = {
        let _entered = runtime.enter();
        (
            signal(SignalKind::interrupt()).map_err(failed)?,
            signal(SignalKind::terminate()).map_err(failed)?,
            signal(SignalKind::hangup()).map_err(failed)?,
        )
    };
    thread::spawn(move || {
        runtime.block_on(async {
            for second in [false, true] {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
                if second {
                    process::exit(1);
                }
                ask();
            }
        });
    });
    Ok(())
}
