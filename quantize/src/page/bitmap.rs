//! Bitmaps of a page: bit i of byte b is value 8b + i.
//!
//! In a map, what is zero above is mostly zero below: XORed with itself one map row earlier, a bitmap becomes sparse.

/// Bitmap XORed with itself `w` bits earlier; `w` must be positive.
pub(crate) fn xor_above(bits: &[u8], w: usize) -> Vec<u8> {
    let words = to_words(bits);
    let mixed: Vec<u64> = words.iter().enumerate().map(|(i, x)| x ^ earlier(&words, i, w)).collect();
    let mut out = vec![0; bits.len()];
    from_words(&mixed, &mut out);
    // What was shifted beyond the last bit is not part of the bitmap, but the last byte's spare bits may hold it.
    out
}

/// [`xor_above`] of a bitmap of `n` values, spare bits clear.
pub(crate) fn mixed(bits: &[u8], w: usize, n: usize) -> Vec<u8> {
    let mut mixed = xor_above(bits, w);
    clear_spare(&mut mixed, n);
    mixed
}

/// Undoes [`xor_above`] in place; `words` is scratch.
pub(crate) fn undo_xor_above(bits: &mut [u8], w: usize, words: &mut Vec<u64>) {
    words.clear();
    words.extend(chunks(bits));
    if w < 64 {
        let mut carry = 0;
        for x in words.iter_mut() {
            let mut y = *x ^ carry;
            let mut shift = w;
            while shift < 64 {
                y ^= y << shift;
                shift *= 2;
            }
            carry = y >> (64 - w);
            *x = y;
        }
    } else {
        for i in 0..words.len() {
            let above = earlier(words, i, w);
            if let Some(x) = words.get_mut(i) {
                *x ^= above;
            }
        }
    }
    from_words(words, bits);
}

/// Word `i` of the bitmap moved up by `w` bits. For `w` of 64 and more it depends on earlier words alone.
fn earlier(words: &[u64], i: usize, w: usize) -> u64 {
    let (whole, part) = (w / 64, w % 64);
    let word = |back: usize| i.checked_sub(back).and_then(|j| words.get(j)).copied().unwrap_or(0);
    let low = word(whole) << part;
    if part == 0 { low } else { low | word(whole + 1) >> (64 - part) }
}

fn chunks(bits: &[u8]) -> impl Iterator<Item = u64> {
    let (whole, tail) = bits.as_chunks::<8>();
    let mut last = [0; 8];
    last[..tail.len()].copy_from_slice(tail);
    let last = (!tail.is_empty()).then_some(u64::from_le_bytes(last));
    whole.iter().map(|b| u64::from_le_bytes(*b)).chain(last)
}

fn to_words(bits: &[u8]) -> Vec<u64> {
    chunks(bits).collect()
}

fn from_words(words: &[u64], bits: &mut [u8]) {
    for (o, x) in bits.chunks_mut(8).zip(words) {
        o.copy_from_slice(&x.to_le_bytes()[..o.len()]);
    }
}

/// Set bits.
pub(crate) fn count(bits: &[u8]) -> usize {
    let (whole, tail) = bits.as_chunks::<8>();
    let words: usize = whole.iter().map(|b| u64::from_le_bytes(*b).count_ones() as usize).sum();
    words + tail.iter().map(|b| b.count_ones() as usize).sum::<usize>()
}

/// Clears the bits of the last byte beyond `n`, or tells that some were set.
pub(crate) fn spare_is_clear(bits: &[u8], n: usize) -> bool {
    n.is_multiple_of(8) || bits.last().is_none_or(|b| b >> (n % 8) == 0)
}

/// Clears the bits of the last byte beyond `n`.
pub(crate) fn clear_spare(bits: &mut [u8], n: usize) {
    if !n.is_multiple_of(8)
        && let Some(b) = bits.last_mut()
    {
        *b &= (1 << (n % 8)) - 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xor_above_undoes() {
        for n in [1usize, 7, 8, 63, 64, 65, 200, 1000] {
            for w in [1, 2, 3, 16, 28, 63, 64, 65, 128, 224, 999] {
                let mut bits: Vec<u8> = (0..n.div_ceil(8)).map(|i| (i * i * 37 + 11) as u8).collect();
                clear_spare(&mut bits, n);
                let mut mixed = xor_above(&bits, w);
                let bit = |b: &[u8], i: usize| b[i / 8] >> (i % 8) & 1;
                for i in 0..n {
                    let above = if i >= w { bit(&bits, i - w) } else { 0 };
                    assert_eq!(bit(&mixed, i), bit(&bits, i) ^ above, "{n} {w} {i}");
                }
                clear_spare(&mut mixed, n);
                undo_xor_above(&mut mixed, w, &mut Vec::new());
                clear_spare(&mut mixed, n);
                assert_eq!(mixed, bits);
                assert_eq!(count(&bits), (0..n).filter(|&i| bit(&bits, i) == 1).count());
            }
        }
    }
}
