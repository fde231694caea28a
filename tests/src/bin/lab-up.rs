//! Makes a lab to look around in: two nodes with two pods each, until standard input ends.
//!
//! Prints the lab's name in its first line, then how to enter it. A line `panic` on standard input
//! makes it panic and `keep` makes it leave the lab standing; the tests of the lab's end use that.

use std::io::{self, Write as _};

use lab::{Family, Lab, PodNetwork, PodSpec};

fn main() -> anyhow::Result<()> {
    let lab = Lab::builder("up")
        .pods(PodNetwork::Routed)
        .family(Family::Dual)
        .build()?;
    for node in lab.nodes() {
        for pod in ["client", "server"] {
            let pod = node.pod(pod, PodSpec::in_namespace("default"))?;
            // A process for the lab's end to find; the watchdog kills it.
            std::mem::forget(pod.spawn("sleep", ["1000"])?);
        }
    }
    println!("{}\n{}", lab.name(), lab.directory().display());
    for node in lab.nodes() {
        println!("    nsenter --net=/run/netns/{} bash", node.namespace());
    }
    println!("up until standard input ends");
    io::stdout().flush()?;

    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    match line.trim() {
        "panic" => panic!("as asked"),
        "keep" => print!("{}", lab.keep()?),
        _ => lab.tear_down()?,
    }
    Ok(())
}
