//! An answer's buffer while several tasks fill it, each its own rows and columns.

use std::marker::PhantomData;

use crate::stream;

/// Rows × columns of f32 that tasks write disjoint parts of.
pub struct Out<'a> {
    first: *mut f32,
    n_rows: usize,
    row_len: usize,
    streamed: bool,
    borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: all writing goes through `Out::part`, whose caller promises that no two tasks have the same rows and columns.
#[expect(unsafe_code, reason = "columns of a row-major buffer cannot be split into slices without a copy of them")]
unsafe impl Sync for Out<'_> {}

impl<'a> Out<'a> {
    /// A buffer of whole rows.
    pub fn new(buffer: &'a mut [f32], row_len: usize) -> Self {
        let streamed = std::mem::size_of_val(buffer) >= stream::STREAM_BYTES;
        let n_rows = buffer.len() / row_len.max(1);
        Self { first: buffer.as_mut_ptr(), n_rows, row_len, streamed, borrow: PhantomData }
    }

    /// Values in a row.
    pub fn row_len(&self) -> usize {
        self.row_len
    }

    /// Columns `col..col + len` of a row, or whole rows where `col` is 0 and `len` a multiple of the row's length.
    ///
    /// # Safety
    /// No other part that overlaps may be in use.
    #[expect(unsafe_code, reason = "see `Sync`")]
    #[expect(clippy::mut_from_ref, reason = "the caller promises that parts are disjoint")]
    pub unsafe fn part(&self, row: usize, col: usize, len: usize) -> &mut [f32] {
        let start = row * self.row_len + col;
        assert!(start + len <= self.n_rows * self.row_len, "a part of the answer lies in the answer");
        // SAFETY: the range was just checked, the buffer is borrowed for as long as `self` lives, and the caller
        // promises that nobody else has this part.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(start), len) }
    }

    /// Copies values to a part, past the caches where the answer is larger than they are.
    pub fn copy(&self, part: &mut [f32], values: &[f32]) {
        if self.streamed { stream::copy(part, values) } else { part.copy_from_slice(values) }
    }
}
