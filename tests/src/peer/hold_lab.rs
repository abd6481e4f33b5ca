//! `lab-peer hold-lab`: what the tests of the lab's own end kill.

use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::{Lab, PodSpec};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The lab's name
    name: String,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let lab = Lab::new(&arguments.name)?;
    let pod = lab.pod(PodSpec::new("a"))?;
    let mut command = Command::new("sleep");
    command.arg("1000");
    let sleeper = pod.spawn(command)?;
    println!("up {} {}", lab.id(), sleeper.id());
    loop {
        std::thread::park();
    }
}
