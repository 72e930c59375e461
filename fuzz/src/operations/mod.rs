//! Stories of one store on a failing disk, in a grammar that a fuzzer can write: two processes commit, read,
//! tend and feed the queue, operations of theirs fail, they die, power is lost; [`Story::tell`] compares all of it
//! with a model.
//!
//! ```text
//! input:  disk and habits 1 │ seed 1 │ steps of 4 bytes each: what 1 (its top bit: which process), three choices
//! ```
//!
//! A step is always four bytes, so that a step moved, copied or left out leaves the others what they were.

mod cast;
mod queue;
mod tell;

use arbitrary::{Arbitrary, Result, Unstructured};
use milepost_tests::crash::Fault;
use milepost_tests::disk::Profile;

/// Most steps of a story: a longer input is cut.
const MOST_STEPS: usize = 40;

/// One story.
#[derive(Debug)]
pub struct Story {
    /// What the disk is like.
    pub profile: Profile,
    /// Blocks are closed early: many of them, and commits of several blocks.
    pub small_blocks: bool,
    /// Where the engine and the disk draw from.
    pub seed: u8,
    /// What happens.
    pub steps: Vec<Step>,
}

/// Which of the two processes.
pub type Seat = usize;

/// What happens next.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A transaction is committed.
    Commit { seat: Seat, what: Drawn, expect: Expect },
    /// Up to four frames are appended together.
    Frames { seat: Seat, what: Drawn, count: u8 },
    /// A marker is appended.
    Mark(Seat),
    /// What was buffered is synced.
    Sync(Seat),
    /// The log rolls.
    Roll(Seat),
    /// Spare and sidecars are made.
    Tend(Seat),
    /// A scan goes on, or begins again.
    Scan { seat: Seat, count: u8, anew: bool },
    /// A stream is read by the filters, and compared with the scan.
    ScanStream { seat: Seat, stream: u8 },
    /// A stream is read by the index, from a version on.
    ReadStream { seat: Seat, stream: u8, from: u8 },
    /// The scan phase moves entries of so many frames into the queue.
    Queue { seat: Seat, count: u8, sync: bool },
    /// The send phase frees of the queue what lies so many entries back.
    FreeQueue { seat: Seat, back: u8 },
    /// The store is closed cleanly.
    Close(Seat),
    /// The process is killed.
    Kill(Seat),
    /// The operation after so many others of this process fails.
    Trap { seat: Seat, after: u16, fault: Fault },
    /// The kernel fails to write back the newest segment, unseen; the cache may show it at once.
    LoseWriteBack { evict: bool },
    /// Time passes, in milliseconds.
    Wait { millis: u8 },
    /// All processes die; the page cache stays.
    AllDie,
    /// Power is lost; what stays is drawn from the number.
    PowerCut { choice: u16 },
}

/// The content of a commit.
#[derive(Clone, Copy, Debug)]
pub struct Drawn {
    /// What it is drawn from.
    pub choice: u8,
    /// Largest payload, in bytes.
    pub largest: u64,
    /// Acknowledged before it is on disk.
    pub buffered: bool,
}

/// What a commit expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Nothing,
    /// That a stream is as the store says it is.
    Holds(u8),
    /// That a stream has an event more than the store says.
    Fails(u8),
}

impl<'a> Arbitrary<'a> for Story {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Story> {
        let (like, seed) = (input.arbitrary::<u8>()?, input.arbitrary()?);
        let mut steps = Vec::new();
        while steps.len() < MOST_STEPS && input.len() >= 4 {
            steps.push(Step::of(input.arbitrary()?));
        }
        Ok(Story {
            profile: Profile::ALL[usize::from(like & 0x7f) % Profile::ALL.len()],
            small_blocks: like & 0x80 != 0,
            seed,
            steps,
        })
    }
}

impl Drawn {
    fn of(size: u8, choice: u8) -> Drawn {
        Drawn {
            choice,
            largest: [50, 2_000, 100_000, 600_000][usize::from(size >> 1) % 4],
            buffered: size & 1 == 1,
        }
    }
}

impl Step {
    fn of([what, a, b, c]: [u8; 4]) -> Step {
        let seat = usize::from(what >> 7);
        let wide = u16::from_le_bytes([a, b]);
        match what & 0x7f {
            0..=3 => Step::Commit {
                seat,
                what: Drawn::of(a, b),
                expect: match c {
                    0..=127 => Expect::Nothing,
                    128..=191 => Expect::Holds(c),
                    _ => Expect::Fails(c),
                },
            },
            4 => Step::Frames {
                seat,
                what: Drawn::of(a, b),
                count: c % 4 + 1,
            },
            5 => Step::Mark(seat),
            6 => Step::Sync(seat),
            7 => Step::Roll(seat),
            8 => Step::Tend(seat),
            9 => Step::Scan {
                seat,
                count: a,
                anew: b & 1 == 1,
            },
            10 => Step::ScanStream { seat, stream: a },
            11 => Step::ReadStream {
                seat,
                stream: a,
                from: b % 8,
            },
            12 => Step::Queue {
                seat,
                count: a % 16,
                sync: b & 1 == 1,
            },
            13 => Step::FreeQueue { seat, back: a % 8 },
            14 => Step::Close(seat),
            15 => Step::Kill(seat),
            16..=19 => Step::Trap {
                seat,
                after: wide % 512,
                fault: Fault::ALL[usize::from(c) % Fault::ALL.len()],
            },
            20 => Step::LoseWriteBack { evict: a & 1 == 1 },
            21 => Step::Wait { millis: a },
            22 => Step::AllDie,
            _ => Step::PowerCut { choice: wide },
        }
    }
}
