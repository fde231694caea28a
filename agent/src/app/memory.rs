//! What the process holds of the machine's memory.
#![expect(
    unsafe_code,
    reason = "mallctl and madvise have no safe binding; each call says why it is sound"
)]

use std::{fs, ops::Range, ptr, time::Duration};

use tikv_jemalloc_sys::mallctl;

/// How often an agent looks whether it is idle.
pub(super) const AGENT_LOOK: Duration = Duration::from_secs(5);
/// How often a waypoint looks: it is idle if nothing was asked of it between two looks.
pub(super) const WAYPOINT_LOOK: Duration = Duration::from_secs(2);
/// Resident pages of files, in KiB, that aren't worth giving back: an idle process's own timers come
/// by about 1 MiB.
const KEPT_PAGES: usize = 4096;

/// Gives back to the system what was needed only to start: reading manifests, loading programs.
///
/// The allocator would keep its share for later, more than a megabyte on an idle node. So would
/// the kernel with the program's own pages, for which it maps sixteen at a time: some 7 MiB of
/// command line, YAML and loader that no connection comes by. What is still needed is mapped
/// again from the page cache as it is touched, a microsecond for each 64 KiB.
pub(super) fn give_back() {
    purge();
    let mappings = fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    for range in clean_file_mappings(&mappings) {
        // SAFETY: the range is a whole mapping that is read-only, private, of a file, and has no
        // page of its own: every page is the file's, and comes from there again, as it would after
        // the kernel had reclaimed it.
        unsafe {
            // A refusal (locked pages) leaves the pages where they are.
            let _ = libc::madvise(
                ptr::without_provenance_mut(range.start),
                range.len(),
                libc::MADV_DONTNEED,
            );
        }
    }
}

/// Has the allocator give unused pages back.
fn purge() {
    for control in [
        // This thread's cache, the only one that can be reached from here.
        c"thread.tcache.flush",
        // 4096 stands for all arenas (MALLCTL_ARENAS_ALL).
        c"arena.4096.purge",
    ] {
        // SAFETY: the name ends with a zero byte, and neither control reads or writes anything by the pointers, which
        // have to be null.
        unsafe {
            // A refusal leaves the pages to decay by themselves.
            let _ = mallctl(
                control.as_ptr(),
                ptr::null_mut(),
                ptr::null_mut(),
                ptr::null_mut(),
                0,
            );
        }
    }
}

/// Gives back whenever the process is idle, which is asked every so often, and has more than that: what
/// the last connections came by is no more needed than what starting did.
///
/// The next connection finds its code in the page cache, some tenths of a millisecond later.
pub(super) async fn give_back_when_idle(look: Duration, mut is_idle: impl FnMut() -> bool) {
    loop {
        tokio::time::sleep(look).await;
        if is_idle() && resident_file_pages().is_some_and(|kib| kib > KEPT_PAGES) {
            give_back();
        }
    }
}

/// In KiB. `RssFile` of proc_pid_status(5).
fn resident_file_pages() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssFile:"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// The mappings of `/proc/<pid>/smaps` that are read-only, private, of a file on disk, and have
/// no page that differs from it (relocated data has; it is the loader's, and must stay).
fn clean_file_mappings(smaps: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut candidate = None;
    for line in smaps.lines() {
        let mut fields = line.split_ascii_whitespace();
        match fields.next() {
            Some("Anonymous:") => {
                let is_clean = fields.next() == Some("0");
                found.extend(candidate.take().filter(|_| is_clean));
            }
            Some(field) if !field.ends_with(':') => candidate = mapping(line),
            _ => {}
        }
    }
    found
}

/// The range in a mapping's first line, if it's read-only, private and of a file on disk.
fn mapping(line: &str) -> Option<Range<usize>> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let (permissions, _offset, _device) = (fields.next()?, fields.next()?, fields.next()?);
    let (inode, path) = (fields.next()?, fields.next()?);
    let is_files = inode != "0" && path.starts_with('/');
    if !is_files || !matches!(permissions, "r-xp" | "r--p") {
        return None;
    }
    let parse = |text| usize::from_str_radix(text, 16).ok();
    Some(parse(start)?..parse(end)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unchanged_read_only_pages_of_files_are_given_back() {
        let of = |first: &str, anonymous: u32| {
            format!("{first}\nSize: 8 kB\nAnonymous: {anonymous} kB\nVmFlags: rd mr mw me\n")
        };
        let code = "1000-3000 r-xp 00001000 08:01 42      /usr/bin/ambit";
        for (first, anonymous, expected) in [
            (code, 0, Some(0x1000..0x3000)),
            (code, 4, None),
            (
                "7f00-8f00 r--p 00000000 08:01 42 /usr/bin/a program (deleted)",
                0,
                Some(0x7f00..0x8f00),
            ),
            ("1000-3000 rw-p 00001000 08:01 42 /usr/bin/ambit", 0, None),
            ("1000-3000 r--s 00001000 08:01 42 /usr/bin/ambit", 0, None),
            ("1000-3000 r-xp 00000000 00:00 0 [vdso]", 0, None),
            ("1000-3000 r--p 00000000 00:00 0", 0, None),
            (
                "1000-3000 r--s 00000000 00:0e 9 anon_inode:bpf-map",
                0,
                None,
            ),
        ] {
            let smaps = of(code, 1) + &of(first, anonymous);
            let found: Vec<_> = expected.into_iter().collect();
            assert_eq!(clean_file_mappings(&smaps), found, "{first}");
        }
        assert!(clean_file_mappings("no such\nAnonymous: 0 kB").is_empty());
    }

    #[test]
    fn the_program_runs_on_after_its_pages_are_given_back() {
        let own = fs::read_to_string("/proc/self/smaps").unwrap();
        assert!(!clean_file_mappings(&own).is_empty());
        let before = resident_file_pages().unwrap();
        give_back();
        let after = resident_file_pages().unwrap();
        assert!(after < before, "{after} of {before} KiB");
    }
}
