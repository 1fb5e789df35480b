//! Matrix products of one block, on the calling thread and in memory that is used again: blocks run in parallel already, and
//! fresh memory would be cleared for each.

use std::cell::Cell;

use gemm::Parallelism;

/// Values that a thread keeps room for (16 MiB): blocks of large maps are freed again.
const KEPT_VALUES: usize = 4 << 20;

thread_local! {
    static BUFFERS: Cell<[Vec<f32>; 2]> = const { Cell::new([Vec::new(), Vec::new()]) };
}

/// Calls `f` with two buffers of the given lengths, of any content.
pub(super) fn with_buffers<R>(lens: [usize; 2], f: impl FnOnce(&mut [f32], &mut [f32]) -> R) -> R {
    let mut buffers = BUFFERS.take();
    let [a, b] = &mut buffers;
    for (buffer, len) in [&mut *a, &mut *b].into_iter().zip(lens) {
        if buffer.len() < len {
            buffer.resize(len, 0.0);
        }
    }
    let result = f(&mut a[..lens[0]], &mut b[..lens[1]]);
    if a.len() + b.len() <= KEPT_VALUES {
        BUFFERS.set(buffers);
    }
    result
}

/// `out = a · b`, all row-major: `[rows, depth]` · `[depth, columns]`.
///
/// Panics when the lengths do not fit the sizes.
#[expect(unsafe_code, reason = "gemm takes pointers")]
pub(super) fn multiply([rows, depth, columns]: [usize; 3], a: &[f32], b: &[f32], out: &mut [f32]) {
    assert!(a.len() == rows * depth && b.len() == depth * columns && out.len() == rows * columns);
    // SAFETY: the three lengths were just checked against the sizes and strides that are passed.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            depth,
            out.as_mut_ptr(),
            1,
            columns as isize,
            false,
            a.as_ptr(),
            1,
            depth as isize,
            b.as_ptr(),
            1,
            columns as isize,
            0.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_is_what_it_is_by_hand_whatever_the_buffers_held() {
        let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let b = [1.0, 0.0, 2.0, -1.0, 0.5, 3.0, 0.0, 1.0, -2.0, 1.0, 1.0, 1.0];
        for _ in 0..2 {
            with_buffers([12, 8], |input, out| {
                input.copy_from_slice(&b);
                multiply([2, 3, 4], &a, input, out);
                assert_eq!(out, [-4.0, 9.0, 5.0, 4.0, -5.5, 21.0, 14.0, 7.0]);
                out.fill(f32::NAN);
                input.fill(f32::NAN);
            });
        }
    }
}
