//! Sets of row_ids: those of a RowBlock, in the order in which its rows lie, and those that an intermediate holds.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::format::Le;

/// The row_ids of a RowBlock, in stored order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowSet {
    /// Consecutive ids.
    Range(Range<u64>),
    /// Any ids, in arrival order.
    List(Vec<u64>),
}

const TAG_RANGE: u8 = 0;
const TAG_U32: u8 = 1;
const TAG_U64: u8 = 2;
const TAG_BITMAP: u8 = 3;

impl RowSet {
    /// The set of `ids`, as a range where they are consecutive.
    pub fn from_ids(ids: &[u64]) -> Self {
        match ids.first() {
            None => Self::Range(0..0),
            Some(&first) if ids.iter().zip(first..).all(|(&id, want)| id == want) => {
                Self::Range(first..first + ids.len() as u64)
            }
            Some(_) => Self::List(ids.to_vec()),
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        match self {
            Self::Range(r) => (r.end - r.start) as usize,
            Self::List(ids) => ids.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The id at `position`.
    pub fn get(&self, position: usize) -> Option<u64> {
        match self {
            Self::Range(r) => (position < self.len()).then(|| r.start + position as u64),
            Self::List(ids) => ids.get(position).copied(),
        }
    }

    /// The ids in stored order.
    pub fn iter(&self) -> Box<dyn Iterator<Item = u64> + '_> {
        match self {
            Self::Range(r) => Box::new(r.clone()),
            Self::List(ids) => Box::new(ids.iter().copied()),
        }
    }

    /// Smallest and largest id.
    pub fn bounds(&self) -> Option<(u64, u64)> {
        match self {
            Self::Range(r) => (r.start < r.end).then(|| (r.start, r.end - 1)),
            Self::List(ids) => Some((*ids.iter().min()?, *ids.iter().max()?)),
        }
    }

    /// The bytes of FORMAT.md, "Row sets".
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Range(r) => {
                out.push(TAG_RANGE);
                out.extend_from_slice(&r.start.to_le_bytes());
                out.extend_from_slice(&r.end.to_le_bytes());
            }
            Self::List(ids) if bitmap_of(ids).is_some_and(|bits| bits.len() + 8 < 4 * ids.len()) => {
                out.push(TAG_BITMAP);
                out.extend_from_slice(&ids.first().copied().unwrap_or_default().to_le_bytes());
                out.extend_from_slice(&bitmap_of(ids).unwrap_or_default());
            }
            Self::List(ids) if ids.iter().all(|&id| u32::try_from(id).is_ok()) => {
                out.push(TAG_U32);
                ids.iter().for_each(|&id| out.extend_from_slice(&(id as u32).to_le_bytes()));
            }
            Self::List(ids) => {
                out.push(TAG_U64);
                ids.iter().for_each(|id| out.extend_from_slice(&id.to_le_bytes()));
            }
        }
        out
    }

    /// Reads what [`RowSet::to_bytes`] wrote; `None` for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&tag, rest) = bytes.split_first()?;
        match tag {
            TAG_RANGE => {
                let (start, end) = (rest.u64_at(0)?, rest.u64_at(8)?);
                (rest.len() == 16 && start <= end).then_some(Self::Range(start..end))
            }
            TAG_U32 if rest.len() % 4 == 0 => {
                Some(Self::List((0..rest.len() / 4).filter_map(|i| rest.u32_at(i * 4)).map(u64::from).collect()))
            }
            TAG_BITMAP if rest.last().is_some_and(|&last| last != 0) => {
                let (first, bits) = (rest.u64_at(0)?, rest.get(8..)?);
                let bits = (0..8 * bits.len()).filter(|i| bits.get(i / 8).is_some_and(|b| b >> (i % 8) & 1 == 1));
                Some(Self::List(bits.map(|i| first.checked_add(i as u64)).collect::<Option<_>>()?))
            }
            TAG_U64 if rest.len() % 8 == 0 => {
                Some(Self::List((0..rest.len() / 8).filter_map(|i| rest.u64_at(i * 8)).collect()))
            }
            _ => None,
        }
    }
}

/// Bit i says whether the first id + i is there; `None` for ids that do not ascend, or spread too far to be worth it.
fn bitmap_of(ids: &[u64]) -> Option<Vec<u8>> {
    let (&first, &last) = (ids.first()?, ids.last()?);
    if !ids.is_sorted_by(|a, b| a < b) || (last - first) / 32 >= ids.len() as u64 {
        return None;
    }
    let mut bits = vec![0u8; ((last - first) / 8 + 1) as usize];
    for id in ids {
        bits[((id - first) / 8) as usize] |= 1 << ((id - first) % 8);
    }
    Some(bits)
}

const LEAF_ROWS: u64 = 1 << 12;

/// Which row_ids an intermediate holds: one bit a row, in leaves of 4,096.
#[derive(Debug, Clone, Default)]
pub struct RowMask {
    leaves: BTreeMap<u64, Box<[u64; 64]>>,
    n: u64,
}

impl RowMask {
    /// Adds a row; `false` when it was there.
    pub fn insert(&mut self, row: u64) -> bool {
        let leaf = self.leaves.entry(row / LEAF_ROWS).or_insert_with(|| Box::new([0; 64]));
        let (word, bit) = ((row % LEAF_ROWS / 64) as usize, 1u64 << (row % 64));
        let new = leaf[word] & bit == 0;
        leaf[word] |= bit;
        self.n += u64::from(new);
        new
    }

    /// Removes a row.
    pub fn remove(&mut self, row: u64) {
        if self.contains(row)
            && let Some(leaf) = self.leaves.get_mut(&(row / LEAF_ROWS))
        {
            leaf[(row % LEAF_ROWS / 64) as usize] &= !(1u64 << (row % 64));
            self.n -= 1;
        }
    }

    /// Whether the row is there.
    pub fn contains(&self, row: u64) -> bool {
        self.leaves
            .get(&(row / LEAF_ROWS))
            .is_some_and(|leaf| leaf[(row % LEAF_ROWS / 64) as usize] & (1u64 << (row % 64)) != 0)
    }

    /// Adds every row of a set.
    pub fn extend(&mut self, set: &RowSet) {
        set.iter().for_each(|row| {
            self.insert(row);
        });
    }

    /// Number of rows.
    pub fn len(&self) -> u64 {
        self.n
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.n == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn row_sets_round_trip(ids in prop_oneof![
            proptest::collection::vec(any::<u64>(), 0..50),
            proptest::collection::vec(0u64..1000, 0..50),
            (proptest::collection::btree_set(0u64..400, 0..300), any::<u32>())
                .prop_map(|(ids, start)| ids.into_iter().map(|id| id + u64::from(start)).collect::<Vec<u64>>()),
            (0u64..1000, 0u64..50).prop_map(|(a, n)| (a..a + n).collect::<Vec<u64>>()),
        ]) {
            let set = RowSet::from_ids(&ids);
            let back = RowSet::from_bytes(&set.to_bytes()).unwrap();
            prop_assert_eq!(back.iter().collect::<Vec<_>>(), ids.clone());
            prop_assert_eq!(set.bounds(), ids.iter().min().map(|&a| (a, *ids.iter().max().unwrap())));
        }

        #[test]
        fn mask_is_a_set(rows in proptest::collection::vec(0u64..20_000, 0..300)) {
            let mut mask = RowMask::default();
            let mut set = std::collections::BTreeSet::new();
            for r in rows {
                prop_assert_eq!(mask.insert(r), set.insert(r));
            }
            prop_assert_eq!(mask.len(), set.len() as u64);
            prop_assert!((0..20_000).all(|r| mask.contains(r) == set.contains(&r)));
        }
    }

    #[test]
    fn consecutive_ids_are_a_range() {
        assert_eq!(RowSet::from_ids(&[5, 6, 7]), RowSet::Range(5..8));
        assert_eq!(RowSet::from_ids(&[5, 7, 6]), RowSet::List(vec![5, 7, 6]));
        assert_eq!(RowSet::from_bytes(&[9, 1]), None);
        assert_eq!(RowSet::List(vec![5, 6, 8, 9]).to_bytes(), [3, 5, 0, 0, 0, 0, 0, 0, 0, 0b11011]);
        assert_eq!(RowSet::from_bytes(&[3, 5, 0, 0, 0, 0, 0, 0, 0, 0]), None, "an empty end");
        assert_eq!(RowSet::from_bytes(&[[3].as_slice(), &[0xFF; 9]].concat()), None, "beyond the largest id");
    }
}
