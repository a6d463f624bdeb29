//! A tournament over slots: what all values in them come to, kept as they change.
//!
//! ```text
//!          1                nodes of a binary tree, row by row; the leaves are the slots
//!       2     3             a node is what its children come to, or the one that is there
//!      4 5   6 7
//! ```
//!
//! A change costs the path from its leaf to the root: O(log n) for n slots.

/// Slots of the smallest tree.
const SLOTS_MIN: usize = 4;
/// The largest tree that is kept where nothing is left in it.
const SLOTS_KEPT: usize = 64;

/// The tree. Every change must come with the same function, associative and commutative.
#[derive(Debug)]
pub struct Tournament<V> {
    /// Twice the slots; place 0 is nobody's.
    nodes: Vec<Option<V>>,
    count: usize,
}

impl<V> Default for Tournament<V> {
    fn default() -> Self {
        Self { nodes: Vec::new(), count: 0 }
    }
}

impl<V: Copy> Tournament<V> {
    /// Puts a value into a slot that has none.
    pub fn put(&mut self, slot: usize, value: V, of: impl Fn(V, V) -> V + Copy) {
        if slot >= self.slots() {
            self.grow(slot, of);
        }
        let leaf = self.slots() + slot;
        self.count += usize::from(self.nodes[leaf].is_none());
        self.nodes[leaf] = Some(value);
        self.settle(leaf, of);
    }

    /// Takes the value out of a slot, if it has one.
    pub fn remove(&mut self, slot: usize, of: impl Fn(V, V) -> V + Copy) {
        let leaf = self.slots() + slot;
        if self.nodes.get_mut(leaf).and_then(Option::take).is_some() {
            self.count -= 1;
            self.settle(leaf, of);
        }
    }

    /// Takes all values out.
    pub fn clear(&mut self) {
        if self.slots() > SLOTS_KEPT {
            self.nodes = Vec::new();
        } else if self.count > 0 {
            self.nodes.fill(None);
        }
        self.count = 0;
    }

    /// Returns what the values come to; nothing where there is none.
    pub fn winner(&self) -> Option<V> {
        self.nodes.get(1).copied().flatten()
    }

    /// Returns how many values there are.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Returns about how many bytes it takes.
    pub fn bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Option<V>>()
    }

    const fn slots(&self) -> usize {
        self.nodes.len() / 2
    }

    fn settle(&mut self, leaf: usize, of: impl Fn(V, V) -> V) {
        let mut at = leaf / 2;
        while at > 0 {
            self.nodes[at] = both(self.nodes[2 * at], self.nodes[2 * at + 1], &of);
            at /= 2;
        }
    }

    fn grow(&mut self, slot: usize, of: impl Fn(V, V) -> V) {
        let (old, new) = (self.slots(), (slot + 1).next_power_of_two().max(SLOTS_MIN));
        let mut nodes = vec![None; 2 * new];
        nodes[new..new + old].copy_from_slice(&self.nodes[old..]);
        for at in (1..new).rev() {
            nodes[at] = both(nodes[2 * at], nodes[2 * at + 1], &of);
        }
        self.nodes = nodes;
    }
}

fn both<V>(one: Option<V>, other: Option<V>, of: impl Fn(V, V) -> V) -> Option<V> {
    match (one, other) {
        (Some(one), Some(other)) => Some(of(one, other)),
        (one, other) => one.or(other),
    }
}
