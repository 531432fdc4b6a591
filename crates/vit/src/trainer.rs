use std::{collections::BTreeMap, path::Path, time::Duration};

use candle_core::{DType, Device, Tensor, backprop::GradStore};
use kernels::Isa;

use crate::{
    Adam, Batch, Draws, Model, Noise, Precision, Recipe, VitError, cross_entropy, gradient_norm, native,
    parameters::scalar,
};

/// The training step of a model: gradient and update, and what they remember.
///
/// On the CPU and on NVIDIA GPUs the step is written out (`native`, `cuda`); elsewhere it is candle's autograd.
#[derive(Debug)]
pub struct Trainer(Step);

#[derive(Debug)]
enum Step {
    Native(Box<native::Trainer>),
    #[cfg(feature = "cuda")]
    Cuda(crate::cuda::Member),
    Autograd(Autograd),
}

/// What the gradient of a batch amounts to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gradient {
    /// Mean of the images' weighted cross-entropies in nats.
    pub loss: f64,
    /// Images whose most probable class is that of the target.
    pub correct: usize,
    /// L2 norm over all parameters.
    pub norm: f64,
}

impl Trainer {
    /// For `model` as it is, with moments of zero, in the fastest way there is for its device.
    ///
    /// # Errors
    /// If `FMSTUDY_ISA` asks for an instruction set that this processor lacks, or the device has no step in `precision`.
    pub fn new(model: &Model, recipe: &Recipe, precision: Precision) -> Result<Self, VitError> {
        #[cfg(feature = "cuda")]
        if let Some(member) = crate::cuda::members(&[model], recipe, precision)?.and_then(|mut members| members.pop()) {
            return Ok(Self(Step::Cuda(member)));
        }
        if model.device().is_cpu() && model.dtype() == DType::F32 {
            let computed = (Isa::choose()?, precision.into());
            return Ok(Self(Step::Native(Box::new(native::Trainer::new(computed, model, recipe)?))));
        }
        match precision {
            Precision::F32 => Self::autograd(model, recipe),
            Precision::Bf16 => Err(VitError::key("train.precision", precision, "f32 on this device")),
        }
    }

    /// One for each of `models`, which lie on one device and learn from the same batches. On a GPU they take their steps at
    /// once.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn together(models: &[&Model], recipe: &Recipe, precision: Precision) -> Result<Vec<Self>, VitError> {
        #[cfg(feature = "cuda")]
        if let Some(members) = crate::cuda::members(models, recipe, precision)? {
            return Ok(members.into_iter().map(|member| Self(Step::Cuda(member))).collect());
        }
        models.iter().map(|model| Self::new(model, recipe, precision)).collect()
    }

    /// Bytes of its device's memory that training `model` with batches of `images` takes, nearly; on the CPU with `threads`
    /// threads.
    pub fn bytes(model: &Model, images: usize, threads: usize) -> u64 {
        #[cfg(feature = "cuda")]
        if model.device().is_cuda() {
            return crate::cuda::Trainer::bytes(model, images);
        }
        native::Trainer::bytes(model, images, threads)
    }

    /// Bytes of a GPU's memory that are free; none where the runs' memory is the machine's.
    #[cfg_attr(not(feature = "cuda"), expect(unused_variables, reason = "there is no other memory"))]
    pub fn free_bytes(device: &Device) -> Option<u64> {
        #[cfg(feature = "cuda")]
        return crate::cuda::free_bytes(device);
        #[cfg(not(feature = "cuda"))]
        None
    }

    /// Its part in the step on a GPU, if that is where it is taken.
    #[cfg(feature = "cuda")]
    pub(crate) const fn member(&self) -> Option<&crate::cuda::Member> {
        match &self.0 {
            Step::Cuda(member) => Some(member),
            Step::Native(_) | Step::Autograd(_) => None,
        }
    }

    /// By candle's autograd, whatever the device.
    ///
    /// # Errors
    /// If the device fails.
    pub fn autograd(model: &Model, recipe: &Recipe) -> Result<Self, VitError> {
        let adam = Adam::new(recipe, model.parameters())?;
        Ok(Self(Step::Autograd(Autograd { recipe: recipe.clone(), adam, gradients: None })))
    }

    /// Loss of `batch` in step `step`, which counts from 1, and the gradient, which is kept for [`update`](Self::update). `draws`
    /// decides what is dropped. Trainers that were made [`together`](Self::together) have one batch for each step.
    ///
    /// # Errors
    /// If the batch is not what the model reads, or the device fails.
    #[cfg_attr(not(feature = "cuda"), expect(unused_variables, reason = "only runs on a GPU take their steps at once"))]
    pub fn gradient(
        &mut self,
        model: &Model,
        batch: &Batch,
        draws: &mut Draws,
        step: usize,
    ) -> Result<Gradient, VitError> {
        match &mut self.0 {
            Step::Native(trainer) => Ok(trainer.gradient(batch, &batch.tokens_for(model.about())?, draws)),
            #[cfg(feature = "cuda")]
            Step::Cuda(member) => member.gradient(batch, step),
            Step::Autograd(trainer) => trainer.gradient(model, batch, draws),
        }
    }

    /// What the last [`gradient`](Self::gradient), which took `asked` to come, took of this run's time: where several are computed at
    /// once, each has its share of what the first had to wait for.
    pub(crate) fn share(&self, asked: Duration) -> Duration {
        match &self.0 {
            #[cfg(feature = "cuda")]
            Step::Cuda(member) => member.share(),
            Step::Native(_) | Step::Autograd(_) => asked,
        }
    }

    /// Moves the weights along the gradient multiplied by `gradient_scale` (below 1 when it is clipped). `step` counts
    /// from 1. The model sees them after [`write_to`](Self::write_to).
    ///
    /// # Errors
    /// If a parameter received no gradient, or the device fails.
    pub fn update(&mut self, model: &Model, gradient_scale: f64, lr: f64, step: usize) -> Result<(), VitError> {
        match &mut self.0 {
            Step::Native(trainer) => trainer.update(gradient_scale, lr, step),
            #[cfg(feature = "cuda")]
            Step::Cuda(member) => member.update(gradient_scale, lr, step)?,
            Step::Autograd(trainer) => trainer.update(model, gradient_scale, lr, step)?,
        }
        Ok(())
    }

    /// Hands the present weights to `model`.
    ///
    /// # Errors
    /// If the device fails.
    pub fn write_to(&self, model: &Model) -> Result<(), VitError> {
        match &self.0 {
            Step::Native(trainer) => trainer.write_to(model),
            #[cfg(feature = "cuda")]
            Step::Cuda(member) => member.write_to(model),
            Step::Autograd(_) => Ok(()),
        }
    }

    /// Gradient of the last batch by parameter, in the parameter's layout; nothing before the first.
    ///
    /// # Errors
    /// If the device fails.
    pub fn gradients(&self, model: &Model) -> Result<BTreeMap<String, Vec<f32>>, VitError> {
        match &self.0 {
            Step::Native(trainer) => {
                Ok(trainer.gradients().map(|(name, values)| (name.to_owned(), values.to_vec())).collect())
            }
            #[cfg(feature = "cuda")]
            Step::Cuda(member) => member.gradients(),
            Step::Autograd(trainer) => {
                let mut gradients = BTreeMap::new();
                for (name, var) in model.parameters().iter() {
                    if let Some(gradient) = trainer.gradients.as_ref().and_then(|gradients| gradients.get(var)) {
                        let values = gradient.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
                        gradients.insert(name.to_owned(), values);
                    }
                }
                Ok(gradients)
            }
        }
    }

    /// L2 norm of all weights together.
    pub(crate) fn weight_norm(&self, model: &Model) -> Result<f64, VitError> {
        match &self.0 {
            Step::Native(trainer) => Ok(trainer.weight_norm()),
            #[cfg(feature = "cuda")]
            Step::Cuda(member) => member.weight_norm(),
            Step::Autograd(_) => crate::adam::weight_norm(model.parameters()),
        }
    }

    /// The moments by name: `adam.mean.NAME` and `adam.square.NAME`.
    pub(crate) fn moments(&self) -> Result<BTreeMap<String, Tensor>, VitError> {
        match &self.0 {
            Step::Native(trainer) => trainer.moments(),
            #[cfg(feature = "cuda")]
            Step::Cuda(member) => member.moments(),
            Step::Autograd(trainer) => Ok(trainer.adam.tensors().collect()),
        }
    }

    /// Takes the weights of `model`, and the moments in `tensors`, which come from the file `path`.
    pub(crate) fn restore(
        &mut self,
        model: &Model,
        tensors: &BTreeMap<String, Tensor>,
        path: &Path,
    ) -> Result<(), VitError> {
        match &mut self.0 {
            Step::Native(trainer) => trainer.restore(model, tensors, path),
            #[cfg(feature = "cuda")]
            Step::Cuda(member) => member.restore(model, tensors, path),
            Step::Autograd(trainer) => trainer.adam.restore(tensors, path),
        }
    }
}

/// The step by candle's autograd.
#[derive(Debug)]
struct Autograd {
    recipe: Recipe,
    adam: Adam,
    gradients: Option<GradStore>,
}

impl Autograd {
    fn gradient(&mut self, model: &Model, batch: &Batch, draws: &mut Draws) -> Result<Gradient, VitError> {
        let mut noise = Noise::from(draws, model.about().model.dropout, self.recipe.drop_path);
        let logits = model.training_logits(&batch.token_tensors(model)?, &mut noise)?; // (B, K)
        let loss = cross_entropy(&logits, &batch.target_tensor(model)?, &batch.weights, self.recipe.label_smoothing)?;
        let gradients = loss.mean.backward()?;
        let norm = gradient_norm(model.parameters(), &gradients)?;
        self.gradients = Some(gradients);
        Ok(Gradient { loss: scalar(&loss.mean)?, correct: loss.correct, norm })
    }

    fn update(&mut self, model: &Model, gradient_scale: f64, lr: f64, step: usize) -> Result<(), VitError> {
        match &self.gradients {
            Some(gradients) => self.adam.step(model.parameters(), gradients, gradient_scale, lr, step),
            None => Err(VitError::NoGradient { name: "any".to_owned() }),
        }
    }
}
