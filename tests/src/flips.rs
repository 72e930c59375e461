//! Every single bit of a log of 1 MiB flipped, and every length that it may be cut to.
//!
//! ```text
//! every bit        the block that holds it, flipped, through the engine's own check ─► no block any more: told
//!                                                                                   └► the same frames: padding
//! chosen bits      the whole way: open, verify, scan, stream reads, a commit (`damage::judge`)
//! every length     the whole way
//! ```
//!
//! A flip's effect is local: whether a block is one decides all that recovery and readers do with it, so the
//! first is done for every bit and the second for every bit of headers and filters and one in many of bodies.
//! *Told* is `Corrupt` or `Invalid`; *harmless* is the same answers, byte for byte, and a commit that follows
//! them. Everything else is silent, and an error here; so is a panic.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;

use milepost_engine::block::{Block, BlockHeader, HEADER_LEN};

use crate::SimRng;
use crate::damage::{Answers, SEGMENT, Verdict, commit, content, cut, judge, options, read, with};
use crate::disk::SimDisk;

const FIRST: &str = "log/0000000000000000.log";

/// A store whose first segment is full, closed.
pub struct Victim {
    disk: SimDisk,
    answers: Answers,
    bytes: Vec<u8>,
    /// Offset and length of each block of the segment, in order.
    blocks: Vec<(usize, usize)>,
    sealed: bool,
}

/// What came of a share of all flips and cuts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Bits flipped in a block, and those after which it was none.
    pub flips: (u64, u64),
    /// Flips on the whole way, by verdict.
    pub opened: BTreeMap<Verdict, u64>,
    /// Cuts, by verdict.
    pub cuts: BTreeMap<Verdict, u64>,
}

impl Tally {
    /// Adds another share.
    pub fn add(&mut self, other: &Tally) {
        self.flips = (self.flips.0 + other.flips.0, self.flips.1 + other.flips.1);
        for (verdict, count) in &other.opened {
            *self.opened.entry(*verdict).or_default() += count;
        }
        for (verdict, count) in &other.cuts {
            *self.cuts.entry(*verdict).or_default() += count;
        }
    }
}

/// Which bits and lengths: of `of` shares the one numbered `share`; in the whole way each `step`-th bit of
/// bodies and each `cut_step`-th length.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// Number of the share.
    pub share: usize,
    /// How many there are.
    pub of: usize,
    /// Each so many bytes is flipped in its block, bit by bit.
    pub byte_step: usize,
    /// Each so many bits of headers and filters goes the whole way.
    pub head_step: usize,
    /// Each so many bits of bodies and of what lies behind the log goes the whole way.
    pub body_step: usize,
    /// Each so many lengths is tried.
    pub cut_step: usize,
}

impl Victim {
    /// Makes the store; `sealed` lets the log go on in a second segment, with a sidecar of the first.
    ///
    /// # Panics
    /// When the simulated store does not do what it is for.
    #[must_use]
    pub fn new(sealed: bool) -> Victim {
        let (disk, rng) = (SimDisk::new(1), SimRng::new(1));
        let process = disk.start();
        let store = options(&process, &rng)
            .init_in(process.storage(), "bern".parse().unwrap())
            .unwrap();
        let mut number = 0;
        loop {
            let left = SEGMENT - store.watermarks().appended.0;
            let len = match left {
                0..1_500 => break,
                1_500..60_000 => 200,
                _ => 200 + 900 * (number as usize % 16),
            };
            commit(&store, number, len);
            number += 1;
        }
        if sealed {
            assert!(store.rotate(0).unwrap());
            commit(&store, number, 100);
            store.tend().unwrap();
        }
        let answers = read(&store).unwrap();
        store.close().unwrap();
        process.kill();
        let bytes = content(&disk, FIRST);
        let mut blocks = Vec::new();
        let mut at = 0;
        while let Ok(header) = BlockHeader::parse(&bytes[at..]) {
            blocks.push((at, header.block_len as usize));
            at += header.block_len as usize;
        }
        assert!(
            at > bytes.len() - 2_000 && blocks.len() > 50,
            "the segment is full"
        );
        Victim {
            disk,
            answers,
            bytes,
            blocks,
            sealed,
        }
    }

    /// Bits of the log.
    #[must_use]
    pub fn bits(&self) -> u64 {
        self.bytes.len() as u64 * 8
    }

    fn end(&self) -> usize {
        self.blocks.last().map_or(0, |(at, len)| at + len)
    }

    /// Tries a share of all flips and cuts.
    ///
    /// # Errors
    /// The first that was silent.
    pub fn attack(&self, share: Share) -> Result<Tally, String> {
        let mut tally = Tally::default();
        for (number, (at, len)) in self.blocks.iter().enumerate() {
            if number % share.of == share.share {
                self.flip_block(*at, *len, share, &mut tally)?;
            }
        }
        let behind = self.end() * 8..self.bytes.len() * 8;
        for bit in behind
            .skip(share.share)
            .step_by(share.of * share.body_step.min(64))
        {
            self.open_flipped(bit, &mut tally)?;
        }
        for len in (0..self.bytes.len())
            .skip(share.share)
            .step_by(share.of * share.cut_step)
        {
            let what = || format!("the log cut to {len} bytes");
            let verdict = self.judge(&cut(&self.disk, FIRST, len as u64), &what)?;
            let told = len < self.end() || !self.sealed;
            if told == (verdict == Verdict::Harmless) {
                return Err(format!("{}: {verdict:?}", what()));
            }
            *tally.cuts.entry(verdict).or_default() += 1;
        }
        Ok(tally)
    }

    fn flip_block(&self, at: usize, len: usize, share: Share, tally: &mut Tally) -> Result<(), String> {
        let mut block = self.bytes[at..at + len].to_vec();
        let whole = Block::check(&block).map_err(|fault| format!("block at {at}: {fault}"))?;
        let head = whole.first_frame_lsn().0 as usize - whole.header().lsn.0 as usize;
        let frames: Vec<Vec<u8>> = frames_of(&block)?;
        for bit in (0..len)
            .step_by(share.byte_step)
            .flat_map(|byte| byte * 8..byte * 8 + 8)
        {
            block[bit / 8] ^= 1 << (bit % 8);
            let still = Block::check(&block).is_ok();
            if still && frames_of(&block)? != frames {
                return Err(format!(
                    "bit {bit} of the block at {at}: other frames, and it passes for whole"
                ));
            }
            block[bit / 8] ^= 1 << (bit % 8);
            tally.flips = (tally.flips.0 + 1, tally.flips.1 + u64::from(!still));
        }
        let head_bits = (0..head * 8).step_by(share.head_step);
        for bit in head_bits.chain((head * 8..len * 8).step_by(share.body_step)) {
            self.open_flipped(at * 8 + bit, tally)?;
        }
        Ok(())
    }

    /// Flips one bit and goes the whole way.
    fn open_flipped(&self, bit: usize, tally: &mut Tally) -> Result<(), String> {
        let byte = self.bytes[bit / 8] ^ (1 << (bit % 8));
        let damaged = with(&self.disk, FIRST, bit / 8, &[byte]);
        let verdict = self.judge(&damaged, &|| format!("bit {bit} of the log"))?;
        // The block of a clean close holds nothing, and neither does what lies behind it.
        let last = self.blocks.last().map_or(0, |(at, _)| *at);
        let may_be = self.sealed || bit / 8 >= last;
        if verdict == Verdict::Harmless && bit / 8 < last && !self.is_padding(bit / 8) {
            return Err(format!(
                "bit {bit} of the log is under a checksum, and is called harmless"
            ));
        }
        if !may_be && verdict == Verdict::ToldByReaders {
            return Err(format!(
                "bit {bit} of the log: recovery did not see what readers see"
            ));
        }
        *tally.opened.entry(verdict).or_default() += 1;
        Ok(())
    }

    fn is_padding(&self, byte: usize) -> bool {
        let holds = |(at, len): &&(usize, usize)| (*at..at + len).contains(&byte);
        self.blocks.iter().find(holds).is_none_or(|(at, _)| {
            let header = BlockHeader::parse(&self.bytes[*at..]);
            header.is_ok_and(|header| {
                let used = HEADER_LEN + header.filter_len as usize + header.body_len as usize;
                byte - at >= used
            })
        })
    }

    fn judge(&self, damaged: &SimDisk, what: &dyn Fn() -> String) -> Result<Verdict, String> {
        let judged = AssertUnwindSafe(|| judge(damaged, &SimRng::new(2), &self.answers));
        match std::panic::catch_unwind(judged) {
            Ok(verdict) => verdict.map_err(|text| format!("{}: {text}", what())),
            Err(_) => Err(format!("{}: a panic", what())),
        }
    }
}

fn frames_of(block: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let block = Block::check(block).map_err(|fault| fault.to_string())?;
    let frames = block
        .frames()
        .map(|frame| frame.map(|frame| frame.bytes().to_vec()));
    frames
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())
}

/// All shares of an attack on as many threads; `share` says how fine, its numbers are set here.
///
/// # Errors
/// As [`Victim::attack`].
///
/// # Panics
/// When a thread does.
pub fn attack(victim: &Victim, threads: usize, share: Share) -> Result<Tally, String> {
    let mut sum = Tally::default();
    let tallies: Vec<Result<Tally, String>> = std::thread::scope(|scope| {
        let shares = (0..threads).map(|number| Share {
            share: number,
            of: threads,
            ..share
        });
        let running: Vec<_> = shares
            .map(|share| scope.spawn(move || victim.attack(share)))
            .collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for tally in tallies {
        sum.add(&tally?);
    }
    Ok(sum)
}
