//! The few bpf(2) commands that aya does not offer for all the links we hold: making, updating and pinning them, and the program
//! that they may begin with.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

// `enum bpf_cmd` of <linux/bpf.h>.
const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_UPDATE: libc::c_int = 29;

/// Where a program is attached: values of `enum bpf_attach_type` of <linux/bpf.h>.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum AttachType {
    CgroupSockOps = 3,
    CgroupConnect4 = 10,
    CgroupConnect6 = 11,
    CgroupSendmsg4 = 14,
    CgroupSendmsg6 = 15,
    CgroupRecvmsg4 = 19,
    CgroupRecvmsg6 = 20,
    CgroupGetpeername4 = 29,
    CgroupGetpeername6 = 30,
    /// Linux 6.6.
    TcxIngress = 46,
    /// Linux 6.6.
    TcxEgress = 47,
}

/// The prefix of `union bpf_attr` that all commands here fit into; the kernel takes zeros beyond what it knows.
#[repr(C, align(8))]
struct Attributes {
    words: [u32; 16],
}

/// Makes a map of a kind of `enum bpf_map_type`, with keys and values of so many bytes. Of its name the kernel takes 15 bytes.
pub(crate) fn map_create(
    name: &str,
    kind: u32,
    (key, value): (u32, u32),
    entries: u32,
) -> io::Result<OwnedFd> {
    let mut attributes = Attributes { words: [0; 16] };
    attributes.words[..4].copy_from_slice(&[kind, key, value, entries]);
    let mut short = [0; 16];
    short.iter_mut().zip(name.bytes()).take(15).for_each(|(to, byte)| *to = byte);
    for (word, bytes) in attributes.words[7..11].iter_mut().zip(short.chunks_exact(4)) {
        *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    descriptor(bpf(BPF_MAP_CREATE, &mut attributes)?)
}

/// `BPF_PROG_TYPE_SCHED_CLS` of `enum bpf_prog_type`.
const SCHED_CLS: u32 = 3;

/// A program of two instructions for an interface: it returns `TCX_NEXT`, by which a packet goes on to the next one.
pub(crate) fn load_pass() -> io::Result<OwnedFd> {
    // `r0 = -1`, `exit`, as `struct bpf_insn` has them: operation, registers, offset, immediate value.
    let instructions: [u64; 2] = [
        u64::from_ne_bytes([0xb7, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]),
        u64::from_ne_bytes([0x95, 0, 0, 0, 0, 0, 0, 0]),
    ];
    let mut attributes = Attributes { words: [0; 16] };
    attributes.words[0] = SCHED_CLS;
    attributes.words[1] = 2;
    put_pointer(&mut attributes.words[2..4], instructions.as_ptr() as u64);
    put_pointer(&mut attributes.words[4..6], c"MIT".as_ptr() as u64);
    descriptor(bpf(BPF_PROG_LOAD, &mut attributes)?)
}

/// Attaches a program to `target`, an interface index or a cgroup's descriptor, by a link (BPF_LINK_CREATE).
pub(crate) fn link_create(program: BorrowedFd<'_>, target: u32, at: AttachType) -> io::Result<OwnedFd> {
    let mut attributes = Attributes { words: [0; 16] };
    attributes.words[0] = program.as_raw_fd() as u32;
    attributes.words[1] = target;
    attributes.words[2] = at as u32;
    descriptor(bpf(BPF_LINK_CREATE, &mut attributes)?)
}

/// Puts another program into a link, in place (BPF_LINK_UPDATE). ENOLINK if what it was attached to is gone.
pub(crate) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = Attributes { words: [0; 16] };
    attributes.words[0] = link.as_raw_fd() as u32;
    attributes.words[1] = program.as_raw_fd() as u32;
    bpf(BPF_LINK_UPDATE, &mut attributes).map(drop)
}

/// Pins a BPF object at a path of a bpffs. The last name may not contain a dot.
pub(crate) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = Attributes { words: [0; 16] };
    put_pointer(&mut attributes.words[..2], path.as_ptr() as u64);
    attributes.words[2] = object.as_raw_fd() as u32;
    bpf(BPF_OBJ_PIN, &mut attributes).map(drop)
}

/// Opens a pinned BPF object.
pub(crate) fn get_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = Attributes { words: [0; 16] };
    put_pointer(&mut attributes.words[..2], path.as_ptr() as u64);
    descriptor(bpf(BPF_OBJ_GET, &mut attributes)?)
}

/// A pointer in the 64 bits that it has there, whatever the machine's own width.
fn put_pointer(words: &mut [u32], pointer: u64) {
    for (word, bytes) in words.iter_mut().zip(pointer.to_ne_bytes().chunks_exact(4)) {
        *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
}

fn bpf(command: libc::c_int, attributes: &mut Attributes) -> io::Result<libc::c_long> {
    // SAFETY: the attributes are a valid, zero-padded prefix of `union bpf_attr`; the pointers that a command may hold point to
    // what the callers keep alive over the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<Attributes>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn descriptor(number: libc::c_long) -> io::Result<OwnedFd> {
    let number = i32::try_from(number).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us, close-on-exec, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
