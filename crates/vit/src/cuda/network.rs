use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use gpu::{Array, Embeds, Factors, Gpu, GpuError, Linears, Machine, Source as GpuSource};
use kernels::Standardise;
use sources::Source;

use super::{
    activations::{Forward, Saved},
    constants,
    layers::{Block, Layers, RunTables},
    sources::Stock,
};
use crate::{About, Batch, Model, Precision, VitError, layers::LAYER_NORM_EPSILON, native::Layout};

/// Several runs' layers and weights in a machine's memory, and the tokens that they read.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) gpu: Rc<Gpu>,
    pub(super) layouts: Vec<Layout>,
    pub(super) abouts: Vec<About>,
    pub(super) layers: Layers,
    pub(super) linears: Linears,
    pub(super) embeds: Embeds,
    /// Parameters, (R, P), P being that of the run with the most.
    pub(super) parameters: Array<f32>,
    /// Effective weights, (R, E).
    pub(super) weights: Array<f32>,
    /// All that any run reads, with the width of its tokens.
    sources: Vec<(Source, usize)>,
    /// Tokens of all images, which several networks share, and those of the batch.
    held: BTreeMap<Source, Rc<Stock>>,
    streamed: BTreeMap<Source, Stock>,
    /// Which of the images that are held those of the batch are, (B).
    images: Array<i32>,
    /// Room for the batch's tokens of each source, (B P, W).
    tokens: Vec<Factors>,
}

impl Network {
    /// With the weights of `models`, which differ in nothing but their sources and weights. `machine` was compiled with their
    /// [`constants`].
    pub(super) fn new(machine: Box<dyn Machine>, models: &[&Model], precision: Precision) -> Result<Self, VitError> {
        let abouts: Vec<About> = models.iter().map(|model| model.about().clone()).collect();
        let layouts: Vec<Layout> = models.iter().map(|model| Layout::new(model.parameters())).collect();
        let about = abouts.first().ok_or_else(|| VitError::key("number of runs", 0, "at least 1"))?;
        let inputs: BTreeSet<(Source, usize)> =
            abouts.iter().flat_map(|about| &about.inputs).map(|input| (input.source, input.token_width)).collect();
        let (sources, names): (Vec<_>, Vec<_>) = inputs.iter().map(|input| (*input, input.0)).unzip();

        let layers = Layers::new(&about.model, about.classes.len());
        let tables = layouts.iter().zip(&abouts).map(|(layout, about)| RunTables::new(&layers, layout, about, &names));
        let tables = tables.collect::<Result<Vec<_>, VitError>>()?;
        let (runs, gpu) = (models.len(), Rc::new(Gpu::new(machine, constants(about, precision))));
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
        let widest = sources.iter().map(|(_, width)| *width).max().unwrap_or(0);
        let machine = &*gpu.machine;
        let mut network = Self {
            linears: Linears::new(machine, &linears)?,
            embeds: Embeds::new(machine, (sources.len(), widest), &projections, &embeddings)?,
            parameters: Array::zeros(machine, runs * parameters)?,
            weights: Array::zeros(machine, runs * numbers)?,
            held: BTreeMap::new(),
            streamed: BTreeMap::new(),
            images: Array::zeros(machine, 0)?,
            tokens: Vec::new(),
            sources,
            layers,
            layouts,
            abouts,
            gpu,
        };
        for (run, model) in models.iter().enumerate() {
            network.read_weights(run, model)?;
        }
        Ok(network)
    }

    /// How many runs there are.
    pub(super) fn runs(&self) -> usize {
        self.layouts.len()
    }

    /// Parameters that each run has room for.
    pub(super) fn step(&self) -> usize {
        self.parameters.len() / self.runs()
    }

    /// The machine that computes.
    pub(super) fn machine(&self) -> &dyn Machine {
        &*self.gpu.machine
    }

    /// Takes the weights of `model` for a run.
    pub(super) fn read_weights(&mut self, run: usize, model: &Model) -> Result<(), VitError> {
        let mut values = vec![0.0; self.layouts[run].len()];
        self.layouts[run].read(model.parameters(), &mut values)?;
        let at = run * self.step();
        Ok(self.parameters.write(&*self.gpu.machine, at, &values)?)
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
    pub(super) fn take_tokens(&mut self, batch: &Batch) -> Result<(), VitError> {
        for about in &self.abouts {
            batch.tokens_but(about, |source| self.held.contains_key(&source))?;
        }
        self.find_held(batch)?;
        let (machine, rows) = (&*self.gpu.machine, batch.images * self.abouts[0].model.tokens_per_source());
        if self.sources.iter().map(|(_, width)| rows * width).ne(self.tokens.iter().map(Factors::len)) {
            // Those of before are given back first.
            self.tokens.clear();
            let zeros = |(_, width): &(Source, usize)| Factors::zeros(machine, self.gpu.constants(), rows * width);
            self.tokens = self.sources.iter().map(zeros).collect::<Result<_, _>>()?;
        }
        let mut sources: Vec<GpuSource> = Vec::with_capacity(self.sources.len());
        for ((source, width), room) in self.sources.iter().zip(&self.tokens) {
            if let Some(stock) = self.held.get(source) {
                sources.push(stock.source(*width, Some(&self.images), room));
                continue;
            }
            let Some(tokens) = batch.tokens.get(source) else { return Err(VitError::NoTokens { missing: *source }) };
            if let Some(stock) = batch.sent.tokens.stock(*source, tokens) {
                sources.push(stock.source(*width, None, room));
                continue;
            }
            let mut stock = match self.streamed.remove(source).filter(|stock| stock.fits(tokens)) {
                Some(stock) => stock,
                None => Stock::new(machine, batch.images, tokens, batch.images)?,
            };
            stock.write(machine, 0, tokens, batch.images)?;
            sources.push(stock.source(*width, None, room));
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

    /// From the tokens that were taken to those behind the last block.
    pub(super) fn forward(&mut self, activations: &mut Forward) -> Result<(), GpuError> {
        let Self { gpu, layers, linears, embeds, parameters, weights, .. } = self;
        let Forward { extent, x, saved, activated } = activations;
        gpu.cut_tokens(extent.images, &embeds.sources, self.abouts[0].model.patch_norm, Standardise::EPSILON)?;
        gpu.effective_weights(linears, parameters, weights)?;
        gpu.embed(*extent, embeds, parameters, weights, x)?;
        let kept = saved.len();
        for (index, block) in layers.blocks.iter().enumerate() {
            let saved = &mut saved[index % kept];
            block.forward(gpu, weights, saved, (*extent, x, activated))?;
        }
        Ok(())
    }
}

impl Block {
    /// Moves the tokens `x` of all runs on, and keeps in `saved` what the backward pass needs.
    fn forward(
        &self,
        gpu: &Gpu,
        weights: &Array<f32>,
        saved: &mut Saved,
        (extent, x, activated): (gpu::Extent, &mut Array<f32>, &mut Factors),
    ) -> Result<(), GpuError> {
        let epsilon = LAYER_NORM_EPSILON as f32;
        let Saved { normal1, inverse_std1, normal2, inverse_std2, qkv, attended, largest, rate, hidden } = saved;
        gpu.normalise(extent, x, epsilon, normal1, inverse_std1)?;
        gpu.linear(extent, self.qkv, weights, normal1, qkv, false, None)?;
        gpu.attention(extent, qkv, attended, [largest, rate])?;
        gpu.linear(extent, self.proj, weights, attended, x, true, None)?;

        gpu.normalise(extent, x, epsilon, normal2, inverse_std2)?;
        gpu.linear(extent, self.fc1, weights, normal2, hidden, false, Some(activated))?;
        gpu.linear(extent, self.fc2, weights, activated, x, true, None)
    }
}
