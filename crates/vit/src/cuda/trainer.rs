use std::{collections::BTreeMap, path::Path, rc::Rc};

use candle_core::{Device, Tensor};
use gpu::{
    AdamStep, Array, Extent, Gpu, GpuError, Machine,
    Numbers::{Factors, Floats},
    Recording, Targets,
};
use sources::Source;

use super::{
    activations::{Activations, Forward, Saved},
    constants,
    layers::{Block, PARTS},
    network::Network,
    sources::Stock,
};
use crate::{
    Batch, Gradient, Model, Precision, Recipe, VitError, adam::adam_step, layers::LAYER_NORM_EPSILON, model::stored,
};

/// Numbers that the squares of a run's gradient are summed to before they leave the machine.
const NORM_PARTS: usize = 64;

/// Weights, gradients and moments of several runs, and all activations of a batch, in a machine's memory.
#[derive(Debug)]
pub(crate) struct Trainer {
    network: Network,
    recipe: Recipe,
    /// Gradients of the parameters and their moments, and which of them weight decay applies to, (R, P); how many each run has.
    gradients: Array<f32>,
    mean: Array<f32>,
    square: Array<f32>,
    decayed: Array<u8>,
    counts: Array<i32>,
    /// Gradients of the effective weights, (R, PARTS, E).
    sums: Array<f32>,
    norm_sums: Array<f64>,
    /// Sum of the losses, right answers and sum of the gradient's squares, (R, 3).
    summary: Array<f64>,
    activations: Option<Activations>,
    targets: Option<Targets>,
    /// The gradient's kernels, once they have been taken down. They were given all of the above but the stocks and the images, which
    /// they find by the network's table of sources.
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
        let network = Network::new(machine, models, precision)?;
        let (runs, parameters, machine) = (network.runs(), network.step(), network.machine());
        let counts: Vec<i32> = network.layouts.iter().map(|layout| layout.len() as i32).collect();
        let mut decayed = vec![0_u8; runs * parameters];
        for (layout, decayed) in network.layouts.iter().zip(decayed.chunks_exact_mut(parameters)) {
            for (_, slot, shape) in layout.iter() {
                decayed[slot.range()].fill(u8::from(shape.len() >= 2));
            }
        }
        let of_parameters = || Array::zeros(machine, runs * parameters);
        Ok(Self {
            recipe: recipe.clone(),
            gradients: of_parameters()?,
            mean: of_parameters()?,
            square: of_parameters()?,
            decayed: Array::from(machine, &decayed)?,
            counts: Array::from(machine, &counts)?,
            sums: Array::zeros(machine, PARTS * network.weights.len())?,
            norm_sums: Array::zeros(machine, runs * NORM_PARTS)?,
            summary: Array::zeros(machine, runs * 3)?,
            activations: None,
            targets: None,
            recorded: None,
            steps: Array::zeros(machine, runs)?,
            moved: Array::zeros(machine, runs)?,
            network,
        })
    }

    /// Bytes of a machine's memory that a run of `model` takes with batches of `images`, nearly.
    pub(crate) fn bytes(model: &Model, images: usize) -> u64 {
        // Parameters, gradients and two moments, and one mark apiece; effective weights and their gradients in parts.
        const BYTES_PER_PARAMETER: u64 = 4 * 4 + 1 + (1 + PARTS as u64) * 4;
        let (about, constants) = (model.about(), constants(model.about(), Precision::F32));
        let rows = (images * constants.tokens) as u64;
        let numbers =
            Activations::numbers_per_row(&constants, about.model.depth, about.model.width * about.model.mlp_ratio);
        // Runs share the tokens of a source; here each counts them.
        let token_widths = about.inputs.iter().map(|input| input.token_width).sum::<usize>();
        let tokens = (images * about.model.tokens_per_source() * token_widths) as u64;
        (rows * numbers as u64 + tokens) * size_of::<f32>() as u64
            + model.parameters().elements() as u64 * BYTES_PER_PARAMETER
    }

    /// How many runs there are.
    pub(crate) fn runs(&self) -> usize {
        self.network.runs()
    }

    /// Loss of `batch` in each run and, kept in the machine, the gradient of every parameter.
    pub(crate) fn gradient(&mut self, batch: &Batch) -> Result<Vec<Gradient>, VitError> {
        self.network.take_tokens(batch)?;
        let targets = self.targets_of(batch)?;
        let mut activations = self.activations_of(batch.images)?;
        let computed = self.forward_backward(&mut activations, &targets);
        let results = computed.and_then(|()| self.results(batch.images));
        (self.activations, self.targets) = (Some(activations), Some(targets));
        Ok(results?)
    }

    /// Takes what the models should answer, into the same memory if it is as much.
    fn targets_of(&mut self, batch: &Batch) -> Result<Targets, GpuError> {
        let machine = self.network.machine();
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
        if let Some(activations) = self.activations.take().filter(|activations| activations.forward.extent == extent) {
            return Ok(activations);
        }
        self.recorded = None;
        let (model, constants) = (&self.network.abouts[0].model, self.network.gpu.constants());
        Activations::new(self.network.machine(), constants, extent, (model.depth, model.width * model.mlp_ratio))
    }

    /// The machine that trains.
    pub(super) fn machine(&self) -> &dyn Machine {
        self.network.machine()
    }

    /// Reads the tokens of `source` in `stock` from now on, whatever batches bring.
    ///
    /// # Panics
    /// If the stock lies in another machine's memory.
    pub(super) fn hold(&mut self, source: Source, stock: &Rc<Stock>) {
        self.network.hold(source, stock);
    }

    /// All kernels of a gradient: asked for one by one the first time, and together from then on, since a card computes some of
    /// them in less time than asking for one takes.
    fn forward_backward(&mut self, activations: &mut Activations, targets: &Targets) -> Result<(), GpuError> {
        if let Some(recorded) = &self.recorded {
            // SAFETY: who replaces memory that these kernels were given forgets them.
            return unsafe { recorded.run() };
        }
        let Self { network, gradients, sums, counts, norm_sums, summary, .. } = self;
        let gpu = &*Rc::clone(&network.gpu);
        let mut kernels = || {
            network.forward(&mut activations.forward)?;
            let Network { layers, linears, embeds, parameters, weights, .. } = &*network;
            let Activations { forward: Forward { extent, x, .. }, grad, head, .. } = &mut *activations;
            let (epsilon, extent) = (LAYER_NORM_EPSILON as f32, *extent);
            gpu.head(extent, layers.head, weights, x, epsilon, targets, head, grad)?;
            let (logits_grad, pooled) = (Floats(&head.logits_grad), Floats(&head.pooled));
            gpu.weight_gradient(extent.runs, extent.images, layers.head, logits_grad, pooled, sums, (1, PARTS))?;
            for (index, block) in layers.blocks.iter().enumerate().rev() {
                block.backward(gpu, weights, activations, index, sums)?;
            }
            let Activations { grad, token_sums, .. } = &mut *activations;
            gpu.embed_backward(extent, embeds, grad, gradients, sums, token_sums)?;
            gpu.gradients_from_sums(linears, parameters, gradients, sums, PARTS)?;
            gpu.square_sums(gradients, counts, norm_sums)?;
            gpu.summary(extent, &activations.head, norm_sums, summary)
        };
        self.recorded = gpu.machine.record(&mut kernels)?;
        match &self.recorded {
            // SAFETY: all that they were given is borrowed here.
            Some(recorded) => unsafe { recorded.run() },
            None => kernels(),
        }
    }

    /// What the kernels found, for each run.
    fn results(&self, images: usize) -> Result<Vec<Gradient>, GpuError> {
        let summary = self.summary.to_vec(self.network.machine())?;
        let gradient = |of_run: &[f64]| Gradient {
            loss: of_run[0] / images as f64,
            correct: of_run[1] as usize,
            norm: of_run[2].sqrt(),
        };
        Ok(summary.chunks_exact(3).map(gradient).collect())
    }

    /// Moves the weights of each run along its gradient multiplied by its scale; those without one stay. `step` counts from 1.
    pub(crate) fn update(&mut self, gradient_scales: &[Option<f64>], lr: f64, step: usize) -> Result<(), VitError> {
        let machine = self.network.machine();
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
        let moved = gradient_scales.iter().zip(&self.network.layouts);
        let moved: Vec<i32> = moved.map(|(scale, layout)| scale.map_or(0, |_| layout.len() as i32)).collect();
        self.steps.write(machine, 0, &steps)?;
        self.moved.write(machine, 0, &moved)?;
        let Self { network, gradients, mean, square, decayed, steps, moved, .. } = self;
        let Network { gpu, parameters, .. } = network;
        Ok(gpu.adam(parameters, gradients, [mean, square], decayed, moved, steps)?)
    }

    /// Those of run `run` among the numbers of all runs.
    fn of_run(&self, all: &Array<f32>, run: usize) -> Result<Vec<f32>, VitError> {
        let mut values = vec![0.0; self.network.layouts[run].len()];
        all.read(self.network.machine(), run * self.network.step(), &mut values)?;
        Ok(values)
    }

    /// L2 norm of all weights of a run together.
    pub(crate) fn weight_norm(&self, run: usize) -> Result<f64, VitError> {
        let weights = self.of_run(&self.network.parameters, run)?;
        Ok(weights.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>().sqrt())
    }

    /// Hands the weights of a run to `model`.
    pub(crate) fn write_to(&self, run: usize, model: &Model) -> Result<(), VitError> {
        self.network.layouts[run].write(&self.of_run(&self.network.parameters, run)?, model.parameters())
    }

    /// Gradient of a run's last batch by parameter, in the parameter's layout.
    pub(crate) fn gradients(&self, run: usize) -> Result<BTreeMap<String, Vec<f32>>, VitError> {
        let values = self.of_run(&self.gradients, run)?;
        let of = self.network.layouts[run].iter().map(|(name, slot, _)| (name.to_owned(), slot.of(&values).to_vec()));
        Ok(of.collect())
    }

    /// The moments of a run by name: `adam.mean.NAME` and `adam.square.NAME`.
    pub(crate) fn moments(&self, run: usize) -> Result<BTreeMap<String, Tensor>, VitError> {
        let mut tensors = BTreeMap::new();
        for (kind, all) in [("mean", &self.mean), ("square", &self.square)] {
            let values = self.of_run(all, run)?;
            for (name, slot, shape) in self.network.layouts[run].iter() {
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
        self.network.read_weights(run, model)?;
        let at = run * self.network.step();
        for (kind, all) in [("mean", &mut self.mean), ("square", &mut self.square)] {
            let mut values = vec![0.0; self.network.layouts[run].len()];
            for (name, slot, shape) in self.network.layouts[run].iter() {
                let tensor = stored(tensors, &format!("adam.{kind}.{name}"), shape, path)?;
                slot.of_mut(&mut values).copy_from_slice(&tensor.flatten_all()?.to_vec1::<f32>()?);
            }
            all.write(self.network.machine(), at, &values)?;
        }
        Ok(())
    }
}

impl Block {
    /// From the gradient of the tokens behind block `index` to that of those before it; in `sums` the gradients of its weights.
    fn backward(
        &self,
        gpu: &Gpu,
        weights: &Array<f32>,
        activations: &mut Activations,
        index: usize,
        sums: &mut Array<f32>,
    ) -> Result<(), GpuError> {
        let Activations { forward, grad, narrow, hidden_grad, qkv_grad, product, .. } = activations;
        let Forward { extent, saved, activated, .. } = forward;
        let Saved { normal1, inverse_std1, normal2, inverse_std2, qkv, attended, largest, rate, hidden } =
            &saved[index];
        let (extent, rows, parts) = (*extent, extent.images * gpu.constants().tokens, (PARTS, PARTS));
        let Extent { runs, .. } = extent;
        gpu.linear_backward_gelu(extent, self.fc2, weights, grad, hidden, [&mut *hidden_grad, &mut *activated])?;
        gpu.weight_gradient(runs, rows, self.fc2, Floats(grad), Factors(activated), sums, parts)?;
        gpu.linear_backward(extent, self.fc1, weights, Factors(hidden_grad), narrow)?;
        gpu.weight_gradient(runs, rows, self.fc1, Factors(hidden_grad), Factors(normal2), sums, parts)?;
        gpu.normalise_backward(extent, normal2, inverse_std2, narrow, grad)?;

        gpu.linear_backward(extent, self.proj, weights, Floats(grad), narrow)?;
        gpu.weight_gradient(runs, rows, self.proj, Floats(grad), Factors(attended), sums, parts)?;
        gpu.attention_backward(extent, qkv, attended, [largest, rate], narrow, qkv_grad, product)?;
        gpu.linear_backward(extent, self.qkv, weights, Factors(qkv_grad), narrow)?;
        gpu.weight_gradient(runs, rows, self.qkv, Factors(qkv_grad), Factors(normal1), sums, parts)?;
        gpu.normalise_backward(extent, normal1, inverse_std1, narrow, grad)
    }
}
