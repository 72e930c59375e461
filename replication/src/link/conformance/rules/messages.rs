//! Rules about single messages: bytes, sizes, removal.

use crate::link::conformance::trial::{Trial, Verdict, broken, ids, payload};
use crate::link::{LinkError, MAX_MESSAGE_BYTES, MessageId};

pub(super) async fn bytes_unchanged(trial: Trial) -> Verdict {
    let (hq, bern) = (trial.site("hq")?, trial.site("bern")?);
    let sender = trial.link(&hq).await?;
    let every: Vec<u8> = (0..=u8::MAX).collect();
    let messages = [
        every,
        b"\r\n.\r\n\0\0".to_vec(),
        b"From hq\n\n".to_vec(),
        vec![0; 64],
        vec![0xff; 3],
        "Zürich \u{2028}".as_bytes().to_vec(),
        payload(10_000, 1),
    ];
    for message in &messages {
        trial.deliver(&sender, &bern, message).await?;
    }
    trial.waits(&trial.link(&bern).await?, &messages).await?;
    Ok(())
}

pub(super) async fn every_size(trial: Trial) -> Verdict {
    let (hq, bern) = (trial.site("hq")?, trial.site("bern")?);
    let (sender, receiver) = (trial.link(&hq).await?, trial.link(&bern).await?);
    let largest = trial.options.largest;
    let sizes = [
        1,
        2,
        3,
        7,
        8,
        9,
        511,
        512,
        513,
        4_095,
        4_096,
        4_097,
        65_535,
        65_536,
        65_537,
        1 << 20,
        largest,
    ];
    for (seed, size) in (0_u64..).zip(sizes.into_iter().filter(|size| *size <= largest)) {
        let message = payload(size, seed);
        trial.deliver(&sender, &bern, &message).await?;
        let found = trial.waits(&receiver, std::slice::from_ref(&message)).await?;
        trial.remove(&receiver, &ids(&found)).await?;
    }
    Ok(())
}

pub(super) async fn refused_sizes(trial: Trial) -> Verdict {
    let (hq, bern) = (trial.site("hq")?, trial.site("bern")?);
    let sender = trial.link(&hq).await?;
    let too_large = trial.options.largest.min(MAX_MESSAGE_BYTES).saturating_add(1);
    for message in [Vec::new(), vec![7; too_large]] {
        let call = format!("delivering {} bytes", message.len());
        match trial.ended(&call, sender.deliver(&bern, &message)).await? {
            Err(LinkError::Invalid { .. }) => {}
            Err(error) => return broken(format!("{call} is not Invalid but: {error}")),
            Ok(()) => return broken(format!("{call} is taken")),
        }
    }
    trial.waits(&trial.link(&bern).await?, &[]).await?;
    Ok(())
}

pub(super) async fn stays_until_removed(trial: Trial) -> Verdict {
    let (hq, bern) = (trial.site("hq")?, trial.site("bern")?);
    let sender = trial.link(&hq).await?;
    let messages = [payload(100, 1), payload(5_000, 2)];
    for message in &messages {
        trial.deliver(&sender, &bern, message).await?;
    }
    let receiver = trial.link(&bern).await?;
    for _ in 0..3 {
        trial.waits(&receiver, &messages).await?;
    }
    trial.waits(&trial.link(&bern).await?, &messages).await?;
    Ok(())
}

pub(super) async fn removed_is_gone(trial: Trial) -> Verdict {
    let (hq, bern) = (trial.site("hq")?, trial.site("bern")?);
    let (sender, receiver) = (trial.link(&hq).await?, trial.link(&bern).await?);
    let mut left: Vec<Vec<u8>> = (0..6).map(|seed| payload(200, seed)).collect();
    for message in &left {
        trial.deliver(&sender, &bern, message).await?;
    }
    // From the middle outwards: a list that shifts would take the wrong one.
    for at in [3, 0, 3] {
        let found = trial.waits(&receiver, &left).await?;
        let gone = left.remove(at);
        let named: Vec<MessageId> = found
            .into_iter()
            .filter(|one| one.bytes == gone)
            .map(|one| one.id)
            .collect();
        trial.remove(&receiver, &named).await?;
        trial.waits(&receiver, &left).await?;
    }
    // What comes later must not be taken for what is gone.
    let later = payload(200, 99);
    trial.deliver(&sender, &bern, &later).await?;
    left.push(later);
    trial.waits(&receiver, &left).await?;
    Ok(())
}

pub(super) async fn removing_again(trial: Trial) -> Verdict {
    let (hq, bern) = (trial.site("hq")?, trial.site("bern")?);
    let (sender, receiver) = (trial.link(&hq).await?, trial.link(&bern).await?);
    trial.remove(&receiver, &[]).await?;
    trial.deliver(&sender, &bern, b"one").await?;
    let found = trial.waits(&receiver, &[b"one".to_vec()]).await?;
    for _ in 0..3 {
        trial.remove(&receiver, &ids(&found)).await?;
    }
    // Delivered after it was removed, the same bytes are another message, which the old id does not name.
    trial.deliver(&sender, &bern, b"one").await?;
    trial.remove(&receiver, &ids(&found)).await?;
    trial.waits(&receiver, &[b"one".to_vec()]).await?;
    Ok(())
}

pub(super) async fn foreign_ids(trial: Trial) -> Verdict {
    let (hq, bern) = (trial.site("hq")?, trial.site("bern")?);
    let sender = trial.link(&hq).await?;
    trial.deliver(&sender, &bern, b"stays").await?;
    let receiver = trial.link(&bern).await?;
    let good = ids(&trial.waits(&receiver, &[b"stays".to_vec()]).await?);
    let long = "x".repeat(100_000);
    let foreign = [
        "",
        ".",
        "..",
        "../bern",
        "/etc/passwd",
        "a/b",
        "\0",
        "*",
        "%",
        "nobody gave this",
        &long,
    ];
    for text in foreign {
        let mut named = good.clone();
        named.push(MessageId::new(text));
        let shown: String = text.chars().take(30).collect();
        match trial.ended("removing", receiver.remove(&named)).await? {
            Err(LinkError::Invalid { .. }) => {}
            Err(error) => return broken(format!("the id {shown:?} is not Invalid but: {error}")),
            Ok(()) => return broken(format!("the id {shown:?} is taken for one of this link's")),
        }
    }
    trial.waits(&receiver, &[b"stays".to_vec()]).await?;
    Ok(())
}
