//! What both ways of `replicate` define: a publisher that gives all to a subscriber.

use milepost_engine::{SiteName, Store};
use milepost_replication::catalog::{
    Definitions, NewPublication, NewRemote, NewSubscription, Schedule, Start,
};

use crate::Outcome;

/// The publisher gives all its events to the subscriber, over this link.
pub(super) fn subscribe(from: &Store, to: &Store, link: &str, schedule: Schedule) -> Outcome<()> {
    let (hq, shop) = (from.site().clone(), to.site().clone());
    let definitions = Definitions::new(from);
    let publication = NewPublication::new("all", &["orders/**".to_owned()], &[], None);
    definitions.add_publication(publication, false)?;
    definitions.add_remote(remote(&shop, link, schedule, false), false)?;
    definitions.add_subscription(NewSubscription {
        remote: shop,
        publication: "all".to_owned(),
        value: None,
        start: Start::Now,
    })?;
    Definitions::new(to).add_remote(remote(&hq, link, schedule, true), false)?;
    Ok(())
}

fn remote(site: &SiteName, link: &str, schedule: Schedule, consolidated: bool) -> NewRemote {
    NewRemote {
        site: site.clone(),
        links: vec![link.to_owned()],
        schedule,
        consolidated,
        on_error: Default::default(),
        limits: Default::default(),
    }
}
