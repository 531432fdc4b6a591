use crate::{Argument, Array, Constants, GpuError, Machine};

/// Numbers that products read: rounded to bfloat16 if that is what they multiply, else 32-bit floats.
#[derive(Debug)]
pub struct Factors {
    bytes: Array<u8>,
    number_bytes: usize,
}

/// What products read.
#[derive(Clone, Copy, Debug)]
pub enum Numbers<'a> {
    /// 32-bit floats.
    Floats(&'a Array<f32>),
    /// Factors.
    Factors(&'a Factors),
}

impl Factors {
    /// `len` times zero, for kernels that were compiled with `constants`.
    ///
    /// # Errors
    /// If there is no memory left.
    pub fn zeros(machine: &dyn Machine, constants: &Constants, len: usize) -> Result<Self, GpuError> {
        let number_bytes = constants.factor_bytes();
        Ok(Self { bytes: Array::zeros(machine, len * number_bytes)?, number_bytes })
    }

    /// What a kernel is given that needs `count` of them.
    pub(crate) fn all(&self, count: usize) -> Argument {
        self.bytes.all(count * self.number_bytes)
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.bytes.len() / self.number_bytes
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Where they lie, for structures that say so.
    pub const fn address(&self) -> u64 {
        self.bytes.address()
    }
}

impl Numbers<'_> {
    /// What a kernel is given that needs `count` of them: where they lie, and whether they are factors.
    pub(crate) fn arguments(self, count: usize) -> [Argument; 2] {
        match self {
            Self::Floats(floats) => [floats.all(count), Argument::Int(0)],
            Self::Factors(factors) => [factors.all(count), Argument::Int(1)],
        }
    }
}
