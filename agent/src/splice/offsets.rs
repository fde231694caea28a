//! The offsets that the programs need, of the running kernel.

use std::{fs, io, path::Path};

use ambit_common::splice::Offsets;

use super::btf::{self, Btf};

const BTF: &str = "/sys/kernel/btf/vmlinux";

/// Why they aren't known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel doesn't say.
    #[error("reading {BTF}: {0} (the kernel needs CONFIG_DEBUG_INFO_BTF)")]
    Read(#[from] io::Error),
    /// The kernel's structs are others than those that we know.
    #[error(transparent)]
    Field(#[from] btf::Error),
}

/// Asks the running kernel.
///
/// # Errors
/// [`Error`].
pub fn of_running_kernel() -> Result<Offsets, Error> {
    let data = fs::read(Path::new(BTF))?;
    Ok(find(&Btf::parse(&data)?)?)
}

fn find(btf: &Btf<'_>) -> Result<Offsets, btf::Error> {
    Ok(Offsets {
        queued: btf.offset("sock", &["sk_backlog", "rmem_alloc"])?,
        rcvbuf: btf.offset("sock", &["sk_rcvbuf"])?,
        sk_socket: btf.offset("sock", &["sk_socket"])?,
        file: btf.offset("socket", &["file"])?,
        file_flags: btf.offset("file", &["f_flags"])?,
        copied_seq: btf.offset("tcp_sock", &["copied_seq"])?,
        write_seq: btf.offset("tcp_sock", &["write_seq"])?,
        receive_queue: btf.offset("sock", &["sk_receive_queue", "next"])?,
        packet_first: btf.offset("sk_buff", &["cb"])?,
        in_call: btf.offset("sock", &["sk_lock", "owned"])?,
        rcv_nxt: btf.offset("tcp_sock", &["rcv_nxt"])?,
        user_data: btf.offset("sock", &["sk_user_data"])?,
        held_up: btf.offset("sk_psock", &["ingress_skb", "qlen"])?,
        state: btf.offset("sock", &["__sk_common", "skc_state"])?,
        cookie: btf.offset("sock", &["__sk_common", "skc_cookie"])?,
        upper_protocol: btf.offset("inet_connection_sock", &["icsk_ulp_ops"])?,
        low_water: btf.offset("sock", &["sk_rcvlowat"])?,
    })
}
