use gpu::{Array, GpuError, Machine, Source};
use half::f16;

use crate::Tokens;

/// The tokens of one source of a batch in a machine's memory.
#[derive(Debug)]
pub(super) struct SourceTokens {
    maps: Array<f16>,
    ready: Array<f32>,
    rate: Array<f32>,
    offset: Array<f32>,
    moments: Array<f32>,
}

impl SourceTokens {
    /// Memory for batches as large as that of `tokens`, of `rows` tokens.
    pub(super) fn new(machine: &dyn Machine, tokens: &Tokens, rows: usize) -> Result<Self, GpuError> {
        let zeros = |len| Array::zeros(machine, len);
        Ok(match tokens {
            Tokens::Ready(values) => Self {
                maps: Array::zeros(machine, 0)?,
                ready: zeros(values.len())?,
                rate: zeros(0)?,
                offset: zeros(0)?,
                moments: zeros(0)?,
            },
            Tokens::Stored(maps, standardise) => Self {
                maps: Array::zeros(machine, maps.len())?,
                ready: zeros(0)?,
                rate: Array::from(machine, standardise.rates())?,
                offset: Array::from(machine, standardise.offsets())?,
                moments: zeros(2 * rows)?,
            },
        })
    }

    /// Whether it has room for `tokens`, and no more.
    pub(super) const fn fits(&self, tokens: &Tokens) -> bool {
        match tokens {
            Tokens::Ready(values) => self.ready.len() == values.len(),
            Tokens::Stored(maps, _) => self.maps.len() == maps.len(),
        }
    }

    /// Takes `tokens`, `width` wide, and gives what the kernels are told of them.
    pub(super) fn take(&mut self, machine: &dyn Machine, tokens: &Tokens, width: usize) -> Result<Source, GpuError> {
        let nothing = Source {
            maps: 0,
            ready: 0,
            rate: self.rate.address(),
            offset: self.offset.address(),
            moments: self.moments.address(),
            width: width as i32,
            side: 0,
            channels: 0,
            patch: 0,
        };
        match tokens {
            Tokens::Ready(values) => {
                self.ready.write(machine, 0, values)?;
                Ok(Source { ready: self.ready.address(), ..nothing })
            }
            Tokens::Stored(maps, standardise) => {
                let patches = standardise.patches();
                self.maps.write(machine, 0, maps)?;
                Ok(Source {
                    maps: self.maps.address(),
                    side: patches.side as i32,
                    channels: patches.channels as i32,
                    patch: patches.patch_side as i32,
                    ..nothing
                })
            }
        }
    }
}
