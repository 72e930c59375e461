//! What the demo shows while it works: a bar for each site on standard error, and a line for each thing
//! it does. Not on a terminal, only the lines.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::sites::{BRANCHES, OFFICE};
use super::watch::Watch;

/// The bars.
pub struct Board {
    all: MultiProgress,
    bars: Vec<ProgressBar>,
    office: ProgressBar,
}

impl Board {
    /// Bars for events due to each branch, and to head office.
    pub fn new(due: &[u64], due_to_office: u64) -> Board {
        let all = MultiProgress::new();
        let bar = |name: &'static str, due: u64| {
            let bar = ProgressBar::new(due);
            // The template is a constant; a mistake in it costs its looks, never the demo.
            if let Ok(style) =
                ProgressStyle::with_template("{prefix:>6} {bar:32} {pos}/{len} events {per_sec}")
            {
                bar.set_style(style);
            }
            bar.set_prefix(name);
            all.add(bar)
        };
        let bars = BRANCHES.iter().zip(due).map(|(name, due)| bar(name, *due));
        let bars = bars.collect();
        let office = bar(OFFICE, due_to_office);
        Board { all, bars, office }
    }

    /// Tells one thing.
    pub fn say(&self, text: &str) {
        if self.all.is_hidden() {
            eprintln!("{text}");
        } else if self.all.println(text).is_err() {
            // A terminal that takes no line takes no bar either; the demo goes on without.
        }
    }

    /// Shows how far all are.
    pub fn show(&self, watch: &Watch<'_>) {
        for (bar, arrived) in self.bars.iter().zip(&watch.arrived) {
            bar.set_position(*arrived);
        }
        self.office.set_position(watch.arrived_at_office);
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.bars.iter().for_each(ProgressBar::finish_and_clear);
        self.office.finish_and_clear();
    }
}
