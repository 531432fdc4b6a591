use gpu::{Array, Constants, Extent, Factors, GpuError, Head, Machine};

/// What lies between the layers of all runs on the way to the last block, for batches of one size.
#[derive(Debug)]
pub(super) struct Forward {
    pub(super) extent: Extent,
    /// Tokens, (R, M, D).
    pub(super) x: Array<f32>,
    /// Of each block. If there are fewer than blocks, those take turns, and no backward pass can follow.
    pub(super) saved: Vec<Saved>,
    /// Of one block after the other, (R, M, F).
    pub(super) activated: Factors,
}

/// What lies between the layers of all runs there and back.
#[derive(Debug)]
pub(super) struct Activations {
    pub(super) forward: Forward,
    /// The gradient of the tokens, (R, M, D).
    pub(super) grad: Array<f32>,
    pub(super) head: Head,
    /// For one layer after the other: (R, M, D), (R, M, F), (R, M, 3D), (R, M, H), (R, N, D).
    pub(super) narrow: Array<f32>,
    pub(super) hidden_grad: Factors,
    pub(super) qkv_grad: Factors,
    pub(super) product: Array<f32>,
    pub(super) token_sums: Array<f32>,
}

/// What a block keeps for its backward pass.
#[derive(Debug)]
pub(super) struct Saved {
    /// Normalised tokens before attention and before the MLP, (R, M, D), with 1 / standard deviation, (R, M).
    pub(super) normal1: Factors,
    pub(super) inverse_std1: Array<f32>,
    pub(super) normal2: Factors,
    pub(super) inverse_std2: Array<f32>,
    /// (R, M, 3D)
    pub(super) qkv: Array<f32>,
    /// (R, M, D)
    pub(super) attended: Factors,
    /// Largest score and 1 / the sum of powers, (R, M, H).
    pub(super) largest: Array<f32>,
    pub(super) rate: Array<f32>,
    /// What GELU is applied to, (R, M, F).
    pub(super) hidden: Array<f32>,
}

impl Forward {
    /// Numbers that a row of a run takes where nothing is kept for a backward pass.
    pub(super) const fn numbers_per_row(constants: &Constants, hidden: usize) -> usize {
        let Constants { width, heads, .. } = *constants;
        7 * width + 2 * heads + 2 * hidden + 2
    }

    /// With room for what `kept` blocks keep.
    pub(super) fn new(
        machine: &dyn Machine,
        constants: &Constants,
        extent: Extent,
        (kept, hidden): (usize, usize),
    ) -> Result<Self, GpuError> {
        let Constants { width, heads, tokens, .. } = *constants;
        let rows = extent.runs * extent.images * tokens;
        let of_rows = |columns: usize| Array::zeros(machine, rows * columns);
        let factors = |columns: usize| Factors::zeros(machine, constants, rows * columns);
        let saved = || {
            Ok(Saved {
                normal1: factors(width)?,
                inverse_std1: of_rows(1)?,
                normal2: factors(width)?,
                inverse_std2: of_rows(1)?,
                qkv: of_rows(3 * width)?,
                attended: factors(width)?,
                largest: of_rows(heads)?,
                rate: of_rows(heads)?,
                hidden: of_rows(hidden)?,
            })
        };
        let saved = (0..kept).map(|_| saved()).collect::<Result<_, GpuError>>()?;
        Ok(Self { extent, x: of_rows(width)?, saved, activated: factors(hidden)? })
    }
}

impl Activations {
    /// Numbers that a row of a run takes, but for what does not grow with the rows.
    pub(super) const fn numbers_per_row(constants: &Constants, depth: usize, hidden: usize) -> usize {
        let Constants { width, heads, .. } = *constants;
        let (saved, others) = (6 * width + 2 * heads + hidden + 2, 6 * width + heads + 2 * hidden);
        depth * saved + others
    }

    pub(super) fn new(
        machine: &dyn Machine,
        constants: &Constants,
        extent: Extent,
        (depth, hidden): (usize, usize),
    ) -> Result<Self, GpuError> {
        let Constants { width, heads, tokens, classes, .. } = *constants;
        let (images, rows) = (extent.runs * extent.images, extent.runs * extent.images * tokens);
        let of_rows = |columns: usize| Array::zeros(machine, rows * columns);
        let factors = |columns: usize| Factors::zeros(machine, constants, rows * columns);
        Ok(Self {
            forward: Forward::new(machine, constants, extent, (depth, hidden))?,
            grad: of_rows(width)?,
            head: Head {
                pooled: Array::zeros(machine, images * width)?,
                logits_grad: Array::zeros(machine, images * classes)?,
                losses: Array::zeros(machine, images)?,
                correct: Array::zeros(machine, images)?,
            },
            narrow: of_rows(width)?,
            hidden_grad: factors(hidden)?,
            qkv_grad: factors(3 * width)?,
            product: of_rows(heads)?,
            token_sums: Array::zeros(machine, extent.runs * tokens * width)?,
        })
    }
}
