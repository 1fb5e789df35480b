//! Decoding of Huffman streams side by side.
//!
//! Source: the sentinel bit, which makes a counter needless, follows zstd's `huf_decompress`.

use crate::page::{MAX_LEN, TABLE};

/// Codes of [`MAX_LEN`] bits that one refill of 64 bits, less a byte and the sentinel, is sure to hold.
const PER_REFILL: usize = 5;

/// 64 bits from `at` with the sentinel in the lowest; zeros where that many are not there.
#[inline(always)]
fn load(bytes: &[u8], at: usize) -> u64 {
    let word = bytes.get(at..).and_then(|b| b.first_chunk());
    word.map_or(0, |w| u64::from_be_bytes(*w)) | 1
}

/// Decodes `n` (1, 4 or 8) streams that lie between `bounds`; whether each ended where it should.
///
/// Shape: eight bytes follow the last stream; `table` holds by the next [`MAX_LEN`] bits a symbol in the high byte, its length in the low.
#[inline(always)]
pub(crate) fn huffman_streams(n: usize, bytes: &[u8], bounds: &[usize; 9], table: &[u16; TABLE], out: &mut [u8]) -> bool {
    match n {
        1 => streams::<1>(bytes, bounds, table, out),
        4 => streams::<4>(bytes, bounds, table, out),
        _ => streams::<8>(bytes, bounds, table, out),
    }
}

#[inline(always)]
fn streams<const S: usize>(bytes: &[u8], bounds: &[usize; 9], table: &[u16; TABLE], out: &mut [u8]) -> bool {
    let per = out.len().div_ceil(S).max(1);
    let mut parts: [&mut [u8]; S] = std::array::from_fn(|_| &mut [][..]);
    for (part, chunk) in parts.iter_mut().zip(out.chunks_mut(per)) {
        *part = chunk;
    }
    let mut at: [usize; S] = std::array::from_fn(|i| bounds[i]);
    // Bits not yet used from the top; the position of the lowest set bit tells how many were.
    let mut bits: [u64; S] = std::array::from_fn(|i| load(bytes, at[i]));
    let steps = parts.iter().map(|p| p.len()).min().unwrap_or(0) / PER_REFILL;
    // One stream after the other keeps few registers busy; the core runs ahead into the next by itself.
    macro_rules! advance {
        ($o:ident, $($i:literal)*) => {$(
            if $i < S && let Some(o) = parts[$i % S].get_mut($o..).and_then(|o| o.first_chunk_mut::<PER_REFILL>()) {
                let i = $i % S;
                let mut b = bits[i];
                for o in o {
                    let e = table[(b >> (64 - MAX_LEN)) as usize];
                    b <<= e & 63;
                    *o = (e >> 8) as u8;
                }
                let used = b.trailing_zeros();
                at[i] += (used >> 3) as usize;
                bits[i] = load(bytes, at[i]) << (used & 7);
            }
        )*};
    }
    for step in 0..steps {
        let o = step * PER_REFILL;
        advance!(o, 0 1 2 3 4 5 6 7);
    }
    let mut ok = true;
    for i in 0..S {
        for o in &mut parts[i][steps * PER_REFILL..] {
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
