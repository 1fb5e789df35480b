//! Decoding of Huffman streams side by side.
//!
//! Source: the sentinel bit, which makes a counter needless, follows zstd's `huf_decompress`.

use crate::page::{MAX_LEN, STORE, TABLE};

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
        // A step moves each stream by seven bytes at most.
        let furthest = at.iter().fold(0, |a, &b| a.max(b));
        let room = bytes.len().saturating_sub(furthest + 8) / 7;
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
                // SAFETY: `room` steps of seven bytes from the furthest stream end eight bytes before the end.
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
