//! Numbers for names: what the maps store instead of `default/reviews-v1`. Kept in a pinned map, so
//! that an agent after this one, and the CLI without any, read the same names.

use std::collections::{BTreeMap, HashMap};

use mesh_common::names::{NameKey, NameKind, PartOfName};

/// The numbers that were given out. A number is never given twice while the maps live.
#[derive(Debug, Default)]
pub struct Ids {
    by_name: HashMap<(u16, String), u32>,
    by_id: HashMap<(u16, u32), String>,
    next: u32,
    fresh: Vec<(NameKey, PartOfName)>,
}

impl Ids {
    /// From what the names map holds.
    pub fn from_entries(entries: impl IntoIterator<Item = (NameKey, PartOfName)>) -> Self {
        let mut parts: BTreeMap<(u16, u32), BTreeMap<u16, PartOfName>> = BTreeMap::new();
        for (key, part) in entries {
            let name = parts.entry((key.kind, key.id)).or_default();
            name.insert(key.part, part);
        }
        let mut ids = Self::default();
        for ((kind, id), parts) in parts {
            ids.next = ids.next.max(id);
            // The first part is written last: without it an agent ended in between.
            if parts.contains_key(&0) {
                let text: Vec<u8> = parts.values().flat_map(PartOfName::text).copied().collect();
                ids.remember(kind, id, String::from_utf8_lossy(&text).into_owned());
            }
        }
        ids
    }

    fn remember(&mut self, kind: u16, id: u32, name: String) {
        self.by_name.insert((kind, name.clone()), id);
        self.by_id.insert((kind, id), name);
        self.next = self.next.max(id);
    }

    /// The number of a name; a new one where it has none yet.
    pub fn id(&mut self, kind: NameKind, name: &str) -> u32 {
        let kind = kind as u16;
        if let Some(&id) = self.by_name.get(&(kind, name.to_owned())) {
            return id;
        }
        let id = self.next + 1;
        self.remember(kind, id, name.to_owned());
        let parts = (0_u16..).zip(name.as_bytes().chunks(PartOfName::SIZE));
        let mut parts: Vec<_> = parts
            .map(|(part, text)| (NameKey { kind, part, id }, PartOfName::new(text)))
            .collect();
        parts.reverse();
        self.fresh.extend(parts);
        id
    }

    /// The name of a number; None for 0 and for numbers that were never given out.
    pub fn name(&self, kind: NameKind, id: u32) -> Option<&str> {
        self.by_id.get(&(kind as u16, id)).map(String::as_str)
    }

    /// Every number with its name.
    pub fn iter(&self) -> impl Iterator<Item = (u16, u32, &str)> {
        let entries = self.by_id.iter();
        entries.map(|(&(kind, id), name)| (kind, id, name.as_str()))
    }

    /// The entries that the names map does not have yet.
    pub fn take_fresh(&mut self) -> Vec<(NameKey, PartOfName)> {
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

    #[test]
    fn a_long_name_has_several_parts_and_counts_only_whole() {
        for length in [1, 63, 64, 65, 128, 317] {
            let long = "n".repeat(length);
            let mut first = Ids::default();
            let id = first.id(NameKind::Workload, &long);
            let parts = first.take_fresh();
            assert_eq!(parts.len(), length.div_ceil(PartOfName::SIZE));
            let second = Ids::from_entries(parts.clone());
            assert_eq!(second.name(NameKind::Workload, id), Some(long.as_str()));
            let mut cut = Ids::from_entries(parts[..parts.len() - 1].iter().copied());
            assert_eq!(cut.name(NameKind::Workload, id), None);
            assert!(parts.len() == 1 || cut.id(NameKind::Workload, "next") > id);
        }
    }
}
