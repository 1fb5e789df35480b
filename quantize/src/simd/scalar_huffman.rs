//! Decoding of Huffman streams side by side.
//!
//! Source: the sentinel bit, which makes a counter needless, follows zstd's `huf_decompress`.

use crate::page::{MAX_LEN, MODEL_CONTEXTS, MODEL_LEN, MODEL_TABLE, STORE, TABLE};

/// Codes of [`MAX_LEN`] bits that one refill of 64 bits, less a byte and the sentinel, is sure to hold.
const PER_REFILL: usize = 5;

/// 64 bits from `at` with the sentinel in the lowest; zeros where that many are not there.
#[inline(always)]
fn load(bytes: &[u8], at: usize) -> u64 {
    let word = bytes.get(at..).and_then(|b| b.first_chunk());
    word.map_or(0, |w| u64::from_be_bytes(*w)) | 1
}

/// Fills a look-up table from symbols and lengths in order of code; the code must be complete.
#[inline(always)]
pub(crate) fn fill_table(order: &[(u8, u8)], entries: &mut [u16]) {
    let mut from = 0;
    for &(s, len) in order {
        let to = from + (TABLE >> (len & 15));
        let entry = [u16::from(s) << 8 | u16::from(len); STORE];
        // What a store writes too much is overwritten by the next.
        for at in (from..to).step_by(STORE) {
            if let Some(to) = entries.get_mut(at..).and_then(|e| e.first_chunk_mut()) {
                *to = entry;
            }
        }
        from = to;
    }
}

/// Decodes `n` (1 or 4) streams that lie between `bounds`; whether each ended where it should.
///
/// Shape: eight bytes follow the last stream; `table` holds by the next [`MAX_LEN`] bits a symbol in the high byte,
/// its length in the low.
#[inline(always)]
pub(crate) fn huffman_streams(
    n: usize,
    bytes: &[u8],
    bounds: &[usize; 5],
    table: &[u16; TABLE],
    out: &mut [u8],
) -> bool {
    let per = out.len().div_ceil(n).max(1);
    let mut parts: [&mut [u8]; 4] = std::array::from_fn(|_| &mut [][..]);
    for (part, chunk) in parts.iter_mut().zip(out.chunks_mut(per)) {
        *part = chunk;
    }
    let mut at = [bounds[0], bounds[1], bounds[2], bounds[3]];
    // Bits not yet used from the top; the position of the lowest set bit tells how many were.
    let mut bits = at.map(|at| load(bytes, at));
    let done = together(bytes, &mut at, &mut bits, table, &mut parts);
    let mut ok = true;
    for i in 0..n {
        for o in &mut parts[i][done..] {
            let e = table[(bits[i] >> (64 - MAX_LEN)) as usize];
            *o = (e >> 8) as u8;
            let used = (bits[i] << (e & 63)).trailing_zeros();
            at[i] += (used >> 3) as usize;
            bits[i] = load(bytes, at[i]) << (used & 7);
        }
        let used = bits[i].trailing_zeros() as usize;
        ok &= at[i] + used.div_ceil(8) == bounds[i + 1];
    }
    ok
}

/// Decodes the greater part of four streams side by side; returns how many symbols of each.
#[inline(always)]
fn together(
    bytes: &[u8],
    at: &mut [usize; 4],
    bits: &mut [u64; 4],
    table: &[u16; TABLE],
    parts: &mut [&mut [u8]; 4],
) -> usize {
    let steps = parts.iter().map(|p| p.len()).min().unwrap_or(0) / PER_REFILL;
    let [p0, p1, p2, p3] = parts.each_mut().map(|p| p[..steps * PER_REFILL].as_chunks_mut::<PER_REFILL>().0);
    let mut done = 0;
    loop {
        // A step moves each stream by eight bytes at most, whatever the table holds.
        let furthest = at.iter().fold(0, |a, &b| a.max(b));
        let room = bytes.len().saturating_sub(furthest + 8) / 8;
        let end = steps.min(done + room);
        if end == done {
            return done * PER_REFILL;
        }
        let (mut a, mut b) = (*at, *bits);
        macro_rules! advance {
            ($($i:literal $o:ident)*) => {$(
                for o in $o {
                    let e = table[(b[$i] >> (64 - MAX_LEN)) as usize];
                    b[$i] <<= e & 63;
                    *o = (e >> 8) as u8;
                }
                let used = b[$i].trailing_zeros();
                a[$i] += (used >> 3) as usize;
                // SAFETY: `room` steps of eight bytes from the furthest stream end eight bytes before the end.
                let word = unsafe { bytes.as_ptr().add(a[$i]).cast::<[u8; 8]>().read() };
                b[$i] = (u64::from_be_bytes(word) | 1) << (used & 7);
            )*};
        }
        let left = p0[done..end].iter_mut().zip(&mut p1[done..end]);
        let right = p2[done..end].iter_mut().zip(&mut p3[done..end]);
        for ((o0, o1), (o2, o3)) in left.zip(right) {
            advance!(0 o0 1 o1 2 o2 3 o3);
        }
        (*at, *bits) = (a, b);
        done = end;
    }
}

/// Decodes 1, 4 or 6 streams by a model of one context or of [`MODEL_CONTEXTS`]; stream i lies between bounds i and
/// i + 1. Returns whether each ended where it should; false also for a table of another size.
///
/// Shape: eight bytes follow the last stream; `table` holds, by context and the next [`MODEL_LEN`] bits, a symbol in
/// the low byte, the context after it in the next four bits, and its length in the top four.
#[inline(always)]
pub(crate) fn model_streams(bytes: &[u8], bounds: &[usize], table: &[u16], out: &mut [u8]) -> bool {
    if let (Some(table), MODEL_TABLE) = (table.first_chunk::<MODEL_TABLE>(), table.len()) {
        by_streams(bytes, bounds, table, out)
    } else if let Some(table) = table.first_chunk::<{ MODEL_CONTEXTS * MODEL_TABLE }>() {
        by_streams(bytes, bounds, table, out)
    } else {
        false
    }
}

#[inline(always)]
fn by_streams<const SIZE: usize>(bytes: &[u8], bounds: &[usize], table: &[u16; SIZE], out: &mut [u8]) -> bool {
    match bounds.len() {
        2 => model_run::<1, SIZE>(bytes, bounds, table, out),
        5 => model_run::<4, SIZE>(bytes, bounds, table, out),
        7 => model_run::<6, SIZE>(bytes, bounds, table, out),
        _ => false,
    }
}

/// One symbol: its entry is looked up, its bits dropped, its successor's context kept.
#[inline(always)]
fn model_step<const SIZE: usize>(bits: &mut u64, context: &mut usize, table: &[u16; SIZE]) -> u8 {
    let e = table[(*context | (*bits >> (64 - MODEL_LEN)) as usize) & (SIZE - 1)];
    *bits = scalar(*bits << ((e >> 12) & 63));
    *context = (usize::from(e) & 0xF00) << (MODEL_LEN - 8) & (SIZE - 1);
    e as u8
}

/// The same word, in a register of its own: words of several streams gathered in a vector would be slow to look up by.
#[inline(always)]
fn scalar(word: u64) -> u64 {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        let mut word = word;
        // SAFETY: no instruction at all.
        unsafe { std::arch::asm!("/* {0} */", inout(reg) word, options(pure, nomem, nostack, preserves_flags)) };
        word
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    word
}

#[inline(always)]
fn model_run<const N: usize, const SIZE: usize>(
    bytes: &[u8],
    bounds: &[usize],
    table: &[u16; SIZE],
    out: &mut [u8],
) -> bool {
    let per = out.len().div_ceil(N).max(1);
    let steps = out.len().saturating_sub((N - 1) * per) / PER_REFILL;
    let mut at: [usize; N] = std::array::from_fn(|i| bounds[i]);
    let mut bits = at.map(|at| load(bytes, at));
    // The table's first context is that of symbol 0, with which every stream begins.
    let mut contexts = [0usize; N];
    let mut done = 0;
    let out_at = out.as_mut_ptr();
    loop {
        // A step moves each stream by eight bytes at most, whatever the table holds.
        let furthest = at.iter().fold(0, |a, &b| a.max(b));
        let room = bytes.len().saturating_sub(furthest + 8) / 8;
        let end = steps.min(done + room);
        if end == done {
            break;
        }
        let (mut a, mut b, mut c) = (at, bits, contexts);
        // Written out, symbol by symbol over all streams: streams one after another would have to wait for each other,
        // as no core looks far enough ahead.
        macro_rules! step {
            ($to:expr, $k:literal, $($i:literal)*) => {$(
                if $i < N {
                    let symbol = model_step(&mut b[$i % N], &mut c[$i % N], table);
                    // SAFETY: stream i's symbols begin at i * per; the last stream has the fewest, and `steps` groups
                    // of its symbols are within `out`.
                    unsafe { *out_at.add($i * per + $to + $k) = symbol };
                }
            )*};
        }
        macro_rules! refill {
            ($($i:literal)*) => {$(
                if $i < N {
                    let used = scalar(u64::from(b[$i % N].trailing_zeros()));
                    a[$i % N] += (used >> 3) as usize;
                    // SAFETY: `room` steps of eight bytes from the furthest stream end eight bytes before the end.
                    let word = unsafe { bytes.as_ptr().add(a[$i % N]).cast::<[u8; 8]>().read() };
                    b[$i % N] = scalar((u64::from_be_bytes(word) | 1) << (used & 7));
                }
            )*};
        }
        for to in (done * PER_REFILL..end * PER_REFILL).step_by(PER_REFILL) {
            step!(to, 0, 0 1 2 3 4 5);
            step!(to, 1, 0 1 2 3 4 5);
            step!(to, 2, 0 1 2 3 4 5);
            step!(to, 3, 0 1 2 3 4 5);
            step!(to, 4, 0 1 2 3 4 5);
            refill!(0 1 2 3 4 5);
        }
        (at, bits, contexts) = (a, b, c);
        done = end;
    }
    let mut ok = true;
    for (i, part) in out.chunks_mut(per).enumerate().take(N) {
        for o in &mut part[done * PER_REFILL..] {
            *o = model_step(&mut bits[i], &mut contexts[i], table);
            let used = bits[i].trailing_zeros();
            at[i] += (used >> 3) as usize;
            bits[i] = load(bytes, at[i]) << (used & 7);
        }
        let used = bits[i].trailing_zeros() as usize;
        ok &= at[i] + used.div_ceil(8) == bounds[i + 1];
    }
    ok
}
