use super::{Entry, Key};

/// Entries in the order of their keys.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    entries: Vec<Entry>,
    /// Where the entries begin whose keys begin with the same bits, for every such beginning. Keys are hashes and so spread
    /// evenly: a few entries share one, and a look for one meets a cache line or two instead of twenty.
    begins: Vec<u32>,
    bits: u32,
}

impl Sorted {
    pub(super) fn new(entries: Vec<Entry>) -> Self {
        let bits = entries.len().checked_ilog2().unwrap_or_default().saturating_sub(1).clamp(1, 28);
        let mut begins = vec![0; (1 << bits) + 1];
        for entry in &entries {
            begins[Self::beginning(&entry.key, bits) + 1] += 1;
        }
        (1..begins.len()).for_each(|at| begins[at] += begins[at - 1]);
        Self { entries, begins, bits }
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn find(&self, key: &Key) -> Option<&Entry> {
        self.alike(key).iter().find(|entry| entry.key == *key)
    }

    /// The entry of each of `keys`. Each is somewhere else in memory: all are fetched before the first is compared, since
    /// a comparison that goes the other way than expected undoes what the processor has begun for the next ones.
    pub(super) fn find_each(&self, keys: &[Key]) -> impl Iterator<Item = Option<&Entry>> {
        let alike: Vec<&[Entry]> = keys.iter().map(|key| self.alike(key)).collect();
        let fetched = alike.iter().flat_map(|alike| alike.iter()).fold(0, |bits, entry| bits ^ entry.hash[0]);
        std::hint::black_box(fetched);
        keys.iter().zip(alike).map(|(key, alike)| alike.iter().find(|entry| entry.key == *key))
    }

    /// The entries whose keys begin like `key`.
    fn alike(&self, key: &Key) -> &[Entry] {
        let at = Self::beginning(key, self.bits);
        self.begins.get(at..at + 2).map_or(&[], |alike| &self.entries[alike[0] as usize..alike[1] as usize])
    }

    fn beginning(key: &Key, bits: u32) -> usize {
        let [a, b, c, d, ..] = *key;
        (u32::from_be_bytes([a, b, c, d]) >> (32 - bits)) as usize
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytemuck::Zeroable;

    use super::*;
    use crate::memo::key;

    #[test]
    fn every_key_is_found_and_no_other() {
        for count in [0_u32, 1, 2, 3, 17, 1000] {
            let keyed = |number: u32| key(Path::new(&number.to_string()));
            let entry = |number| Entry { key: keyed(number), ..Entry::zeroed() };
            let mut entries: Vec<Entry> = (0..count).map(entry).collect();
            entries.sort_unstable_by_key(|entry| entry.key);
            let sorted = Sorted::new(entries);
            assert!((0..count).all(|number| sorted.find(&keyed(number)) == Some(&entry(number))));
            assert!((count..2 * count + 9).all(|number| sorted.find(&keyed(number)).is_none()));
            let keys: Vec<Key> = (0..2 * count).map(keyed).collect();
            let found = sorted.find_each(&keys).map(Option::<&Entry>::copied);
            assert!(found.eq((0..2 * count).map(|number| (number < count).then(|| entry(number)))));
        }
    }
}
