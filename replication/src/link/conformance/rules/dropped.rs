//! Rules about calls that are dropped half-way, as the agent drops them when it is asked to leave.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use crate::link::PollRequest;
use crate::link::conformance::trial::{Trial, Verdict, broken, ids, payload};

/// Calls are dropped after as many steps as this, each number of them once.
const MOST_STEPS: usize = 8;

/// Runs a call for some steps and drops it; what it gave when it had ended by then.
async fn dropped_after<T>(steps: usize, call: impl Future<Output = T>) -> Option<T> {
    let mut call = pin!(call);
    let mut left = steps;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match call.as_mut().poll(context) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

pub(super) async fn deliver(trial: Trial) -> Verdict {
    let (hq, bern) = (trial.site("hq")?, trial.site("bern")?);
    let (sender, receiver) = (trial.link(&hq).await?, trial.link(&bern).await?);
    let large = trial.options.largest.min(1 << 20);
    let mut possible = Vec::new();
    let mut certain = Vec::new();
    for (seed, steps) in (0_u64..).zip(1..=MOST_STEPS) {
        let message = payload(large, seed);
        let call = dropped_after(steps, sender.deliver(&bern, &message));
        if let Some(ended) = trial.ended("delivering", call).await? {
            trial.called("delivering", async { ended }).await?;
            certain.push(message.clone());
        }
        possible.push(message);
        // While what was dropped may still be at work, and after it had a moment.
        for _ in 0..3 {
            for one in trial.round(&receiver).await? {
                if !possible.contains(&one.bytes) {
                    return broken(format!(
                        "a message of {} bytes is given after one of {large} was dropped half-way",
                        one.bytes.len()
                    ));
                }
            }
            trial.moment().await;
        }
        let after = payload(100, 1_000 + seed);
        trial.deliver(&sender, &bern, &after).await?;
        possible.push(after.clone());
        certain.push(after);
    }
    let found = trial.round(&receiver).await?;
    match certain
        .iter()
        .find(|message| found.iter().all(|one| one.bytes != **message))
    {
        Some(lost) => broken(format!(
            "a message of {} bytes that was taken is not given",
            lost.len()
        )),
        None => Ok(()),
    }
}

pub(super) async fn poll(trial: Trial) -> Verdict {
    let (hq, bern) = (trial.site("hq")?, trial.site("bern")?);
    let (sender, receiver) = (trial.link(&hq).await?, trial.link(&bern).await?);
    let messages: Vec<Vec<u8>> = (0..6).map(|seed| payload(20_000, seed)).collect();
    for message in &messages {
        trial.deliver(&sender, &bern, message).await?;
    }
    for steps in 1..=MOST_STEPS {
        let nothing = BTreeSet::new();
        let request = PollRequest {
            after: None,
            skip: &nothing,
            max_count: 100,
            max_bytes: 1 << 20,
        };
        trial
            .ended("polling", dropped_after(steps, receiver.poll(request)))
            .await?;
        trial.waits(&receiver, &messages).await?;
    }
    Ok(())
}

pub(super) async fn remove(trial: Trial) -> Verdict {
    let (hq, bern) = (trial.site("hq")?, trial.site("bern")?);
    let (sender, receiver) = (trial.link(&hq).await?, trial.link(&bern).await?);
    let stays: Vec<Vec<u8>> = (100..104).map(|seed| payload(300, seed)).collect();
    for message in &stays {
        trial.deliver(&sender, &bern, message).await?;
    }
    for (seed, steps) in (0_u64..).zip(1..=MOST_STEPS) {
        let goes = payload(300, seed);
        trial.deliver(&sender, &bern, &goes).await?;
        let mut found = trial.round(&receiver).await?;
        found.retain(|one| one.bytes == goes);
        let named = ids(&found);
        trial
            .ended("removing", dropped_after(steps, receiver.remove(&named)))
            .await?;
        // It may be gone or not; asked again to its end, it is, and nothing else.
        trial.remove(&receiver, &named).await?;
        trial.waits(&receiver, &stays).await?;
    }
    Ok(())
}
