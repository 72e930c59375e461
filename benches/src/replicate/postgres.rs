//! The peer: PostgreSQL's logical replication between two clusters of this machine, made for the run by `initdb` and gone
//! with it. Both have fsync on and talk over unix sockets, which is less than the loopback that Milepost takes.
//!
//! The subscription copies nothing. It is off while the rows of a catch-up are written, in transactions of as many rows as
//! Milepost's have events; each row is a stream's name and a payload. A round ends when the publisher's slot says that
//! the subscriber has flushed what was its log's end behind the last transaction (`confirmed_flush_lsn`), and the rows
//! are counted. Programs are those of Debian's `postgresql`; as root they run as the user `postgres`.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use milepost_engine::clock::{Clock, SystemClock};

use super::Case;
use super::processes::Process;
use crate::workload::{Workload, timed_ok};
use crate::{Outcome, Run};

/// What the table says of it.
pub(super) const ABOUT: &str = "two clusters, fsync on, wal_level=logical, max_wal_size=8GB, shared_buffers=256MB, the rest as \
     Debian has it; CREATE SUBSCRIPTION with copy_data=false, unix socket; until confirmed_flush_lsn is behind all";
/// Where Debian has its versions.
const VERSIONS: &str = "/usr/lib/postgresql";
/// Who may run it.
const USER: &str = "postgres";
const LOOK: Duration = Duration::from_millis(20);
/// A cluster begins within this.
const BEGINS: Duration = Duration::from_secs(60);
/// No row is confirmed for so long: none will be.
const PATIENCE: Duration = Duration::from_secs(120);

/// True when it is to take part: built with peers, and not left out by name.
pub(super) fn wanted(run: &Run) -> bool {
    cfg!(feature = "peers") && (run.peers.is_empty() || run.peers.iter().any(|name| name == "postgresql"))
}

/// Publisher and subscriber.
pub(super) struct Clusters {
    version: String,
    publisher: Cluster,
    subscriber: Cluster,
    workload: Workload,
}

impl Clusters {
    /// Makes and starts both, with a table, a publication and a subscription that is off.
    pub(super) fn make(folder: &Path, workload: &Workload) -> Outcome<Clusters> {
        let programs = programs()?;
        // Whose folder only its owner may enter.
        if let Some(parent) = folder.parent() {
            fs::set_permissions(parent, fs::Permissions::from_mode(0o711))?;
        }
        fs::create_dir(folder)?;
        let clusters = Clusters {
            version: version(&programs)?,
            publisher: Cluster::make(&programs, &folder.join("a"))?,
            subscriber: Cluster::make(&programs, &folder.join("b"))?,
            workload: *workload,
        };
        let table =
            "CREATE TABLE events (id bigserial PRIMARY KEY, stream text NOT NULL, payload bytea NOT NULL)";
        clusters.publisher.say(table)?;
        clusters.subscriber.say(table)?;
        clusters
            .publisher
            .say("CREATE PUBLICATION everything FOR TABLE events")?;
        let from = clusters.publisher.folder.display();
        clusters.subscriber.say(&format!(
            "CREATE SUBSCRIPTION everything CONNECTION 'host={from} user={USER} dbname=postgres' PUBLICATION everything \
             WITH (copy_data = false, enabled = false)"
        ))?;
        Ok(clusters)
    }

    /// Its version, as `postgres` says it.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// How long a workload takes to be flushed at the subscriber and known to be at the publisher.
    pub(super) fn measure(&self, case: Case) -> Outcome<Duration> {
        let before: u64 = self.subscriber.say("SELECT count(*) FROM events")?.parse()?;
        let enable = "ALTER SUBSCRIPTION everything ENABLE";
        let took = match case {
            Case::CatchUp => {
                self.write(1, "off")?;
                self.publisher.say("CHECKPOINT")?;
                timed_ok(|| {
                    self.subscriber.say(enable)?;
                    self.until_confirmed()
                })?
            }
            Case::Live(writers) => {
                self.subscriber.say(enable)?;
                timed_ok(|| {
                    self.write(writers, "on")?;
                    self.until_confirmed()
                })?
            }
            Case::OneByOne => return Err("PostgreSQL is not measured one by one".into()),
        };
        let arrived = self
            .subscriber
            .say("SELECT count(*) FROM events")?
            .parse::<u64>()?
            - before;
        let written = self.transactions(case) * self.workload.batch;
        self.subscriber.say("ALTER SUBSCRIPTION everything DISABLE")?;
        if arrived != written {
            return Err(format!("{arrived} of {written} rows arrived").into());
        }
        Ok(took.mul_f64(crate::report::real(self.workload.events) / crate::report::real(written)))
    }

    /// Transactions that all writers write together: whole ones, each as many.
    fn transactions(&self, case: Case) -> u64 {
        let writers = case.threads();
        self.workload
            .events
            .div_ceil(self.workload.batch)
            .div_ceil(writers)
            * writers
    }

    /// So many sessions write rows, each its share, transaction by transaction.
    fn write(&self, writers: u64, synchronous: &str) -> Outcome<()> {
        let (batch, payload) = (self.workload.batch, self.workload.payload);
        let transactions = self.workload.events.div_ceil(batch).div_ceil(writers);
        // Bytes that no compression makes smaller, as Milepost's are.
        let bytes = payload.div_ceil(32);
        let words = vec!["sha256((random()::text)::bytea)"; bytes].join(" || ");
        let durable = format!("SET synchronous_commit = {synchronous}");
        let block = format!(
            "DO $$ DECLARE bytes bytea := substr({words}, 1, {payload}); BEGIN FOR number IN 1..{transactions} LOOP \
             INSERT INTO events (stream, payload) \
             SELECT 'orders/' || (number * {batch} + one) % 1000, set_byte(bytes, 0, one % 256) \
             FROM generate_series(1, {batch}) AS one; \
             COMMIT; END LOOP; END $$"
        );
        let running: Vec<_> = (0..writers)
            .map(|_| self.publisher.psql(&[&durable, &block]).spawn())
            .collect::<Result<_, _>>()?;
        for session in running {
            let output = session.wait_with_output()?;
            if !output.status.success() {
                return Err(said(&output.stderr).into());
            }
        }
        Ok(())
    }

    /// Waits until the slot has confirmed what is the log's end now.
    fn until_confirmed(&self) -> Outcome<()> {
        let end = self.publisher.say("SELECT pg_current_wal_lsn()")?;
        let asked = format!(
            "SELECT confirmed_flush_lsn >= '{end}', confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 'everything'"
        );
        let (mut last, mut waited) = (String::new(), Duration::ZERO);
        loop {
            let line = self.publisher.say(&asked)?;
            if line.starts_with('t') {
                return Ok(());
            }
            waited = if line == last {
                waited + LOOK
            } else {
                Duration::ZERO
            };
            last = line;
            if waited > PATIENCE {
                return Err(format!("the subscriber confirms no more: {last}, of {end}").into());
            }
            SystemClock.sleep(LOOK);
        }
    }
}

/// One running cluster.
struct Cluster {
    folder: PathBuf,
    programs: PathBuf,
    server: Option<Process>,
}

impl Cluster {
    fn make(programs: &Path, folder: &Path) -> Outcome<Cluster> {
        fs::create_dir(folder)?;
        let (mut initdb, mut server) = (
            as_user(&programs.join("initdb")),
            as_user(&programs.join("postgres")),
        );
        if let Some((user, group)) = owner() {
            chown(folder, Some(user), Some(group))?;
        }
        let data = folder.join("data");
        initdb.args(["-A", "trust", "-U", USER, "-E", "UTF8", "--locale=C", "-D"]);
        let made = initdb.arg(&data).stdin(Stdio::null()).output()?;
        if !made.status.success() {
            return Err(format!("initdb: {}", said(&made.stderr)).into());
        }
        server.arg("-D").arg(&data).arg("-k").arg(folder);
        let settings = [
            "listen_addresses=",
            "wal_level=logical",
            "fsync=on",
            "max_wal_size=8GB",
            "shared_buffers=256MB",
        ];
        settings.iter().for_each(|setting| {
            server.args(["-c", setting]);
        });
        let mut cluster = Cluster {
            folder: folder.to_path_buf(),
            programs: programs.to_path_buf(),
            server: Some(Process::start("postgres", folder, server)?),
        };
        cluster.until_ready()?;
        Ok(cluster)
    }

    fn until_ready(&mut self) -> Outcome<()> {
        let began = SystemClock.monotonic();
        while self.say("SELECT 1").is_err() {
            if let Some(server) = &mut self.server {
                server.must_run()?;
            }
            if SystemClock.monotonic().saturating_sub(began) > BEGINS {
                return Err("the cluster does not begin".into());
            }
            SystemClock.sleep(LOOK);
        }
        Ok(())
    }

    /// A session that says these, each by itself.
    fn psql(&self, statements: &[&str]) -> Command {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            "postgres",
            "-U",
            USER,
            "-h",
        ]);
        psql.arg(&self.folder);
        for statement in statements {
            psql.arg("-c").arg(statement);
        }
        psql.stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        psql
    }

    /// What it answers.
    fn say(&self, words: &str) -> Outcome<String> {
        let output = self.psql(&[words]).output()?;
        if !output.status.success() {
            return Err(said(&output.stderr).into());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut stop = as_user(&self.programs.join("pg_ctl"));
        stop.args(["stop", "-m", "immediate", "-D"]);
        let stopped = stop.arg(self.folder.join("data")).output();
        // One that does not stop is killed: its children see that and leave.
        drop((stopped, self.server.take()));
    }
}

/// The newest of Debian's versions.
fn programs() -> Outcome<PathBuf> {
    let versions = fs::read_dir(VERSIONS).map_err(|error| format!("{VERSIONS}: {error}"))?;
    let found = versions.flatten().filter_map(|entry| {
        let version = entry.file_name().to_str()?.parse::<u32>().ok()?;
        let programs = entry.path().join("bin");
        programs.join("postgres").is_file().then_some((version, programs))
    });
    let newest = found.max().map(|(_, programs)| programs);
    newest.ok_or_else(|| format!("there is no PostgreSQL in {VERSIONS}").into())
}

fn version(programs: &Path) -> Outcome<String> {
    let output = Command::new(programs.join("postgres"))
        .arg("--version")
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text
        .split_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    Ok(version.unwrap_or("of an unknown version").to_owned())
}

/// A program of PostgreSQL, which does not run as root.
fn as_user(program: &Path) -> Command {
    if owner().is_none() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", USER, "--regid", USER, "--init-groups"])
        .arg(program);
    // A folder of root's that it may not enter is no place to begin in.
    command.current_dir("/");
    command
}

/// Whose the clusters are when we are root.
fn owner() -> Option<(u32, u32)> {
    let ours = fs::metadata("/proc/self").map(|us| us.uid());
    if ours.is_ok_and(|user| user != 0) {
        return None;
    }
    let known = fs::read_to_string("/etc/passwd").ok()?;
    let line = known.lines().find(|line| line.split(':').next() == Some(USER))?;
    let mut numbers = line.split(':').skip(2);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn said(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.lines().next().unwrap_or("nothing was said").to_owned()
}
