use std::{
    fs,
    os::unix::fs::symlink,
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc::{self, Receiver},
    },
    time::Instant,
};

use super::*;

/// A folder of this test's own, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("zerohop-folder-{}-{number}", std::process::id()));
        fs::create_dir_all(path.join("mesh")).unwrap();
        Self(path)
    }

    /// The folder that is watched, one below the test's own.
    fn mesh(&self) -> PathBuf {
        self.0.join("mesh")
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.mesh().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// `a.yaml=text sub/b.yaml=text`, or the error.
fn summary(scratch: &Scratch, read: &Result<Vec<SourceFile>, FolderError>) -> String {
    let files = match read {
        Ok(files) => files,
        Err(error) => return error.to_string(),
    };
    let one = |file: &SourceFile| {
        let name = file
            .path
            .strip_prefix(scratch.mesh())
            .unwrap()
            .display()
            .to_string();
        match &file.content {
            Ok(content) => format!("{name}={}", String::from_utf8_lossy(content)),
            Err(reason) => format!("{name}!{reason}"),
        }
    };
    files.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// What a watcher says, as summaries.
struct Watched<'a> {
    scratch: &'a Scratch,
    said: Receiver<Result<Vec<SourceFile>, FolderError>>,
    _watcher: Watcher,
}

impl<'a> Watched<'a> {
    /// By events, or by looking again and again.
    fn new(scratch: &'a Scratch, events: bool) -> Self {
        let (sender, said) = mpsc::channel();
        let source = FolderSource::open(scratch.mesh()).unwrap();
        let watcher = watch::spawn(source, events, move |change| {
            let _ = sender.send(change);
        });
        Self {
            scratch,
            said,
            _watcher: watcher.unwrap(),
        }
    }

    /// Waits until the watcher says this.
    fn until(&self, expected: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut last = "nothing".to_owned();
        while last != expected {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.said.recv_timeout(left) {
                Ok(change) => last = summary(self.scratch, &change),
                Err(error) => panic!("expected {expected:?}, the last was {last:?}: {error}"),
            }
        }
    }
}

#[test]
fn manifests_are_read_from_sub_folders_too_in_the_order_of_their_paths() {
    let scratch = Scratch::new();
    for name in [
        "b.yml",
        "a.yaml",
        "sub/deep/c.json",
        "readme.md",
        ".hidden.yaml",
        ".git/d.yaml",
    ] {
        scratch.write(name, "x");
    }
    let mut source = FolderSource::open(scratch.mesh()).unwrap();
    assert_eq!(
        summary(&scratch, &source.read()),
        "a.yaml=x b.yml=x sub/deep/c.json=x"
    );
}

#[test]
fn only_what_changed_is_read_again() {
    let scratch = Scratch::new();
    scratch.write("a.yaml", "1");
    scratch.write("b.yaml", "1");
    let mut source = FolderSource::open(scratch.mesh()).unwrap();
    let before = source.read().unwrap();
    assert!(source.poll().is_none());
    scratch.write("b.yaml", "2");
    let after = source.poll().expect("a change").unwrap();
    let same = |index: usize| {
        let content = |files: &[SourceFile]| Arc::clone(files[index].content.as_ref().unwrap());
        Arc::ptr_eq(&content(&before), &content(&after))
    };
    assert!(same(0) && !same(1));
    // Written again, with the same bytes: times change, nothing else does.
    scratch.write("b.yaml", "2");
    assert!(source.poll().is_none());
}

#[test]
fn a_second_write_within_one_tick_of_the_clock_is_seen() {
    let scratch = Scratch::new();
    let mut source = FolderSource::open(scratch.mesh()).unwrap();
    for round in 0..200 {
        scratch.write("a.yaml", &format!("{}", round % 10));
        assert_eq!(
            summary(&scratch, &source.read()),
            format!("a.yaml={}", round % 10)
        );
    }
}

#[test]
fn a_folder_that_is_not_there_is_told() {
    let scratch = Scratch::new();
    let missing = FolderSource::open(scratch.mesh().join("no")).unwrap_err();
    assert!(matches!(missing, FolderError::Missing(_)));
    assert!(
        missing
            .to_string()
            .ends_with("or name another one with --config-dir")
    );
    scratch.write("a.yaml", "x");
    let file = FolderSource::open(scratch.mesh().join("a.yaml")).unwrap_err();
    assert!(matches!(file, FolderError::NotAFolder(_)), "{file}");
}

#[test]
fn what_is_no_file_neither_blocks_nor_breaks() {
    let scratch = Scratch::new();
    scratch.write("a.yaml", "x");
    let fifo = scratch.mesh().join("f.yaml");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(fifo)
            .status()
            .unwrap()
            .success()
    );
    symlink("nowhere", scratch.mesh().join("l.yaml")).unwrap();
    symlink(".", scratch.mesh().join("circle")).unwrap();
    let mut source = FolderSource::open(scratch.mesh()).unwrap();
    assert_eq!(
        summary(&scratch, &source.read()),
        "a.yaml=x f.yaml!cannot read the file: it is not a regular file \
         l.yaml!the link leads nowhere"
    );
}

#[test]
fn a_file_that_is_too_large_is_not_read_whole() {
    let scratch = Scratch::new();
    let file = File::create(scratch.mesh().join("a.yaml")).unwrap();
    file.set_len(1 << 40).unwrap();
    let files = FolderSource::open(scratch.mesh()).unwrap().read().unwrap();
    let outcome = crate::config::Store::default().load(files);
    let reason = outcome.reports[0].reason.as_deref().unwrap();
    assert!(reason.contains("larger than 8 MiB"), "{reason}");
}

#[test]
fn writes_removals_and_new_folders_are_seen() {
    for events in [true, false] {
        let scratch = Scratch::new();
        scratch.write("a.yaml", "1");
        let watched = Watched::new(&scratch, events);
        watched.until("a.yaml=1");
        scratch.write("a.yaml", "2");
        watched.until("a.yaml=2");
        scratch.write("new/deep/b.yaml", "1");
        watched.until("a.yaml=2 new/deep/b.yaml=1");
        scratch.write("new/deep/b.yaml", "2");
        watched.until("a.yaml=2 new/deep/b.yaml=2");
        fs::remove_file(scratch.mesh().join("a.yaml")).unwrap();
        watched.until("new/deep/b.yaml=2");
        fs::remove_dir_all(scratch.mesh().join("new")).unwrap();
        watched.until("");
        scratch.write("new/deep/b.yaml", "3");
        watched.until("new/deep/b.yaml=3");
    }
}

#[test]
fn a_file_that_is_renamed_into_place_is_seen() {
    let scratch = Scratch::new();
    scratch.write("a.yaml", "1");
    let watched = Watched::new(&scratch, true);
    watched.until("a.yaml=1");
    for version in ["2", "3"] {
        scratch.write(".a.yaml.swp", version);
        fs::rename(
            scratch.mesh().join(".a.yaml.swp"),
            scratch.mesh().join("a.yaml"),
        )
        .unwrap();
        watched.until(&format!("a.yaml={version}"));
    }
}

#[test]
fn a_mounted_config_map_that_is_swapped_by_its_link_is_seen() {
    let scratch = Scratch::new();
    scratch.write("..1/a.yaml", "1");
    scratch.write("..2/a.yaml", "2");
    symlink("..1", scratch.mesh().join("..data")).unwrap();
    symlink("..data/a.yaml", scratch.mesh().join("a.yaml")).unwrap();
    let watched = Watched::new(&scratch, true);
    watched.until("a.yaml=1");
    symlink("..2", scratch.mesh().join("..data_tmp")).unwrap();
    fs::rename(
        scratch.mesh().join("..data_tmp"),
        scratch.mesh().join("..data"),
    )
    .unwrap();
    watched.until("a.yaml=2");
}

#[test]
fn a_change_behind_a_link_out_of_the_folder_is_seen() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.0.join("elsewhere")).unwrap();
    fs::write(scratch.0.join("elsewhere/x"), "1").unwrap();
    symlink("../elsewhere/x", scratch.mesh().join("a.yaml")).unwrap();
    let watched = Watched::new(&scratch, true);
    watched.until("a.yaml=1");
    fs::write(scratch.0.join("elsewhere/x"), "2").unwrap();
    watched.until("a.yaml=2");
}

#[test]
fn a_folder_that_vanishes_and_comes_back_is_told_and_read_again() {
    for events in [true, false] {
        let scratch = Scratch::new();
        scratch.write("a.yaml", "1");
        let watched = Watched::new(&scratch, events);
        watched.until("a.yaml=1");
        let away = scratch.0.join("away");
        fs::rename(scratch.mesh(), &away).unwrap();
        watched.until(&FolderError::Missing(scratch.mesh()).to_string());
        fs::rename(&away, scratch.mesh()).unwrap();
        watched.until("a.yaml=1");
        scratch.write("a.yaml", "2");
        watched.until("a.yaml=2");
        fs::remove_dir_all(scratch.mesh()).unwrap();
        watched.until(&FolderError::Missing(scratch.mesh()).to_string());
        scratch.write("a.yaml", "3");
        watched.until("a.yaml=3");
    }
}

#[test]
fn dropping_the_watcher_ends_its_thread() {
    let scratch = Scratch::new();
    let (sender, said) = mpsc::channel();
    let source = FolderSource::open(scratch.mesh()).unwrap();
    let watcher = watch(source, move |_| {
        let _ = sender.send(());
    });
    drop(watcher.unwrap());
    // The closure, and the sender in it, went with the thread.
    while said.try_recv().is_ok() {}
    assert_eq!(said.try_recv(), Err(mpsc::TryRecvError::Disconnected));
}
