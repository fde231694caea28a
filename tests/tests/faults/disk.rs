//! Disks that are full: logs can't be written, nor what control keeps.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use lab::{Lab, Mesh, Result, eventually};

use crate::shop::{DEADLINE, pod, wrapped};

/// A file system of its own, of so little that it is soon full. It goes with this.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: PathBuf) -> Self {
        fs::create_dir(&at).unwrap();
        let options = ["-t", "tmpfs", "-o", "size=256k,mode=0700", "tmpfs"];
        let mounted = Command::new("mount").args(options).arg(&at).status();
        assert!(mounted.unwrap().success());
        Self(at)
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Until not a byte more can be written.
    fn fill(&self) {
        let error = fs::write(self.filler(), vec![0; 1 << 20]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    }

    fn empty(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Names of the files that control keeps, but for the one that fills the disk.
fn kept(state: &Path) -> Vec<String> {
    let names = fs::read_dir(state).unwrap();
    let mut names: Vec<_> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "filler")
        .collect();
    names.sort();
    names
}

fn roots(state: &Path) -> usize {
    let bundle = fs::read_to_string(state.join("trust-bundle.pem")).unwrap();
    bundle.matches("BEGIN CERTIFICATE").count()
}

#[test]
fn full_disks_stop_no_connection_and_all_goes_on_once_there_is_room() -> Result<()> {
    let lab = Lab::builder("full").build()?;
    lab.namespace("shop").enrolled()?;
    let (client, far) = (pod(&lab, "a", "client")?, pod(&lab, "b", "far")?);
    let _served = far.echo(80)?;
    let disk = Disk::mount(lab.directory().join("control"));
    // The agents' logs and access logs go where there is never room.
    let program = wrapped(
        &lab,
        "[ \"$1\" = node ] && exec 2>/dev/full\nexec ambit \"$@\"",
    )?;
    let rotation = [
        "--root-ttl",
        "27s",
        "--root-overlap",
        "6s",
        "--rotate-before",
        "12s",
    ];
    let mesh = || {
        Mesh::default()
            .program(&program)
            .certificate_ttl("6s")
            .control_arguments(&rotation)
    };

    disk.fill();
    let error = mesh().start(&lab).unwrap_err().to_string();
    assert!(error.contains("No space left on device"), "{error}");
    assert!(error.contains(&disk.0.display().to_string()), "{error}");
    assert_eq!(kept(&disk.0), ["lock"], "nothing half written");
    disk.empty();

    let mut mesh = mesh().start(&lab)?;
    disk.fill();
    let (state, before) = (disk.0.clone(), kept(&disk.0));
    // It needs to write nothing to go on as before.
    mesh.kill_control();
    mesh.start_control()?;
    let lost = || {
        let lines = lab.node("a").metric("ambit_log_lines_dropped_total", &[]);
        lines.unwrap()
    };
    let at = far.at(80).to_string();
    let many = ["echo-client", "--connections", "100", "--connect", &at];
    eventually(
        "lines to be counted that can't be written",
        DEADLINE,
        || {
            assert_eq!(client.peer(many).unwrap()["failed"], 0);
            lost() > 0.0
        },
    );
    mesh.control()
        .await_stderr(DEADLINE, |line| line.contains("root rotation failed"))?;
    assert_eq!((roots(&state), kept(&state)), (1, before));
    assert_eq!(client.call(far.at(80))?, "echoed");
    disk.empty();
    eventually("the next root", DEADLINE, || roots(&state) == 2);
    assert_eq!(client.call(far.at(80))?, "echoed");
    Ok(())
}
