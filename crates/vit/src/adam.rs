use std::{collections::BTreeMap, path::Path};

use candle_core::{DType, Tensor, backprop::GradStore};
use kernels::AdamStep;

use crate::{Optimizer, Parameters, Recipe, VitError, model::stored};

/// Adam and AdamW, as PyTorch computes them, with moments that can be stored.
///
/// Kingma & Ba 2015, algorithm 1, <https://arxiv.org/abs/1412.6980>; Loshchilov & Hutter 2019, algorithm 2,
/// <https://arxiv.org/abs/1711.05101>.
#[derive(Clone, Debug)]
pub struct Adam {
    optimizer: Optimizer,
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    weight_decay: f64,
    moments: BTreeMap<String, Moments>,
}

/// Running means of a parameter's gradient and of its square.
#[derive(Clone, Debug)]
struct Moments {
    mean: Tensor,
    square: Tensor,
}

/// The numbers of step `step`, counted from 1, for parameters of which `weight_decay` applies to the marked ones, with the
/// gradient multiplied by `gradient_scale`.
pub(crate) fn adam_step(recipe: &Recipe, gradient_scale: f64, lr: f64, step: usize, weight_decay: f64) -> AdamStep {
    let Recipe { optimizer, beta1, beta2, epsilon, .. } = *recipe;
    let exponent = step as f64;
    AdamStep {
        gradient_scale: gradient_scale as f32,
        gradient_decay: if optimizer == Optimizer::Adam { weight_decay as f32 } else { 0.0 },
        weight_scale: if optimizer == Optimizer::AdamW { (1.0 - lr * weight_decay) as f32 } else { 1.0 },
        beta1: beta1 as f32,
        beta1_rest: (1.0 - beta1) as f32,
        beta2: beta2 as f32,
        beta2_rest: (1.0 - beta2) as f32,
        rate: (lr / (1.0 - beta1.powf(exponent))) as f32,
        root_scale: (1.0 / (1.0 - beta2.powf(exponent)).sqrt()) as f32,
        epsilon: epsilon as f32,
    }
}

impl Adam {
    /// Moments of zero for every parameter.
    pub fn new(recipe: &Recipe, parameters: &Parameters) -> Result<Self, VitError> {
        let moments = parameters
            .iter()
            .map(|(name, var)| {
                let zeros = var.as_tensor().zeros_like()?;
                Ok((name.to_owned(), Moments { mean: zeros.clone(), square: zeros }))
            })
            .collect::<Result<_, candle_core::Error>>()?;
        Ok(Self {
            optimizer: recipe.optimizer,
            beta1: recipe.beta1,
            beta2: recipe.beta2,
            epsilon: recipe.epsilon,
            weight_decay: recipe.weight_decay,
            moments,
        })
    }

    /// Moves `parameters` along the gradients multiplied by `gradient_scale` (below 1 when they are clipped).
    /// `step` counts from 1, for the correction of the moments' bias.
    pub fn step(
        &mut self,
        parameters: &Parameters,
        gradients: &GradStore,
        gradient_scale: f64,
        lr: f64,
        step: usize,
    ) -> Result<(), VitError> {
        let exponent = step as f64;
        let mean_correction = 1.0 - self.beta1.powf(exponent);
        let square_correction = (1.0 - self.beta2.powf(exponent)).sqrt();
        for (name, var) in parameters.iter() {
            let missing = || VitError::NoGradient { name: name.to_owned() };
            let gradient = gradients.get(var).ok_or_else(missing)?;
            let moments = self.moments.get_mut(name).ok_or_else(missing)?;
            let decay = if var.rank() >= 2 { self.weight_decay } else { 0.0 };
            // A parameter's gradient still knows what it was computed from. The moments outlive the step, and with
            // them would all that, of every step.
            let mut gradient = (gradient.detach() * gradient_scale)?;
            let mut weight = var.as_detached_tensor();
            if decay > 0.0 {
                match self.optimizer {
                    Optimizer::Adam => gradient = (gradient + (&weight * decay)?)?,
                    Optimizer::AdamW => weight = (weight * (1.0 - lr * decay))?,
                }
            }
            moments.mean = ((&moments.mean * self.beta1)? + (&gradient * (1.0 - self.beta1))?)?;
            moments.square = ((&moments.square * self.beta2)? + (gradient.sqr()? * (1.0 - self.beta2))?)?;
            let root = ((moments.square.sqrt()? / square_correction)? + self.epsilon)?;
            let update = ((&moments.mean / root)? * (lr / mean_correction))?;
            var.set(&(weight - update)?)?;
        }
        Ok(())
    }

    /// The moments by name: `adam.mean.NAME` and `adam.square.NAME`.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = (String, Tensor)> {
        self.moments.iter().flat_map(|(name, moments)| {
            [
                (format!("adam.mean.{name}"), moments.mean.clone()),
                (format!("adam.square.{name}"), moments.square.clone()),
            ]
        })
    }

    /// Overwrites the moments with those stored in the file `path`.
    pub(crate) fn restore(&mut self, tensors: &BTreeMap<String, Tensor>, path: &Path) -> Result<(), VitError> {
        for (name, moments) in &mut self.moments {
            let shape = moments.mean.dims();
            let mean = stored(tensors, &format!("adam.mean.{name}"), shape, path)?.clone();
            let square = stored(tensors, &format!("adam.square.{name}"), shape, path)?.clone();
            *moments = Moments { mean, square };
        }
        Ok(())
    }
}

/// L2 norm of all gradients together, summed in double precision in the order of the parameters' names.
pub fn gradient_norm(parameters: &Parameters, gradients: &GradStore) -> Result<f64, VitError> {
    norm(parameters.iter().filter_map(|(_, var)| gradients.get(var)))
}

/// L2 norm of all weights together.
pub(crate) fn weight_norm(parameters: &Parameters) -> Result<f64, VitError> {
    norm(parameters.iter().map(|(_, var)| var.as_tensor()))
}

fn norm<'a>(tensors: impl Iterator<Item = &'a Tensor>) -> Result<f64, VitError> {
    let squares = tensors
        .map(|tensor| tensor.detach().sqr()?.sum_all()?.to_dtype(DType::F64))
        .collect::<Result<Vec<Tensor>, _>>()?;
    // Stacked first: a GPU is waited for once, not once for every parameter.
    let squares = Tensor::stack(&squares, 0)?.to_vec1::<f64>()?;
    Ok(squares.iter().sum::<f64>().sqrt())
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::{Draws, Input, ModelConfig, Noise, network::Network, parameters::Builder};

    #[test]
    fn moments_and_weights_keep_nothing_of_the_steps_behind_them() {
        let config = ModelConfig { width: 8, depth: 1, heads: 2, layer_scale: 0.1, ..ModelConfig::default() };
        let inputs = [Input { source: sources::Source::Fm4, token_width: 4 }];
        let (mut parameters, mut draws) = (Parameters::default(), Draws::new(0, 0));
        let builder = Builder::new(&mut parameters, &mut draws, DType::F32, &Device::Cpu);
        let network = Network::new(builder, &config, &inputs, 3).unwrap();
        let mut adam = Adam::new(&Recipe::robust(), &parameters).unwrap();
        for step in 1..=2 {
            let tokens = Tensor::ones((2, 49, 4), DType::F32, &Device::Cpu).unwrap();
            let logits = network.forward(&[tokens], &mut Noise::off()).unwrap();
            let gradients = logits.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            let tracked = |var: &Var| gradients.get(var).is_some_and(|gradient| gradient.track_op());
            assert!(parameters.iter().any(|(_, var)| tracked(var)), "candle's gradients track their origin");
            adam.step(&parameters, &gradients, 1.0, 0.01, step).unwrap();
        }
        for (name, tensor) in adam.tensors() {
            assert!(!tensor.track_op(), "{name}");
        }
    }
}
