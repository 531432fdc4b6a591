use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    rc::Rc,
};

use candle_core::{Device, Tensor};
use gpu::{AdamStep, Array, Embeds, Extent, Gpu, GpuError, Linears, Machine, Recording, Source as GpuSource, Targets};
use kernels::Standardise;
use sources::Source;

use super::{
    activations::{Activations, Saved},
    constants,
    layers::{Block, Layers, PARTS, RunTables},
    sources::Stock,
};
use crate::{
    About, Batch, Gradient, Model, Precision, Recipe, VitError, adam::adam_step, layers::LAYER_NORM_EPSILON,
    model::stored, native::Layout,
};

/// Numbers that the squares of a run's gradient are summed to before they leave the machine.
const NORM_PARTS: usize = 64;

/// Weights, gradients and moments of several runs, and all activations of a batch, in a machine's memory.
#[derive(Debug)]
pub(crate) struct Trainer {
    gpu: Gpu,
    recipe: Recipe,
    layouts: Vec<Layout>,
    abouts: Vec<About>,
    layers: Layers,
    linears: Linears,
    embeds: Embeds,
    /// All that any run reads, with the width of its tokens.
    sources: Vec<(Source, usize)>,
    /// Tokens of all images, which several trainers share, and those of the batch.
    held: BTreeMap<Source, Rc<Stock>>,
    streamed: BTreeMap<Source, Stock>,
    /// Which of the images that are held those of the batch are, (B).
    images: Array<i32>,
    /// Of each source's tokens in the batch, (B P, 2).
    token_moments: Vec<Array<f32>>,
    /// Parameters, their gradients and moments, and which of them weight decay applies to: (R, P), P being that of the run with
    /// the most, and how many each has.
    parameters: Array<f32>,
    gradients: Array<f32>,
    mean: Array<f32>,
    square: Array<f32>,
    decayed: Array<u8>,
    counts: Array<i32>,
    /// Effective weights, (R, E), and their gradients, (R, PARTS, E).
    weights: Array<f32>,
    sums: Array<f32>,
    norm_sums: Array<f64>,
    activations: Option<Activations>,
    targets: Option<Targets>,
    /// The gradient's kernels, once they have been taken down. They were given all of the above but the stocks and the images, which
    /// they find by `embeds`.
    recorded: Option<Box<dyn Recording>>,
    /// What the update is told, of each run.
    steps: Array<AdamStep>,
    moved: Array<i32>,
}

impl Trainer {
    /// Starts from the weights of `models`, with moments of zero. They differ in nothing but their sources and weights, and
    /// `machine` was compiled with their [`constants`].
    pub(crate) fn new(
        machine: Box<dyn Machine>,
        models: &[&Model],
        recipe: &Recipe,
        precision: Precision,
    ) -> Result<Self, VitError> {
        let abouts: Vec<About> = models.iter().map(|model| model.about().clone()).collect();
        let layouts: Vec<Layout> = models.iter().map(|model| Layout::new(model.parameters())).collect();
        let about = abouts.first().ok_or_else(|| VitError::key("number of runs", 0, "at least 1"))?;
        let inputs: BTreeSet<(Source, usize)> =
            abouts.iter().flat_map(|about| &about.inputs).map(|input| (input.source, input.token_width)).collect();
        let (sources, names): (Vec<_>, Vec<_>) = inputs.iter().map(|input| (*input, input.0)).unzip();

        let layers = Layers::new(&about.model, about.classes.len());
        let tables = layouts.iter().zip(&abouts).map(|(layout, about)| RunTables::new(&layers, layout, about, &names));
        let tables = tables.collect::<Result<Vec<_>, VitError>>()?;
        let (runs, gpu) = (models.len(), Gpu::new(machine, constants(about, precision)));
        let numbers = tables.iter().map(|tables| tables.numbers).max().unwrap_or(0);
        let parameters = layouts.iter().map(Layout::len).max().unwrap_or(0);
        let mut linears = Vec::new();
        let mut projections = Vec::new();
        let mut embeddings = Vec::new();
        for tables in tables {
            linears.push(tables.linears);
            projections.push(tables.projections);
            embeddings.push(tables.embedding);
        }
        let counts: Vec<i32> = layouts.iter().map(|layout| layout.len() as i32).collect();
        let mut decayed = vec![0_u8; runs * parameters];
        for (layout, decayed) in layouts.iter().zip(decayed.chunks_exact_mut(parameters)) {
            for (_, slot, shape) in layout.iter() {
                decayed[slot.range()].fill(u8::from(shape.len() >= 2));
            }
        }
        let widest = sources.iter().map(|(_, width)| *width).max().unwrap_or(0);
        let machine = &*gpu.machine;
        let zeros = |len: usize| Array::zeros(machine, len);
        let mut trainer = Self {
            recipe: recipe.clone(),
            linears: Linears::new(machine, &linears)?,
            embeds: Embeds::new(machine, (sources.len(), widest), &projections, &embeddings)?,
            parameters: zeros(runs * parameters)?,
            gradients: zeros(runs * parameters)?,
            mean: zeros(runs * parameters)?,
            square: zeros(runs * parameters)?,
            decayed: Array::from(machine, &decayed)?,
            counts: Array::from(machine, &counts)?,
            weights: zeros(runs * numbers)?,
            sums: zeros(runs * PARTS * numbers)?,
            norm_sums: Array::zeros(machine, runs * NORM_PARTS)?,
            activations: None,
            targets: None,
            recorded: None,
            steps: Array::zeros(machine, runs)?,
            moved: Array::zeros(machine, runs)?,
            held: BTreeMap::new(),
            streamed: BTreeMap::new(),
            images: Array::zeros(machine, 0)?,
            token_moments: Vec::new(),
            sources,
            layers,
            layouts,
            abouts,
            gpu,
        };
        for (run, model) in models.iter().enumerate() {
            trainer.read_weights(run, model)?;
        }
        Ok(trainer)
    }

    /// Bytes of a machine's memory that a run of `model` takes with batches of `images`, nearly.
    pub(crate) fn bytes(model: &Model, images: usize) -> u64 {
        // Parameters, gradients and two moments, and one mark apiece; effective weights and their gradients in parts.
        const BYTES_PER_PARAMETER: u64 = 4 * 4 + 1 + (1 + PARTS as u64) * 4;
        let (about, constants) = (model.about(), constants(model.about(), Precision::F32));
        let rows = (images * constants.tokens) as u64;
        let numbers =
            Activations::numbers_per_row(&constants, about.model.depth, about.model.width * about.model.mlp_ratio);
        rows * numbers as u64 * size_of::<f32>() as u64 + model.parameters().elements() as u64 * BYTES_PER_PARAMETER
    }

    /// How many runs there are.
    pub(crate) fn runs(&self) -> usize {
        self.layouts.len()
    }

    /// Parameters that each run has room for.
    fn step(&self) -> usize {
        self.parameters.len() / self.runs()
    }

    fn read_weights(&mut self, run: usize, model: &Model) -> Result<(), VitError> {
        let mut values = vec![0.0; self.layouts[run].len()];
        self.layouts[run].read(model.parameters(), &mut values)?;
        let at = run * self.step();
        Ok(self.parameters.write(&*self.gpu.machine, at, &values)?)
    }

    /// Loss of `batch` in each run and, kept in the machine, the gradient of every parameter.
    pub(crate) fn gradient(&mut self, batch: &Batch) -> Result<Vec<Gradient>, VitError> {
        self.take_tokens(batch)?;
        let targets = self.targets_of(batch)?;
        let mut activations = self.activations_of(batch.images)?;
        let computed = self.forward_backward(&mut activations, &targets);
        let results = computed.and_then(|()| self.results(&activations));
        (self.activations, self.targets) = (Some(activations), Some(targets));
        Ok(results?)
    }

    /// Takes what the models should answer, into the same memory if it is as much.
    fn targets_of(&mut self, batch: &Batch) -> Result<Targets, GpuError> {
        let machine = &*self.gpu.machine;
        let weights = |targets: &Targets| targets.weights.as_ref().map_or(0, Array::len);
        let fits =
            |targets: &Targets| targets.values.len() == batch.targets.len() && weights(targets) == batch.weights.len();
        if let Some(mut targets) = self.targets.take().filter(fits) {
            targets.values.write(machine, 0, &batch.targets)?;
            if let Some(weights) = &mut targets.weights {
                weights.write(machine, 0, &batch.weights)?;
            }
            return Ok(targets);
        }
        self.recorded = None;
        let weights = (!batch.weights.is_empty()).then(|| Array::from(machine, &batch.weights)).transpose()?;
        let smoothing = self.recipe.label_smoothing as f32;
        Ok(Targets { values: Array::from(machine, &batch.targets)?, weights, smoothing })
    }

    /// Room for the activations of `images` images, the same if it is as much.
    fn activations_of(&mut self, images: usize) -> Result<Activations, GpuError> {
        let extent = Extent { runs: self.runs(), images };
        if let Some(activations) = self.activations.take().filter(|activations| activations.extent == extent) {
            return Ok(activations);
        }
        self.recorded = None;
        let (model, constants) = (&self.abouts[0].model, self.gpu.constants());
        Activations::new(&*self.gpu.machine, constants, extent, model.depth, model.width * model.mlp_ratio)
    }

    /// The machine that trains.
    pub(super) fn machine(&self) -> &dyn Machine {
        &*self.gpu.machine
    }

    /// Reads the tokens of `source` in `stock` from now on, whatever batches bring.
    ///
    /// # Panics
    /// If the stock lies in another machine's memory.
    pub(super) fn hold(&mut self, source: Source, stock: &Rc<Stock>) {
        self.held.insert(source, Rc::clone(stock));
    }

    /// Tells the kernels where the tokens of all sources lie; those that are neither held nor sent ahead are copied to the
    /// machine.
    fn take_tokens(&mut self, batch: &Batch) -> Result<(), VitError> {
        for about in &self.abouts {
            batch.tokens_but(about, |source| self.held.contains_key(&source))?;
        }
        self.find_held(batch)?;
        let (machine, rows) = (&*self.gpu.machine, batch.images * self.abouts[0].model.tokens_per_source());
        if self.token_moments.first().is_none_or(|moments| moments.len() != 2 * rows) {
            let moments = self.sources.iter().map(|_| Array::zeros(machine, 2 * rows));
            self.token_moments = moments.collect::<Result<_, _>>()?;
        }
        let mut sources: Vec<GpuSource> = Vec::with_capacity(self.sources.len());
        for ((source, width), moments) in self.sources.iter().zip(&self.token_moments) {
            if let Some(stock) = self.held.get(source) {
                sources.push(stock.source(*width, Some(&self.images), moments));
                continue;
            }
            let Some(tokens) = batch.tokens.get(source) else { return Err(VitError::NoTokens { missing: *source }) };
            if let Some(stock) = batch.sent.tokens.stock(*source, tokens) {
                sources.push(stock.source(*width, None, moments));
                continue;
            }
            let mut stock = match self.streamed.remove(source).filter(|stock| stock.fits(tokens)) {
                Some(stock) => stock,
                None => Stock::new(machine, batch.images, tokens, batch.images)?,
            };
            stock.write(machine, 0, tokens, batch.images)?;
            sources.push(stock.source(*width, None, moments));
            self.streamed.insert(*source, stock);
        }
        Ok(self.embeds.sources.write(machine, 0, &sources)?)
    }

    /// Takes which of the images that are held those of the batch are.
    fn find_held(&mut self, batch: &Batch) -> Result<(), VitError> {
        let Some(images) = self.held.values().map(|stock| stock.images()).min() else { return Ok(()) };
        let beyond = batch.held.iter().any(|image| *image as usize >= images);
        if batch.held.len() != batch.images || beyond {
            let what = format!("the list of images among the {images} that are held");
            return Err(VitError::Shape { what, expected: vec![batch.images], got: vec![batch.held.len()] });
        }
        let machine = &*self.gpu.machine;
        let held: Vec<i32> = batch.held.iter().map(|image| *image as i32).collect();
        if self.images.len() == held.len() {
            self.images.write(machine, 0, &held)?;
        } else {
            self.images = Array::from(machine, &held)?;
        }
        Ok(())
    }

    /// All kernels of a gradient: asked for one by one the first time, and together from then on, since a card computes some of
    /// them in less time than asking for one takes.
    fn forward_backward(&mut self, activations: &mut Activations, targets: &Targets) -> Result<(), GpuError> {
        if let Some(recorded) = &self.recorded {
            // SAFETY: who replaces memory that these kernels were given forgets them.
            return unsafe { recorded.run() };
        }
        let Self { gpu, layers, linears, embeds, parameters, gradients, weights, sums, counts, norm_sums, .. } = self;
        let (extent, norm) = (activations.extent, self.abouts[0].model.patch_norm);
        let mut kernels = || {
            let Activations { x, grad, saved, head, activated, .. } = &mut *activations;
            gpu.token_moments(extent.images, &embeds.sources, norm, Standardise::EPSILON)?;
            gpu.effective_weights(linears, parameters, weights)?;
            gpu.embed(extent, embeds, parameters, weights, x)?;
            for (block, saved) in layers.blocks.iter().zip(saved.iter_mut()) {
                block.forward(gpu, extent, weights, saved, x, activated)?;
            }
            let epsilon = LAYER_NORM_EPSILON as f32;
            gpu.head(extent, layers.head, weights, x, epsilon, targets, head, grad)?;
            let (logits_grad, pooled) = (&head.logits_grad, &head.pooled);
            gpu.weight_gradient(extent.runs, extent.images, layers.head, logits_grad, pooled, sums, (1, PARTS))?;
            for (index, block) in layers.blocks.iter().enumerate().rev() {
                block.backward(gpu, weights, activations, index, sums)?;
            }
            let Activations { grad, token_sums, .. } = &mut *activations;
            gpu.embed_backward(extent, embeds, grad, gradients, sums, token_sums)?;
            gpu.gradients_from_sums(linears, parameters, gradients, sums, PARTS)?;
            gpu.square_sums(gradients, counts, norm_sums)
        };
        self.recorded = gpu.machine.record(&mut kernels)?;
        match &self.recorded {
            // SAFETY: all that they were given is borrowed here.
            Some(recorded) => unsafe { recorded.run() },
            None => kernels(),
        }
    }

    /// What the kernels found, for each run.
    fn results(&mut self, activations: &Activations) -> Result<Vec<Gradient>, GpuError> {
        let (machine, images) = (&*self.gpu.machine, activations.extent.images);
        let squares = self.norm_sums.to_vec(machine)?;
        let losses = activations.head.losses.to_vec(machine)?;
        let correct = activations.head.correct.to_vec(machine)?;
        let of_runs =
            losses.chunks_exact(images).zip(correct.chunks_exact(images)).zip(squares.chunks_exact(NORM_PARTS));
        let gradient = |((losses, correct), squares): ((&[f32], &[i32]), &[f64])| Gradient {
            loss: losses.iter().map(|loss| f64::from(*loss)).sum::<f64>() / images as f64,
            correct: correct.iter().sum::<i32>() as usize,
            norm: squares.iter().sum::<f64>().sqrt(),
        };
        Ok(of_runs.map(gradient).collect())
    }

    /// Moves the weights of each run along its gradient multiplied by its scale; those without one stay. `step` counts from 1.
    pub(crate) fn update(&mut self, gradient_scales: &[Option<f64>], lr: f64, step: usize) -> Result<(), VitError> {
        let machine = &*self.gpu.machine;
        let numbers = |scale: &Option<f64>| {
            let scale = scale.unwrap_or_default();
            let step = adam_step(&self.recipe, scale, lr, step, self.recipe.weight_decay);
            AdamStep {
                gradient_scale: step.gradient_scale,
                gradient_decay: step.gradient_decay,
                weight_scale: step.weight_scale,
                beta1: step.beta1,
                beta1_rest: step.beta1_rest,
                beta2: step.beta2,
                beta2_rest: step.beta2_rest,
                rate: step.rate,
                root_scale: step.root_scale,
                epsilon: step.epsilon,
            }
        };
        let steps: Vec<AdamStep> = gradient_scales.iter().map(numbers).collect();
        let moved = gradient_scales.iter().zip(&self.layouts);
        let moved: Vec<i32> = moved.map(|(scale, layout)| scale.map_or(0, |_| layout.len() as i32)).collect();
        self.steps.write(machine, 0, &steps)?;
        self.moved.write(machine, 0, &moved)?;
        let Self { gpu, parameters, gradients, mean, square, decayed, steps, moved, .. } = self;
        Ok(gpu.adam(parameters, gradients, [mean, square], decayed, moved, steps)?)
    }

    /// Those of run `run` among the numbers of all runs.
    fn of_run(&self, all: &Array<f32>, run: usize) -> Result<Vec<f32>, VitError> {
        let mut values = vec![0.0; self.layouts[run].len()];
        all.read(&*self.gpu.machine, run * self.step(), &mut values)?;
        Ok(values)
    }

    /// L2 norm of all weights of a run together.
    pub(crate) fn weight_norm(&self, run: usize) -> Result<f64, VitError> {
        let weights = self.of_run(&self.parameters, run)?;
        Ok(weights.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>().sqrt())
    }

    /// Hands the weights of a run to `model`.
    pub(crate) fn write_to(&self, run: usize, model: &Model) -> Result<(), VitError> {
        self.layouts[run].write(&self.of_run(&self.parameters, run)?, model.parameters())
    }

    /// Gradient of a run's last batch by parameter, in the parameter's layout.
    pub(crate) fn gradients(&self, run: usize) -> Result<BTreeMap<String, Vec<f32>>, VitError> {
        let values = self.of_run(&self.gradients, run)?;
        let of = self.layouts[run].iter().map(|(name, slot, _)| (name.to_owned(), slot.of(&values).to_vec()));
        Ok(of.collect())
    }

    /// The moments of a run by name: `adam.mean.NAME` and `adam.square.NAME`.
    pub(crate) fn moments(&self, run: usize) -> Result<BTreeMap<String, Tensor>, VitError> {
        let mut tensors = BTreeMap::new();
        for (kind, all) in [("mean", &self.mean), ("square", &self.square)] {
            let values = self.of_run(all, run)?;
            for (name, slot, shape) in self.layouts[run].iter() {
                let tensor = Tensor::from_slice(slot.of(&values), shape, &Device::Cpu)?;
                tensors.insert(format!("adam.{kind}.{name}"), tensor);
            }
        }
        Ok(tensors)
    }

    /// Takes the weights of `model` for a run, and the moments stored in the file `path`.
    pub(crate) fn restore(
        &mut self,
        run: usize,
        model: &Model,
        tensors: &BTreeMap<String, Tensor>,
        path: &Path,
    ) -> Result<(), VitError> {
        self.read_weights(run, model)?;
        let at = run * self.step();
        for (kind, all) in [("mean", &mut self.mean), ("square", &mut self.square)] {
            let mut values = vec![0.0; self.layouts[run].len()];
            for (name, slot, shape) in self.layouts[run].iter() {
                let tensor = stored(tensors, &format!("adam.{kind}.{name}"), shape, path)?;
                slot.of_mut(&mut values).copy_from_slice(&tensor.flatten_all()?.to_vec1::<f32>()?);
            }
            all.write(&*self.gpu.machine, at, &values)?;
        }
        Ok(())
    }
}

impl Block {
    /// Moves the tokens `x` of all runs on, and keeps in `saved` what the backward pass needs.
    fn forward(
        &self,
        gpu: &Gpu,
        extent: Extent,
        weights: &Array<f32>,
        saved: &mut Saved,
        x: &mut Array<f32>,
        activated: &mut Array<f32>,
    ) -> Result<(), GpuError> {
        let epsilon = LAYER_NORM_EPSILON as f32;
        let Saved { normal1, inverse_std1, normal2, inverse_std2, qkv, attended, largest, rate, hidden } = saved;
        gpu.normalise(extent, x, epsilon, normal1, inverse_std1)?;
        gpu.linear(extent, self.qkv, weights, normal1, qkv, false)?;
        gpu.attention(extent, qkv, attended, [largest, rate])?;
        gpu.linear(extent, self.proj, weights, attended, x, true)?;

        gpu.normalise(extent, x, epsilon, normal2, inverse_std2)?;
        gpu.linear(extent, self.fc1, weights, normal2, hidden, false)?;
        gpu.gelu(hidden, activated)?;
        gpu.linear(extent, self.fc2, weights, activated, x, true)
    }

    /// From the gradient of the tokens behind block `index` to that of those before it; in `sums` the gradients of its weights.
    fn backward(
        &self,
        gpu: &Gpu,
        weights: &Array<f32>,
        activations: &mut Activations,
        index: usize,
        sums: &mut Array<f32>,
    ) -> Result<(), GpuError> {
        let Activations { extent, grad, saved, narrow, activated, hidden_grad, qkv_grad, product, .. } = activations;
        let Saved { normal1, inverse_std1, normal2, inverse_std2, qkv, attended, largest, rate, hidden } =
            &saved[index];
        let (extent, rows, parts) = (*extent, extent.images * gpu.constants().tokens, (PARTS, PARTS));
        let Extent { runs, .. } = extent;
        gpu.linear_backward(extent, self.fc2, weights, grad, hidden_grad)?;
        gpu.gelu_backward(hidden, hidden_grad, activated)?;
        gpu.weight_gradient(runs, rows, self.fc2, grad, activated, sums, parts)?;
        gpu.linear_backward(extent, self.fc1, weights, hidden_grad, narrow)?;
        gpu.weight_gradient(runs, rows, self.fc1, hidden_grad, normal2, sums, parts)?;
        gpu.normalise_backward(extent, normal2, inverse_std2, narrow, grad)?;

        gpu.linear_backward(extent, self.proj, weights, grad, narrow)?;
        gpu.weight_gradient(runs, rows, self.proj, grad, attended, sums, parts)?;
        gpu.attention_backward(extent, qkv, attended, [largest, rate], narrow, qkv_grad, product)?;
        gpu.linear_backward(extent, self.qkv, weights, qkv_grad, narrow)?;
        gpu.weight_gradient(runs, rows, self.qkv, qkv_grad, normal1, sums, parts)?;
        gpu.normalise_backward(extent, normal1, inverse_std1, narrow, grad)
    }
}
