//! Texts of the catalogue as zstd frames, with the help of a text that says much the same.

use std::cell::RefCell;

use zstd::bulk::Decompressor;

use crate::error::{EngineError, Result};

/// Texts of fewer bytes stay texts.
const MIN_BYTES: usize = 64;
/// Far more than a description has; a longer one is damage.
const MAX_BYTES: usize = 1 << 28;
const LEVEL: i32 = 9;

/// The text as a frame that refers to `known`; `None` where that is not smaller.
///
/// Errors: `Io` of the compressor.
pub(super) fn pack(text: &str, known: &str) -> Result<Option<Vec<u8>>> {
    if text.len() < MIN_BYTES {
        return Ok(None);
    }
    let compressor = zstd::bulk::Compressor::with_dictionary(LEVEL, known.as_bytes());
    let packed = compressor.and_then(|mut c| c.compress(text.as_bytes()));
    let packed = packed.map_err(|e| EngineError::io("catalog.db", "compress a description", e))?;
    Ok((packed.len() < text.len()).then_some(packed))
}

thread_local! {
    /// Kept: making one takes longer than most texts do.
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Undoes [`pack`], given the same `known`.
///
/// Errors: `Corrupt` for bytes that it does not write.
pub(super) fn unpack(packed: &[u8], known: &str) -> Result<String> {
    let damaged = |why: &str| EngineError::corrupt("catalog.db", 0, format!("a packed description: {why}"));
    // Frames of `pack` tell their size.
    let size = Decompressor::upper_bound(packed).filter(|n| *n <= MAX_BYTES).ok_or_else(|| damaged("its size"))?;
    let bytes = DECOMPRESSOR.with_borrow_mut(|kept| {
        let mut decompressor = kept.take().map_or_else(Decompressor::new, Ok)?;
        decompressor.set_dictionary(known.as_bytes())?;
        let bytes = decompressor.decompress(packed, size);
        *kept = Some(decompressor);
        bytes
    });
    String::from_utf8(bytes.map_err(|e: std::io::Error| damaged(&e.to_string()))?).map_err(|_| damaged("no UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_survive_and_those_that_are_known_cost_little() {
        let known = (0..200).map(|i| format!("{{\"stage\":{i},\"columns\":[\"c{}\"]}}", i * 7)).collect::<String>();
        for (text, most) in [(known[900..1400].to_string(), 40), (known.clone(), 60), ("ä€".repeat(40), 60)] {
            let packed = pack(&text, &known).unwrap().unwrap();
            assert!(packed.len() < most, "{}", packed.len());
            assert_eq!(unpack(&packed, &known).unwrap(), text);
            for cut in 0..packed.len() {
                assert!(unpack(&packed[..cut], &known).map_or(true, |t| t != text), "{cut}");
            }
            assert!(unpack(&packed, "").map_or(true, |t| t != text || most == 60));
        }
        let alone = pack(&known, "").unwrap().unwrap();
        assert_eq!(unpack(&alone, "").unwrap(), known);
        assert_eq!(pack("short", &known).unwrap(), None);
        assert!(unpack(b"no frame", "").is_err());
    }
}
