use gpu::{Embedding, Layer, Linear, Projection};
use sources::Source;

use crate::{About, Fuse, ModelConfig, Pool, VitError, native::Layout};

/// Parts in which the gradients of a block's weights are summed: enough for a card to have work for all its processors when few
/// runs are trained.
pub(super) const PARTS: usize = gpu::MOST_PARTS;

/// The layers that all runs have in the same places.
#[derive(Debug)]
pub(super) struct Layers {
    pub(super) blocks: Vec<Block>,
    pub(super) head: Layer,
    /// Effective weights and biases of all of them.
    numbers: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    pub(super) qkv: Layer,
    pub(super) proj: Layer,
    pub(super) fc1: Layer,
    pub(super) fc2: Layer,
}

impl Layers {
    pub(super) fn new(config: &ModelConfig, classes: usize) -> Self {
        let mut numbers = 0;
        let mut layer = |inputs, outputs| place(&mut numbers, inputs, outputs);
        let (width, hidden) = (config.width, config.width * config.mlp_ratio);
        let blocks = (0..config.depth).map(|_| Block {
            qkv: layer(width, 3 * width),
            proj: layer(width, width),
            fc1: layer(width, hidden),
            fc2: layer(hidden, width),
        });
        Self { blocks: blocks.collect(), head: layer(width, classes), numbers }
    }
}

fn place(numbers: &mut usize, inputs: usize, outputs: usize) -> Layer {
    let layer = Layer { inputs, outputs, at: *numbers };
    // Each begins where four numbers are loaded at once.
    *numbers = (*numbers + layer.numbers()).next_multiple_of(4);
    layer
}

/// What the kernels are told of one run.
#[derive(Debug)]
pub(super) struct RunTables {
    pub(super) linears: Vec<Linear>,
    pub(super) projections: Vec<Projection>,
    pub(super) embedding: Embedding,
    /// Effective weights and biases of all its layers.
    pub(super) numbers: usize,
}

impl RunTables {
    /// Of a model of `about` whose parameters lie as `layout` says; `sources` are those of the batch in their order.
    pub(super) fn new(layers: &Layers, layout: &Layout, about: &About, sources: &[Source]) -> Result<Self, VitError> {
        let config = &about.model;
        let at = |name: &str| Ok::<_, VitError>(layout.slot(name)?.range().start as i32);
        let linear = |name: &str, layer: Layer, parts: usize| {
            let gain = if config.equal_lr { 1.0 / (layer.inputs as f64).sqrt() } else { 1.0 };
            Ok::<_, VitError>(Linear {
                weight: at(&format!("{name}.weight"))?,
                bias: at(&format!("{name}.bias"))?,
                norm_gain: -1,
                norm_offset: -1,
                scale: -1,
                inputs: layer.inputs as i32,
                outputs: layer.outputs as i32,
                parts: parts as i32,
                effective: layer.at as i64,
                gain: gain as f32,
                padding: 0.0,
            })
        };
        let after = |norm: &str, linear: Linear| {
            let (gain, offset) = (at(&format!("{norm}.weight"))?, at(&format!("{norm}.bias"))?);
            Ok::<_, VitError>(Linear { norm_gain: gain, norm_offset: offset, ..linear })
        };
        let scaled = |name: &str, linear: Linear| match config.layer_scale > 0.0 {
            true => Ok::<_, VitError>(Linear { scale: at(&format!("{name}.gamma"))?, ..linear }),
            false => Ok(linear),
        };

        let mut linears = Vec::new();
        for (index, block) in layers.blocks.iter().enumerate() {
            let name = |layer: &str| format!("blocks.{index}.{layer}");
            linears.push(after(&name("norm1"), linear(&name("attn.qkv"), block.qkv, PARTS)?)?);
            linears.push(scaled(&name("ls1"), linear(&name("attn.proj"), block.proj, PARTS)?)?);
            linears.push(after(&name("norm2"), linear(&name("mlp.fc1"), block.fc1, PARTS)?)?);
            linears.push(scaled(&name("ls2"), linear(&name("mlp.fc2"), block.fc2, PARTS)?)?);
        }
        linears.push(after("norm", linear("head", layers.head, 1)?)?);

        let class_token = config.pool == Pool::Cls;
        let mut numbers = layers.numbers;
        let mut projections = Vec::new();
        for (index, input) in about.inputs.iter().enumerate() {
            let name = input.source.name();
            let layer = place(&mut numbers, input.token_width, config.width);
            linears.push(linear(&format!("embed.{name}"), layer, 1)?);
            let grids = if config.fuse == Fuse::Seq { index } else { 0 };
            let first_token = usize::from(class_token) + grids * config.tokens_per_source();
            let source = sources.iter().position(|source| *source == input.source);
            projections.push(Projection {
                source: source.ok_or(VitError::NoTokens { missing: input.source })? as i32,
                first_token: first_token as i32,
                weights: layer.at as i64,
                source_embed: at(&format!("source_embed.{name}"))?,
                padding: 0,
            });
        }
        let class_token = if class_token { at("cls_token")? } else { -1 };
        let embedding = Embedding { position: at("pos_embed")?, class_token };
        Ok(Self { linears, projections, embedding, numbers })
    }
}
