//! [`Names`]: the folders of a simulated disk, as processes see them and as the disk may have them.
//!
//! Each create, rename, unlink and new folder is one change of one or two names. Until its folder is
//! synced it may or may not survive power loss, by itself, except that a change of a name never
//! survives without the changes of that name before it. A rename survives whole or not at all. Where
//! there is a journal, changes have numbers, which the lengths of files share, and survive up to one of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use crate::SimRng;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// A file, by number.
    File(usize),
    /// A folder, by number.
    Folder(u64),
}

/// A name within a folder.
type Place = (u64, String);

/// A change, with its number.
type Change = (u64, Vec<(Place, Option<Node>)>);

const ROOT: u64 = 0;

/// Folders and their names.
#[derive(Clone, Default)]
pub struct Names {
    now: BTreeMap<Place, Node>,
    disk: BTreeMap<Place, Node>,
    /// Changes not yet durable, in order.
    pending: Vec<Change>,
    folders: u64,
    /// Number of the last change, of a name or of a file's length.
    last: u64,
}

impl Names {
    /// The node of a path, if there is one.
    pub fn find(&self, path: &str) -> Option<Node> {
        if path.is_empty() {
            return Some(Node::Folder(ROOT));
        }
        self.now.get(&self.place(path).ok()?).copied()
    }

    /// The file of a path.
    pub fn file(&self, path: &str) -> io::Result<usize> {
        match self.find(path) {
            Some(Node::File(number)) => Ok(number),
            Some(Node::Folder(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Gives a new file its name; returns the number of the change.
    pub fn create(&mut self, path: &str, file: usize) -> io::Result<u64> {
        let place = self.place(path)?;
        self.change(vec![(place, Some(Node::File(file)))]);
        Ok(self.last)
    }

    /// The next number of a change.
    pub fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Number of the last change.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Number of the last change of a folder's names that is not durable yet.
    pub fn last_of(&self, path: &str) -> io::Result<Option<u64>> {
        let folder = self.folder(path)?;
        let touches = |(_, places): &&Change| places.iter().any(|(place, _)| place.0 == folder);
        Ok(self.pending.iter().rev().find(touches).map(|(number, _)| *number))
    }

    /// Makes all changes up to a number durable.
    pub fn commit(&mut self, number: u64) {
        let pending = std::mem::take(&mut self.pending).into_iter();
        let (ready, later): (Vec<_>, Vec<_>) = pending.partition(|change| change.0 <= number);
        for (_, places) in &ready {
            apply(&mut self.disk, places);
        }
        self.pending = later;
    }

    /// The names after power loss, when all changes up to a number survive.
    #[must_use]
    pub fn crash_after(&self, number: u64) -> Names {
        let mut after = self.clone();
        after.commit(number);
        after.now.clone_from(&after.disk);
        after.pending.clear();
        after
    }

    /// Makes a folder; one that exists is success.
    pub fn create_folder(&mut self, path: &str) -> io::Result<()> {
        match self.find(path) {
            Some(Node::Folder(_)) => return Ok(()),
            Some(Node::File(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            None => {}
        }
        let place = self.place(path)?;
        self.folders += 1;
        self.change(vec![(place, Some(Node::Folder(self.folders)))]);
        Ok(())
    }

    /// Moves a file, replacing the target.
    pub fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let node = self.find(from).ok_or(io::ErrorKind::NotFound)?;
        let (from, to) = (self.place(from)?, self.place(to)?);
        if from != to {
            self.change(vec![(from, None), (to, Some(node))]);
        }
        Ok(())
    }

    /// Takes a file's name away.
    pub fn unlink(&mut self, path: &str) -> io::Result<()> {
        self.file(path)?;
        let place = self.place(path)?;
        self.change(vec![(place, None)]);
        Ok(())
    }

    /// Names in a folder.
    pub fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let folder = self.folder(path)?;
        let range = (folder, String::new())..(folder + 1, String::new());
        Ok(self.now.range(range).map(|((_, name), _)| name.clone()).collect())
    }

    /// Makes the names of a folder durable.
    pub fn sync(&mut self, path: &str) -> io::Result<()> {
        let folder = self.folder(path)?;
        let (mut later, mut needed) = (Vec::new(), BTreeSet::new());
        let mut ready = Vec::new();
        for change in std::mem::take(&mut self.pending).into_iter().rev() {
            // A change that is needed takes the earlier changes of its names along.
            let taken = change
                .1
                .iter()
                .any(|(place, _)| place.0 == folder || needed.contains(place));
            if taken {
                needed.extend(change.1.iter().map(|(place, _)| place.clone()));
            }
            if taken {
                ready.push(change)
            } else {
                later.push(change)
            }
        }
        for (_, places) in ready.iter().rev() {
            apply(&mut self.disk, places);
        }
        later.reverse();
        self.pending = later;
        Ok(())
    }

    /// The names after power loss.
    #[must_use]
    pub fn crash(&self, rng: &SimRng) -> Names {
        let mut disk = self.disk.clone();
        let mut lost: BTreeSet<&Place> = BTreeSet::new();
        let keep = *rng.pick(&[0, 4, 7, 8]);
        for (_, change) in &self.pending {
            let possible = change.iter().all(|(place, _)| !lost.contains(place));
            if possible && rng.chance(keep, 8) {
                apply(&mut disk, change);
            } else {
                lost.extend(change.iter().map(|(place, _)| place));
            }
        }
        Names {
            now: disk.clone(),
            disk,
            pending: Vec::new(),
            folders: self.folders,
            last: self.last,
        }
    }

    /// Numbers of the files that have a name.
    pub fn files(&self) -> impl Iterator<Item = usize> {
        self.now.values().filter_map(|node| match node {
            Node::File(number) => Some(*number),
            Node::Folder(_) => None,
        })
    }

    /// Gives files other numbers.
    pub fn renumber(&mut self, number: impl Fn(usize) -> usize) {
        for node in self.now.values_mut().chain(self.disk.values_mut()) {
            if let Node::File(file) = node {
                *file = number(*file);
            }
        }
    }

    fn folder(&self, path: &str) -> io::Result<u64> {
        match self.find(path) {
            Some(Node::Folder(number)) => Ok(number),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn place(&self, path: &str) -> io::Result<Place> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        if matches!(name, "" | "." | "..") {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok((self.folder(folder)?, name.to_owned()))
    }

    fn change(&mut self, change: Vec<(Place, Option<Node>)>) {
        apply(&mut self.now, &change);
        let number = self.number();
        self.pending.push((number, change));
    }
}

fn apply(names: &mut BTreeMap<Place, Node>, change: &[(Place, Option<Node>)]) {
    for (place, node) in change {
        match node {
            Some(node) => names.insert(place.clone(), *node),
            None => names.remove(place),
        };
    }
}
