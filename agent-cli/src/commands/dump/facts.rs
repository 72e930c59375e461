//! What a line of `dump` says, as one object.

use std::collections::BTreeMap;

use milepost_engine::block::{BlockHeader, BlockKind};
use milepost_engine::frame::FrameRef;
use milepost_engine::index::SidecarFacts;
use milepost_engine::{Damage, DamageKind, Loss, LostFrame, Result};
use serde::Serialize;

use crate::arguments::moment;
use crate::output::shown;

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Line<'a> {
    Block(BlockFacts),
    Frame(FrameFacts<'a>),
    Event(EventFacts<'a>),
    Damage(DamageFacts),
    Lost(LostFacts),
    Sidecar(SidecarLine),
    Behind(BehindFacts),
}

/// What was asked for was freed, and the log begins later.
#[derive(Serialize)]
pub struct BehindFacts {
    pub from: u64,
    pub oldest: u64,
}

#[derive(Serialize)]
pub struct BlockFacts {
    pub lsn: u64,
    pub len: u32,
    pub frames: u32,
    pub events: u32,
    pub filter: u32,
    pub epoch: String,
    pub writer: String,
    pub durable: u64,
    pub chain_before: String,
    pub chain: String,
    pub first_time: i64,
    pub last_time: i64,
    pub close: bool,
    pub lost: bool,
    /// Of a queue's block: the LSN up to which the log was seen with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scanned_through: Option<u64>,
}

/// A range of the log that is no block in line.
#[derive(Serialize)]
pub struct DamageFacts {
    pub lsn: u64,
    pub end: u64,
    pub file: String,
    pub kind: &'static str,
    pub reason: String,
    /// Numbers of frames and events that its header names.
    pub named: Option<(u32, u32)>,
    /// Everything that was lost is listed behind.
    pub complete: bool,
}

/// A frame that can be read in damaged bytes, or that a repair takes out.
#[derive(Serialize)]
pub struct LostFacts {
    pub lsn: u64,
    pub kind: &'static str,
    pub id: String,
    pub time: i64,
    pub events: u32,
    pub streams: BTreeMap<String, u32>,
    pub origin: Option<String>,
    pub pinned: Vec<String>,
    pub certain: bool,
}

/// The index file of a sealed segment.
#[derive(Serialize)]
pub struct SidecarLine {
    pub lsn: u64,
    pub file: String,
    pub whole: bool,
    pub end: Option<u64>,
    pub chain_before: Option<String>,
    pub chain: Option<String>,
    pub frames: Option<u64>,
    pub transactions: Option<u64>,
    pub events: Option<u64>,
    pub streams: Option<u64>,
    pub pinned: Option<u64>,
    pub bytes: Option<u64>,
}

#[derive(Serialize)]
pub struct FrameFacts<'a> {
    pub lsn: u64,
    pub kind: &'static str,
    pub kind_number: u8,
    pub len: usize,
    pub time: i64,
    pub committed_at: i64,
    pub id: String,
    pub events: u32,
    pub origin: Option<PlaceFacts<'a>>,
    pub via: Option<PlaceFacts<'a>>,
    pub pinned: Vec<String>,
}

#[derive(Serialize)]
pub struct PlaceFacts<'a> {
    pub site: &'a str,
    pub epoch: String,
    pub lsn: u64,
}

#[derive(Serialize)]
pub struct EventFacts<'a> {
    pub ordinal: u32,
    pub stream: &'a str,
    pub kind: &'a str,
    pub headers: usize,
    pub payload_bytes: usize,
}

pub fn block_text(block: &BlockFacts) -> String {
    let mut text = format!(
        "block {:>12}  {} bytes, {} frames, {} events, filter {}, epoch {}, writer {}, durable {}, chain {} to {}",
        block.lsn,
        block.len,
        block.frames,
        block.events,
        block.filter,
        block.epoch,
        block.writer,
        block.durable,
        block.chain_before,
        block.chain
    );
    if block.close {
        text.push_str(", close");
    }
    if block.lost {
        text.push_str(", stands for lost bytes");
    }
    if let Some(through) = block.scanned_through {
        text.push_str(&format!(", scanned through {through}"));
    }
    text
}

pub fn damage_facts(damage: &Damage, loss: &Loss) -> DamageFacts {
    DamageFacts {
        lsn: damage.at.0,
        end: damage.end.0,
        file: damage.path.display().to_string(),
        kind: match damage.kind {
            DamageKind::Contents => "contents",
            DamageKind::Header => "header",
            DamageKind::Missing => "missing",
            DamageKind::Parted => "parted",
            DamageKind::End => "end",
        },
        reason: damage.reason.clone(),
        named: loss.named,
        complete: loss.complete,
    }
}

pub fn damage_text(damage: &DamageFacts) -> String {
    let mut text = format!(
        "DAMAGED {:>10}  {} bytes, up to {}: {}, file {}",
        damage.lsn,
        damage.end.saturating_sub(damage.lsn),
        damage.end,
        damage.reason,
        damage.file
    );
    match damage.named {
        _ if damage.kind == "parted" => {}
        Some((frames, events)) => {
            text.push_str(&format!("; the header says {frames} frames, {events} events"));
        }
        None => text.push_str("; what stood there is unknown"),
    }
    text
}

pub fn lost_facts(frame: &LostFrame) -> LostFacts {
    LostFacts {
        lsn: frame.lsn.0,
        kind: frame.kind.name(),
        id: frame.id.to_string(),
        time: frame.time,
        events: frame.events,
        streams: frame.streams.clone(),
        origin: frame
            .origin
            .as_ref()
            .map(|(site, lsn)| format!("{} at {lsn}", shown(site))),
        pinned: frame
            .pinned
            .iter()
            .map(|key| key.escape_ascii().to_string())
            .collect(),
        certain: frame.certain,
    }
}

pub fn lost_text(frame: &LostFacts) -> String {
    let streams: Vec<String> = frame
        .streams
        .iter()
        .map(|(stream, count)| format!("{} ({count})", shown(stream)))
        .collect();
    let mut text = format!(
        "{} {:>12}  id {}, {}, {} events",
        frame.kind,
        frame.lsn,
        frame.id,
        moment::text(frame.time),
        frame.events
    );
    if !streams.is_empty() {
        text.push_str(&format!(", streams {}", streams.join(" ")));
    }
    if let Some(origin) = &frame.origin {
        text.push_str(&format!(", from {origin}"));
    }
    if !frame.pinned.is_empty() {
        text.push_str(&format!(", pinned {}", frame.pinned.join(" ")));
    }
    if !frame.certain {
        text.push_str(", as far as damaged bytes can be read");
    }
    text
}

pub fn sidecar_line(lsn: u64, file: String, facts: Option<&SidecarFacts>) -> SidecarLine {
    SidecarLine {
        lsn,
        file,
        whole: facts.is_some(),
        end: facts.map(|facts| facts.end.0),
        chain_before: facts.map(|facts| facts.chain_before.to_string()),
        chain: facts.map(|facts| facts.end_chain.to_string()),
        frames: facts.map(|facts| facts.totals.frames),
        transactions: facts.map(|facts| facts.totals.transactions),
        events: facts.map(|facts| facts.totals.events),
        streams: facts.map(|facts| facts.streams),
        pinned: facts.map(|facts| facts.pinned),
        bytes: facts.map(|facts| facts.bytes),
    }
}

pub fn sidecar_text(sidecar: &SidecarLine) -> String {
    let count = |number: Option<u64>| number.unwrap_or_default();
    if !sidecar.whole {
        return format!(
            "sidecar {:>10}  missing or damaged, {}",
            sidecar.lsn, sidecar.file
        );
    }
    format!(
        "sidecar {:>10}  up to {}, {} bytes, {} frames, {} transactions, {} events of {} streams, {} pinned records",
        sidecar.lsn,
        count(sidecar.end),
        count(sidecar.bytes),
        count(sidecar.frames),
        count(sidecar.transactions),
        count(sidecar.events),
        count(sidecar.streams),
        count(sidecar.pinned)
    )
}

pub fn frame_text(frame: &FrameFacts<'_>) -> String {
    let mut text = format!(
        "{} {:>12}  {} bytes, {}, id {}",
        frame.kind,
        frame.lsn,
        frame.len,
        moment::text(frame.time),
        frame.id
    );
    if frame.events > 0 {
        text.push_str(&format!(", {} events", frame.events));
    }
    for (name, place) in [("origin", &frame.origin), ("via", &frame.via)] {
        if let Some(place) = place {
            text.push_str(&format!(", {name} {} at {}", place.site, place.lsn));
        }
    }
    if !frame.pinned.is_empty() {
        text.push_str(&format!(", pinned {}", frame.pinned.join(" ")));
    }
    text
}

pub fn block_facts(header: &BlockHeader) -> BlockFacts {
    BlockFacts {
        lsn: header.lsn.0,
        len: header.block_len,
        frames: header.frame_count,
        events: header.event_count,
        filter: header.filter_len,
        epoch: header.epoch.to_string(),
        writer: format!("{:016x}", header.nonce),
        durable: header.durable.0,
        chain_before: header.chain.to_string(),
        chain: header.chain_after().to_string(),
        first_time: header.first_time,
        last_time: header.last_time,
        close: header.close,
        lost: header.lost,
        scanned_through: (header.kind == BlockKind::Queue).then_some(header.aux),
    }
}

pub fn frame_facts<'a>(frame: &FrameRef<'a>) -> Result<FrameFacts<'a>> {
    let origin = frame.origin()?.map(|origin| PlaceFacts {
        site: origin.name,
        epoch: origin.epoch.to_string(),
        lsn: origin.lsn.0,
    });
    let via = frame.via()?.map(|via| PlaceFacts {
        site: via.name,
        epoch: via.position.epoch.to_string(),
        lsn: via.position.lsn.0,
    });
    let removed = |gone: bool| if gone { "-" } else { "" };
    let pinned = frame.pinned()?.into_iter();
    let pinned =
        pinned.map(|record| format!("{}{}", removed(record.value.is_none()), record.key.escape_ascii()));
    Ok(FrameFacts {
        lsn: frame.lsn().0,
        kind: frame.kind().name(),
        kind_number: frame.kind().0,
        len: frame.len(),
        time: frame.time(),
        committed_at: frame.committed_at()?,
        id: frame.id().to_string(),
        events: frame.event_count(),
        origin,
        via,
        pinned: pinned.collect(),
    })
}
