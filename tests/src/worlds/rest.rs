//! The end of a world: the faults stop, everything arrives within a bounded number of days, and the sites fall silent. And the comparison.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Totals;
use super::judge::{
    Commits, Side, events_are_genuine_and_single, nothing_overtakes_what_is_held, own_commits_are_there,
    stream_is_as_due,
};
use super::logged::Logged;
use super::post::Post;
use super::sealing::Sealing;
use super::shape::NAMES;
use super::site::Site;
use super::wire::Weather;
use super::world::World;

/// Days without news after which it is looked whether all is there, and after which what is missing never comes: an asking
/// may wait for 64 polls.
const DAYS_OF_REST: usize = 2;
const DAYS_OF_PATIENCE: usize = 70;
const DAYS_AT_MOST: usize = 400;
/// Days within which the sites have nothing to say any more.
const DAYS_OF_TALK: usize = 40;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl World {
    /// Nothing fails any more; every remote is there, and the sites run until everything has come.
    ///
    /// # Errors
    /// What is wrong, or has not come.
    pub fn come_to_rest(&mut self) -> Result<(), String> {
        self.stop_faults();
        self.found_at_last()?;
        self.hand_out_keys()?;
        if self.chance.percent(50) {
            for site in 0..self.sites.len() {
                self.end_one(site)?;
            }
        }
        self.rest()
    }

    /// From now on nothing befalls anybody.
    pub fn stop_faults(&mut self) {
        self.wire.set_weather(Weather::default());
        self.is_calm = true;
        if let Some(post) = &self.post {
            post.calm();
        }
        self.tell("the faults stop".to_owned());
        let rules = self.sites.iter().filter_map(|site| site.rules.as_ref());
        rules.for_each(|rules| rules.relent());
    }

    /// Everything arrives, and nobody has anything to say any more.
    ///
    /// # Errors
    /// As [`World::come_to_rest`].
    pub fn rest(&mut self) -> Result<(), String> {
        self.arrive()?;
        self.fall_silent()
    }

    fn arrive(&mut self) -> Result<(), String> {
        let mut idle = 0;
        for day in 1..=DAYS_AT_MOST {
            idle += 1;
            let (messages, applied) = self.live_a_day(day)?;
            let all_there = self.edges.iter_mut().all(|edge| edge.making().is_some());
            if applied > 0 || !all_there {
                idle = 0;
            }
            if messages > 0 && idle < DAYS_OF_REST || idle == 0 {
                continue;
            }
            match self.compare()? {
                None => return Ok(()),
                Some(missing) if idle >= DAYS_OF_PATIENCE => {
                    return Err(format!("{idle} days without news, and {missing}"));
                }
                Some(_) => {}
            }
        }
        Err(format!("after {DAYS_AT_MOST} days there is still news (R1, R3)"))
    }

    /// Messages and transactions of a day.
    pub fn live_a_day(&mut self, day: usize) -> Result<(u64, u64), String> {
        self.pass(DAY);
        self.see_to_all_suspended()?;
        // An operator who made a pair anew leaves nobody without a remote.
        for edge in 0..self.edges.len() {
            if self.edges[edge].making().is_none() && !self.is_unsettled(edge) {
                self.remove_or_add_remote(edge)?;
            }
        }
        let before = self.words();
        let trace = std::mem::take(&mut self.trace);
        let retried = self.back_up_all().and_then(|()| self.retry_all());
        let applied = self.turns().and_then(|applied| Ok(applied + retried?));
        let applied = applied.and_then(|applied| Ok(applied + self.carry_all()?));
        trace.tell_what_is_rare(&std::mem::replace(&mut self.trace, trace.clone()));
        let (applied, messages) = (applied?, self.words() - before);
        if messages > 0 {
            self.tell(format!(
                "day {day}: {messages} messages, {applied} transactions received"
            ));
        }
        Ok((messages, applied))
    }

    /// Messages that say something. Who makes a bundle has the phases, and leaves them to a process that begins by telling what was told before, because
    /// nobody knows whether that came: once a day, and nobody answers.
    fn words(&self) -> u64 {
        match self.carried {
            Some(_) => self.wire.messages() - self.wire.bare(),
            None => self.wire.messages(),
        }
    }

    /// Answers are not answered, so there is an end of talking; and nothing was harmed by it.
    fn fall_silent(&mut self) -> Result<(), String> {
        let mut silent = 0;
        for day in 1..=DAYS_OF_TALK {
            let (messages, _) = self.live_a_day(day)?;
            silent = if messages == 0 { silent + 1 } else { 0 };
            if silent == 2 {
                return self.compare()?.map_or(Ok(()), Err);
            }
        }
        Err(format!(
            "{DAYS_OF_TALK} days after everything had arrived the sites still talk (R3)"
        ))
    }

    /// Compares every log with what was committed and defined; tells what is missing still.
    ///
    /// # Errors
    /// What is there and must not be, or is there in a wrong way.
    pub fn compare(&mut self) -> Result<Option<String>, String> {
        self.sites.iter_mut().try_for_each(Site::look)?;
        self.post.as_ref().map_or(Ok(()), Post::check)?;
        self.sealing.as_ref().map_or(Ok(()), Sealing::check)?;
        let logs: Vec<&[Logged]> = self.sites.iter().map(|site| site.seen.1.as_slice()).collect();
        let there = self.sites.iter().map(|site| (&site.judged, &site.commits));
        let lost = self.lost.iter().map(|(name, commits)| (name, commits));
        let commits: BTreeMap<String, &Commits> = there
            .chain(lost)
            .map(|(name, commits)| (name.clone(), commits))
            .collect();
        let mut missing = None;
        for (site, log) in self.sites.iter().zip(&logs) {
            own_commits_are_there(&site.judged, log, &site.commits)?;
            events_are_genuine_and_single(&site.judged, log, &commits)?;
            let (left, _) = nothing_overtakes_what_is_held(site.name, log)?;
            if left > 0 {
                missing = Some(format!("{} holds {left} still (R6)", site.name));
            }
        }
        for edge in &self.edges {
            let side = Side {
                publisher: NAMES[edge.from],
                publications: &self.publications[edge.from],
                log: logs[edge.from],
                makings: &edge.makings,
            };
            let found = stream_is_as_due(NAMES[edge.to], logs[edge.to], &side)?;
            missing = missing.or(found);
        }
        Ok(missing)
    }

    /// What the run came to: one in which nothing happens proves nothing.
    pub fn totals(&mut self) -> Totals {
        let is_received = |one: &&Logged| one.is_applied() && one.via.is_some();
        let mut totals = self.totals;
        let held = |site: &Site| {
            nothing_overtakes_what_is_held(site.name, &site.seen.1).map_or(0, |(_, ever)| ever as u64)
        };
        totals.held = self.sites.iter().map(held).sum();
        if let Some(post) = &self.post {
            let (ops, hash, kills, cuts) = post.totals();
            (totals.ops, totals.hash) = (totals.ops + ops, totals.hash ^ hash);
            (totals.server_kills, totals.server_cuts) = (kills, cuts);
        }
        totals.messages = self.wire.messages();
        totals.forged = self.sealing.as_ref().map_or(0, Sealing::forged);
        for site in &self.sites {
            totals.received += site.seen.1.iter().filter(is_received).count() as u64;
            totals.ops += site.disk.ops();
            totals.hash = totals.hash.rotate_left(9) ^ site.hash ^ site.disk.trace();
        }
        totals
    }
}
