//! zstd frames without magic, size or checksum; the contexts are kept per thread.

use std::cell::RefCell;

use zstd::zstd_safe::{CCtx, CParameter, DCtx, DParameter, FrameFormat, compress_bound, get_error_name};

use crate::error::{QuantizeError, Result, corrupt};

thread_local! {
    static COMPRESS: RefCell<Option<CCtx<'static>>> = const { RefCell::new(None) };
    static DECOMPRESS: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) };
}

pub(crate) fn compress(bytes: &[u8], level: i32, out: &mut Vec<u8>) -> Result<()> {
    COMPRESS.with_borrow_mut(|slot| {
        let ctx = match slot {
            Some(ctx) => ctx,
            None => {
                let mut ctx = CCtx::create();
                for p in [
                    CParameter::Format(FrameFormat::Magicless),
                    CParameter::ContentSizeFlag(false),
                    CParameter::ChecksumFlag(false),
                    CParameter::DictIdFlag(false),
                ] {
                    ctx.set_parameter(p).map_err(failed)?;
                }
                slot.insert(ctx)
            }
        };
        ctx.set_parameter(CParameter::CompressionLevel(level)).map_err(failed)?;
        let from = out.len();
        out.resize(from + compress_bound(bytes.len()), 0);
        let n = ctx.compress2(&mut out[from..], bytes).map_err(failed)?;
        out.truncate(from + n);
        Ok(())
    })
}

/// Decompresses exactly `out.len()` bytes.
pub(crate) fn decompress(bytes: &[u8], out: &mut [u8]) -> Result<()> {
    DECOMPRESS.with_borrow_mut(|slot| {
        let ctx = match slot {
            Some(ctx) => ctx,
            None => {
                let mut ctx = DCtx::create();
                ctx.set_parameter(DParameter::Format(FrameFormat::Magicless)).map_err(failed)?;
                slot.insert(ctx)
            }
        };
        match ctx.decompress(out, bytes) {
            Ok(n) if n == out.len() => Ok(()),
            Ok(_) => Err(corrupt("zstd frame", "length")),
            Err(_) => Err(corrupt("zstd frame", "contents")),
        }
    })
}

fn failed(code: usize) -> QuantizeError {
    QuantizeError::Zstd(get_error_name(code))
}
