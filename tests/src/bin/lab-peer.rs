//! The clients and servers that run inside the lab's pods.

use clap::Parser;

fn main() -> anyhow::Result<()> {
    lab::peer::run(lab::peer::Arguments::parse())
}
