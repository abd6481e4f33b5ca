//! Sees the folder change, by inotify where there is one, and hands its new content on.

use std::{
    collections::{BTreeSet, HashSet},
    io,
    path::PathBuf,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode, ModifyKind},
};

use super::{FolderError, FolderSource, SourceFile};

/// After an event, this long without another one means that the change is complete.
const QUIET: Duration = Duration::from_millis(5);

/// A change is acted on this long after its first event, even if events go on.
const COALESCE: Duration = Duration::from_millis(15);

/// As [`COALESCE`], while a file is being written and its writer has not closed it.
const COALESCE_WRITING: Duration = Duration::from_millis(40);

/// How often the folder is looked at where events can't be had, or where it is gone.
const POLL: Duration = Duration::from_millis(50);

/// How often it is looked at besides: some file systems (NFS) have changes without events.
const SAFETY: Duration = Duration::from_secs(2);

/// What the watching thread is told.
enum Signal {
    Event(notify::Result<Event>),
    Stop,
}

/// A thread that watches a folder; dropping it ends the thread.
#[derive(Debug)]
pub struct Watcher {
    signals: Sender<Signal>,
    thread: Option<JoinHandle<()>>,
}

/// Calls `on_change`, on a thread of its own, with the folder's whole content whenever it is other
/// than at the last reading of `source`: at once, if that was never read.
///
/// An `Err` says that the folder can't be read as a whole; the last good state should stay in
/// force. It is said once, and `Ok` follows when the folder is back.
pub fn watch(
    source: FolderSource,
    on_change: impl FnMut(Result<Vec<SourceFile>, FolderError>) + Send + 'static,
) -> io::Result<Watcher> {
    spawn(source, true, on_change)
}

/// [`watch`], with or without events.
pub(super) fn spawn(
    source: FolderSource,
    events: bool,
    on_change: impl FnMut(Result<Vec<SourceFile>, FolderError>) + Send + 'static,
) -> io::Result<Watcher> {
    let (signals, received) = mpsc::channel();
    let to_loop = signals.clone();
    let thread = thread::Builder::new()
        .name("config-watch".to_owned())
        .spawn(move || {
            let events = events.then(|| {
                notify::recommended_watcher(move |event| {
                    // The loop is gone: nobody wants to know.
                    let _ = to_loop.send(Signal::Event(event));
                })
            });
            let mut watching = Watching {
                events: events.and_then(|watcher| {
                    watcher
                    .inspect_err(|error| {
                        tracing::warn!(
                            "cannot watch {} for changes ({error}): looking every {POLL:?} instead",
                            source.folder().display()
                        );
                    })
                    .ok()
                }),
                source,
                received,
                watched: BTreeSet::new(),
                moved: false,
                incomplete: false,
                gone: false,
            };
            watching.run(on_change);
        })?;
    Ok(Watcher {
        signals,
        thread: Some(thread),
    })
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // The thread may have ended already.
        let _ = self.signals.send(Signal::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Watching {
    source: FolderSource,
    events: Option<RecommendedWatcher>,
    received: Receiver<Signal>,
    watched: BTreeSet<PathBuf>,
    /// Something was created, removed or renamed: a watched path may be another folder now.
    moved: bool,
    /// Some folder could not be watched.
    incomplete: bool,
    /// The folder could not be read at the last look.
    gone: bool,
}

impl Watching {
    fn run(&mut self, mut on_change: impl FnMut(Result<Vec<SourceFile>, FolderError>)) {
        loop {
            if let Some(change) = self.source.poll() {
                self.gone = change.is_err();
                on_change(change);
            }
            // Watched first and read again after, so that no change falls in between.
            if self.events.is_some()
                && (self.moved || self.watched != self.source.folders_to_watch())
            {
                self.watch_folders();
                continue;
            }
            if !self.wait() {
                return;
            }
        }
    }

    /// Sets a watch on each folder. Those that have one already just keep it, but a path whose
    /// folder was replaced needs a new one, and there is no telling which.
    fn watch_folders(&mut self) {
        let Some(watcher) = &mut self.events else {
            return;
        };
        let wanted = self.source.folders_to_watch();
        for path in self.watched.difference(&wanted) {
            // As a rule it is gone with its folder.
            let _ = watcher.unwatch(path);
        }
        let was_incomplete = self.incomplete;
        self.incomplete = false;
        for path in &wanted {
            if let Err(error) = watcher.watch(path, RecursiveMode::NonRecursive) {
                self.incomplete = true;
                if !was_incomplete {
                    tracing::warn!(
                        "cannot watch {} for changes ({error}): looking every {POLL:?} instead",
                        path.display()
                    );
                }
            }
        }
        self.watched = wanted;
        self.moved = false;
    }

    /// Waits until it is time for another look; false at the end.
    fn wait(&mut self) -> bool {
        let patience = if self.events.is_none() || self.incomplete || self.gone {
            POLL
        } else {
            SAFETY
        };
        let mut open = HashSet::new();
        let mut until = Instant::now() + patience;
        let mut first = None;
        loop {
            match self
                .received
                .recv_timeout(until.saturating_duration_since(Instant::now()))
            {
                Ok(Signal::Event(event)) => {
                    if self.note(event, &mut open) {
                        let now = Instant::now();
                        let first = *first.get_or_insert(now);
                        until = if open.is_empty() {
                            (now + QUIET).min(first + COALESCE)
                        } else {
                            first + COALESCE_WRITING
                        };
                    }
                }
                Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => return true,
            }
        }
    }

    /// Takes note of an event, and of the files that are open for writing; whether it matters.
    fn note(&mut self, event: notify::Result<Event>, open: &mut HashSet<PathBuf>) -> bool {
        let Ok(event) = event else {
            self.moved = true;
            return true;
        };
        // Events were lost: they have no path.
        if !event.need_rescan() && !event.paths.iter().any(|path| self.source.concerns(path)) {
            return false;
        }
        match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
                for path in &event.paths {
                    open.remove(path);
                }
            }
            // Our own reading.
            EventKind::Access(_) => return false,
            EventKind::Modify(ModifyKind::Data(_)) => open.extend(event.paths),
            EventKind::Modify(ModifyKind::Metadata(_)) => {}
            _ => self.moved = true,
        }
        true
    }
}
