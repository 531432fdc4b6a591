use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor, Var};

use crate::Draws;

/// The trainable tensors by name, in the order of their names.
///
/// Names and layouts are those of timm's `VisionTransformer`: a linear layer's weight is (out, in).
#[derive(Clone, Debug, Default)]
pub struct Parameters(BTreeMap<String, Var>);

impl Parameters {
    /// All of them, in the order of their names: the order of every sum over parameters.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.0.iter().map(|(name, var)| (name.as_str(), var))
    }

    /// The parameter of that name.
    pub fn get(&self, name: &str) -> Option<&Var> {
        self.0.get(name)
    }

    /// How many tensors there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many numbers they hold.
    pub fn elements(&self) -> usize {
        self.0.values().map(|var| var.elem_count()).sum()
    }
}

/// How a parameter starts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Init {
    /// Normal, cut at two deviations, of this standard deviation.
    Normal(f64),
    /// The same number everywhere.
    Constant(f64),
}

/// Makes parameters as the network asks for them, or hands out those that exist.
pub(crate) struct Builder<'a> {
    source: Source<'a>,
    prefix: String,
}

enum Source<'a> {
    New { parameters: &'a mut Parameters, draws: &'a mut Draws, dtype: DType, device: &'a Device },
    Detached(&'a Parameters),
    Listed(&'a mut Vec<(String, Vec<usize>)>),
}

impl<'a> Builder<'a> {
    /// Makes new parameters of `dtype` on `device`, drawn from `draws` in the order in which they are asked for.
    pub(crate) fn new(parameters: &'a mut Parameters, draws: &'a mut Draws, dtype: DType, device: &'a Device) -> Self {
        Self { source: Source::New { parameters, draws, dtype, device }, prefix: String::new() }
    }

    /// Hands out existing parameters as plain tensors that share their storage: a forward pass over them
    /// sees every update and keeps no activation for a backward pass.
    pub(crate) fn detached(parameters: &'a Parameters) -> Self {
        Self { source: Source::Detached(parameters), prefix: String::new() }
    }

    /// Lists the names and shapes of what is asked for, and hands out tensors without numbers in their place.
    pub(crate) fn listed(shapes: &'a mut Vec<(String, Vec<usize>)>) -> Self {
        Self { source: Source::Listed(shapes), prefix: String::new() }
    }

    /// The same builder with `name.` before every name.
    pub(crate) fn under(&mut self, name: &str) -> Builder<'_> {
        let source = match &mut self.source {
            Source::New { parameters, draws, dtype, device } => {
                Source::New { parameters, draws, dtype: *dtype, device }
            }
            Source::Detached(parameters) => Source::Detached(parameters),
            Source::Listed(shapes) => Source::Listed(shapes),
        };
        Builder { source, prefix: format!("{}{name}.", self.prefix) }
    }

    /// The parameter `name`.
    pub(crate) fn get(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Tensor> {
        let name = format!("{}{name}", self.prefix);
        match &mut self.source {
            Source::New { parameters, draws, dtype, device } => {
                let value = match init {
                    Init::Normal(std) => draws.truncated_normal(shape, std, *dtype, device)?,
                    Init::Constant(value) => Tensor::full(value, shape, device)?.to_dtype(*dtype)?,
                };
                let var = Var::from_tensor(&value)?;
                let tensor = var.as_tensor().clone();
                parameters.0.insert(name, var);
                Ok(tensor)
            }
            Source::Detached(parameters) => match parameters.get(&name) {
                Some(var) => Ok(var.as_detached_tensor()),
                None => candle_core::bail!("no parameter `{name}`"),
            },
            Source::Listed(shapes) => {
                shapes.push((name, shape.to_vec()));
                Tensor::zeros(0, DType::F32, &Device::Cpu)
            }
        }
    }
}

/// The one number of `tensor`.
pub(crate) fn scalar(tensor: &Tensor) -> Result<f64> {
    tensor.to_dtype(DType::F64)?.to_scalar()
}
