//! Rules about rounds of polling: cursors, limits, what is skipped.

use std::collections::BTreeSet;

use crate::link::conformance::trial::{Trial, Verdict, broken, ids, payload, same};
use crate::link::{Link, MessageId};
use std::sync::Arc;

/// Puts some messages of 100 bytes into the mailbox of `bern`; the receiver's link, and what waits.
async fn filled(trial: &Trial, count: u64) -> Verdict<(Arc<dyn Link>, Vec<Vec<u8>>)> {
    let (hq, bern) = (trial.site("hq")?, trial.site("bern")?);
    let sender = trial.link(&hq).await?;
    let messages: Vec<Vec<u8>> = (0..count).map(|seed| payload(100, seed)).collect();
    for message in &messages {
        trial.deliver(&sender, &bern, message).await?;
    }
    Ok((trial.link(&bern).await?, messages))
}

pub(super) async fn end(trial: Trial) -> Verdict {
    let (receiver, messages) = filled(&trial, 25).await?;
    for size in [
        (1, 1 << 20),
        (4, 1 << 20),
        (24, 1 << 20),
        (25, 1 << 20),
        (26, 1 << 20),
    ] {
        let found = trial.round_of(&receiver, &BTreeSet::new(), size).await?;
        same(&found, &messages)?;
    }
    Ok(())
}

pub(super) async fn bounded(trial: Trial) -> Verdict {
    let (receiver, messages) = filled(&trial, 12).await?;
    let (most_count, most_bytes) = (5, 350);
    let (mut after, mut found) = (None, Vec::new());
    for _ in 0..1_000 {
        let nothing = BTreeSet::new();
        let batch = trial
            .batch(&receiver, after.as_ref(), &nothing, (most_count, most_bytes))
            .await?;
        let bytes: usize = batch.messages.iter().map(|one| one.bytes.len()).sum();
        if batch.messages.len() > 1 && bytes > most_bytes {
            let count = batch.messages.len();
            return broken(format!(
                "a batch of {count} messages has {bytes} bytes, asked for at most {most_bytes}"
            ));
        }
        found.extend(batch.messages);
        after = batch.next;
        if after.is_none() {
            return same(&found, &messages);
        }
    }
    broken("a round has not ended after 1,000 batches")
}

pub(super) async fn first_whatever_its_size(trial: Trial) -> Verdict {
    let (receiver, messages) = filled(&trial, 4).await?;
    for max_bytes in [0, 1, 99] {
        let found = trial
            .round_of(&receiver, &BTreeSet::new(), (10, max_bytes))
            .await?;
        same(&found, &messages)?;
    }
    Ok(())
}

pub(super) async fn skip(trial: Trial) -> Verdict {
    let (receiver, messages) = filled(&trial, 20).await?;
    let all = trial.waits(&receiver, &messages).await?;
    for (size, keep) in [((3, 1 << 20), 2), ((100, 1 << 20), 3), ((1, 1), 7)] {
        let mut skip: BTreeSet<MessageId> = ids(&all)
            .into_iter()
            .enumerate()
            .filter(|(at, _)| at % keep != 0)
            .map(|(_, id)| id)
            .collect();
        skip.insert(MessageId::new("nobody gave this"));
        let found = trial.round_of(&receiver, &skip, size).await?;
        let given: BTreeSet<&MessageId> = found.iter().map(|one| &one.id).collect();
        let missing = all
            .iter()
            .filter(|one| !skip.contains(&one.id) && !given.contains(&one.id));
        if let Some(missing) = missing.map(|one| &one.id).next() {
            return broken(format!("{missing} is not to be skipped, and is not given"));
        }
    }
    trial.waits(&receiver, &messages).await?;
    Ok(())
}

pub(super) async fn removal_within(trial: Trial) -> Verdict {
    let (receiver, messages) = filled(&trial, 25).await?;
    let (mut after, mut found) = (None, Vec::new());
    for _ in 0..1_000 {
        let nothing = BTreeSet::new();
        let batch = trial
            .batch(&receiver, after.as_ref(), &nothing, (3, 1 << 20))
            .await?;
        trial.remove(&receiver, &ids(&batch.messages)).await?;
        found.extend(batch.messages);
        after = batch.next;
        if after.is_none() {
            same(&found, &messages)?;
            trial.waits(&receiver, &[]).await?;
            return Ok(());
        }
    }
    broken("a round has not ended after 1,000 batches")
}

pub(super) async fn begin_round(trial: Trial) -> Verdict {
    let (receiver, mut messages) = filled(&trial, 5).await?;
    receiver.begin_round();
    receiver.begin_round();
    let nothing = BTreeSet::new();
    let batch = trial.batch(&receiver, None, &nothing, (2, 1 << 20)).await?;
    receiver.begin_round();
    if let Some(next) = &batch.next {
        trial.batch(&receiver, Some(next), &nothing, (2, 1 << 20)).await?;
    }
    let (hq, bern) = (trial.site("hq")?, trial.site("bern")?);
    let sender = trial.link(&hq).await?;
    sender.begin_round();
    let later = payload(100, 77);
    trial.deliver(&sender, &bern, &later).await?;
    sender.begin_round();
    messages.push(later);
    trial.waits(&receiver, &messages).await?;
    Ok(())
}
