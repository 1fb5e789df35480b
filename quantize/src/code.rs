//! Shapes of maps and types of codes.

use crate::{QuantizeError, error::Result};

/// Shape of one unit's map; 1×1 for vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MapShape {
    /// Rows.
    pub h: usize,
    /// Columns.
    pub w: usize,
}

impl MapShape {
    /// The map of a vector's element: 1×1.
    pub const VECTOR: Self = Self { h: 1, w: 1 };

    /// Cells of one map, `h * w` (saturating).
    #[must_use]
    pub const fn cells(self) -> usize {
        self.h.saturating_mul(self.w)
    }
}

/// In-memory type of one code. All are little-endian; `Bit` and `Kbit` take a byte each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// 0 or 1.
    Bit,
    /// An index below `2^k`, k from 1 to 8.
    Kbit(u8),
    /// IEEE binary16.
    F16,
    /// bfloat16.
    BF16,
    /// IEEE binary32.
    F32,
    /// IEEE binary64.
    F64,
    /// Signed integer of 1, 2, 4 or 8 bytes.
    Int(u8),
}

impl Code {
    /// Bytes per code in memory.
    #[must_use]
    pub const fn width(self) -> usize {
        match self {
            Self::Bit | Self::Kbit(_) => 1,
            Self::F16 | Self::BF16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
            Self::Int(w) => w as usize,
        }
    }

    /// Bits of information per code at most.
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            Self::Bit => 1,
            Self::Kbit(k) => k as u32,
            _ => 8 * self.width() as u32,
        }
    }

    /// Stored identifier; explicit and never reused.
    #[must_use]
    pub const fn to_id(self) -> u8 {
        match self {
            Self::Bit => 0,
            Self::F16 => 1,
            Self::BF16 => 2,
            Self::F32 => 3,
            Self::F64 => 4,
            Self::Kbit(k) => 16 + k,
            Self::Int(w) => 32 + w,
        }
    }

    /// The code of a stored identifier.
    ///
    /// Errors: `UnknownId`.
    pub const fn from_id(id: u8) -> Result<Self> {
        Ok(match id {
            0 => Self::Bit,
            1 => Self::F16,
            2 => Self::BF16,
            3 => Self::F32,
            4 => Self::F64,
            17..=24 => Self::Kbit(id - 16),
            33 | 34 | 36 | 40 => Self::Int(id - 32),
            _ => return Err(QuantizeError::UnknownId { what: "code", id }),
        })
    }

    /// Whether the code is a floating-point number.
    #[must_use]
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::BF16 | Self::F32 | Self::F64)
    }

    /// Refuses the `Kbit` and `Int` widths that no identifier exists for.
    ///
    /// Errors: `UnsupportedCode`.
    pub(crate) const fn check(self) -> Result<()> {
        match self {
            Self::Kbit(1..=8) | Self::Int(1 | 2 | 4 | 8) => Ok(()),
            Self::Kbit(_) | Self::Int(_) => Err(QuantizeError::UnsupportedCode { what: "this width", code: self }),
            _ => Ok(()),
        }
    }
}

/// What to do with a value that the scheme cannot hold.
///
/// kbit and threshold cannot hold NaN and infinities; f16 and bf16 cannot hold finite values beyond their range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OnUnholdable {
    /// Refuse the whole call.
    Error,
    /// Take the nearest value that can be held (for NaN: the one nearest 0), and count.
    Clamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip() {
        let mut seen = 0;
        for id in 0..=255 {
            if let Ok(code) = Code::from_id(id) {
                assert_eq!(code.to_id(), id);
                assert!(code.check().is_ok());
                seen += 1;
            }
        }
        assert_eq!(seen, 5 + 8 + 4);
    }
}
