//! The ring of events, read.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
    time::Duration,
};

use aya::maps::{Map, MapData, MapError, RingBuf};
use mesh_common::event::Record;

use super::sys;

/// Takes events out of the ring. Readers would take them from one another: there must be one.
pub struct EventReader {
    ring: RingBuf<MapData>,
}

impl EventReader {
    /// Of the pinned map.
    pub fn open(pin: &Path) -> io::Result<Self> {
        let open = || -> Result<RingBuf<MapData>, MapError> {
            Map::from_map_data(MapData::from_pin(pin)?)?.try_into()
        };
        Ok(Self {
            ring: open().map_err(io::Error::other)?,
        })
    }

    /// Waits until there is an event, or something to read from `other`, for as long as `limit`.
    pub fn wait(&self, other: BorrowedFd<'_>, limit: Duration) -> io::Result<()> {
        sys::wait_readable(&[self.ring.as_fd(), other], limit)
    }

    /// The oldest event that was not taken yet.
    pub fn take(&mut self) -> Option<Record> {
        loop {
            let item = self.ring.next()?;
            // Another layout's events are never in this map, which is pinned under the layout.
            if item.len() == size_of::<Record>() {
                // SAFETY: a plain-old-data type (mesh_common's assert_layout), of exactly this many bytes.
                return Some(unsafe { item.as_ptr().cast::<Record>().read_unaligned() });
            }
        }
    }
}
