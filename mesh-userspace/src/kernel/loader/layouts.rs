//! What an agent with another layout of maps has left: its maps and the programs that look after the
//! connections it knows stay until the last of those has ended.

use std::{fs::File, io::Read as _, path::PathBuf};

use mesh_common::names;

use super::{LoadError, PinDir, remove_folder};
use crate::kernel::sys;

/// The leftovers of a node's other layouts.
#[derive(Debug)]
pub struct Leftovers {
    pins: PinDir,
    /// Folders whose programs were told to take no new connection.
    told: Vec<PathBuf>,
}

impl Leftovers {
    /// Of the node whose own pins these are. Its programs are attached.
    pub fn of(pins: &PinDir) -> Self {
        Self {
            pins: pins.clone(),
            told: Vec::new(),
        }
    }

    /// Removes what is unused by now; gives the folders that went. To be called once in a while: what was
    /// left a moment ago may have a connection that is not established yet.
    pub fn tidy(&mut self) -> Result<Vec<PathBuf>, LoadError> {
        let mut gone = Vec::new();
        for other in self.pins.others() {
            let folder = other.path().to_owned();
            if !self.told.contains(&folder) {
                // A program that knows no pod minds its old connections only.
                let pods = other.map(names::WORKLOADS);
                sys::open_pin(&pods)
                    .and_then(|map| sys::clear_map(&map))
                    .or_else(|error| match error.kind() {
                        std::io::ErrorKind::NotFound => Ok(()),
                        _ => Err(error),
                    })
                    .map_err(LoadError::file("emptying", &pods))?;
                self.told.push(folder);
                continue;
            }
            if !has_connections(&other) {
                remove_folder(&other)?;
                gone.push(folder);
            }
        }
        Ok(gone)
    }
}

/// Whether the iterators have anything to say. What cannot be read has nothing that anybody could look after.
fn has_connections(pins: &PinDir) -> bool {
    [pins.connections(), pins.exchanges()].iter().any(|pin| {
        let first = File::open(pin).and_then(|mut file| file.read(&mut [0; 4096]));
        first.is_ok_and(|read| read > 0)
    })
}
