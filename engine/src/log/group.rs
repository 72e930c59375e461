//! Group commit within a handle: callers meet in batches; who comes first leads its batch.
//!
//! ```text
//! A, B, C arrive ─► batch 1, led by A ─► A writes it ─► A syncs it ──────────────► A, B, C are told, all at once
//! D, E arrive meanwhile ─► batch 2, led by D ─────────── D waits for A's sync ───► D writes …
//! X arrives, buffered ─► batch 2 is hurried: D writes it at once, X is told, E waits for D's sync
//! ```
//!
//! - One batch is written at a time. A batch that waits for nothing but a sync gathers callers until that sync
//!   ends, because the next cannot begin earlier; so each is woken once, by who synced for it.
//! - A leader whose batch is smaller than the former one lets those run first who are about to join it.
//! - In a crowd who waits lets others run a few times before it sleeps: when all have run, the sync is mostly over,
//!   and nobody need be woken. Both only while that is cheap (`courtesy`).
//! - [`Group`] is the handover alone: who leads, who waits, who gets which result. What is written and synced is
//!   its caller's, so that loom can run every interleaving of it (`loom_models/group.rs`).

use std::collections::VecDeque;
use std::time::Duration;

use crate::sync::{Arc, AtomicBool, Condvar, Mutex, MutexGuard, Ordering};
use crate::{Error, Lsn, Result};

use super::Log;
use super::append::{Request, Written};
use super::control::LOOK_AGAIN;
use super::courtesy::Courtesy;
use super::judge::Judge;

/// Most bytes of frames in one batch: 4 MiB, or a single larger request.
const MOST_BYTES: u64 = 4 << 20;

/// How often a leader lets others run before it goes ahead with what it has, and who waits in a crowd before it sleeps.
const MOST_YIELDS: u32 = 16;
/// So many in a batch are a crowd. Fewer would have run long before the sync ends, for nothing.
const CROWD: usize = 16;
/// It stays one until two batches in a row are smaller than this: while some of it sleeps, it comes in halves.
const HALF: usize = CROWD / 2;

/// What a caller waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Its request was written.
    Written,
    /// A sync of its batch has ended, one way or the other; the caller asks which.
    Synced,
}

/// Batches that wait for their turn.
pub(crate) struct Group<R, T> {
    state: Mutex<State<R, T>>,
    /// Leaders wait here for their turn.
    turn: Condvar,
    wakes: Wakes,
    courtesy: Courtesy,
}

/// How those who wait are woken. Models put others in its place, to see them fail.
#[derive(Clone, Copy)]
pub(crate) struct Wakes {
    /// Leaders, whose turn it may be.
    pub leaders: fn(&Condvar),
    /// Those who joined a batch, of which something became.
    pub followers: fn(&Condvar),
}

struct State<R, T> {
    /// In the order in which they are written; the last one may still be joined.
    batches: VecDeque<Gathering<R, T>>,
    /// A leader writes.
    writing: bool,
    /// A leader syncs, and batches that wait for a sync alone wait for its end.
    syncing: bool,
    /// Requests of the batch written last,
    last_size: usize,
    /// and of the one before.
    size_before: usize,
    is_crowd: bool,
}

/// A batch that is not written yet.
struct Gathering<R, T> {
    batch: Arc<Batch<T>>,
    requests: Vec<R>,
    bytes: u64,
    /// Somebody waits for the write alone, so it does not wait for a sync.
    hurried: bool,
}

/// What became of a batch; those who joined it wait here.
struct Batch<T> {
    outcomes: Mutex<Outcomes<T>>,
    moved: Condvar,
    /// A hint for those who do not sleep yet; what counts is in `outcomes`.
    is_over: AtomicBool,
}

struct Outcomes<T> {
    /// In the order of the requests; each caller takes its own.
    results: Vec<Option<T>>,
    /// The furthest that all who wait may know of.
    reached: Option<Wait>,
}

/// What a leader does with its batch.
pub(crate) trait Write<R, T> {
    /// Weight of a request; those that weigh more than [`MOST_BYTES`] together go in several batches.
    fn bytes(&self, request: &R) -> u64;
    /// Writes requests in order; one result for each.
    fn write(&self, requests: &[R]) -> Vec<T>;
    /// Where the log must be durable for all of these.
    fn due(&self, results: &[T]) -> Lsn;
    /// Makes that durable, or fails to; every caller asks again for itself.
    fn sync(&self, due: Lsn);
    /// The time, to tell what letting others run costs.
    fn now(&self) -> Duration;
    /// The result of a request whose leader panicked: nobody knows what became of it.
    fn lost(&self) -> T;
}

impl<R, T> Default for Group<R, T> {
    fn default() -> Self {
        Group::woken_by(Wakes {
            leaders: Condvar::notify_all,
            followers: Condvar::notify_all,
        })
    }
}

impl<R, T> Group<R, T> {
    /// A group whose waiters are woken so.
    pub(crate) fn woken_by(wakes: Wakes) -> Group<R, T> {
        Group {
            state: Mutex::new(State {
                batches: VecDeque::new(),
                writing: false,
                syncing: false,
                last_size: 0,
                size_before: 0,
                is_crowd: false,
            }),
            turn: Condvar::new(),
            wakes,
            courtesy: Courtesy::default(),
        }
    }

    /// Has a request written together with others that wait; returns its result when that is so, or after a
    /// sync of the batch.
    pub(crate) fn submit(&self, request: R, wait: Wait, writer: &dyn Write<R, T>) -> T {
        let mut state = self.state.lock();
        let (batch, number) = state.join(request, wait, writer);
        if number == 0 {
            return self.lead(state, &batch, wait, writer);
        }
        if wait == Wait::Written && !state.writing {
            // Its leader may wait for a sync that this request does not wait for.
            (self.wakes.leaders)(&self.turn);
        }
        let is_crowd = state.is_crowd(number);
        drop(state);
        if is_crowd && wait == Wait::Synced {
            batch.linger(&self.courtesy, &|| writer.now());
        }
        batch.follow(number, wait).unwrap_or_else(|| writer.lost())
    }

    fn lead(
        &self,
        state: MutexGuard<'_, State<R, T>>,
        batch: &Arc<Batch<T>>,
        wait: Wait,
        writer: &dyn Write<R, T>,
    ) -> T {
        let mut state = self.my_turn(state, batch, writer);
        state.writing = true;
        let gathered = state.batches.pop_front();
        drop(state);
        let (requests, hurried) = gathered.map_or((Vec::new(), false), |own| (own.requests, own.hurried));
        let mut lead = Lead {
            group: self,
            writer,
            batch,
            size: requests.len(),
            syncing: false,
        };
        let results = writer.write(&requests);
        let due = writer.due(&results);
        lead.wrote(results, wait, hurried);
        if lead.syncing {
            writer.sync(due);
        }
        drop(lead);
        batch.follow(0, Wait::Written).unwrap_or_else(|| writer.lost())
    }

    /// Waits until the batch is the first and may be written.
    fn my_turn<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<R, T>>,
        batch: &Arc<Batch<T>>,
        writer: &dyn Write<R, T>,
    ) -> MutexGuard<'a, State<R, T>> {
        let (mut size, mut yields) = (0, 0);
        loop {
            let first = state.batches.front();
            let own = first.filter(|first| Arc::ptr_eq(&first.batch, batch));
            let free = own.filter(|own| !state.writing && (own.hurried || !state.syncing));
            let Some(own) = free else {
                state = self.turn.wait_for(state, LOOK_AGAIN);
                continue;
            };
            // Who was told a moment ago is about to come again: one yield lets several of them in.
            let grows = own.requests.len() > size && own.requests.len() < state.last_size;
            if !grows || own.hurried || yields == MOST_YIELDS {
                return state;
            }
            (size, yields) = (own.requests.len(), yields + 1);
            drop(state);
            if !self.courtesy.give_way(|| writer.now()) {
                yields = MOST_YIELDS;
            }
            state = self.state.lock();
        }
    }
}

impl<R, T> State<R, T> {
    /// True when so many come together, with `number` others in the batch that gathers, that letting them run is quicker than sleeping.
    fn is_crowd(&mut self, number: usize) -> bool {
        let most = self.last_size.max(number);
        self.is_crowd = most >= CROWD || (self.is_crowd && most.max(self.size_before) >= HALF);
        self.is_crowd
    }

    /// A batch of so many is written.
    fn wrote(&mut self, size: usize) {
        (self.size_before, self.last_size) = (self.last_size, size);
    }

    /// Puts a request into the last batch, or into a new one; its number there.
    fn join(&mut self, request: R, wait: Wait, writer: &dyn Write<R, T>) -> (Arc<Batch<T>>, usize) {
        let bytes = writer.bytes(&request);
        if wait == Wait::Written {
            self.batches.iter_mut().for_each(|before| before.hurried = true);
        }
        let has_room = |last: &&mut Gathering<R, T>| last.bytes + bytes <= MOST_BYTES;
        if let Some(last) = self.batches.back_mut().filter(has_room) {
            last.requests.push(request);
            last.bytes += bytes;
            return (Arc::clone(&last.batch), last.requests.len() - 1);
        }
        let batch = Arc::new(Batch {
            outcomes: Mutex::new(Outcomes {
                results: Vec::new(),
                reached: None,
            }),
            moved: Condvar::new(),
            is_over: AtomicBool::new(false),
        });
        self.batches.push_back(Gathering {
            batch: Arc::clone(&batch),
            requests: vec![request],
            bytes,
            hurried: wait == Wait::Written,
        });
        (batch, 0)
    }
}

impl<T> Batch<T> {
    /// Lets others run, who have as much to do, until the batch is over or each may have had its turn. To sleep and be
    /// woken costs several times as much.
    fn linger(&self, courtesy: &Courtesy, now: &dyn Fn() -> Duration) {
        for _ in 0..MOST_YIELDS {
            if self.is_over.load(Ordering::Relaxed) || !courtesy.give_way(now) {
                return;
            }
        }
    }

    /// Waits for the batch and takes the result of request `number`; none is there when its leader gave up.
    fn follow(&self, number: usize, wait: Wait) -> Option<T> {
        let mut outcomes = self.outcomes.lock();
        while !matches!(outcomes.reached, Some(reached) if reached == wait || reached == Wait::Synced) {
            outcomes = self.moved.wait_for(outcomes, LOOK_AGAIN);
        }
        outcomes.results.get_mut(number).and_then(Option::take)
    }
}

/// Leadership of one batch. Dropping it lets another lead and tells those who joined, also when the write or the
/// sync panicked: those without a result learn that nobody knows what became of their commits.
struct Lead<'a, R, T> {
    group: &'a Group<R, T>,
    writer: &'a dyn Write<R, T>,
    batch: &'a Batch<T>,
    size: usize,
    /// This leader syncs; until it has written it writes.
    syncing: bool,
}

impl<R, T> Lead<'_, R, T> {
    /// The batch is written. Its leader goes on to sync it when it waits for that itself and nobody syncs
    /// already; otherwise each who waits for a sync sees to it alone.
    fn wrote(&mut self, results: Vec<T>, wait: Wait, hurried: bool) {
        {
            let mut outcomes = self.batch.outcomes.lock();
            outcomes.results = results.into_iter().map(Some).collect();
            outcomes.reached = Some(Wait::Written);
        }
        let mut state = self.group.state.lock();
        if wait == Wait::Written || state.syncing {
            return;
        }
        (state.writing, state.syncing, self.syncing) = (false, true, true);
        state.wrote(self.size);
        // A batch that does not wait for the sync, if there is one.
        if state.batches.iter().any(|next| next.hurried) {
            (self.group.wakes.leaders)(&self.group.turn);
        }
        drop(state);
        if hurried {
            (self.group.wakes.followers)(&self.batch.moved);
        }
    }
}

impl<R, T> Drop for Lead<'_, R, T> {
    fn drop(&mut self) {
        {
            let mut state = self.group.state.lock();
            let held = if self.syncing {
                &mut state.syncing
            } else {
                &mut state.writing
            };
            *held = false;
            if !self.syncing {
                state.wrote(self.size);
            }
            // First the next leader, which has most to do.
            if !state.batches.is_empty() {
                (self.group.wakes.leaders)(&self.group.turn);
            }
        }
        let mut outcomes = self.batch.outcomes.lock();
        let missing = self.size.saturating_sub(outcomes.results.len());
        outcomes
            .results
            .extend((0..missing).map(|_| Some(self.writer.lost())));
        outcomes.reached = Some(Wait::Synced);
        self.batch.is_over.store(true, Ordering::Relaxed);
        drop(outcomes);
        if self.size > 1 {
            (self.group.wakes.followers)(&self.batch.moved);
        }
    }
}

/// Writing to the log, under the append lock.
struct ToLog<'a> {
    log: &'a Log,
    /// Nothing of the batch can stand before this.
    from: Lsn,
    judge: &'a dyn Judge,
}

impl Write<Request, Result<Written>> for ToLog<'_> {
    fn bytes(&self, request: &Request) -> u64 {
        request.frames.iter().map(|frame| frame.len()).sum()
    }

    fn now(&self) -> Duration {
        self.log.clock.monotonic()
    }

    fn write(&self, requests: &[Request]) -> Vec<Result<Written>> {
        self.log.write(requests, self.judge)
    }

    fn due(&self, results: &[Result<Written>]) -> Lsn {
        let ends = results.iter().flatten().map(|written| match written {
            Written::Appended { end, .. } | Written::Wrong { end, .. } => *end,
        });
        ends.max().unwrap_or_default()
    }

    fn sync(&self, due: Lsn) {
        // A failure is found again by everybody who asks for what is due to it.
        if let Err(error) = self.log.make_durable(due) {
            tracing::debug!(%error, "a batch of commits is not durable");
        }
    }

    fn lost(&self) -> Result<Written> {
        Err(Error::internal(
            "the thread that wrote for others panicked; open the store again and ask by the id",
        )
        .maybe_written(self.from))
    }
}

impl Log {
    /// Has a request written together with others that wait; returns when it is in the log or refused. Who waits
    /// for a sync too still asks [`Log::make_durable`], which mostly finds it done.
    pub(crate) fn submit(&self, request: Request, wait: Wait, judge: &dyn Judge) -> Result<Written> {
        let from = self.control.durable();
        self.group.submit(
            request,
            wait,
            &ToLog {
                log: self,
                from,
                judge,
            },
        )
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    use super::*;
    use crate::sync::thread;

    /// A log whose syncs end when the test says so.
    struct Slow {
        begun: Sender<Lsn>,
        end: Mutex<Receiver<()>>,
        written: Mutex<Vec<Vec<u64>>>,
    }

    impl Write<u64, u64> for Slow {
        fn now(&self) -> Duration {
            Duration::ZERO
        }

        fn bytes(&self, request: &u64) -> u64 {
            *request
        }

        fn write(&self, requests: &[u64]) -> Vec<u64> {
            self.written.lock().push(requests.to_vec());
            requests.to_vec()
        }

        fn due(&self, results: &[u64]) -> Lsn {
            Lsn(results.iter().copied().max().unwrap_or(0))
        }

        fn sync(&self, due: Lsn) {
            self.begun.send(due).unwrap();
            let _ = self.end.lock().recv_timeout(PATIENCE);
        }

        fn lost(&self) -> u64 {
            u64::MAX
        }
    }

    const PATIENCE: Duration = Duration::from_secs(60);

    fn slow() -> (Slow, Receiver<Lsn>, Sender<()>) {
        let ((begun, begins), (ends, end)) = (channel(), channel());
        let log = Slow {
            begun,
            end: Mutex::new(end),
            written: Mutex::default(),
        };
        (log, begins, ends)
    }

    /// Has a first request in its sync, which lasts.
    fn begin_sync<'scope>(
        scope: &'scope thread::Scope<'scope, '_>,
        group: &'scope Group<u64, u64>,
        log: &'scope Slow,
        begins: &Receiver<Lsn>,
    ) {
        scope.spawn(|| group.submit(1, Wait::Synced, log));
        assert_eq!(begins.recv_timeout(PATIENCE).unwrap(), Lsn(1));
    }

    /// Waits until so many requests stand in batches that are not written.
    fn until_waiting(group: &Group<u64, u64>, count: usize) {
        while group
            .state
            .lock()
            .batches
            .iter()
            .map(|own| own.requests.len())
            .sum::<usize>()
            < count
        {
            thread::yield_now();
        }
    }

    /// The trap: 1 is in its sync, 2 waits for that sync's end. 3 waits for no sync, so the batch that it joins
    /// is written at once, 2 with it.
    #[test]
    fn who_waits_for_no_sync_is_not_kept_by_one() {
        let (log, begins, ends) = slow();
        let group = Group::default();
        thread::scope(|scope| {
            let (group, log) = (&group, &log);
            let first = scope.spawn(|| group.submit(1, Wait::Synced, log));
            assert_eq!(begins.recv_timeout(PATIENCE).unwrap(), Lsn(1));
            let second = scope.spawn(|| group.submit(2, Wait::Synced, log));
            until_waiting(group, 1);
            let (told, tells) = channel();
            scope.spawn(move || told.send(group.submit(3, Wait::Written, log)).unwrap());
            assert_eq!(
                tells.recv_timeout(PATIENCE).unwrap(),
                3,
                "told while the sync goes on"
            );
            assert!(!first.is_finished());
            ends.send(()).unwrap();
            assert_eq!((first.join().unwrap(), second.join().unwrap()), (1, 2));
        });
        assert_eq!(*log.written.lock(), [vec![1], vec![2, 3]]);
    }

    /// The trap: three come while 1 is in its sync.
    #[test]
    fn who_comes_during_a_sync_shares_the_next_one() {
        let (log, begins, ends) = slow();
        let group = Group::default();
        thread::scope(|scope| {
            let (group, log) = (&group, &log);
            begin_sync(scope, group, log, &begins);
            for request in 2..5 {
                scope.spawn(move || assert_eq!(group.submit(request, Wait::Synced, log), request));
                until_waiting(group, request as usize - 1);
            }
            ends.send(()).unwrap();
            assert_eq!(begins.recv_timeout(PATIENCE).unwrap(), Lsn(4));
            ends.send(()).unwrap();
        });
        assert_eq!(*log.written.lock(), [vec![1], vec![2, 3, 4]]);
    }

    /// The trap: more wait than run before they sleep, so that some sleep and some do not when the sync ends.
    #[test]
    fn everybody_in_a_crowd_is_told_awake_or_asleep() {
        let (log, begins, ends) = slow();
        let group = Group::default();
        thread::scope(|scope| {
            let (group, log) = (&group, &log);
            begin_sync(scope, group, log, &begins);
            let crowd = 2 + 2 * u64::try_from(CROWD).unwrap();
            let told: Vec<_> = (2..crowd)
                .map(|request| {
                    let told = scope.spawn(move || group.submit(request, Wait::Synced, log));
                    until_waiting(group, usize::try_from(request).unwrap() - 1);
                    told
                })
                .collect();
            ends.send(()).unwrap();
            assert_eq!(begins.recv_timeout(PATIENCE).unwrap(), Lsn(crowd - 1));
            assert!(
                told.iter().all(|own| !own.is_finished()),
                "nobody is told before the sync ends"
            );
            ends.send(()).unwrap();
            for (request, own) in (2..crowd).zip(told) {
                assert_eq!(own.join().unwrap(), request);
            }
        });
    }

    #[test]
    fn a_batch_has_an_end() {
        let (log, begins, ends) = slow();
        let group = Group::default();
        thread::scope(|scope| {
            let (group, log) = (&group, &log);
            begin_sync(scope, group, log, &begins);
            for (waiting, request) in [MOST_BYTES - 1, 2, MOST_BYTES * 2].into_iter().enumerate() {
                scope.spawn(move || assert_eq!(group.submit(request, Wait::Synced, log), request));
                until_waiting(group, waiting + 1);
            }
            for _ in 0..4 {
                ends.send(()).unwrap();
            }
        });
        let expected = [vec![1], vec![MOST_BYTES - 1], vec![2], vec![MOST_BYTES * 2]];
        assert_eq!(*log.written.lock(), expected);
    }

    /// The trap: the leader's write panics while another has joined the batch behind it.
    #[test]
    fn who_followed_a_leader_that_panicked_is_told_and_the_next_one_leads() {
        struct Panics(Mutex<u32>);
        impl Write<u64, u64> for Panics {
            fn now(&self) -> Duration {
                Duration::ZERO
            }

            fn bytes(&self, _: &u64) -> u64 {
                1
            }
            fn write(&self, requests: &[u64]) -> Vec<u64> {
                *self.0.lock() += 1;
                assert!(*self.0.lock() > 1, "the first write panics");
                requests.to_vec()
            }
            fn due(&self, _: &[u64]) -> Lsn {
                Lsn(0)
            }
            fn sync(&self, _: Lsn) {}
            fn lost(&self) -> u64 {
                u64::MAX
            }
        }
        let (group, log) = (Group::default(), Panics(Mutex::new(0)));
        // As if a sync were under way, so that both meet in one batch.
        group.state.lock().syncing = true;
        thread::scope(|scope| {
            let leader = scope.spawn(|| group.submit(1, Wait::Synced, &log));
            until_waiting(&group, 1);
            let follower = scope.spawn(|| group.submit(2, Wait::Synced, &log));
            until_waiting(&group, 2);
            group.state.lock().syncing = false;
            group.turn.notify_all();
            assert!(leader.join().is_err());
            assert_eq!(follower.join().unwrap(), u64::MAX);
            assert_eq!(group.submit(3, Wait::Synced, &log), 3);
        });
    }
}
