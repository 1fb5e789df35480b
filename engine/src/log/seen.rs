//! Columns that a log has stored, by where they lie in memory: stages pass most of their columns on unchanged, and these
//! are then neither copied nor hashed again.

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::DataType;
use lru::LruCache;

/// Where an array's values lie. Two arrays that are alive and agree in it are equal.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Identity {
    data_type: DataType,
    len: usize,
    offset: usize,
    nulls: Option<(usize, usize)>,
    buffers: [usize; 2],
}

impl Identity {
    /// `None` for arrays of parts.
    fn of(array: &ArrayRef) -> Option<(Self, usize)> {
        let data = array.to_data();
        let mut buffers = [0; 2];
        if !data.child_data().is_empty() || data.buffers().len() > buffers.len() {
            return None;
        }
        buffers.iter_mut().zip(data.buffers()).for_each(|(at, buffer)| *at = buffer.as_ptr().addr());
        let nulls = data.nulls().map(|n| (n.buffer().as_ptr().addr(), n.offset()));
        let bytes = data.get_slice_memory_size().ok()?;
        let (data_type, len, offset) = (data.data_type().clone(), data.len(), data.offset());
        Some((Self { data_type, len, offset, nulls, buffers }, bytes))
    }
}

struct Stored {
    /// Keeps the memory from becoming another array's.
    _array: ArrayRef,
    bytes: usize,
    chunk: i64,
    len: u64,
}

/// Arrays whose chunks are stored, the least recently used leaving first.
pub struct Seen {
    held: LruCache<Identity, Stored>,
    bytes: usize,
    most: usize,
}

impl Seen {
    /// Holds arrays of `most` bytes in all.
    pub fn new(most: usize) -> Self {
        Self { held: LruCache::unbounded(), bytes: 0, most }
    }

    /// Number and stored length of the chunk that holds just this array.
    pub fn chunk_of(&mut self, array: &ArrayRef) -> Option<(i64, u64)> {
        let (identity, _) = Identity::of(array)?;
        self.held.get(&identity).map(|stored| (stored.chunk, stored.len))
    }

    /// Knows an array by where a copy of it lies.
    pub fn moved(&mut self, from: &ArrayRef, to: &ArrayRef) {
        let Some((identity, _)) = Identity::of(from) else { return };
        if let Some(stored) = self.held.pop(&identity) {
            self.bytes -= stored.bytes;
            self.add(to, stored.chunk, stored.len);
        }
    }

    /// Remembers an array's chunk.
    pub fn add(&mut self, array: &ArrayRef, chunk: i64, len: u64) {
        let Some((identity, bytes)) = Identity::of(array).filter(|(_, bytes)| *bytes <= self.most) else { return };
        let stored = Stored { _array: ArrayRef::clone(array), bytes, chunk, len };
        self.bytes += bytes;
        if let Some(old) = self.held.put(identity, stored) {
            self.bytes -= old.bytes;
        }
        while self.bytes > self.most {
            let Some((_, old)) = self.held.pop_lru() else { break };
            self.bytes -= old.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{BooleanArray, Int64Array, StringArray};
    use std::sync::Arc;

    #[test]
    fn the_same_memory_is_recognised_and_nothing_else() {
        let columns: [ArrayRef; 4] = [
            Arc::new(Int64Array::from((0..100).collect::<Vec<_>>())),
            Arc::new(Int64Array::from((0..100).map(|i| (i % 3 > 0).then_some(i)).collect::<Vec<_>>())),
            Arc::new(BooleanArray::from((0..100).map(|i| i % 3 > 0).collect::<Vec<_>>())),
            Arc::new(StringArray::from_iter_values((0..100).map(|i| format!("w{i}")))),
        ];
        for column in &columns {
            let mut seen = Seen::new(1 << 20);
            seen.add(&column.slice(8, 50), 7, 1);
            assert_eq!(seen.chunk_of(&Arc::clone(column).slice(8, 50)), Some((7, 1)));
            for (at, len) in [(8, 49), (9, 50), (0, 50), (0, 100)] {
                assert_eq!(seen.chunk_of(&column.slice(at, len)), None, "{:?} {at} {len}", column.data_type());
            }
            // Equal, but elsewhere.
            let copy = arrow::compute::concat(&[&column.slice(8, 25), &column.slice(33, 25)]).unwrap();
            assert_eq!(seen.chunk_of(&copy), None);
        }
        // The same values under other nulls.
        let (plain, nulls) = (columns[0].to_data(), columns[1].nulls().cloned());
        let masked = plain.clone().into_builder().nulls(nulls).build().unwrap();
        let mut seen = Seen::new(1 << 20);
        seen.add(&columns[0], 1, 1);
        assert_eq!(seen.chunk_of(&arrow::array::make_array(masked)), None);
        assert_eq!(seen.chunk_of(&arrow::array::make_array(plain)), Some((1, 1)));
    }

    #[test]
    fn a_copy_takes_the_place_of_an_array() {
        let parts: [ArrayRef; 2] = [0..10, 10..15].map(|rows| Arc::new(Int64Array::from_iter_values(rows)) as ArrayRef);
        let whole = arrow::compute::concat(&[&parts[0], &parts[1]]).unwrap();
        let mut seen = Seen::new(1 << 20);
        seen.add(&parts[0], 1, 80);
        seen.moved(&parts[0], &whole.slice(0, 10));
        seen.moved(&parts[1], &whole.slice(10, 5));
        assert_eq!([&parts[0], &whole.slice(0, 10)].map(|a| seen.chunk_of(a)), [None, Some((1, 80))]);
        assert_eq!((seen.chunk_of(&whole.slice(10, 5)), seen.bytes), (None, 80), "it was not known before");
    }

    #[test]
    fn it_holds_no_more_than_it_may() {
        let column: ArrayRef = Arc::new(Int64Array::from((0..100).collect::<Vec<_>>()));
        let mut seen = Seen::new(1_000);
        for at in 0..10 {
            seen.add(&column.slice(at, 50), at as i64, 1);
        }
        assert!(seen.bytes <= 1_000 && seen.held.len() == 2);
        assert_eq!([7, 8, 9].map(|at| seen.chunk_of(&column.slice(at, 50)).is_some()), [false, true, true]);
        seen.add(&column.slice(9, 50), 9, 1);
        assert_eq!((seen.bytes, seen.held.len()), (800, 2));
        Seen::new(10).add(&column, 1, 1);
    }
}
