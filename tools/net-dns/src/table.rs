//! A bounded set of things under numbers that are not used again for others.

/// Names one thing in a [`Table`], and nothing that takes its place later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    index: u32,
    generation: u32,
}

#[derive(Debug)]
pub struct Table<T> {
    slots: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
    most: usize,
}

impl Key {
    /// In the lower 56 bits, so that there is room for what kind of thing it is.
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation & 0x00ff_ffff) << 32 | u64::from(self.index)
    }

    pub fn from_bits(bits: u64) -> Key {
        Key { index: bits as u32, generation: (bits >> 32) as u32 & 0x00ff_ffff }
    }
}

impl<T> Table<T> {
    pub fn new(most: usize) -> Table<T> {
        Table { slots: Vec::new(), free: Vec::new(), most }
    }

    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub fn is_full(&self) -> bool {
        self.len() >= self.most
    }

    /// `None` when it is full.
    pub fn insert(&mut self, make: impl FnOnce(Key) -> T) -> Option<Key> {
        if self.is_full() {
            return None;
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            self.slots.len() as u32 - 1
        });
        let slot = self.slots.get_mut(index as usize)?;
        slot.0 = (slot.0 + 1) & 0x00ff_ffff;
        let key = Key { index, generation: slot.0 };
        slot.1 = Some(make(key));
        Some(key)
    }

    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let (generation, thing) = self.slots.get_mut(key.index as usize)?;
        if *generation == key.generation { thing.as_mut() } else { None }
    }

    pub fn remove(&mut self, key: Key) -> Option<T> {
        let (generation, thing) = self.slots.get_mut(key.index as usize)?;
        let removed = if *generation == key.generation { thing.take() } else { None };
        if removed.is_some() {
            self.free.push(key.index);
        }
        removed
    }

    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, (generation, thing))| {
            Some((Key { index: index as u32, generation: *generation }, thing.as_ref()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_is_not_mistaken_for_what_came_after() {
        let mut table = Table::new(2);
        let first = table.insert(|_| 'a').unwrap();
        let second = table.insert(|_| 'b').unwrap();
        assert!(table.insert(|_| 'c').is_none());
        assert_eq!(table.remove(first), Some('a'));
        assert_eq!(table.remove(first), None);
        let third = table.insert(|_| 'c').unwrap();
        assert_ne!(first, third);
        assert_eq!(table.get_mut(first), None);
        assert_eq!(table.get_mut(third).copied(), Some('c'));
        assert_eq!(Key::from_bits(second.to_bits()), second);
        assert_eq!((table.len(), table.iter().count()), (2, 2));
    }
}
