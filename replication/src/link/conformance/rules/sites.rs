//! Rules about whose message is whose.

use crate::link::conformance::trial::{Trial, Verdict, broken, ids, payload};

pub(super) async fn only_the_addressee(trial: Trial) -> Verdict {
    let (hq, bern, basel) = (trial.site("hq")?, trial.site("bern")?, trial.site("basel")?);
    let sender = trial.link(&hq).await?;
    let (for_bern, for_basel) = (payload(300, 1), payload(300, 2));
    trial.deliver(&sender, &bern, &for_bern).await?;
    trial.deliver(&sender, &basel, &for_basel).await?;
    trial.waits(&trial.link(&bern).await?, &[for_bern]).await?;
    trial.waits(&trial.link(&basel).await?, &[for_basel]).await?;
    trial.waits(&sender, &[]).await?;
    Ok(())
}

pub(super) async fn names_kept_apart(trial: Trial) -> Verdict {
    let longest = "x".repeat(64);
    let almost = "x".repeat(63);
    let names = [
        "a",
        "a-a",
        "a.a",
        "a_a",
        "a-",
        "aa",
        "0",
        "00",
        "a.mp",
        "a.tmp",
        "a.lock",
        "a-0123456789abcdef",
        "tmp",
        "lock",
        "index",
        "con",
        "nul",
        &longest,
        &almost,
    ];
    let hub = trial.site("hub")?;
    let sender = trial.link(&hub).await?;
    for (seed, name) in (0_u64..).zip(names) {
        let to = trial.site(name)?;
        trial.deliver(&sender, &to, &payload(50, seed)).await?;
    }
    for (seed, name) in (0_u64..).zip(names) {
        let own = trial.site(name)?;
        let link = trial.link(&own).await?;
        trial.waits(&link, &[payload(50, seed)]).await?;
        // And each of them is a sender too.
        trial.deliver(&link, &hub, &payload(60, seed)).await?;
    }
    let all: Vec<Vec<u8>> = (0_u64..).zip(names).map(|(seed, _)| payload(60, seed)).collect();
    trial.waits(&sender, &all).await?;
    Ok(())
}

pub(super) async fn ones_own_removal(trial: Trial) -> Verdict {
    let (hq, bern, basel) = (trial.site("hq")?, trial.site("bern")?, trial.site("basel")?);
    let sender = trial.link(&hq).await?;
    // The same bytes to both: only the mailbox tells them apart.
    let message = payload(300, 1);
    trial.deliver(&sender, &bern, &message).await?;
    trial.deliver(&sender, &basel, &message).await?;
    let (first, second) = (trial.link(&bern).await?, trial.link(&basel).await?);
    let expected = [message];
    let found = ids(&trial.waits(&first, &expected).await?);
    trial.waits(&second, &expected).await?;
    trial.remove(&first, &found).await?;
    trial.waits(&second, &expected).await?;
    trial.waits(&first, &[]).await?;
    Ok(())
}

pub(super) async fn says_its_address(trial: Trial) -> Verdict {
    let hq = trial.site("hq")?;
    let address = trial.link(&hq).await?.address();
    if address.trim().is_empty() || address.chars().any(char::is_control) {
        return broken(format!("the address is {address:?}"));
    }
    Ok(())
}
