//! The two system calls of the harness that have no safe door: shutting a file system down, and a
//! name space of mounts of one's own.
#![expect(
    unsafe_code,
    reason = "rustix leaves an ioctl's type and the flags of unshare to its caller"
)]

use std::fs::File;
use std::io;

use rustix::ioctl::{Opcode, Setter, ioctl, opcode};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// `FS_IOC_SHUTDOWN` of ext4, `XFS_IOC_GOINGDOWN` of xfs: the same number, 0x8004587d.
const SHUTDOWN: Opcode = opcode::read::<u32>(b'X', 125);

/// Neither data nor journal are written any more: what a power cut leaves.
const NO_LOG_FLUSH: u32 = 2;

/// Shuts the file system of an open folder down, as it is at this moment.
pub(super) fn shut_down(folder: &File) -> io::Result<()> {
    // SAFETY: for this operation code both file systems read one 32-bit word, which the setter owns during the
    // call, and write nothing through the pointer. Others answer ENOTTY to the code.
    Ok(unsafe { ioctl(folder, Setter::<SHUTDOWN, u32>::new(NO_LOG_FLUSH)) }?)
}

/// Gives the calling thread, and every thread and process that it starts from now on, mounts of their own,
/// which the kernel takes away with the last of them.
pub(super) fn keep_mounts_private() -> io::Result<()> {
    // SAFETY: the flag concerns mounts alone; descriptors stay shared among the threads.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    let all = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    Ok(mount_change("/", all)?)
}
