//! Rules about calls that are under way at once.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::link::Incoming;
use crate::link::conformance::trial::{Stop, Trial, Verdict, broken, ids, payload};

/// Tasks that deliver at once, and messages of each.
const TASKS: u64 = 4;
const EACH: u64 = 8;

fn joined<T>(result: Result<Verdict<T>, tokio::task::JoinError>) -> Verdict<T> {
    result.unwrap_or_else(|error| Err(Stop::Broken(format!("the link panicked: {error}"))))
}

/// Sizes differ, so that a mixture of two messages is none of them.
fn message(task: u64, number: u64) -> Vec<u8> {
    let seed = task * 1_000 + number;
    payload(usize::try_from(500 + seed * 37 % 30_000).unwrap_or(500), seed)
}

/// Begins deliveries of several tasks, the first half of which share one link.
async fn deliveries_begun(trial: &Trial) -> Verdict<JoinSet<Verdict>> {
    let (hq, basel, bern) = (trial.site("hq")?, trial.site("basel")?, trial.site("bern")?);
    let shared = trial.link(&hq).await?;
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let link = if task < TASKS / 2 {
            Arc::clone(&shared)
        } else {
            trial.link(&basel).await?
        };
        let (trial, bern) = (trial.clone(), bern.clone());
        tasks.spawn(async move {
            for number in 0..EACH {
                trial.deliver(&link, &bern, &message(task, number)).await?;
            }
            Ok(())
        });
    }
    Ok(tasks)
}

fn all() -> Vec<Vec<u8>> {
    let of = |task| (0..EACH).map(move |number| message(task, number));
    (0..TASKS).flat_map(of).collect()
}

pub(super) async fn deliveries(trial: Trial) -> Verdict {
    let mut tasks = deliveries_begun(&trial).await?;
    while let Some(ended) = tasks.join_next().await {
        joined(ended)?;
    }
    let bern = trial.site("bern")?;
    trial.waits(&trial.link(&bern).await?, &all()).await?;
    Ok(())
}

pub(super) async fn never_partial(trial: Trial) -> Verdict {
    let mut tasks = deliveries_begun(&trial).await?;
    let bern = trial.site("bern")?;
    let receiver = trial.link(&bern).await?;
    let all = all();
    let whole = |found: &[Incoming]| match found.iter().find(|one| !all.contains(&one.bytes)) {
        Some(partial) => broken(format!(
            "a message of {} bytes is given while others are delivered, and none of that content was",
            partial.bytes.len()
        )),
        None => Ok(()),
    };
    while !tasks.is_empty() {
        whole(&trial.round(&receiver).await?)?;
        while let Some(ended) = tasks.try_join_next() {
            joined(ended)?;
        }
    }
    trial.waits(&receiver, &all).await?;
    Ok(())
}

pub(super) async fn two_pollers(trial: Trial) -> Verdict {
    let mut tasks = deliveries_begun(&trial).await?;
    while let Some(ended) = tasks.join_next().await {
        joined(ended)?;
    }
    let bern = trial.site("bern")?;
    let receiver = trial.link(&bern).await?;
    let mut pollers = JoinSet::new();
    for _ in 0..2 {
        let (trial, receiver) = (trial.clone(), Arc::clone(&receiver));
        pollers.spawn(async move {
            let mut found = Vec::new();
            loop {
                let size = (3, 1 << 20);
                let nothing = std::collections::BTreeSet::new();
                let batch = trial.batch(&receiver, None, &nothing, size).await?;
                if batch.messages.is_empty() {
                    return Ok(found);
                }
                trial.remove(&receiver, &ids(&batch.messages)).await?;
                found.extend(batch.messages);
            }
        });
    }
    let mut found = Vec::new();
    while let Some(ended) = pollers.join_next().await {
        found.extend(joined(ended)?);
    }
    crate::link::conformance::trial::same(&found, &all())?;
    trial.waits(&receiver, &[]).await?;
    Ok(())
}
