//! Differentiable ops whose gradient is written out, where candle's chain of elementary gradients costs
//! several times the op.
//!
//! Shapes: M rows, I inputs, O outputs; B batch, N tokens, D width, H heads.
//!
//! Forward and backward consist of candle's own kernels, so they run on every device.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use candle_core::{
    CpuStorage, CudaStorage, CustomOp2, CustomOp3, D, Layout, Result, Shape, Tensor, backend::BackendStorage, op,
};

/// x Wᵀ + b of `x` (M, I), `weight` (O, I), `bias` (O): (M, O).
///
/// candle's own gradients of the product, the transpose and the broadcast would also send a gradient into
/// input data, add every gradient to a tensor of zeros, and sum the bias's one element at a time.
pub(crate) fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    x.apply_op3(weight, bias, LinearOp)
}

struct LinearOp;

impl LinearOp {
    fn forward<S: BackendStorage>(
        (x, x_layout): (&S, &Layout),
        (weight, weight_layout): (&S, &Layout),
        (bias, bias_layout): (&S, &Layout),
    ) -> Result<(S, Shape)> {
        let (rows, inputs) = x_layout.shape().dims2()?;
        let (outputs, _) = weight_layout.shape().dims2()?;
        let shape = Shape::from((rows, outputs));
        let product = x.matmul(weight, (1, rows, outputs, inputs), x_layout, &weight_layout.transpose(0, 1)?)?; // (M, O)
        let sum = product.binary_impl::<op::Add>(
            bias,
            &Layout::contiguous(&shape),
            &bias_layout.broadcast_as(shape.clone())?,
        )?;
        Ok((sum, shape))
    }
}

impl CustomOp3 for LinearOp {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Self::forward((x, x_layout), (weight, weight_layout), (bias, bias_layout))
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        weight: &CudaStorage,
        weight_layout: &Layout,
        bias: &CudaStorage,
        bias_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        Self::forward((x, x_layout), (weight, weight_layout), (bias, bias_layout))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _bias: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let x_grad = if x.track_op() { Some(grad.matmul(weight)?) } else { None }; // (M, I)
        let weight_grad = grad.t()?.matmul(x)?; // (O, I)
        let ones = Tensor::ones((1, grad.dim(0)?), grad.dtype(), grad.device())?; // (1, M)
        let bias_grad = ones.matmul(grad)?.squeeze(0)?; // (O)
        Ok((x_grad, Some(weight_grad), Some(bias_grad)))
    }
}

/// `x` less its mean and over its standard deviation, along the last dimension (Ba et al. 2016,
/// <https://arxiv.org/abs/1607.06450>, without gain and offset).
pub(crate) fn normalise(x: &Tensor, epsilon: f64) -> Result<Tensor> {
    let plain = x.detach();
    let centred = plain.broadcast_sub(&plain.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let inverse = (variance + epsilon)?.sqrt()?.recip()?;
    let y = centred.broadcast_mul(&inverse)?;
    let result = y.clone();
    with_gradient(x, &result, move |grad| {
        let along = (grad * &y)?.mean_keepdim(D::Minus1)?;
        let inner = (grad.broadcast_sub(&grad.mean_keepdim(D::Minus1)?)? - y.broadcast_mul(&along)?)?;
        inner.broadcast_mul(&inverse)
    })
}

/// GELU by the error function (Hendrycks & Gimpel 2016, <https://arxiv.org/abs/1606.08415>): x Φ(x), with
/// Φ the normal distribution's cumulative function and derivative Φ(x) + x φ(x).
pub(crate) fn gelu(x: &Tensor) -> Result<Tensor> {
    let plain = x.detach();
    let cumulative = (&plain * FRAC_1_SQRT_2)?.erf()?.affine(0.5, 0.5)?;
    let y = (&plain * &cumulative)?;
    with_gradient(x, &y, move |grad| {
        let density = ((plain.sqr()? * -0.5)?.exp()? * (FRAC_1_SQRT_2 / PI.sqrt()))?;
        grad * (&cumulative + (&plain * density)?)?
    })
}

/// Scaled dot-product attention (Vaswani et al. 2017, section 3.2.1, <https://arxiv.org/abs/1706.03762>) of
/// the queries, keys and values in `qkv` (B, N, 3D), for each of `heads`: (B, N, D).
pub(crate) fn attention(qkv: &Tensor, heads: usize) -> Result<Tensor> {
    let (batch, tokens, width3) = qkv.dims3()?;
    let (width, head_width) = (width3 / 3, width3 / 3 / heads);
    let scale = 1.0 / (head_width as f64).sqrt();
    let parted = qkv.detach().reshape((batch, tokens, 3, heads, head_width))?;
    let parted = parted.permute((2, 0, 3, 1, 4))?.contiguous()?; // (3, B, H, N, D/H)
    let (q, k, v) = (parted.get(0)?, parted.get(1)?, parted.get(2)?); // (B, H, N, D/H)
    // Scaling the queries touches fewer numbers than scaling the scores.
    let q = (q * scale)?;
    let weights = candle_nn::ops::softmax_last_dim(&q.matmul(&k.t()?)?)?; // (B, H, N, N)
    let y = weights.matmul(&v)?.transpose(1, 2)?.reshape((batch, tokens, width))?; // (B, N, D)
    with_gradient(qkv, &y, move |grad| {
        let grad = grad.reshape((batch, tokens, heads, head_width))?.transpose(1, 2)?.contiguous()?; // (B, H, N, D/H)
        let v_grad = weights.t()?.matmul(&grad)?;
        let weighted = (grad.matmul(&v.t()?)? * &weights)?; // (B, H, N, N)
        let total = weighted.sum_keepdim(D::Minus1)?; // (B, H, N, 1)
        let score_grad = (weighted - weights.broadcast_mul(&total)?)?; // (B, H, N, N)
        let q_grad = (score_grad.matmul(&k)? * scale)?;
        let k_grad = score_grad.t()?.matmul(&q)?;
        let parted = Tensor::stack(&[q_grad, k_grad, v_grad], 0)?; // (3, B, H, N, D/H)
        parted.permute((1, 3, 0, 2, 4))?.reshape((batch, tokens, width3))
    })
}

/// `y`, computed from `x` outside the graph, as a node of the graph that sends `backward` of its gradient to
/// `x`.
fn with_gradient(
    x: &Tensor,
    y: &Tensor,
    backward: impl Fn(&Tensor) -> Result<Tensor> + Send + Sync + 'static,
) -> Result<Tensor> {
    if x.track_op() { x.apply_op2(y, WithGradient(backward)) } else { Ok(y.clone()) }
}

/// Passes its second argument on; the gradient goes to the first.
struct WithGradient<F>(F);

impl<F: Fn(&Tensor) -> Result<Tensor>> CustomOp2 for WithGradient<F> {
    fn name(&self) -> &'static str {
        "with-gradient"
    }

    fn cpu_fwd(
        &self,
        _x: &CpuStorage,
        _x_layout: &Layout,
        y: &CpuStorage,
        y_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Ok((y.try_clone(y_layout)?, y_layout.shape().clone()))
    }

    fn cuda_fwd(
        &self,
        _x: &CudaStorage,
        _x_layout: &Layout,
        y: &CudaStorage,
        y_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        Ok((y.try_clone(y_layout)?, y_layout.shape().clone()))
    }

    fn bwd(
        &self,
        _x: &Tensor,
        _y: &Tensor,
        _result: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some((self.0)(grad)?), None))
    }
}
