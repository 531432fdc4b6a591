//! The kernels as functions that check what they are given.

use crate::{
    AdamStep, Argument,
    Argument::{Float, Int, Long},
    Array, Constants, Embeds, Factors, GpuError, Head, Linears, Machine, Numbers, Source, Targets,
};

/// All kernels by name.
pub const KERNELS: [&str; 23] = [
    "adam",
    "answers",
    "attention",
    "attention_backward_keys",
    "attention_backward_queries",
    "cut_tokens",
    "effective_weights",
    "embed",
    "embed_begin",
    "embed_gradient",
    "embedding_from_sums",
    "head",
    "linear",
    "linear_backward",
    "linear_backward_gelu",
    "normalise",
    "normalise_backward",
    "norms_from_sums",
    "square_sums",
    "summary",
    "token_sums",
    "weight_gradient",
    "weights_from_sums",
];

/// Threads of a block where nothing else is said; a power of two.
const THREADS: usize = 256;
const WARP: usize = 32;
/// Rows and columns of a product's tile.
const TILE: usize = 64;
const TILE_THREADS: usize = 128;
/// Rows that a block of attention works on, each shared by two threads if a head's width is even.
const ATTENTION_ROWS: usize = 64;
const HEAD_THREADS: usize = 128;
/// Inputs that a block of `norms_from_sums` takes, and its threads.
const NORM_INPUTS: usize = 32;
const NORM_THREADS: usize = 256;
/// Blocks that go over many numbers, each over a part of them.
const BLOCKS: usize = 256;

/// A machine with the kernels of one model.
#[derive(Debug)]
pub struct Gpu {
    /// The machine.
    pub machine: Box<dyn Machine>,
    constants: Constants,
}

/// How much is computed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// R.
    pub runs: usize,
    /// B.
    pub images: usize,
}

/// A linear layer, the same in all runs: where its weights and biases begin among a run's effective weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// I.
    pub inputs: usize,
    /// O.
    pub outputs: usize,
    /// Where W' (O, I) begins, b' (O) behind it.
    pub at: usize,
}

impl Layer {
    /// Weights and biases.
    pub const fn numbers(self) -> usize {
        self.outputs * (self.inputs + 1)
    }

    /// Where a kernel finds those of the first of `runs` runs among all `weights`, and how far behind those of the next lie.
    fn among(self, weights: &Array<f32>, runs: usize) -> [Argument; 2] {
        let run_step = step(weights, runs);
        [weights.part(self.at, (runs - 1) * run_step + self.numbers()), Long(run_step as i64)]
    }
}

/// Parameters, effective weights or their sums of all runs, each run's `step` numbers behind those of the one before.
fn step<T: bytemuck::Pod>(array: &Array<T>, runs: usize) -> usize {
    assert!(array.len().is_multiple_of(runs), "{array:?} of {runs} runs");
    array.len() / runs
}

impl Gpu {
    /// A machine whose kernels were compiled with `constants`.
    pub fn new(machine: Box<dyn Machine>, constants: Constants) -> Self {
        Self { machine, constants }
    }

    /// What the kernels were compiled with.
    pub const fn constants(&self) -> &Constants {
        &self.constants
    }

    /// Rows of a batch.
    const fn rows(&self, extent: Extent) -> usize {
        extent.images * self.constants.tokens
    }

    fn launch(
        &self,
        kernel: &'static str,
        grid: [usize; 3],
        threads: usize,
        arguments: &[Argument],
    ) -> Result<(), GpuError> {
        // SAFETY: the functions below give each kernel arguments of its types, in its order, and check that the arrays hold what
        // it reads and writes.
        unsafe { self.machine.launch(kernel, grid, threads, arguments) }
    }

    /// `y` = `x` (R M, D) less its mean and over its standard deviation along each row; 1 / standard deviation per row.
    pub fn normalise(
        &self,
        extent: Extent,
        x: &Array<f32>,
        epsilon: f32,
        y: &mut Factors,
        inverse_std: &mut Array<f32>,
    ) -> Result<(), GpuError> {
        let rows = extent.runs * self.rows(extent);
        let values = rows * self.constants.width;
        let arguments = [x.all(values), Float(epsilon), y.all(values), inverse_std.all(rows), Int(rows as i32)];
        self.launch("normalise", [rows.div_ceil(THREADS / WARP), 1, 1], THREADS, &arguments)
    }

    /// Adds to `x_grad` (R M, D) what the gradient `grad` of the normalised `y` makes of it.
    pub fn normalise_backward(
        &self,
        extent: Extent,
        y: &Factors,
        inverse_std: &Array<f32>,
        grad: &Array<f32>,
        x_grad: &mut Array<f32>,
    ) -> Result<(), GpuError> {
        let rows = extent.runs * self.rows(extent);
        let values = rows * self.constants.width;
        let arguments = [y.all(values), inverse_std.all(rows), grad.all(values), x_grad.all(values), Int(rows as i32)];
        self.launch("normalise_backward", [rows.div_ceil(THREADS / WARP), 1, 1], THREADS, &arguments)
    }

    /// `y` (R, M, O) = `x` (R, M, I) W'ᵀ + b', or that added to `y`; and GELU(`y`) in `activated`.
    #[expect(clippy::too_many_arguments, reason = "the kernel has as many")]
    pub fn linear(
        &self,
        extent: Extent,
        layer: Layer,
        weights: &Array<f32>,
        x: &Factors,
        y: &mut Array<f32>,
        add: bool,
        activated: Option<&mut Factors>,
    ) -> Result<(), GpuError> {
        let (rows, Layer { inputs, outputs, .. }) = (self.rows(extent), layer);
        let [weights, run_step] = layer.among(weights, extent.runs);
        let values = extent.runs * rows * outputs;
        let arguments = [
            x.all(extent.runs * rows * inputs),
            weights,
            run_step,
            y.all(values),
            Int(rows as i32),
            Int(inputs as i32),
            Int(outputs as i32),
            Int(add.into()),
            activated.map_or(Argument::Address(0), |activated| activated.all(values)),
        ];
        self.launch("linear", [rows.div_ceil(TILE), outputs.div_ceil(TILE), extent.runs], TILE_THREADS, &arguments)
    }

    /// From the gradient of y, `grad` (R, M, O), to that of x, `x_grad` (R, M, I).
    pub fn linear_backward(
        &self,
        extent: Extent,
        layer: Layer,
        weights: &Array<f32>,
        grad: Numbers<'_>,
        x_grad: &mut Array<f32>,
    ) -> Result<(), GpuError> {
        let (rows, Layer { inputs, outputs, .. }) = (self.rows(extent), layer);
        let [weights, run_step] = layer.among(weights, extent.runs);
        let [grad, factors] = grad.arguments(extent.runs * rows * outputs);
        let arguments = [
            grad,
            factors,
            weights,
            run_step,
            x_grad.all(extent.runs * rows * inputs),
            Int(rows as i32),
            Int(inputs as i32),
            Int(outputs as i32),
        ];
        let grid = [rows.div_ceil(TILE), inputs.div_ceil(TILE), extent.runs];
        self.launch("linear_backward", grid, TILE_THREADS, &arguments)
    }

    /// The same where x = GELU(`hidden`): to `hidden_grad` (R, M, I), with x once more in `activated`.
    pub fn linear_backward_gelu(
        &self,
        extent: Extent,
        layer: Layer,
        weights: &Array<f32>,
        grad: &Array<f32>,
        hidden: &Array<f32>,
        [hidden_grad, activated]: [&mut Factors; 2],
    ) -> Result<(), GpuError> {
        let (rows, Layer { inputs, outputs, .. }) = (self.rows(extent), layer);
        let [weights, run_step] = layer.among(weights, extent.runs);
        let values = extent.runs * rows * inputs;
        let arguments = [
            grad.all(extent.runs * rows * outputs),
            weights,
            run_step,
            hidden.all(values),
            hidden_grad.all(values),
            activated.all(values),
            Int(rows as i32),
            Int(inputs as i32),
            Int(outputs as i32),
        ];
        let grid = [rows.div_ceil(TILE), inputs.div_ceil(TILE), extent.runs];
        self.launch("linear_backward_gelu", grid, TILE_THREADS, &arguments)
    }

    /// Gradients of W' and b', in `parts` sums over parts of the `rows` rows: `grad` (R, rows, O)ᵀ `x` (R, rows, I). `sums` are
    /// those of (R, parts).
    #[expect(clippy::too_many_arguments, reason = "a kernel has as many")]
    pub fn weight_gradient(
        &self,
        runs: usize,
        rows: usize,
        layer: Layer,
        grad: Numbers<'_>,
        x: Numbers<'_>,
        sums: &mut Array<f32>,
        (parts, all_parts): (usize, usize),
    ) -> Result<(), GpuError> {
        let Layer { inputs, outputs, at } = layer;
        let run_step = step(sums, runs);
        assert!(parts <= all_parts && run_step.is_multiple_of(all_parts), "{parts} parts of sums in {all_parts}");
        let part_step = run_step / all_parts;
        let [grad, factors] = grad.arguments(runs * rows * outputs);
        let [x, x_factors] = x.arguments(runs * rows * inputs);
        let arguments = [
            grad,
            factors,
            x,
            x_factors,
            sums.part(at, (runs - 1) * run_step + (parts - 1) * part_step + layer.numbers()),
            Long(run_step as i64),
            Long(part_step as i64),
            Int(parts as i32),
            Int(rows as i32),
            Int(inputs as i32),
            Int(outputs as i32),
        ];
        let grid = [outputs.div_ceil(TILE), inputs.div_ceil(TILE) * parts, runs];
        self.launch("weight_gradient", grid, TILE_THREADS, &arguments)
    }

    /// `y` (R, M, D) of queries, keys and values (R, M, 3D); the largest score and 1 / the sum of powers of each row and head
    /// (R, M, H).
    pub fn attention(
        &self,
        extent: Extent,
        qkv: &Array<f32>,
        y: &mut Factors,
        [largest, rate]: [&mut Array<f32>; 2],
    ) -> Result<(), GpuError> {
        let (rows, Constants { width, heads, .. }) = (extent.runs * self.rows(extent), self.constants);
        let arguments =
            [qkv.all(rows * 3 * width), y.all(rows * width), largest.all(rows * heads), rate.all(rows * heads)];
        self.launch("attention", self.attention_grid(extent), self.attention_threads(), &arguments)
    }

    /// From the gradient `grad` (R, M, D) of what [`attention`](Self::attention) computed to that of `qkv`, `qkv_grad`
    /// (R, M, 3D). `product` (R, M, H) is for the kernels.
    #[expect(clippy::too_many_arguments, reason = "two kernels have as many")]
    pub fn attention_backward(
        &self,
        extent: Extent,
        qkv: &Array<f32>,
        y: &Factors,
        [largest, rate]: [&Array<f32>; 2],
        grad: &Array<f32>,
        qkv_grad: &mut Factors,
        product: &mut Array<f32>,
    ) -> Result<(), GpuError> {
        let (rows, Constants { width, heads, .. }) = (extent.runs * self.rows(extent), self.constants);
        let (qkv, qkv_grad) = (qkv.all(rows * 3 * width), qkv_grad.all(rows * 3 * width));
        let (y, grad) = (y.all(rows * width), grad.all(rows * width));
        let [largest, rate, product] = [largest, rate, &*product].map(|of| of.all(rows * heads));
        let (grid, threads) = (self.attention_grid(extent), self.attention_threads());
        let arguments = [qkv, y, largest, rate, grad, qkv_grad, product];
        self.launch("attention_backward_queries", grid, threads, &arguments)?;
        let arguments = [qkv, largest, rate, product, grad, qkv_grad];
        self.launch("attention_backward_keys", grid, threads, &arguments)
    }

    const fn attention_grid(&self, extent: Extent) -> [usize; 3] {
        let Constants { tokens, heads, .. } = self.constants;
        [extent.images * heads, tokens.div_ceil(ATTENTION_ROWS), extent.runs]
    }

    const fn attention_threads(&self) -> usize {
        let Constants { width, heads, .. } = self.constants;
        if (width / heads).is_multiple_of(2) { ATTENTION_ROWS * 2 } else { ATTENTION_ROWS }
    }

    /// W' and b' of the `linears` (R, most) of all runs.
    pub fn effective_weights(
        &self,
        linears: &Linears,
        parameters: &Array<f32>,
        weights: &mut Array<f32>,
    ) -> Result<(), GpuError> {
        let [table, counts, most] = linears.arguments();
        let arguments = [
            table,
            counts,
            most,
            parameters.all(parameters.len()),
            Long(step(parameters, linears.runs()) as i64),
            weights.all(weights.len()),
            Long(step(weights, linears.runs()) as i64),
        ];
        self.launch("effective_weights", [linears.outputs, linears.most, linears.runs()], HEAD_THREADS, &arguments)
    }

    /// From the sums of `linears` (R, parts) to the gradients of all that the layers consist of.
    pub fn gradients_from_sums(
        &self,
        linears: &Linears,
        parameters: &Array<f32>,
        gradients: &mut Array<f32>,
        sums: &Array<f32>,
        all_parts: usize,
    ) -> Result<(), GpuError> {
        let [table, counts, most] = linears.arguments();
        let sum_step = step(sums, linears.runs());
        let arguments = [
            table,
            counts,
            most,
            parameters.all(parameters.len()),
            gradients.all(parameters.len()),
            Long(step(parameters, linears.runs()) as i64),
            sums.all(sums.len()),
            Long(sum_step as i64),
            Long((sum_step / all_parts) as i64),
        ];
        let grid = [linears.outputs, linears.most, linears.runs()];
        self.launch("weights_from_sums", grid, HEAD_THREADS, &arguments)?;
        let grid = [linears.normed_inputs.div_ceil(NORM_INPUTS), linears.most, linears.runs()];
        self.launch("norms_from_sums", grid, NORM_THREADS, &arguments)
    }

    /// The tokens of `sources` as products read them; those of stored maps are brought to mean 0 and variance 1 with `norm`.
    pub fn cut_tokens(&self, images: usize, sources: &Array<Source>, norm: bool, epsilon: f32) -> Result<(), GpuError> {
        let rows = images * self.places();
        let arguments = [sources.all(sources.len()), Int(rows as i32), Int(norm.into()), Float(epsilon)];
        let grid = [rows.div_ceil(THREADS / WARP), sources.len(), 1];
        self.launch("cut_tokens", grid, THREADS, &arguments)
    }

    const fn places(&self) -> usize {
        self.constants.grid * self.constants.grid
    }

    /// The embedded tokens `x` (R, M, D) of all runs.
    pub fn embed(
        &self,
        extent: Extent,
        embeds: &Embeds,
        parameters: &Array<f32>,
        weights: &Array<f32>,
        x: &mut Array<f32>,
    ) -> Result<(), GpuError> {
        let Constants { width, tokens, .. } = self.constants;
        let [sources, projections, counts, most] = embeds.arguments();
        let (weight_step, x) =
            (Long(step(weights, extent.runs) as i64), x.all(extent.runs * self.rows(extent) * width));
        let weights = weights.all(weights.len());
        let images = Int(extent.images as i32);
        let arguments = [
            sources,
            projections,
            counts,
            most,
            embeds.embeddings.all(extent.runs),
            parameters.all(parameters.len()),
            Long(step(parameters, extent.runs) as i64),
            weights,
            weight_step,
            x,
            images,
        ];
        self.launch("embed_begin", [(tokens * width).div_ceil(THREADS), 1, extent.runs], THREADS, &arguments)?;
        let rows = extent.images * self.places();
        let arguments = [sources, projections, counts, most, weights, weight_step, x, images];
        self.launch("embed", [rows.div_ceil(TILE), width.div_ceil(TILE), extent.runs], TILE_THREADS, &arguments)
    }

    /// From the gradient `grad` (R, M, D) of the embedded tokens to those of positions, class token and source embeddings in
    /// `gradients`, and of the projections in `sums`, first of its parts. `token_sums` (R, N, D) is for the kernels.
    pub fn embed_backward(
        &self,
        extent: Extent,
        embeds: &Embeds,
        grad: &Array<f32>,
        gradients: &mut Array<f32>,
        sums: &mut Array<f32>,
        token_sums: &mut Array<f32>,
    ) -> Result<(), GpuError> {
        let Constants { width, tokens, .. } = self.constants;
        let [sources, projections, counts, most] = embeds.arguments();
        let (sum_step, images) = (Long(step(sums, extent.runs) as i64), Int(extent.images as i32));
        let (sums, grad) = (sums.all(sums.len()), grad.all(extent.runs * self.rows(extent) * width));
        let token_sums = token_sums.all(extent.runs * tokens * width);
        let arguments = [sources, projections, counts, most, grad, sums, sum_step, images];
        let grid = [embeds.widest.div_ceil(TILE), width.div_ceil(TILE), extent.runs * embeds.most];
        self.launch("embed_gradient", grid, TILE_THREADS, &arguments)?;
        let grid = [(tokens * width).div_ceil(THREADS), 1, extent.runs];
        self.launch("token_sums", grid, THREADS, &[grad, token_sums, images])?;
        let arguments = [
            sources,
            projections,
            counts,
            most,
            embeds.embeddings.all(extent.runs),
            token_sums,
            gradients.all(gradients.len()),
            Long(step(gradients, extent.runs) as i64),
            sums,
            sum_step,
        ];
        let grid = [(self.places() * width).div_ceil(THREADS), 1, extent.runs];
        self.launch("embedding_from_sums", grid, THREADS, &arguments)
    }

    /// From the tokens `x` (R, M, D) behind the last block to the loss and back to `x_grad`: what the head of `layer` is given,
    /// (R, B, D), the gradient of what it gives, (R, B, K), and of each image the weighted loss and whether the answer is right.
    #[expect(clippy::too_many_arguments, reason = "the kernel has as many")]
    pub fn head(
        &self,
        extent: Extent,
        layer: Layer,
        weights: &Array<f32>,
        x: &Array<f32>,
        epsilon: f32,
        targets: &Targets,
        results: &mut Head,
        x_grad: &mut Array<f32>,
    ) -> Result<(), GpuError> {
        let Constants { width, classes, .. } = self.constants;
        let (all, values) = (extent.runs * extent.images, extent.runs * self.rows(extent) * width);
        let [weights, run_step] = layer.among(weights, extent.runs);
        let arguments = [
            x.all(values),
            Float(epsilon),
            weights,
            run_step,
            targets.values.all(extent.images * classes),
            targets.weights.as_ref().map_or(Argument::Address(0), |weights| weights.all(extent.images)),
            Float(targets.smoothing),
            results.pooled.all(all * width),
            results.logits_grad.all(all * classes),
            results.losses.all(all),
            results.correct.all(all),
            x_grad.all(values),
        ];
        self.launch("head", [extent.images, 1, extent.runs], HEAD_THREADS, &arguments)
    }

    /// From the tokens `x` (R, M, D) behind the last block to the `logits` (R, B, K) of the head of `layer`.
    pub fn answers(
        &self,
        extent: Extent,
        layer: Layer,
        weights: &Array<f32>,
        x: &Array<f32>,
        epsilon: f32,
        logits: &mut Array<f32>,
    ) -> Result<(), GpuError> {
        let Constants { width, classes, .. } = self.constants;
        let [weights, run_step] = layer.among(weights, extent.runs);
        let arguments = [
            x.all(extent.runs * self.rows(extent) * width),
            Float(epsilon),
            weights,
            run_step,
            logits.all(extent.runs * extent.images * classes),
        ];
        self.launch("answers", [extent.images, 1, extent.runs], HEAD_THREADS, &arguments)
    }

    /// Squares of each run's first `counts` (R) gradients, in sums (R, …) of as many parts as `sums` has room for.
    pub fn square_sums(
        &self,
        gradients: &Array<f32>,
        counts: &Array<i32>,
        sums: &mut Array<f64>,
    ) -> Result<(), GpuError> {
        let runs = counts.len();
        let arguments = [
            gradients.all(gradients.len()),
            counts.all(runs),
            Long(step(gradients, runs) as i64),
            sums.all(sums.len()),
        ];
        self.launch("square_sums", [step(sums, runs), 1, runs], THREADS, &arguments)
    }

    /// What is to be known of a step: for each run the sum of its images' losses, how many of its answers are right, and the sum
    /// of its gradient's `squares`, which are (R, …) parts; `found` is (R, 3).
    pub fn summary(
        &self,
        extent: Extent,
        results: &Head,
        squares: &Array<f64>,
        found: &mut Array<f64>,
    ) -> Result<(), GpuError> {
        let Extent { runs, images } = extent;
        let arguments = [
            results.losses.all(runs * images),
            results.correct.all(runs * images),
            Int(images as i32),
            squares.all(squares.len()),
            Int(step(squares, runs) as i32),
            found.all(runs * 3),
        ];
        self.launch("summary", [1, 1, runs], WARP, &arguments)
    }

    /// Moves each run's first `counts` (R) `parameters` along its `gradients` by `steps` (R).
    pub fn adam(
        &self,
        parameters: &mut Array<f32>,
        gradients: &Array<f32>,
        [mean, square]: [&mut Array<f32>; 2],
        decayed: &Array<u8>,
        counts: &Array<i32>,
        steps: &Array<AdamStep>,
    ) -> Result<(), GpuError> {
        let (runs, all) = (counts.len(), parameters.len());
        let arguments = [
            parameters.all(all),
            gradients.all(all),
            mean.all(all),
            square.all(all),
            decayed.all(all),
            counts.all(runs),
            Long(step(parameters, runs) as i64),
            steps.all(runs),
        ];
        self.launch("adam", [BLOCKS, 1, runs], THREADS, &arguments)
    }
}
