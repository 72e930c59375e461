//! A frame by itself, as a reader of the log gets it: for decoders of what frames hold.

use milepost_engine::block::{Block, BlockBuilder, BlockKind, Owner, Seal};
use milepost_engine::frame::{FrameRef, NewFrame};
use milepost_engine::{Chain, Epoch, Lsn, StoreId};

/// Shows a frame to `look` from within a block of its own; one that cannot be encoded to nobody.
pub fn with_frame(frame: NewFrame, look: impl FnOnce(&FrameRef<'_>)) {
    let Ok(frame) = frame.encode(1, 1_700_000_000_000_000) else {
        return;
    };
    let mut builder = BlockBuilder::new();
    builder.push(&frame);
    let seal = Seal {
        kind: BlockKind::Log,
        close: false,
        owner: Owner {
            id: StoreId(1),
            secret: 2,
        },
        epoch: Epoch(3),
        lsn: Lsn(4096),
        durable: Lsn::ZERO,
        nonce: 4,
        chain: Chain(5),
        aux: 0,
    };
    let sealed = builder.seal(&seal, 1);
    let block = Block::check(&sealed.bytes).expect("what was sealed is whole");
    let frame = block
        .frame_at(sealed.frame_lsns[0])
        .expect("the frame that was put in");
    look(&frame);
}
