//! [`Settings`]: what a run of power cuts is told on the command line.

use std::path::PathBuf;
use std::time::Duration;

use crate::volume::FsKind;

/// What to do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Cuts, at most.
    pub cuts: u64,
    /// Time, at most.
    pub limit: Option<Duration>,
    /// Decides all that is drawn; what the kernel has written by a moment it does not decide.
    pub seed: u64,
    /// File systems, in turn.
    pub kinds: Vec<FsKind>,
    /// A bug that the writers have, by name.
    pub plant: Option<String>,
    /// The program that is started as worker processes.
    pub worker: PathBuf,
}

impl Settings {
    /// 100 cuts on both kinds of file system.
    #[must_use]
    pub fn new(worker: PathBuf) -> Settings {
        Settings {
            cuts: 100,
            limit: None,
            seed: 0,
            kinds: FsKind::ALL.to_vec(),
            plant: None,
            worker,
        }
    }

    /// The settings with those that the command line gives.
    ///
    /// # Errors
    /// The word that is not understood.
    pub fn parsed(mut self, mut words: impl Iterator<Item = String>) -> Result<Settings, String> {
        while let Some(word) = words.next() {
            let Some(value) = words.next() else {
                return Err(word);
            };
            let number = || value.replace('_', "").parse().map_err(|_| value.clone());
            match word.as_str() {
                "--cuts" => self.cuts = number()?,
                "--seconds" => self.limit = Some(Duration::from_secs(number()?)),
                "--seed" => self.seed = number()?,
                "--plant" => self.plant = Some(value),
                "--fs" => {
                    self.kinds = value.split(',').map(named).collect::<Result<_, _>>()?;
                }
                _ => return Err(word),
            }
        }
        Ok(self)
    }
}

fn named(name: &str) -> Result<FsKind, String> {
    let mut kinds = FsKind::ALL.into_iter();
    kinds
        .find(|kind| kind.name() == name)
        .ok_or_else(|| name.to_owned())
}
