//! Nothing is left of a lab, however the process ends that made it.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which clippy doesn't count as tests"
)]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use lab::eventually;

const DEADLINE: Duration = Duration::from_secs(20);

/// How a process that made a lab ends.
enum End {
    Panic,
    Signal(&'static str),
    Input,
}

#[test]
fn nothing_is_left_however_the_process_ends() {
    let ends = [
        End::Input,
        End::Panic,
        End::Signal("INT"),
        End::Signal("TERM"),
        End::Signal("KILL"),
    ];
    for end in ends {
        let mut process = Command::new(env!("CARGO_BIN_EXE_lab-up"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdin = process.stdin.take().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut line = || lines.next().unwrap().unwrap();
        let (name, directory) = (line(), PathBuf::from(line()));
        while line() != "up until standard input ends" {}
        // Two nodes, four pods; a cgroup a lab, a node, its own processes, and a pod; a bpffs a node.
        let left = Traces::of(&name, &directory);
        assert_eq!(
            (left.namespaces, left.cgroups, left.mounts, left.processes),
            (6, 9, 2, 4)
        );
        assert!(left.directory);

        match end {
            End::Input => drop(stdin),
            End::Panic => stdin.write_all(b"panic\n").unwrap(),
            End::Signal(signal) => {
                let pid = process.id().to_string();
                assert!(
                    Command::new("kill")
                        .args(["-s", signal, &pid])
                        .status()
                        .unwrap()
                        .success()
                );
            }
        }
        process.wait().unwrap();
        eventually("nothing left of the lab", DEADLINE, || {
            Traces::of(&name, &directory) == Traces::default()
        });
    }
}

#[test]
fn a_kept_lab_stays_with_its_processes_until_its_script_is_run() {
    let mut process = Command::new(env!("CARGO_BIN_EXE_lab-up"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    process.stdin.take().unwrap().write_all(b"keep\n").unwrap();
    let output = process.wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let (name, directory) = text.lines().next().zip(text.lines().nth(1)).unwrap();
    let directory = Path::new(directory);
    let traces = Traces::of(name, directory);
    assert_eq!((traces.namespaces, traces.processes), (6, 4));
    assert!(
        text.contains(&format!("nsenter --net=/run/netns/{name}-a-client")),
        "{text}"
    );

    let script = text
        .lines()
        .find_map(|line| line.strip_prefix("To take the lab down: sh "));
    assert!(
        Command::new("sh")
            .arg(script.unwrap())
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(Traces::of(name, directory), Traces::default());
}

/// What there is of a lab.
#[derive(Debug, Default, PartialEq)]
struct Traces {
    namespaces: usize,
    cgroups: usize,
    mounts: usize,
    processes: usize,
    directory: bool,
}

impl Traces {
    fn of(name: &str, directory: &Path) -> Traces {
        let names = |path: &str| -> Vec<String> {
            let entries = std::fs::read_dir(path).into_iter().flatten();
            entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect()
        };
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let of_cgroup2 = mounts
            .lines()
            .find(|line| line.contains(" - cgroup2 "))
            .unwrap();
        let root = Path::new(of_cgroup2.split(' ').nth(4).unwrap());
        let in_lab = |pid: &String| {
            // One that has ended may wait for init to take note.
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
            if status.is_ok_and(|status| status.contains("State:\tZ")) {
                return false;
            }
            let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup"));
            cgroup.is_ok_and(|cgroup| cgroup.contains(&format!("0::/{name}/")))
        };
        Traces {
            namespaces: names("/run/netns")
                .iter()
                .filter(|other| other.starts_with(name))
                .count(),
            cgroups: cgroups(&root.join(name)),
            mounts: mounts
                .lines()
                .filter(|line| line.contains(&*directory.to_string_lossy()))
                .count(),
            processes: names("/proc").iter().filter(|pid| in_lab(pid)).count(),
            directory: directory.exists(),
        }
    }
}

/// How many cgroups there are from this one down.
fn cgroups(directory: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return 0;
    };
    let directories = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir());
    1 + directories.map(|path| cgroups(&path)).sum::<usize>()
}
