//! Tables in a machine's memory that tell kernels where things lie.

use bytemuck::Pod;

use crate::{Argument, Array, Embedding, GpuError, Linear, MOST_PARTS, Machine, Projection, Source};

/// The linear layers of all runs.
#[derive(Debug)]
pub struct Linears {
    /// (R, most)
    table: Array<Linear>,
    /// How many each run has, (R).
    counts: Array<i32>,
    pub(crate) most: usize,
    /// The most that any layer has, and the most that a layer behind a norm has.
    pub(crate) outputs: usize,
    pub(crate) normed_inputs: usize,
}

impl Linears {
    /// Those of each run.
    ///
    /// # Errors
    /// If there is no memory left.
    ///
    /// # Panics
    /// If a gradient is summed in more than [`MOST_PARTS`].
    pub fn new(machine: &dyn Machine, of_runs: &[Vec<Linear>]) -> Result<Self, GpuError> {
        assert!(
            of_runs.iter().flatten().all(|layer| layer.parts as usize <= MOST_PARTS),
            "more than {MOST_PARTS} parts of sums"
        );
        let (table, counts, most) = rectangular(machine, of_runs)?;
        let largest = |of: fn(&Linear) -> i32| of_runs.iter().flatten().map(of).max().unwrap_or(0) as usize;
        let normed = |layer: &Linear| if layer.norm_gain < 0 { 0 } else { layer.inputs };
        Ok(Self { table, counts, most, outputs: largest(|layer| layer.outputs), normed_inputs: largest(normed) })
    }

    pub(crate) const fn runs(&self) -> usize {
        self.counts.len()
    }

    pub(crate) fn arguments(&self) -> [Argument; 3] {
        [self.table.all(self.runs() * self.most), self.counts.all(self.runs()), Argument::Int(self.most as i32)]
    }
}

/// The sources of a batch, and how each run embeds them.
#[derive(Debug)]
pub struct Embeds {
    /// Replaced with each batch.
    pub sources: Array<Source>,
    /// (R, most)
    projections: Array<Projection>,
    /// How many sources each run reads, (R).
    counts: Array<i32>,
    pub(crate) most: usize,
    pub(crate) embeddings: Array<Embedding>,
    /// The widest token of a source.
    pub(crate) widest: usize,
}

impl Embeds {
    /// Of `sources` sources whose widest token has `widest` values: the projections and embeddings of each run.
    ///
    /// # Errors
    /// If there is no memory left.
    pub fn new(
        machine: &dyn Machine,
        (sources, widest): (usize, usize),
        of_runs: &[Vec<Projection>],
        embeddings: &[Embedding],
    ) -> Result<Self, GpuError> {
        let (projections, counts, most) = rectangular(machine, of_runs)?;
        let embeddings = Array::from(machine, embeddings)?;
        Ok(Self { sources: Array::zeros(machine, sources)?, projections, counts, most, embeddings, widest })
    }

    pub(crate) fn arguments(&self) -> [Argument; 4] {
        let runs = self.counts.len();
        [
            self.sources.all(self.sources.len()),
            self.projections.all(runs * self.most),
            self.counts.all(runs),
            Argument::Int(self.most as i32),
        ]
    }
}

/// The rows of all runs in one array, each as long as the longest, and how long each is.
fn rectangular<T: Pod>(machine: &dyn Machine, rows: &[Vec<T>]) -> Result<(Array<T>, Array<i32>, usize), GpuError> {
    let most = rows.iter().map(Vec::len).max().unwrap_or(0);
    let filled = rows.iter().flat_map(|row| {
        let rest = std::iter::repeat_n(T::zeroed(), most - row.len());
        row.iter().copied().chain(rest)
    });
    let counts: Vec<i32> = rows.iter().map(|row| row.len() as i32).collect();
    Ok((Array::from(machine, &filled.collect::<Vec<T>>())?, Array::from(machine, &counts)?, most))
}

/// What the models should answer, the same for all runs.
#[derive(Debug)]
pub struct Targets {
    /// Probabilities of the classes, (B, K).
    pub values: Array<f32>,
    /// How much each image counts, (B); all alike if there are none.
    pub weights: Option<Array<f32>>,
    /// Share of each target that is spread evenly over the classes.
    pub smoothing: f32,
}

/// What the end of the network leaves.
#[derive(Debug)]
pub struct Head {
    /// What the last layer is given, (R, B, D).
    pub pooled: Array<f32>,
    /// The gradient of what it gives, (R, B, K).
    pub logits_grad: Array<f32>,
    /// Weighted cross-entropy of each image in nats, (R, B).
    pub losses: Array<f32>,
    /// Whether each image's answer is right, (R, B).
    pub correct: Array<i32>,
}
