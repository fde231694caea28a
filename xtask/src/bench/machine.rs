//! The machine that was measured on: figures of two machines don't compare.

use std::{collections::BTreeMap, env::consts::ARCH, fs, thread};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// What figures depend on, as far as the machine says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Machine {
    /// The model's name, or the architecture where the kernel doesn't know one.
    pub(super) cpu: String,
    /// How many of them this process may use.
    pub(super) cores: usize,
    pub(super) memory_mib: u64,
    pub(super) kernel: String,
    /// `None`: it can't be told.
    pub(super) virtualised: Option<bool>,
    /// Who chooses the CPU's frequency; `None` where it doesn't say, as in most virtual machines.
    pub(super) governor: Option<String>,
    /// What else took part, each with what it says of itself.
    pub(super) versions: BTreeMap<String, String>,
}

/// The files it is read from, in the words of the kernel.
struct Facts<'a> {
    cpuinfo: &'a str,
    meminfo: &'a str,
    kernel: &'a str,
    governor: Option<&'a str>,
}

impl Machine {
    /// This machine; `versions` of the other programs that are measured, by their name.
    ///
    /// # Errors
    /// A file of /proc can't be read, or doesn't say how much memory there is.
    pub(super) fn read(versions: BTreeMap<String, String>) -> Result<Machine> {
        let read = |path| fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
        let governor =
            fs::read_to_string("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").ok();
        let facts = Facts {
            cpuinfo: &read("/proc/cpuinfo")?,
            meminfo: &read("/proc/meminfo")?,
            kernel: &read("/proc/sys/kernel/osrelease")?,
            governor: governor.as_deref(),
        };
        let cores = thread::available_parallelism().context("cannot count the CPUs")?;
        machine(&facts, cores.get(), versions)
    }

    /// In what it differs from `other`, one sentence each.
    pub(super) fn differences(&self, other: &Machine) -> Vec<String> {
        let mut differences = Vec::new();
        let mut compare = |what: &str, ours: String, theirs: String| {
            if ours != theirs {
                differences.push(format!("{what}: {theirs} then, {ours} now"));
            }
        };
        let ((ours, theirs), unknown) = ((self.facts(), other.facts()), "unknown");
        for ((what, ours), (_, theirs)) in ours.into_iter().zip(theirs) {
            compare(what, ours, theirs);
        }
        for program in self.versions.keys().chain(other.versions.keys()) {
            let version =
                |of: &Machine| of.versions.get(program).map_or(unknown, |it| it).to_owned();
            compare(program, version(self), version(other));
        }
        differences.dedup();
        differences
    }

    /// What it is, by name, without the programs on it.
    pub(super) fn facts(&self) -> Vec<(&'static str, String)> {
        let virtualised = match self.virtualised {
            Some(true) => "yes",
            Some(false) => "no",
            None => "unknown",
        };
        vec![
            ("CPU", self.cpu.clone()),
            ("cores", self.cores.to_string()),
            ("memory", format!("{} MiB", self.memory_mib)),
            ("kernel", self.kernel.clone()),
            ("virtual machine", virtualised.to_owned()),
            (
                "CPU governor",
                self.governor
                    .clone()
                    .unwrap_or_else(|| "unknown".to_owned()),
            ),
        ]
    }
}

fn machine(facts: &Facts<'_>, cores: usize, versions: BTreeMap<String, String>) -> Result<Machine> {
    let memory = field(facts.meminfo, "MemTotal")
        .and_then(|text| text.strip_suffix(" kB")?.trim().parse::<u64>().ok())
        .context("/proc/meminfo has no `MemTotal` in kB")?;
    // Only x86 lists the flag that says so; elsewhere its absence says nothing.
    let virtualised = field(facts.cpuinfo, "flags")
        .map(|flags| flags.split_whitespace().any(|flag| flag == "hypervisor"));
    Ok(Machine {
        cpu: field(facts.cpuinfo, "model name")
            .unwrap_or(ARCH)
            .to_owned(),
        cores,
        memory_mib: memory / 1024,
        kernel: facts.kernel.trim().to_owned(),
        virtualised,
        governor: facts.governor.map(|governor| governor.trim().to_owned()),
        versions,
    })
}

/// The first value of `name` in lines of `name : value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.find_map(|(key, value)| (key.trim() == name).then_some(value.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: Facts<'_> = Facts {
        cpuinfo: "processor\t: 0\nmodel name\t: Fast CPU\nflags\t\t: fpu hypervisor\n\
                  processor\t: 1\nmodel name\t: Fast CPU\n",
        meminfo: "MemTotal:       16303380 kB\nMemFree:         7302256 kB\n",
        kernel: "6.18.0\n",
        governor: Some("performance\n"),
    };

    fn read(facts: &Facts<'_>) -> Machine {
        let versions = BTreeMap::from([("haproxy".to_owned(), "2.6.12".to_owned())]);
        machine(facts, 2, versions).expect("the facts are complete")
    }

    #[test]
    fn a_machine_is_read_from_what_the_kernel_says() {
        let machine = read(&FACTS);
        let expected = [
            ("CPU", "Fast CPU"),
            ("cores", "2"),
            ("memory", "15921 MiB"),
            ("kernel", "6.18.0"),
            ("virtual machine", "yes"),
            ("CPU governor", "performance"),
        ];
        assert_eq!(
            machine.facts(),
            expected.map(|(name, value)| (name, value.to_owned()))
        );
    }

    #[test]
    fn what_the_kernel_does_not_say_is_unknown() {
        let arm = read(&Facts {
            cpuinfo: "processor : 0\n",
            governor: None,
            ..FACTS
        });
        assert_eq!(
            (arm.cpu.as_str(), arm.virtualised, arm.governor),
            (ARCH, None, None)
        );
        let bare = read(&Facts {
            cpuinfo: "flags : fpu\n",
            ..FACTS
        });
        assert_eq!(bare.virtualised, Some(false));
        let error = machine(
            &Facts {
                meminfo: "",
                ..FACTS
            },
            2,
            BTreeMap::new(),
        );
        assert!(
            error
                .expect_err("no memory")
                .to_string()
                .contains("`MemTotal`")
        );
    }

    #[test]
    fn this_machine_can_be_read() {
        let machine = Machine::read(BTreeMap::new()).expect("/proc is there");
        assert!(machine.cores > 0 && machine.memory_mib > 0, "{machine:?}");
    }

    #[test]
    fn differences_name_what_differs_and_nothing_else() {
        let old = read(&FACTS);
        assert_eq!(old.differences(&old), Vec::<String>::new());
        let mut new = read(&Facts {
            kernel: "6.19.0",
            ..FACTS
        });
        new.versions.insert("haproxy".to_owned(), "3.0".to_owned());
        new.versions.insert("envoy".to_owned(), "1.36".to_owned());
        let expected = [
            "kernel: 6.18.0 then, 6.19.0 now",
            "envoy: unknown then, 1.36 now",
            "haproxy: 2.6.12 then, 3.0 now",
        ];
        assert_eq!(new.differences(&old), expected);
    }
}
