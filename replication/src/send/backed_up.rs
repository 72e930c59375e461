//! `-u`: what the last backup covers, as the send phase goes by it (see [`crate::backup`]).

use milepost_engine::{Lsn, Result, SiteName};

use crate::backup::Coverage;
use crate::message::Point;
use crate::planted::{self, Bug};
use crate::tracking::{ConfirmedRecord, PairState};

use super::SendPhase;

impl SendPhase {
    /// Looks what may be sent and confirmed, and says so when that is news.
    pub(super) fn look_at_backup(&mut self) -> Result<()> {
        if !self.options.only_backed_up {
            return Ok(());
        }
        let coverage = Coverage::of(&self.store)?;
        if self.coverage == Some(coverage) {
            return Ok(());
        }
        match coverage.through {
            Lsn::ZERO => tracing::warn!(
                "-u: no backup covers anything yet, so nothing is sent or confirmed; run `milepost backup`"
            ),
            through => tracing::info!(%through, "-u: the last backup covers the log up to here"),
        }
        self.coverage = Some(coverage);
        // What was found ahead may not be covered by the backup that counts now.
        self.pairs.values_mut().for_each(|pair| pair.stream.forget());
        Ok(())
    }

    /// Nothing of the log behind this is sent.
    pub(super) fn covered(&self) -> Lsn {
        let coverage = self.coverage.filter(|_| !planted::is(Bug::UncoveredSent));
        coverage.map_or(Lsn::MAX, |coverage| coverage.through)
    }

    /// Nothing of a remote's stream behind this is confirmed.
    pub(super) fn confirm_at_most(&self, remote: &SiteName, generation: u32) -> Result<Option<Point>> {
        self.coverage
            .filter(|_| !planted::is(Bug::UncoveredConfirmed))
            .map(|_| Coverage::received(&self.store, remote, generation))
            .transpose()
    }

    /// What a former process confirmed last.
    pub(super) fn confirmed_record(&self, remote: &SiteName) -> Result<Option<ConfirmedRecord>> {
        let record = self.store.pinned(&ConfirmedRecord::key(remote))?;
        record.map(|(value, _)| ConfirmedRecord::read(&value)).transpose()
    }
}
