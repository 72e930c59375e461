//! `milepost dump`: the log as it is: blocks, frames, markers.

use clap::Args;
use milepost_engine::block::{Block, BlockHeader};
use milepost_engine::frame::FrameRef;
use milepost_engine::{Lsn, Result};
use serde::Serialize;

use super::store_dir::StoreDir;
use crate::arguments::moment;
use crate::failure::{EXIT_CODES, Failure, Outcome};
use crate::output::Out;

/// Print blocks, frames and markers of the log, readable, up to what is durable now.
///
/// A block's line has its LSN, length, numbers of frames and events, lineage epoch, random word of its
/// writer, the durable LSN its writer saw and the chain after it; a frame's line its LSN, kind, length,
/// time, transaction id, number of events, origin, via and the keys of its pinned records.
#[derive(Args)]
#[command(after_long_help = format!(
    "Examples:\n  milepost dump shop\n  milepost dump shop --from 65536 --to 131072 --events --json\n\n{EXIT_CODES}"
))]
pub struct Dump {
    #[command(flatten)]
    store: StoreDir,
    /// First LSN to print
    #[arg(long, value_name = "LSN", default_value = "0")]
    from: Lsn,
    /// LSN before which to stop
    #[arg(long, value_name = "LSN")]
    to: Option<Lsn>,
    /// Print the events of transactions as well
    #[arg(long)]
    events: bool,
    /// Print one JSON object a line: {"block":{…}}, {"frame":{…}}, {"event":{…}}
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Line<'a> {
    Block(BlockFacts),
    Frame(FrameFacts<'a>),
    Event(EventFacts<'a>),
}

#[derive(Serialize)]
struct BlockFacts {
    lsn: u64,
    len: u32,
    frames: u32,
    events: u32,
    filter: u32,
    epoch: String,
    writer: String,
    durable: u64,
    chain: String,
    first_time: i64,
    last_time: i64,
    close: bool,
}

#[derive(Serialize)]
struct FrameFacts<'a> {
    lsn: u64,
    kind: &'static str,
    kind_number: u8,
    len: usize,
    time: i64,
    committed_at: i64,
    id: String,
    events: u32,
    origin: Option<PlaceFacts<'a>>,
    via: Option<PlaceFacts<'a>>,
    pinned: Vec<String>,
}

#[derive(Serialize)]
struct PlaceFacts<'a> {
    site: &'a str,
    epoch: String,
    lsn: u64,
}

#[derive(Serialize)]
struct EventFacts<'a> {
    ordinal: u32,
    stream: &'a str,
    kind: &'a str,
    headers: usize,
    payload_bytes: usize,
}

impl Dump {
    /// Prints the log.
    pub fn run(self) -> Outcome {
        if self.to.is_some_and(|to| to < self.from) {
            return Err(Failure::usage("--to lies before --from"));
        }
        let store = self.store.open()?;
        let end = store.watermarks().durable.min(self.to.unwrap_or(Lsn::MAX));
        let start = Lsn(self.from.0.saturating_sub(1)).max(store.oldest()?);
        let mut out = Out::new();
        let mut scan = store.scan(start)?;
        while let Some(block) = scan.next_block()? {
            if block.header().lsn >= end {
                break;
            }
            self.print(&Line::Block(block_facts(block.header())), &mut out)?;
            self.print_frames(&block, end, &mut out)?;
        }
        out.flush()
    }

    fn print_frames(&self, block: &Block<'_>, end: Lsn, out: &mut Out) -> Outcome {
        for frame in block.frames() {
            let frame = frame?;
            if frame.lsn() < self.from || frame.lsn() >= end {
                continue;
            }
            self.print(&Line::Frame(frame_facts(&frame)?), out)?;
            if self.events {
                for event in frame.events() {
                    let event = event?;
                    let facts = EventFacts {
                        ordinal: event.ordinal,
                        stream: event.stream()?,
                        kind: event.kind()?,
                        headers: event.headers().read()?.len(),
                        payload_bytes: event.payload.len(),
                    };
                    self.print(&Line::Event(facts), out)?;
                }
            }
        }
        Ok(())
    }

    fn print(&self, line: &Line<'_>, out: &mut Out) -> Outcome {
        if self.json {
            return out.json(line);
        }
        match line {
            Line::Block(block) => out.line(format_args!(
                "block {:>12}  {} bytes, {} frames, {} events, epoch {}, writer {}, durable {}, chain {}{}",
                block.lsn,
                block.len,
                block.frames,
                block.events,
                block.epoch,
                block.writer,
                block.durable,
                block.chain,
                if block.close { ", close" } else { "" }
            )),
            Line::Frame(frame) => out.line(format_args!("  {}", frame_text(frame))),
            Line::Event(event) => out.line(format_args!(
                "    {:>4}  {}  {}  {} headers, {} bytes",
                event.ordinal, event.stream, event.kind, event.headers, event.payload_bytes
            )),
        }
    }
}

fn frame_text(frame: &FrameFacts<'_>) -> String {
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

fn block_facts(header: &BlockHeader) -> BlockFacts {
    BlockFacts {
        lsn: header.lsn.0,
        len: header.block_len,
        frames: header.frame_count,
        events: header.event_count,
        filter: header.filter_len,
        epoch: header.epoch.to_string(),
        writer: format!("{:016x}", header.nonce),
        durable: header.durable.0,
        chain: header.chain_after().to_string(),
        first_time: header.first_time,
        last_time: header.last_time,
        close: header.close,
    }
}

fn frame_facts<'a>(frame: &FrameRef<'a>) -> Result<FrameFacts<'a>> {
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
