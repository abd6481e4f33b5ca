//! Packages of Debian's suites, unpacked below target/: other kernels, and what boots them.
//!
//! apt runs with lists, sources and a package database of its own, so that nothing is installed and
//! this machine's sources stay as they are. It verifies signatures and checksums as ever.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::{found, installing};
use crate::shell;

/// Debian's keys, from the package `debian-archive-keyring`.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// In an unpacked package's folder once it is whole: the packages, one `NAME=VERSION` a line.
const COMPLETE: &str = "packages";

/// Debian's archive, as the machine's own sources know it.
pub struct Archive {
    /// Where lists, sources and unpacked packages are.
    dir: PathBuf,
    mirror: String,
    /// The suites whose package lists are as of this run.
    fresh: BTreeSet<String>,
}

/// What is wanted from the archive.
pub struct Wanted<'a> {
    /// The folder's name below the archive's.
    pub name: &'a str,
    /// The suites to look in; the last one's versions win.
    pub suites: &'a [&'a str],
    /// The package.
    pub package: &'a str,
    /// Which of the packages that it depends on, directly or not, are wanted as well.
    pub with: fn(&str) -> bool,
}

/// A package that was unpacked.
pub struct Unpacked {
    /// The root of its files.
    pub root: PathBuf,
    /// `NAME=VERSION` of everything that lies there.
    pub packages: Vec<String>,
}

impl Archive {
    /// Opens it below `dir`. `mirror` names Debian's archive where the machine's sources do not;
    /// `update` looks for newer packages than those that are there.
    pub fn open(dir: PathBuf, mirror: Option<&str>, update: bool) -> Result<Self> {
        if shell::find("apt-get").is_none() {
            bail!("Debian's kernels are fetched by apt-get, and there is none in PATH");
        }
        ensure!(
            Path::new(KEYRING).exists(),
            "no {KEYRING} to verify Debian's packages with. Run:\n  \
             sudo apt-get install -y debian-archive-keyring"
        );
        let mirror = mirror.map_or_else(own_mirror, |mirror| Ok(mirror.to_owned()))?;
        for below in ["lists/partial", "cache/archives/partial", "sources.d"] {
            let folder = dir.join(below);
            fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        }
        write(&dir.join("status"), "")?;
        let archive = Self {
            dir,
            mirror,
            fresh: BTreeSet::new(),
        };
        if update {
            archive.forget()?;
        }
        Ok(archive)
    }

    /// The package's files; fetched where they are not there yet.
    pub fn unpack(&mut self, wanted: &Wanted<'_>) -> Result<Unpacked> {
        let dir = self.dir.join(wanted.name);
        let root = dir.join("root");
        if let Ok(list) = fs::read_to_string(dir.join(COMPLETE)) {
            found(wanted.package, &root.display().to_string());
            let packages = list.lines().map(str::to_owned).collect();
            return Ok(Unpacked { root, packages });
        }
        let suites = wanted.suites.join(", ");
        installing(
            wanted.package,
            &format!("from {suites}, below {}", dir.display()),
        );
        self.fetch(wanted, &dir, &root).with_context(|| {
            format!(
                "cannot get {} from {suites}; another mirror may have it: --mirror URL",
                wanted.package
            )
        })
    }

    fn fetch(&mut self, wanted: &Wanted<'_>, dir: &Path, root: &Path) -> Result<Unpacked> {
        let sources = self.sources(wanted.name, wanted.suites)?;
        self.update(wanted.suites, &sources)?;
        let packages = self.resolve(wanted, &sources)?;
        if dir.exists() {
            fs::remove_dir_all(dir).with_context(|| format!("remove {}", dir.display()))?;
        }
        let files = dir.join("files");
        for folder in [&files, &root.to_path_buf()] {
            fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        let mut download = self.apt_get(&sources);
        download.args(["download", "-qq"]).args(&packages);
        shell::output(download.current_dir(&files))?;
        for entry in fs::read_dir(&files).with_context(|| format!("read {}", files.display()))? {
            let file = entry?.path();
            shell::run(
                shell::command("dpkg-deb")
                    .arg("--extract")
                    .args([&file, root]),
            )?;
        }
        fs::remove_dir_all(&files).with_context(|| format!("remove {}", files.display()))?;
        write(&dir.join(COMPLETE), &packages.join("\n"))?;
        Ok(Unpacked {
            root: root.to_owned(),
            packages,
        })
    }

    /// The suites' package lists, once a run.
    fn update(&mut self, suites: &[&str], sources: &Path) -> Result<()> {
        if suites.iter().all(|suite| self.fresh.contains(*suite)) {
            return Ok(());
        }
        installing("package lists", &suites.join(", "));
        shell::output(self.apt_get(sources).args(["update", "-qq"]))?;
        self.fresh.extend(suites.iter().map(ToString::to_string));
        Ok(())
    }

    /// What has to be unpacked for a package, by apt's own resolver on a machine that has nothing.
    fn resolve(&self, wanted: &Wanted<'_>, sources: &Path) -> Result<Vec<String>> {
        let mut apt = self.apt_get(sources);
        apt.args(["install", "--print-uris", "-y", "-qq"]);
        apt.args(["--no-install-recommends", wanted.package]);
        if let Some(suite) = wanted.suites.last() {
            apt.args(["--target-release", suite]);
        }
        let uris = shell::output(&mut apt)?;
        let packages: Vec<String> = uris
            .lines()
            .filter_map(package_of)
            .filter(|(name, _)| name == wanted.package || (wanted.with)(name))
            .map(|(name, version)| format!("{name}={version}"))
            .collect();
        ensure!(
            !packages.is_empty(),
            "`{}` names no package",
            shell::line(&apt)
        );
        Ok(packages)
    }

    fn sources(&self, name: &str, suites: &[&str]) -> Result<PathBuf> {
        let mirror = &self.mirror;
        let lines: Vec<String> = suites
            .iter()
            .map(|suite| format!("deb [signed-by={KEYRING}] {mirror} {suite} main"))
            .collect();
        let path = self.dir.join(format!("{name}.list"));
        write(&path, &(lines.join("\n") + "\n"))?;
        Ok(path)
    }

    fn apt_get(&self, sources: &Path) -> Command {
        let mut apt = shell::command("apt-get");
        let mut option = |name: &str, value: &Path| {
            apt.arg("-o").arg(format!("{name}={}", value.display()));
        };
        option("Dir::Etc::sourcelist", sources);
        option("Dir::Etc::sourceparts", &self.dir.join("sources.d"));
        option("Dir::State::lists", &self.dir.join("lists"));
        option("Dir::State::status", &self.dir.join("status"));
        option("Dir::Cache", &self.dir.join("cache"));
        // The other suites' lists lie in the same folder: they stay.
        apt.args(["-o", "APT::Get::List-Cleanup=0"]);
        apt.args([
            "-o",
            "Acquire::Languages=none",
            "-o",
            "Debug::NoLocking=true",
        ]);
        apt.args([
            "-o",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
        ]);
        apt.env("LC_ALL", "C");
        apt
    }

    fn forget(&self) -> Result<()> {
        for entry in
            fs::read_dir(&self.dir).with_context(|| format!("read {}", self.dir.display()))?
        {
            let complete = entry?.path().join(COMPLETE);
            if complete.exists() {
                fs::remove_file(&complete)
                    .with_context(|| format!("remove {}", complete.display()))?;
            }
        }
        Ok(())
    }
}

/// Debian's archive in this machine's own sources.
fn own_mirror() -> Result<String> {
    let mut command = shell::command("apt-get");
    command.args(["indextargets", "--format", "$(LABEL) $(REPO_URI)"]);
    let targets = shell::output(&mut command)?;
    let mirror = targets
        .lines()
        .find_map(|line| line.strip_prefix("Debian "));
    mirror.map(str::to_owned).with_context(|| {
        format!(
            "`{}` names no archive of Debian. Run `sudo apt-get update`, or name one: --mirror URL",
            shell::line(&command)
        )
    })
}

/// Name and version in a line of `--print-uris`: `'URI' NAME_VERSION_ARCHITECTURE.deb SIZE SUM`.
fn package_of(line: &str) -> Option<(String, String)> {
    let file = line.split_whitespace().nth(1)?;
    let (name, rest) = file.split_once('_')?;
    let (version, _) = rest.split_once('_')?;
    Some((name.to_owned(), version.replace("%3a", ":")))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_read_from_its_address() {
        let line = "'http://mirror/pool/q.deb' qemu-system-x86_1%3a7.2+dfsg-7_amd64.deb 8 SHA256:0";
        assert_eq!(
            package_of(line),
            Some(("qemu-system-x86".into(), "1:7.2+dfsg-7".into()))
        );
        assert_eq!(package_of("nothing"), None);
    }
}
