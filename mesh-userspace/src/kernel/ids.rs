//! Numbers for names: what the maps store instead of `default/reviews-v1`. Kept in a pinned map, so
//! that an agent after this one, and the CLI without any, read the same names.

use std::collections::HashMap;

use mesh_common::names::{Name, NameKey, NameKind};

/// The numbers that were given out. A number is never given twice while the maps live.
#[derive(Debug, Default)]
pub struct Ids {
    by_name: HashMap<(u32, String), u32>,
    by_id: HashMap<(u32, u32), String>,
    next: u32,
    fresh: Vec<(NameKey, Name)>,
}

impl Ids {
    /// From what the names map holds.
    pub fn from_entries(entries: impl IntoIterator<Item = (NameKey, Name)>) -> Self {
        let mut ids = Self::default();
        for (key, name) in entries {
            ids.remember(key, name.as_str().to_owned());
        }
        ids
    }

    fn remember(&mut self, key: NameKey, name: String) {
        self.by_name.insert((key.kind, name.clone()), key.id);
        self.by_id.insert((key.kind, key.id), name);
        self.next = self.next.max(key.id);
    }

    /// The number of a name; a new one where it has none yet.
    pub fn id(&mut self, kind: NameKind, name: &str) -> u32 {
        if let Some(&id) = self.by_name.get(&(kind as u32, name.to_owned())) {
            return id;
        }
        let key = NameKey {
            kind: kind as u32,
            id: self.next + 1,
        };
        self.remember(key, name.to_owned());
        self.fresh.push((key, Name::new(name)));
        key.id
    }

    /// The name of a number; None for 0 and for numbers that were never given out.
    pub fn name(&self, kind: NameKind, id: u32) -> Option<&str> {
        self.by_id.get(&(kind as u32, id)).map(String::as_str)
    }

    /// The entries that the names map does not have yet.
    pub fn take_fresh(&mut self) -> Vec<(NameKey, Name)> {
        std::mem::take(&mut self.fresh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_the_agent() {
        let mut first = Ids::default();
        let a = first.id(NameKind::Workload, "default/a");
        let b = first.id(NameKind::Service, "default/a");
        assert_ne!(a, b);
        assert_eq!(first.id(NameKind::Workload, "default/a"), a);
        let mut second = Ids::from_entries(first.take_fresh());
        assert!(first.take_fresh().is_empty());
        assert_eq!(second.name(NameKind::Workload, a), Some("default/a"));
        assert_eq!(second.name(NameKind::Workload, 0), None);
        assert!(second.id(NameKind::Workload, "default/new") > a.max(b));
    }
}
