//! [`Ranges`]: which numbers of bundles came, as few ranges.

use bincode::{Decode, Encode};

/// Most ranges that are kept. Beyond, the lowest is forgotten: its bundles count as missing, which costs a line of a list.
const MOST: usize = 64;

/// Numbers, as ranges that ascend and do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Ranges as read; `None` when they do not ascend with a gap between them, from 1.
    pub fn of(ranges: Vec<(u64, u64)>) -> Option<Ranges> {
        let mut free = 1;
        for (first, last) in &ranges {
            if *first < free || last < first {
                return None;
            }
            // The next begins behind a gap of one at least.
            free = last.checked_add(2)?;
        }
        Some(Ranges(ranges))
    }

    /// The ranges, ascending.
    #[must_use]
    pub fn as_slice(&self) -> &[(u64, u64)] {
        &self.0
    }

    /// True when the number came.
    #[must_use]
    pub fn has(&self, number: u64) -> bool {
        self.0
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&number))
    }

    /// Highest number; 0 when none came.
    #[must_use]
    pub fn highest(&self) -> u64 {
        self.0.last().map_or(0, |(_, last)| *last)
    }

    /// Adds a number from 1 up to the last but one that there is.
    pub fn add(&mut self, number: u64) {
        if number == 0 || number >= u64::MAX - 1 || self.has(number) {
            return;
        }
        self.0.push((number, number));
        self.0.sort_unstable();
        let mut joined: Vec<(u64, u64)> = Vec::with_capacity(self.0.len());
        for (first, last) in self.0.drain(..) {
            match joined.last_mut() {
                Some(before) if before.1.saturating_add(1) >= first => before.1 = before.1.max(last),
                _ => joined.push((first, last)),
            }
        }
        let surplus = joined.len().saturating_sub(MOST);
        self.0 = joined.split_off(surplus);
    }

    /// The highest `most` ranges.
    #[must_use]
    pub fn newest(&self, most: usize) -> Ranges {
        let from = self.0.len().saturating_sub(most);
        Ranges(self.0.get(from..).unwrap_or_default().to_vec())
    }

    /// What is missing below `end`, as ranges.
    #[must_use]
    pub fn missing_below(&self, end: u64) -> Vec<(u64, u64)> {
        let (mut missing, mut next) = (Vec::new(), 1);
        for (first, last) in self.0.iter().chain(&[(end, end)]) {
            let upto = (*first).min(end);
            if next < upto {
                missing.push((next, upto - 1));
            }
            next = next.max(last.saturating_add(1));
        }
        missing
    }
}

/// Numbers for people: `4, 7 to 9`.
#[must_use]
pub fn told(ranges: &[(u64, u64)]) -> String {
    let one = |(first, last): &(u64, u64)| {
        if first == last {
            first.to_string()
        } else {
            format!("{first} to {last}")
        }
    };
    ranges.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ranges_hold_what_a_set_holds_and_know_what_is_missing() {
        let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
        for number in [3, 1, 2, 9, 7, 8, 8, 20, 5, 4] {
            ranges.add(number);
            set.insert(number);
            assert!((0..25).all(|n| ranges.has(n) == set.contains(&n)), "{ranges:?}");
            assert_eq!(Ranges::of(ranges.as_slice().to_vec()), Some(ranges.clone()));
            for end in 1..25 {
                let missing: BTreeSet<u64> = ranges
                    .missing_below(end)
                    .into_iter()
                    .flat_map(|(first, last)| first..=last)
                    .collect();
                assert!(
                    (1..end).all(|n| missing.contains(&n) != set.contains(&n)),
                    "{end}"
                );
                assert!(missing.iter().all(|n| *n < end));
            }
        }
        assert_eq!(ranges.as_slice(), [(1, 5), (7, 9), (20, 20)]);
        assert_eq!(told(ranges.as_slice()), "1 to 5, 7 to 9, 20");
        assert_eq!(ranges.newest(2).as_slice(), [(7, 9), (20, 20)]);
        assert_eq!(ranges.highest(), 20);
    }

    #[test]
    fn ranges_stay_few_and_what_is_no_range_is_refused() {
        let mut ranges = Ranges::default();
        (1..10_000).map(|n| n * 2).for_each(|n| ranges.add(n));
        ranges.add(u64::MAX);
        ranges.add(0);
        assert_eq!(ranges.as_slice().len(), MOST);
        assert_eq!(ranges.highest(), 19_998);
        for bad in [
            vec![(0, 1)],
            vec![(3, 2)],
            vec![(1, 2), (3, 4)],
            vec![(5, 6), (1, 2)],
            vec![(1, u64::MAX)],
        ] {
            assert_eq!(Ranges::of(bad), None);
        }
    }
}
