//! Shapes of worlds: who is whose neighbour, and which processes a site has.
//!
//! All are trees whose edges publish both ways: no arrow leads back to where it came from other than directly, because a loop of sites stops
//! its pairs, rightly (R4).

use super::chance::Chance;

/// Names of sites.
pub const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

const PAIR: &[(usize, usize)] = &[(0, 1)];
const LINE: &[(usize, usize)] = &[(0, 1), (1, 2)];
const STAR: &[(usize, usize)] = &[(0, 1), (0, 2), (0, 3)];
const TIERS: &[(usize, usize)] = &[(0, 1), (0, 2), (1, 3), (2, 4)];

/// A shape: its name and pairs of neighbours.
pub type Shape = (&'static str, &'static [(usize, usize)]);

/// The least that a world can be.
pub const PLAIN: Shape = ("pair", PAIR);

/// Pairs and lines are most, because a seed of one costs least.
pub fn draw(chance: &Chance) -> Shape {
    chance.pick(&[
        ("pair", PAIR),
        ("pair", PAIR),
        ("pair", PAIR),
        ("pair", PAIR),
        ("line", LINE),
        ("line", LINE),
        ("star", STAR),
        ("three tiers", TIERS),
    ])
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Writer,
    Receive,
    Scan,
    Send,
    /// All three phases in one process.
    Agent,
}

impl Role {
    /// The processes of a site: each phase one of its own, or all in one; and who commits.
    pub fn draw(chance: &Chance) -> Vec<Role> {
        if chance.percent(70) {
            vec![Role::Writer, Role::Receive, Role::Scan, Role::Send]
        } else {
            vec![Role::Writer, Role::Agent]
        }
    }

    /// Its name in traces.
    pub fn name(self) -> &'static str {
        match self {
            Role::Writer => "writer",
            Role::Receive => "receive",
            Role::Scan => "scan",
            Role::Send => "send",
            Role::Agent => "agent",
        }
    }
}
