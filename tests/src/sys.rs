//! The few system calls that std lacks. All unsafe code of the lab is here.
#![expect(
    unsafe_code,
    reason = "setns, pidfd_open, kill, mount, packet sockets, bpf and pre_exec have no safe form"
)]

pub(crate) mod map;
mod packet;

use std::{
    ffi::CString,
    fs::File,
    io::{self, Write as _},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::{ffi::OsStrExt as _, process::CommandExt as _},
    },
    path::Path,
    process::Command,
    time::Duration,
};

pub(crate) use packet::{lost as packets_lost, socket as packet_socket};

/// Whether the process runs as root.
pub(crate) fn is_root() -> bool {
    // SAFETY: geteuid has no preconditions.
    unsafe { libc::geteuid() == 0 }
}

/// Moves the calling thread, and no other, into a network namespace.
pub(crate) fn enter_network_namespace(namespace: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as the call lasts.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) })
}

/// Makes the process of `command` join a cgroup and then a network namespace before it runs.
///
/// In this order, so that every socket it makes belongs to the cgroup. `cgroup_procs` is the
/// cgroup's `cgroup.procs`, open for writing.
pub(crate) fn start_in(command: &mut Command, mut cgroup_procs: File, namespace: File) {
    let enter = move || {
        // "0" means the writing process.
        cgroup_procs.write_all(b"0")?;
        enter_network_namespace(&namespace)
    };
    // SAFETY: between fork and exec `enter` only calls write and setns, which are
    // async-signal-safe, and allocates nothing.
    unsafe { command.pre_exec(enter) };
}

/// Gives the process of `command` a session of its own, out of reach of Ctrl-C.
pub(crate) fn start_in_own_session(command: &mut Command) {
    // SAFETY: setsid is async-signal-safe.
    unsafe { command.pre_exec(|| check(libc::setsid())) };
}

/// Sends a signal to a process that has not been waited for.
pub(crate) fn signal(pid: u32, signal: i32) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: kill has no memory preconditions.
    check(unsafe { libc::kill(pid, signal) })
}

/// Sends a signal to the process group that a process leads.
pub(crate) fn signal_group(leader: u32, signal: i32) -> io::Result<()> {
    let leader = libc::pid_t::try_from(leader).map_err(io::Error::other)?;
    // SAFETY: killpg has no memory preconditions.
    check(unsafe { libc::killpg(leader, signal) })
}

/// Waits until a child has ended, without reaping it. False if it hasn't within `timeout`.
pub(crate) fn wait_for_exit(pid: u32, timeout: Duration) -> io::Result<bool> {
    // SAFETY: pidfd_open takes a pid and flags, and returns a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and belongs to nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).map_err(io::Error::other)?) };
    let mut poll = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: `poll` is one valid pollfd.
    let ready = unsafe { libc::poll(&raw mut poll, 1, timeout) };
    if ready < 0 {
        let error = io::Error::last_os_error();
        // A signal handler ran: the caller's loop asks again with what is left of its time.
        return if error.kind() == io::ErrorKind::Interrupted {
            Ok(false)
        } else {
            Err(error)
        };
    }
    Ok(ready > 0)
}

/// Mounts a BPF file system of its own on `directory`.
pub(crate) fn mount_bpf(directory: &Path) -> io::Result<()> {
    let target = CString::new(directory.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let kind = c"bpf";
    // SAFETY: source, target and type are valid C strings; no data is passed.
    check(unsafe {
        libc::mount(
            kind.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            0,
            std::ptr::null(),
        )
    })
}

/// Loads a classifier from its instructions.
pub(crate) fn load_classifier(text: &[u64]) -> io::Result<OwnedFd> {
    const BPF_PROG_LOAD: i32 = 5;
    const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
    /// The first fields of `union bpf_attr` for that command.
    #[repr(C)]
    struct Load {
        kind: u32,
        length: u32,
        text: u64,
        license: u64,
    }
    let license = c"GPL";
    let load = Load {
        kind: BPF_PROG_TYPE_SCHED_CLS,
        length: u32::try_from(text.len()).map_err(io::Error::other)?,
        text: text.as_ptr() as u64,
        license: license.as_ptr() as u64,
    };
    // SAFETY: the attributes are as long as is said, and what they point to outlives the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_LOAD,
            &raw const load,
            size_of::<Load>(),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).map_err(io::Error::other)?) })
}

/// Gives a loaded program a name in a BPF file system.
pub(crate) fn pin(program: &OwnedFd, path: &Path) -> io::Result<()> {
    const BPF_OBJ_PIN: i32 = 6;
    #[repr(C)]
    struct Pin {
        path: u64,
        program: i32,
        flags: u32,
    }
    let path = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let pin = Pin {
        path: path.as_ptr() as u64,
        program: program.as_raw_fd(),
        flags: 0,
    };
    // SAFETY: the attributes are as long as is said, and what they point to outlives the call.
    let code =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_PIN, &raw const pin, size_of::<Pin>()) };
    check(i32::try_from(code).map_err(io::Error::other)?)
}

/// How long a value is, as system calls want to be told it.
fn length<T>() -> io::Result<u32> {
    u32::try_from(size_of::<T>()).map_err(io::Error::other)
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
