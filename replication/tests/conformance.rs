//! Every link there is keeps every rule of a link: directory, server, and the example of docs/links.md.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

#[path = "../examples/mailbox_file.rs"]
#[allow(dead_code)]
mod mailbox_file;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use milepost_engine::SiteName;
use milepost_engine::clock::SystemRng;
use milepost_replication::endpoint::{Endpoint, EndpointList};
use milepost_replication::link::conformance::{Medium, Options, check};
use milepost_replication::link::{DirectoryLink, Link, LinkFuture, ServerLink, ServerLinkOptions};
use milepost_replication::server::{EmbeddedStore, MailboxLimits, ServerLimits, accept};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

struct Directory(TempDir);

impl Medium for Directory {
    fn link<'a>(&'a self, own: &'a SiteName) -> LinkFuture<'a, Arc<dyn Link>> {
        let link = DirectoryLink::new(self.0.path(), own.clone(), Arc::new(SystemRng));
        let link: Arc<dyn Link> = Arc::new(link);
        Box::pin(async { Ok(link) })
    }

    fn leave_half_written(&self, from: &SiteName, to: &SiteName) -> bool {
        let folder = self.0.path().join(to.as_str());
        std::fs::create_dir_all(&folder).unwrap();
        let name = format!(".{from}-00000000000000aa.tmp");
        std::fs::write(folder.join(name), b"half").unwrap();
        true
    }

    fn half_written(&self, from: &SiteName) -> usize {
        let own = format!(".{from}-");
        let mailboxes = std::fs::read_dir(self.0.path()).unwrap();
        let files = mailboxes.flat_map(|mailbox| std::fs::read_dir(mailbox.unwrap().path()).unwrap());
        files
            .filter(|file| {
                let name = file.as_ref().unwrap().file_name();
                name.to_str().unwrap().starts_with(&own)
            })
            .count()
    }
}

/// A server on the loopback over a store of its own; restarting it opens the store again.
struct Servers {
    dir: TempDir,
    serving: Mutex<Option<(SocketAddr, JoinHandle<()>)>>,
}

impl Servers {
    async fn new() -> Servers {
        let servers = Servers {
            dir: TempDir::new().unwrap(),
            serving: Mutex::default(),
        };
        servers.start().await;
        servers
    }

    async fn start(&self) {
        let options = milepost_engine::Options::new();
        let store = EmbeddedStore::open_or_init(self.dir.path(), options, MailboxLimits::default()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let limits = ServerLimits::default();
            accept(listener, Arc::new(store), limits, std::future::pending())
                .await
                .unwrap();
        });
        *self.serving.lock().unwrap() = Some((address, serving));
    }
}

impl Medium for Servers {
    fn link<'a>(&'a self, own: &'a SiteName) -> LinkFuture<'a, Arc<dyn Link>> {
        let address = self.serving.lock().unwrap().as_ref().unwrap().0;
        let endpoint = Endpoint::new(address.ip().to_string(), address.port()).unwrap();
        let list = EndpointList::new(vec![endpoint]).unwrap();
        let options = ServerLinkOptions::default();
        let link: Arc<dyn Link> = Arc::new(ServerLink::new(own.clone(), list, options, Arc::new(SystemRng)));
        Box::pin(async { Ok(link) })
    }

    fn restart(&self) -> LinkFuture<'_, ()> {
        Box::pin(async {
            let (_, serving) = self.serving.lock().unwrap().take().unwrap();
            serving.abort();
            let _ = serving.await;
            self.start().await;
            Ok(())
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_directory_keeps_every_rule_of_a_link() {
    let fresh = || async { Directory(TempDir::new().unwrap()) };
    let report = check(fresh, &Options::default()).await.conforming().unwrap();
    assert_eq!(report.skipped(), ["push-tells"], "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_keeps_every_rule_of_a_link() {
    let options = Options {
        push: true,
        ..Options::default()
    };
    let report = check(Servers::new, &options).await.conforming().unwrap();
    assert_eq!(report.skipped(), ["begin-sending-cleans"], "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_link_that_the_documentation_writes_keeps_every_rule_of_a_link() {
    let root = TempDir::new().unwrap();
    let report = mailbox_file::checked(root.path()).await.unwrap();
    assert!(report.contains("0 broken"), "{report}");
}
