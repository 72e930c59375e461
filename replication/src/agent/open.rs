//! Opens links from addresses as `remote add --link` and `-x` give them.

use std::sync::Arc;

use milepost_engine::{Error, Store};

use crate::bundle::ByBundleOnly;
use crate::catalog::{Catalog, Remote};
use crate::endpoint::{EndpointList, LinkAddress, PrimaryRetries};
use crate::link::{DirectoryLink, Link, ServerLink, ServerLinkOptions};

use super::{AgentOptions, OpenLink};

/// What opens the links of a store's agent: one directory, or a list of servers with the primary first.
#[must_use]
pub fn link_opener(store: &Store, options: &AgentOptions) -> Box<OpenLink> {
    let (own, rng) = (store.site().clone(), Arc::clone(store.rng()));
    let primary = PrimaryRetries {
        count: options.primary_retries,
        delay: options.primary_retry_delay,
    };
    let (connect_timeout, one_round) = (options.connect_timeout, options.batch);
    // One for all links of the process: two lists may name the same servers in another order.
    let session = Some(rng.next_u64());
    Box::new(move |addresses: &[String]| {
        let first = addresses.first().map(|text| text.parse()).transpose()?;
        let link: Arc<dyn Link> = match first {
            Some(LinkAddress::Directory(dir)) if addresses.len() == 1 => {
                Arc::new(DirectoryLink::new(dir, own.clone(), Arc::clone(&rng)))
            }
            Some(LinkAddress::Directory(dir)) => {
                let dir = dir.display();
                return Err(Error::invalid(format!(
                    "a directory ({dir}) has no alternates; give it alone"
                )));
            }
            Some(LinkAddress::Bundle) if addresses.len() == 1 => Arc::new(ByBundleOnly),
            Some(LinkAddress::Bundle) => {
                return Err(Error::invalid("bundle: has no alternates; give it alone"));
            }
            Some(LinkAddress::Server(_)) => {
                let list = EndpointList::parse(addresses)?;
                let options = ServerLinkOptions {
                    primary,
                    connect_timeout,
                    session,
                    one_round,
                    ..ServerLinkOptions::default()
                };
                Arc::new(ServerLink::new(own.clone(), list, options, Arc::clone(&rng)))
            }
            None => return Err(Error::invalid("a remote has no link address")),
        };
        Ok(link)
    })
}

/// The addresses a remote is reached at: its own, or the endpoints of the command line (`-x`). These are for
/// the remotes whose own are servers, and for all when no remote has one; never for those reached by bundles.
pub(super) fn effective<'a>(remote: &'a Remote, catalog: &Catalog, endpoints: &'a [String]) -> &'a [String] {
    if endpoints.is_empty() || remote.is_carried() {
        return &remote.links;
    }
    if is_on_server(remote) || !catalog.remotes().any(is_on_server) {
        endpoints
    } else {
        &remote.links
    }
}

fn is_on_server(remote: &Remote) -> bool {
    let first = remote.links.first();
    first.is_some_and(|text| matches!(text.parse(), Ok(LinkAddress::Server(_))))
}
