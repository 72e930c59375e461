//! Rules about being told that something came.

use std::sync::Arc;
use std::time::Duration;

use crate::link::conformance::trial::{Stop, Trial, Verdict, broken};

/// A limit that is over at once, on any machine, for a wait that does not hang.
const SHORT: Duration = Duration::from_millis(20);

pub(super) async fn wait_ends(trial: Trial) -> Verdict {
    let bern = trial.site("bern")?;
    let receiver = trial.link(&bern).await?;
    for _ in 0..2 {
        // True is allowed: a lost connection is told so.
        let _ = trial
            .ended("wait_for_push", receiver.wait_for_push(SHORT))
            .await?;
        trial.round(&receiver).await?;
    }
    let dropped = tokio::time::timeout(SHORT, receiver.wait_for_push(trial.options.patience)).await;
    drop(dropped);
    let _ = trial
        .ended("wait_for_push", receiver.wait_for_push(SHORT))
        .await?;
    trial.round(&receiver).await?;
    Ok(())
}

pub(super) async fn tells(trial: Trial) -> Verdict {
    if !trial.options.push {
        return Err(Stop::Skipped("the link is declared to have no push".to_owned()));
    }
    let (hq, bern) = (trial.site("hq")?, trial.site("bern")?);
    let (sender, receiver) = (trial.link(&hq).await?, trial.link(&bern).await?);
    for number in 0..3_u8 {
        // Who has polled is connected, and is told from then on.
        trial.round(&receiver).await?;
        let waiting = tokio::spawn({
            let (receiver, limit) = (Arc::clone(&receiver), trial.options.patience);
            async move { receiver.wait_for_push(limit).await }
        });
        trial.deliver(&sender, &bern, &[number]).await?;
        match trial.ended("wait_for_push", waiting).await? {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => return broken("a message came, and the wait ended by its limit"),
            Ok(Err(error)) => return broken(format!("wait_for_push fails: {error}")),
            Err(error) => return broken(format!("the link panicked: {error}")),
        }
        let found = trial.round(&receiver).await?;
        if found.iter().all(|one| one.bytes != [number]) {
            return broken("the wait ended, and the message is not given");
        }
    }
    Ok(())
}
