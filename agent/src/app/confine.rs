//! What a process of Ambit gives up once it has started: whoever makes it run their own code must not have more
//! of the node than its work needs.
//!
//! A filter of system calls (seccomp) refuses what no role does, with EPERM, whatever the container runtime
//! allows. It names what is refused, not what is allowed: an agent that failed on a system call that a new
//! libc uses would cost a node its traffic. Cores, in which private keys would be found, aren't written.

use std::{collections::BTreeMap, env::consts::ARCH, path::Path};

use rustix::process::{Resource, Rlimit, setrlimit};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, sock_filter};

use crate::discovery::source;

/// Whether the process starts others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Children {
    /// Waypoints, where no cluster does, or what a kubeconfig names to get credentials by.
    Some,
    /// It needn't execute anything.
    None,
}

impl Children {
    /// Of an agent that follows that source.
    pub(super) fn of(source: &source::Settings) -> Self {
        match source {
            source::Settings::Directory(_) => Self::Some,
            source::Settings::Kubernetes { kubeconfig } => Self::of_client(kubeconfig.as_deref()),
        }
    }

    /// Of a client of an API server.
    pub(super) fn of_client(kubeconfig: Option<&Path>) -> Self {
        match kubeconfig {
            Some(_) => Self::Some,
            None => Self::None,
        }
    }
}

/// What no role does after its start.
const REFUSED: &[i64] = &[
    // Into other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Into other namespaces and file systems.
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_mknodat,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_fanotify_init,
    // Into the kernel, and over the machine.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    // What has let many out of their containers, and nobody here uses.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_userfaultfd,
    libc::SYS_perf_event_open,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_personality,
    libc::SYS_memfd_secret,
];

/// The same of one machine alone.
#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[i64] = &[
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_mknod,
    libc::SYS_modify_ldt,
];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[i64] = &[];

/// New programs.
const EXECUTION: &[i64] = &[libc::SYS_execve, libc::SYS_execveat];

/// Bytes of a core at most. One: the kernel takes it for "none" even where cores go to a program, which it
/// runs whatever the limit is otherwise.
const CORE: u64 = 1;

/// Why a process has more than it needs.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The list can't be made a filter for this machine.
    #[error("the filter can't be built: {0}")]
    Build(#[from] seccompiler::BackendError),
    /// The kernel refuses it.
    #[error("the kernel refuses the filter: {0}")]
    Apply(#[from] seccompiler::Error),
}

/// Gives up what the role doesn't need, in all threads, for good. What the kernel can't do is logged: a
/// kernel without seccomp has no more to lose.
pub(super) fn confine(children: Children) {
    let core = Rlimit {
        current: Some(CORE),
        maximum: Some(CORE),
    };
    if let Err(error) = setrlimit(Resource::Core, core) {
        tracing::warn!("cores aren't forbidden, and private keys would be in them: {error}");
    }
    let applied = filter(children).and_then(|filter| {
        seccompiler::apply_filter_all_threads(&filter)?;
        Ok(())
    });
    match applied {
        Ok(()) => tracing::debug!(?children, "system calls confined"),
        Err(error) => tracing::warn!("system calls aren't confined: {error}"),
    }
}

fn filter(children: Children) -> Result<BpfProgram, Error> {
    let execution = match children {
        Children::Some => &[],
        Children::None => EXECUTION,
    };
    let refused = REFUSED.iter().chain(REFUSED_HERE).chain(execution);
    let rules: BTreeMap<i64, _> = refused.map(|number| (*number, Vec::new())).collect();
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        refusal(),
        TargetArch::try_from(ARCH)?,
    )?;
    let mut program = without_x32();
    program.extend(BpfProgram::try_from(filter)?);
    Ok(program)
}

fn refusal() -> SeccompAction {
    SeccompAction::Errno(libc::EPERM.unsigned_abs())
}

/// Refuses x86-64's second set of system calls (x32), which has all of the first under other numbers, and nothing
/// of ours uses. On other machines no number is that large.
fn without_x32() -> BpfProgram {
    const LOAD: u16 = 0x20;
    const JUMP_IF_AT_LEAST: u16 = 0x35;
    const RETURN: u16 = 0x06;
    const X32: u32 = 0x4000_0000;
    let instruction = |code, jf, k| sock_filter { code, jt: 0, jf, k };
    let number = 0;
    vec![
        instruction(LOAD, 0, number),
        instruction(JUMP_IF_AT_LEAST, 1, X32),
        instruction(RETURN, 0, refusal().into()),
    ]
}

#[cfg(test)]
mod tests {
    use std::{io, process::Command, thread};

    use super::*;

    /// What a confined thread can do.
    fn confined<T: Send + 'static>(
        children: Children,
        act: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let confined = move || {
            seccompiler::apply_filter(&filter(children).unwrap()).unwrap();
            act()
        };
        thread::spawn(confined).join().unwrap()
    }

    fn mount() -> io::Result<()> {
        let nothing = rustix::mount::MountFlags::empty();
        Ok(rustix::mount::mount(
            "none", "/nowhere", "tmpfs", nothing, None,
        )?)
    }

    #[test]
    fn what_no_role_does_is_refused() {
        let error = confined(Children::Some, mount).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        // It is the filter that says so.
        assert_ne!(mount().unwrap_err().raw_os_error(), Some(libc::EPERM));
    }

    #[test]
    fn only_who_starts_waypoints_may_execute_programs() {
        let start = || Command::new("/bin/true").status();
        let error = confined(Children::None, start).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        assert!(confined(Children::Some, start).unwrap().success());
    }

    #[test]
    fn the_rest_goes_on() {
        let works = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
            std::net::TcpStream::connect(listener.local_addr()?)?;
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()?;
            runtime.block_on(tokio::fs::metadata("/")).map(drop)
        };
        confined(Children::None, works).unwrap();
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    #[expect(
        unsafe_code,
        reason = "no safe function makes a system call by the number of another set"
    )]
    fn no_call_is_made_by_its_other_number() {
        let by_x32 = || {
            // SAFETY: getpid takes no argument.
            let told = unsafe { libc::syscall(libc::SYS_getpid | 0x4000_0000) };
            (told, io::Error::last_os_error().raw_os_error())
        };
        assert_eq!(confined(Children::None, by_x32), (-1, Some(libc::EPERM)));
    }
}
