//! Matrix products of one block, in memory that is used again: fresh memory would be cleared for each.

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

/// How the products of `n_blocks` blocks run: on the thread of their block, unless there are threads without one.
pub(super) fn threads(n_blocks: usize) -> Parallelism {
    if n_blocks < rayon::current_num_threads() { Parallelism::Rayon(0) } else { Parallelism::None }
}

/// `out = a · b`, all row-major: `[rows, depth]` · `[depth, columns]`. The threads change no bit of it.
///
/// Panics when the lengths do not fit the sizes.
#[expect(unsafe_code, reason = "gemm takes pointers")]
pub(super) fn multiply(
    [rows, depth, columns]: [usize; 3],
    a: &[f32],
    b: &[f32],
    out: &mut [f32],
    threads: Parallelism,
) {
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
            threads,
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
        for threads in [Parallelism::None, Parallelism::Rayon(0)] {
            with_buffers([12, 8], |input, out| {
                input.copy_from_slice(&b);
                multiply([2, 3, 4], &a, input, out, threads);
                assert_eq!(out, [-4.0, 9.0, 5.0, 4.0, -5.5, 21.0, 14.0, 7.0]);
                out.fill(f32::NAN);
                input.fill(f32::NAN);
            });
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let mut rng = crate::rng::Rng::named(3, "product");
        let mut values = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.uniform(1.0)).collect() };
        // Above the size from which a product is divided among threads, in whole tiles and not.
        for [rows, depth, columns] in [[256, 512, 160], [67, 700, 333]] {
            let (a, b) = (values(rows * depth), values(depth * columns));
            let product = |threads| {
                let mut out = vec![f32::NAN; rows * columns];
                multiply([rows, depth, columns], &a, &b, &mut out, threads);
                out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            assert!(product(Parallelism::None) == product(Parallelism::Rayon(4)));
        }
    }
}
