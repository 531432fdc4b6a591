//! What kernels read as structures of numbers: field by field the same in `cuda/*.cu`.

use bytemuck::{Pod, Zeroable};

/// A linear layer of a run: where its parts lie among the run's parameters (-1: there is none), and its effective weights (O, I)
/// and biases (O) among the run's; their gradients lie in the same place among its sums.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Linear {
    /// (O, I)
    pub weight: i32,
    /// (O)
    pub bias: i32,
    /// Of the layer norm before it, (I).
    pub norm_gain: i32,
    /// (I)
    pub norm_offset: i32,
    /// Layer scale behind it, (O).
    pub scale: i32,
    /// I.
    pub inputs: i32,
    /// O.
    pub outputs: i32,
    /// In how many parts the gradient is summed.
    pub parts: i32,
    /// Where W' begins, b' behind it.
    pub effective: i64,
    /// What the weights are multiplied by (`equal_lr`).
    pub gain: f32,
    /// To a multiple of 8 bytes.
    pub padding: f32,
}

/// A source's stored maps, or its ready tokens; addresses, 0 for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Source {
    /// f16, (I, side, side, channels).
    pub maps: u64,
    /// (I P, W)
    pub ready: u64,
    /// What each value of a token is multiplied by, (W).
    pub rate: u64,
    /// What is then added to it, (W).
    pub offset: u64,
    /// Room for the batch's tokens as factors, (B P, W).
    pub tokens: u64,
    /// Which of the I images those of the batch are, (B); 0: they are the batch's own, in its order.
    pub images: u64,
    /// W.
    pub width: i32,
    /// Side of a map in pixels.
    pub side: i32,
    /// Values of a pixel.
    pub channels: i32,
    /// Side of a patch in pixels.
    pub patch: i32,
}

/// A run's projection of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Projection {
    /// Which source.
    pub source: i32,
    /// Where its tokens begin in the sequence.
    pub first_token: i32,
    /// Where its weights (D, W) and biases (D) lie among the run's effective weights, and their gradients among its sums.
    pub weights: i64,
    /// Where the source's embedding lies among the run's parameters.
    pub source_embed: i32,
    /// To a multiple of 8 bytes.
    pub padding: i32,
}

/// Where a run's embeddings lie among its parameters; -1: there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Embedding {
    /// (P, D)
    pub position: i32,
    /// (D)
    pub class_token: i32,
}

/// The numbers of one step of Adam: as `kernels::AdamStep`.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct AdamStep {
    /// What gradients are multiplied by first.
    pub gradient_scale: f32,
    /// Share of the weight that is added to its gradient.
    pub gradient_decay: f32,
    /// What weights are multiplied by first.
    pub weight_scale: f32,
    /// Decay of the gradient's running mean.
    pub beta1: f32,
    /// 1 − `beta1`, which f32 would round.
    pub beta1_rest: f32,
    /// Decay of the squared gradient's running mean.
    pub beta2: f32,
    /// 1 − `beta2`.
    pub beta2_rest: f32,
    /// Learning rate over the mean's correction.
    pub rate: f32,
    /// 1 / the correction of the square's root.
    pub root_scale: f32,
    /// Added to the root.
    pub epsilon: f32,
}
