//! `kernels`: boots Debian's kernels under qemu, and sees what of this works there.
//!
//! One thing a kernel: its packages ([`crate::setup::archive`]), a file system out of this machine's
//! own binaries (`initramfs`), a boot with a deadline (`guest`), a judgement (`report`).

mod cpio;
mod guest;
mod image;
mod initramfs;
mod report;
mod scenarios;

use std::env;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::setup::archive::Archive;
use crate::setup::machine::{self, Qemu};
use crate::{setup, shell};

use guest::{Account, Boot};
use image::Image;
use initramfs::Userland;
use report::Report;

/// What `kernels` can be told.
#[derive(clap::Args)]
pub struct Options {
    /// Only this kernel (5.10, 6.1, 6.12, sid); may be given several times
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Only scenarios whose name holds this
    #[arg(long, value_name = "TEXT", default_value = "")]
    scenario: String,
    /// Fetch the newest kernels of each suite instead of using those that are there
    #[arg(long)]
    update: bool,
    /// Debian's archive, where this machine's apt sources do not name it
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Minutes that one kernel may take
    #[arg(long, value_name = "N", default_value_t = 40)]
    deadline: u64,
}

/// A kernel to boot.
pub struct Kernel {
    /// What it is called here.
    pub name: &'static str,
    /// Where it is from; the last suite has it.
    suites: &'static [&'static str],
    /// What must happen.
    pub expected: Expected,
}

/// What must happen on a kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Everything works, acceleration too.
    Accelerates,
    /// Everything works but acceleration, which the self-test switches off.
    Serves,
    /// `meshctl check` and the agent refuse it, and say what to do.
    Refused,
}

/// Oldest first.
const KERNELS: [Kernel; 4] = [
    Kernel {
        name: "5.10",
        suites: &["bullseye"],
        expected: Expected::Refused,
    },
    Kernel {
        name: "6.1",
        suites: &["bookworm"],
        // FIONREAD does not count redirected bytes there: nginx, for one, would wait for ever.
        expected: Expected::Serves,
    },
    Kernel {
        name: "6.12",
        suites: &["bookworm", "bookworm-backports"],
        expected: Expected::Accelerates,
    },
    Kernel {
        name: "sid",
        suites: &["sid"],
        expected: Expected::Accelerates,
    },
];

/// Boots the kernels that are named, or all; fails where one of them is not as expected.
pub fn run(options: &Options) -> Result<()> {
    if env::consts::ARCH != "x86_64" {
        bail!(
            "`kernels` boots x86_64 kernels with this machine's own binaries; this is {}",
            env::consts::ARCH
        );
    }
    let names = || KERNELS.iter().map(|kernel| kernel.name);
    if let Some(unknown) = options
        .only
        .iter()
        .find(|only| !names().any(|name| name == *only))
    {
        let names: Vec<&str> = names().collect();
        bail!("no kernel {unknown:?} here, but {}", names.join(", "));
    }
    setup::run()?;
    let dir = shell::target_dir().join("kernels");
    let mut archive = Archive::open(dir.clone(), options.mirror.as_deref(), options.update)?;
    let qemu = Qemu::ensure(&mut archive)?;
    let busybox = machine::busybox(&mut archive)?;
    let userland = Userland::build(busybox)?;
    let mut reports = Vec::new();
    for kernel in &KERNELS {
        if options.only.is_empty() || options.only.iter().any(|only| only == kernel.name) {
            let account = boot(kernel, options, &mut archive, &qemu, &userland)
                .unwrap_or_else(|error| Account::broken(&error));
            reports.push(Report::new(kernel, &account));
        }
    }
    println!("\n{}", report::table(&reports));
    let failed: Vec<&str> = reports
        .iter()
        .filter(|report| !report.problems.is_empty())
        .map(|report| report.name)
        .collect();
    if !failed.is_empty() {
        bail!(
            "not as expected: {}; what the guests printed is in {}",
            failed.join(", "),
            dir.display()
        );
    }
    Ok(())
}

fn boot(
    kernel: &Kernel,
    options: &Options,
    archive: &mut Archive,
    qemu: &Qemu,
    userland: &Userland,
) -> Result<Account> {
    println!("kernel {}", kernel.name);
    let unpacked = machine::kernel(archive, kernel.name, kernel.suites)?;
    let image = Image::find(&unpacked.root)?;
    let dir = shell::target_dir().join("kernels");
    let initramfs = dir.join(format!("{}.cpio", kernel.name));
    let files = userland.archive(&image, &options.scenario)?;
    fs::write(&initramfs, files).with_context(|| format!("write {}", initramfs.display()))?;
    println!("  boot     {}", unpacked.packages.join(" "));
    let account = guest::run(
        qemu,
        &Boot {
            vmlinuz: &image.vmlinuz,
            initramfs: &initramfs,
            console: dir.join(format!("{}.log", kernel.name)),
            deadline: Duration::from_secs(options.deadline * 60),
        },
    )?;
    // It is large, and made again each time; where the guest is of interest it is still there.
    if account.done {
        fs::remove_file(&initramfs).with_context(|| format!("remove {}", initramfs.display()))?;
    }
    Ok(account)
}
