//! Rules about what outlives a process.

use crate::link::conformance::trial::{Stop, Trial, Verdict, broken, ids, payload};

pub(super) async fn durable(trial: Trial) -> Verdict {
    let (hq, bern) = (trial.site("hq")?, trial.site("bern")?);
    let messages: Vec<Vec<u8>> = (0..5).map(|seed| payload(700, seed)).collect();
    for message in &messages {
        // Each by another process, so that the first of a mailbox is one too.
        let sender = trial.link(&hq).await?;
        trial.deliver(&sender, &bern, message).await?;
    }
    for _ in 0..2 {
        trial
            .called("restarting the medium", trial.medium.restart())
            .await?;
        trial.waits(&trial.link(&bern).await?, &messages).await?;
    }
    Ok(())
}

pub(super) async fn removed_for_good(trial: Trial) -> Verdict {
    let (hq, bern) = (trial.site("hq")?, trial.site("bern")?);
    let stays = payload(700, 1);
    {
        let (sender, receiver) = (trial.link(&hq).await?, trial.link(&bern).await?);
        let goes: Vec<Vec<u8>> = (10..14).map(|seed| payload(700, seed)).collect();
        for message in &goes {
            trial.deliver(&sender, &bern, message).await?;
        }
        let found = trial.waits(&receiver, &goes).await?;
        trial.remove(&receiver, &ids(&found)).await?;
        trial.deliver(&sender, &bern, &stays).await?;
    }
    trial
        .called("restarting the medium", trial.medium.restart())
        .await?;
    trial.waits(&trial.link(&bern).await?, &[stays]).await?;
    Ok(())
}

pub(super) async fn begin_sending_keeps(trial: Trial) -> Verdict {
    let (hq, bern, basel) = (trial.site("hq")?, trial.site("bern")?, trial.site("basel")?);
    let (from_hq, from_basel, to_hq) = (payload(300, 1), payload(300, 2), payload(300, 3));
    {
        let (first, second) = (trial.link(&hq).await?, trial.link(&basel).await?);
        trial.deliver(&first, &bern, &from_hq).await?;
        trial.deliver(&second, &bern, &from_basel).await?;
        trial.deliver(&second, &hq, &to_hq).await?;
    }
    trial.medium.leave_half_written(&basel, &bern);
    let before = trial.medium.half_written(&basel);
    let again = trial.link(&hq).await?;
    for _ in 0..2 {
        trial.called("begin_sending", again.begin_sending()).await?;
    }
    trial
        .waits(&trial.link(&bern).await?, &[from_hq, from_basel])
        .await?;
    trial.waits(&again, &[to_hq]).await?;
    match trial.medium.half_written(&basel) {
        after if after == before => Ok(()),
        after => broken(format!(
            "another site had {before} half-written messages, and has {after}"
        )),
    }
}

pub(super) async fn begin_sending_cleans(trial: Trial) -> Verdict {
    let (hq, bern) = (trial.site("hq")?, trial.site("bern")?);
    if !trial.medium.leave_half_written(&hq, &bern) {
        return Err(Stop::Skipped(
            "the medium says that nothing is left half-written".to_owned(),
        ));
    }
    if trial.medium.half_written(&hq) == 0 {
        return broken("the medium left something half-written and does not count it: half_written");
    }
    trial.waits(&trial.link(&bern).await?, &[]).await?;
    let sender = trial.link(&hq).await?;
    trial.called("begin_sending", sender.begin_sending()).await?;
    match trial.medium.half_written(&hq) {
        0 => Ok(()),
        left => broken(format!("{left} half-written messages are still there")),
    }
}
