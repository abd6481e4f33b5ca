//! The folder of manifests: what is in it now. Sub-folders and symbolic links are followed.
//!
//! Names that begin with a dot are left out: editors' swap files, and the `..data` folders behind
//! the links of a mounted `ConfigMap`, whose files would otherwise be there twice.

#[cfg(test)]
mod tests;
mod watch;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

pub use watch::{Watcher, watch};

use super::document::MAX_FILE_SIZE;

/// How deep sub-folders may be nested.
const MAX_DEPTH: usize = 32;

/// A file written this recently may be written again without its times or size changing.
const RACY: Duration = Duration::from_millis(100);

/// How long a folder that loses its files may take to go itself.
const SETTLE: Duration = Duration::from_millis(20);

/// A manifest file and what it holds.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Joined to the folder that was given.
    pub path: Arc<PathBuf>,
    /// The same `Arc` as in the reading before if the bytes are the same; else why the file, or
    /// the sub-folder, could not be read.
    pub content: Result<Arc<[u8]>, String>,
}

/// Why the folder as a whole could not be read. The last good state should stay in force.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// There is nothing at its path.
    #[error("the folder {0} does not exist: create it, or name another one with --config-dir")]
    Missing(PathBuf),
    /// There is something else at its path.
    #[error("{0} is not a folder: --config-dir takes the folder that the manifests are in")]
    NotAFolder(PathBuf),
    /// The system said no.
    #[error("cannot read the folder {path}: {source}")]
    Unreadable {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Reads a folder again and again, opening only the files that changed.
#[derive(Debug)]
pub struct FolderSource {
    folder: PathBuf,
    seen: HashMap<PathBuf, Seen>,
    /// The folder, its sub-folders and those that links lead to.
    folders: BTreeSet<PathBuf>,
    last: Option<Result<Vec<SourceFile>, String>>,
}

#[derive(Debug)]
struct Seen {
    stamp: Stamp,
    read_at: SystemTime,
    path: Arc<PathBuf>,
    content: Arc<[u8]>,
}

/// What changes when a file is written or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether the file, read at this time, could have been written once more within the same tick
    /// of the file system's clock (git calls such an entry "racily clean").
    fn is_racy(&self, read_at: SystemTime) -> bool {
        let (seconds, nanos) = self.changed.max(self.modified);
        let since_epoch = Duration::new(
            u64::try_from(seconds).unwrap_or(0),
            u32::try_from(nanos).unwrap_or(0),
        );
        SystemTime::UNIX_EPOCH + since_epoch + RACY > read_at
    }
}

impl FolderSource {
    /// Checks that the folder is there and can be read.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, FolderError> {
        let folder = folder.into();
        list(&folder)?;
        Ok(Self {
            folder,
            seen: HashMap::new(),
            folders: BTreeSet::new(),
            last: None,
        })
    }

    /// The folder as it was given.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The manifest files that are there now, by path.
    pub fn read(&mut self) -> Result<Vec<SourceFile>, FolderError> {
        let read = self.read_all();
        self.last = Some(match &read {
            Ok(files) => Ok(files.clone()),
            Err(error) => Err(error.to_string()),
        });
        read
    }

    /// As [`Self::read`], but `None` where nothing changed since the last reading.
    pub fn poll(&mut self) -> Option<Result<Vec<SourceFile>, FolderError>> {
        let before = self.last.take();
        let read = self.read();
        let unchanged = match (&before, &read) {
            (Some(Ok(before)), Ok(now)) => same_files(before, now),
            (Some(Err(before)), Err(now)) => *before == now.to_string(),
            _ => false,
        };
        (!unchanged).then_some(read)
    }

    /// Folders in which a change can change what is read, as of the last reading: the folder, its
    /// sub-folders, those that links lead to, and its parent (it may vanish and come back).
    pub fn folders_to_watch(&self) -> BTreeSet<PathBuf> {
        let mut folders = self.folders.clone();
        folders.extend(self.absolute().parent().map(Path::to_owned));
        folders
    }

    /// Whether a change of this path, seen in one of [`Self::folders_to_watch`], matters: the
    /// parent may be a busy folder such as /tmp.
    pub fn concerns(&self, path: &Path) -> bool {
        let of_folders = |path: &Path| self.folders.contains(path);
        let absolute = self.absolute();
        path == absolute || of_folders(path) || path.parent().is_some_and(of_folders)
    }

    fn absolute(&self) -> PathBuf {
        // Fails for an empty path or without a working folder only; there is nothing better then.
        std::path::absolute(&self.folder).unwrap_or_else(|_| self.folder.clone())
    }

    fn read_all(&mut self) -> Result<Vec<SourceFile>, FolderError> {
        self.folders.clear();
        let listed = list(&self.folder)?;
        let mut walk = Walk::default();
        walk.folder(&self.folder, listed, 0);
        self.folders = walk.folders;
        let mut before = std::mem::take(&mut self.seen);
        let had_files = !before.is_empty();
        let mut vanished = false;
        let mut files: Vec<SourceFile> = walk.unreadable;
        for path in walk.files {
            let old = before.remove(&path);
            match self.read_file(path.clone(), old) {
                Ok(Some(file)) => files.push(file),
                // Gone between the listing and now.
                Ok(None) => vanished = true,
                Err(reason) => {
                    files.push(SourceFile {
                        path: Arc::new(path),
                        content: Err(reason),
                    });
                }
            }
        }
        if vanished || (files.is_empty() && had_files) {
            // The folder itself may be going (`rm -r` takes the files first), and that is not to be taken
            // for a folder that somebody emptied.
            std::thread::sleep(SETTLE);
            list(&self.folder)?;
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }

    fn read_file(
        &mut self,
        path: PathBuf,
        old: Option<Seen>,
    ) -> Result<Option<SourceFile>, String> {
        let read_at = SystemTime::now();
        let failed = |error: &io::Error| format!("cannot read the file: {error}");
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&error)),
            // It is there, what it leads to is not.
            Err(_) if fs::symlink_metadata(&path).is_ok() => {
                return Err("the link leads nowhere".to_owned());
            }
            Err(_) => return Ok(None),
        };
        let stamp = Stamp::of(&metadata);
        let seen = match old {
            Some(old) if old.stamp == stamp && !stamp.is_racy(old.read_at) => old,
            old => {
                let Some(bytes) = read_bytes(&path).map_err(|error| failed(&error))? else {
                    return Ok(None);
                };
                match old {
                    Some(old) if *old.content == *bytes => Seen {
                        stamp,
                        read_at,
                        ..old
                    },
                    _ => Seen {
                        stamp,
                        read_at,
                        path: Arc::new(path.clone()),
                        content: bytes.into(),
                    },
                }
            }
        };
        let file = SourceFile {
            path: Arc::clone(&seen.path),
            content: Ok(Arc::clone(&seen.content)),
        };
        self.seen.insert(path, seen);
        Ok(Some(file))
    }
}

/// Reads what a path of the command line names: a file of any name, or a folder.
pub fn read_path(path: &Path) -> Vec<SourceFile> {
    let unreadable = |reason: String| {
        vec![SourceFile {
            path: Arc::new(path.to_owned()),
            content: Err(reason),
        }]
    };
    if path.is_dir() {
        let read = FolderSource::open(path).and_then(|mut source| source.read());
        return read.unwrap_or_else(|error| unreadable(error.to_string()));
    }
    match read_bytes(path) {
        Ok(Some(bytes)) => {
            vec![SourceFile {
                path: Arc::new(path.to_owned()),
                content: Ok(bytes.into()),
            }]
        }
        Ok(None) => unreadable("there is no such file".to_owned()),
        Err(error) => unreadable(format!("cannot read the file: {error}")),
    }
}

fn same_files(before: &[SourceFile], now: &[SourceFile]) -> bool {
    let same = |(before, now): (&SourceFile, &SourceFile)| {
        before.path == now.path
            && match (&before.content, &now.content) {
                (Ok(before), Ok(now)) => Arc::ptr_eq(before, now),
                (Err(before), Err(now)) => before == now,
                _ => false,
            }
    };
    before.len() == now.len() && before.iter().zip(now).all(same)
}

/// The bytes of a file, one more than the limit if it is too large; `None` where it is gone.
fn read_bytes(path: &Path) -> io::Result<Option<Vec<u8>>> {
    // Without O_NONBLOCK a FIFO named like a manifest would hold the agent up for ever.
    let opened = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_SIZE as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// The entries of the folder itself.
fn list(folder: &Path) -> Result<Vec<PathBuf>, FolderError> {
    entries(folder).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => FolderError::Missing(folder.to_owned()),
        io::ErrorKind::NotADirectory => FolderError::NotAFolder(folder.to_owned()),
        _ => FolderError::Unreadable {
            path: folder.to_owned(),
            source,
        },
    })
}

fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| {
        ["yaml", "yml", "json"]
            .iter()
            .any(|known| extension.eq_ignore_ascii_case(known))
    })
}

/// One pass over the folder and all below it.
#[derive(Default)]
struct Walk {
    files: Vec<PathBuf>,
    unreadable: Vec<SourceFile>,
    folders: BTreeSet<PathBuf>,
    /// Device and inode of each folder that was entered: links may lead in circles.
    entered: HashSet<(u64, u64)>,
}

impl Walk {
    fn folder(&mut self, folder: &Path, entries: Vec<PathBuf>, depth: usize) {
        self.folders.insert(folder.to_owned());
        if let Ok(metadata) = fs::metadata(folder) {
            self.entered.insert((metadata.dev(), metadata.ino()));
        }
        for path in entries {
            self.entry(path, depth);
        }
    }

    fn entry(&mut self, path: PathBuf, depth: usize) {
        let link = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_symlink());
        if link && let Ok(target) = fs::canonicalize(&path) {
            self.folders.extend(target.parent().map(Path::to_owned));
        }
        let Ok(metadata) = fs::metadata(&path) else {
            // Gone, or a link to nowhere, which is told later if it has a manifest's name.
            if is_manifest(&path) {
                self.files.push(path);
            }
            return;
        };
        if !metadata.is_dir() {
            if is_manifest(&path) {
                self.files.push(path);
            }
            return;
        }
        if self.entered.contains(&(metadata.dev(), metadata.ino())) {
            return;
        }
        let listed = if depth < MAX_DEPTH {
            entries(&path)
        } else {
            Err(io::Error::other(format!(
                "nested deeper than {MAX_DEPTH} folders"
            )))
        };
        match listed {
            Ok(entries) => self.folder(&path, entries, depth + 1),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.unreadable.push(SourceFile {
                path: Arc::new(path),
                content: Err(format!("cannot read the folder: {error}")),
            }),
        }
    }
}
