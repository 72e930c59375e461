//! Opens links from addresses as `remote add --link` and `-x` give them.

use std::sync::Arc;

use milepost_engine::{Error, Result, Store};

use crate::endpoint::LinkAddress;
use crate::link::{DirectoryLink, Link};

use super::{AgentOptions, OpenLink};

/// What opens the links of a store's agent. Endpoints of the options replace those of every remote that
/// is on a server.
#[must_use]
pub fn link_opener(store: &Store, _options: &AgentOptions) -> Box<OpenLink> {
    let (own, rng) = (store.site().clone(), Arc::clone(store.rng()));
    Box::new(move |addresses: &[String]| {
        let parsed = addresses.iter().map(|text| text.parse()).collect::<Result<Vec<LinkAddress>>>()?;
        match &parsed[..] {
            [LinkAddress::Directory(dir)] => {
                let link: Arc<dyn Link> = Arc::new(DirectoryLink::new(dir, own.clone(), Arc::clone(&rng)));
                Ok(link)
            }
            _ => Err(Error::invalid(format!("the addresses {addresses:?} are no one directory"))),
        }
    })
}
