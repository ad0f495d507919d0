//! Typed, owned buffers: what a communicator moves. Not here: how they are combined (`tree.rs`).

/// Element type of a [`Buffer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ElementKind {
    /// 32-bit float.
    F32,
    /// 64-bit float.
    F64,
    /// 64-bit signed integer.
    I64,
    /// Byte.
    U8,
}

impl ElementKind {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F64 | Self::I64 => 8,
            Self::U8 => 1,
        }
    }
}

impl std::fmt::Display for ElementKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::I64 => "i64",
            Self::U8 => "u8",
        })
    }
}

/// How a reduction combines two elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReduceOp {
    /// Addition; wraps for integers. Not defined for bytes.
    Sum,
    /// The larger one; a NaN on any rank gives NaN.
    Max,
    /// The smaller one; a NaN on any rank gives NaN.
    Min,
}

impl std::fmt::Display for ReduceOp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sum => "sum",
            Self::Max => "max",
            Self::Min => "min",
        })
    }
}

/// Elements on their way between ranks. Owned, so that nothing in flight borrows.
#[derive(Clone, Debug, PartialEq)]
pub enum Buffer {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// 64-bit floats.
    F64(Vec<f64>),
    /// 64-bit signed integers.
    I64(Vec<i64>),
    /// Bytes.
    U8(Vec<u8>),
}

/// Runs an expression on the vector inside a buffer.
macro_rules! on_vector {
    ($buffer:expr, $vector:ident => $body:expr) => {
        match $buffer {
            $crate::comm::Buffer::F32($vector) => $body,
            $crate::comm::Buffer::F64($vector) => $body,
            $crate::comm::Buffer::I64($vector) => $body,
            $crate::comm::Buffer::U8($vector) => $body,
        }
    };
}
pub(crate) use on_vector;

impl Buffer {
    /// `len` zeros of `kind`.
    pub fn zeros(kind: ElementKind, len: usize) -> Self {
        match kind {
            ElementKind::F32 => Self::F32(vec![0.0; len]),
            ElementKind::F64 => Self::F64(vec![0.0; len]),
            ElementKind::I64 => Self::I64(vec![0; len]),
            ElementKind::U8 => Self::U8(vec![0; len]),
        }
    }

    /// Element type.
    pub fn kind(&self) -> ElementKind {
        match self {
            Self::F32(_) => ElementKind::F32,
            Self::F64(_) => ElementKind::F64,
            Self::I64(_) => ElementKind::I64,
            Self::U8(_) => ElementKind::U8,
        }
    }

    /// Elements.
    pub fn len(&self) -> usize {
        on_vector!(self, v => v.len())
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The floats.
    ///
    /// # Panics
    /// If the buffer holds another kind. A collective returns the kind it was given.
    pub fn into_f32(self) -> Vec<f32> {
        match self {
            Self::F32(v) => v,
            other => panic!("a buffer of f32 was expected, found {}", other.kind()),
        }
    }

    /// The 64-bit floats.
    ///
    /// # Panics
    /// As [`Buffer::into_f32`].
    pub fn into_f64(self) -> Vec<f64> {
        match self {
            Self::F64(v) => v,
            other => panic!("a buffer of f64 was expected, found {}", other.kind()),
        }
    }

    /// The integers.
    ///
    /// # Panics
    /// As [`Buffer::into_f32`].
    pub fn into_i64(self) -> Vec<i64> {
        match self {
            Self::I64(v) => v,
            other => panic!("a buffer of i64 was expected, found {}", other.kind()),
        }
    }

    /// The bytes.
    ///
    /// # Panics
    /// As [`Buffer::into_f32`].
    pub fn into_u8(self) -> Vec<u8> {
        match self {
            Self::U8(v) => v,
            other => panic!("a buffer of u8 was expected, found {}", other.kind()),
        }
    }
}

macro_rules! from_vector {
    ($($variant:ident($element:ty)),*) => {
        $(impl From<Vec<$element>> for Buffer {
            fn from(vector: Vec<$element>) -> Self {
                Self::$variant(vector)
            }
        })*
    };
}
from_vector!(F32(f32), F64(f64), I64(i64), U8(u8));
