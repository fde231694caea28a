//! How many entries a pinned BPF map has: bpf(2).

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use super::length;

const BPF_MAP_GET_NEXT_KEY: i32 = 4;
const BPF_OBJ_GET: i32 = 7;
const BPF_OBJ_GET_INFO_BY_FD: i32 = 15;

/// Kinds of maps whose entries come and go by themselves (`enum bpf_map_type`): hash, LPM trie, sockhash.
const COUNTED: [u32; 3] = [1, 11, 18];

/// The first fields of `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct Info {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

/// The entries of a map, if it is of a kind whose entries are put there and removed again. Arrays have
/// all of theirs always, and LRU maps forget by themselves.
pub(crate) fn entries(pin: &Path) -> io::Result<Option<usize>> {
    let map = open(pin)?;
    let info = info(&map)?;
    if !COUNTED.contains(&info.kind) {
        return Ok(None);
    }
    let key_size = usize::try_from(info.key_size).map_err(io::Error::other)?;
    let (mut key, mut next) = (None, vec![0_u8; key_size]);
    // A map that changes meanwhile may begin anew; it has no end then.
    for count in 0..=info.max_entries {
        if !next_key(&map, key.as_deref(), &mut next)? {
            return Ok(usize::try_from(count).ok());
        }
        key = Some(next.clone());
    }
    Err(io::Error::other("the map changes too fast to be counted"))
}

fn open(pin: &Path) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Get {
        path: u64,
        descriptor: u32,
        flags: u32,
    }
    let path = CString::new(pin.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let get = Get {
        path: path.as_ptr() as u64,
        descriptor: 0,
        flags: 0,
    };
    let descriptor = bpf(BPF_OBJ_GET, &get)?;
    // SAFETY: the descriptor is new and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn info(map: &OwnedFd) -> io::Result<Info> {
    #[repr(C)]
    struct Ask {
        descriptor: i32,
        length: u32,
        info: u64,
    }
    let mut info = Info::default();
    let ask = Ask {
        descriptor: map.as_raw_fd(),
        length: length::<Info>()?,
        info: &raw mut info as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &ask)?;
    Ok(info)
}

/// Whether there is a key after `key`, or any if that is none; it is in `next` then.
fn next_key(map: &OwnedFd, key: Option<&[u8]>, next: &mut [u8]) -> io::Result<bool> {
    #[repr(C)]
    struct Step {
        descriptor: i32,
        padding: u32,
        key: u64,
        next: u64,
    }
    let step = Step {
        descriptor: map.as_raw_fd(),
        padding: 0,
        key: key.map_or(0, |key| key.as_ptr() as u64),
        next: next.as_mut_ptr() as u64,
    };
    match bpf(BPF_MAP_GET_NEXT_KEY, &step) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

fn bpf<T>(command: i32, attributes: &T) -> io::Result<i32> {
    let attributes: *const T = attributes;
    // SAFETY: the attributes are as long as is said, and what they point to outlives the call and is as
    // large as the map's keys, or as is said beside it.
    let code = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    if code < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(code).map_err(io::Error::other)
}
