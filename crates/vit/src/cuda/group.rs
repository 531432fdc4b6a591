//! One trainer for several runs, each of which has an owner who knows nothing of the others.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    path::Path,
    rc::Rc,
    time::{Duration, Instant},
};

use candle_core::Tensor;
use gpu::Machine;
use sources::Source;

use super::{Trainer, sources::Stock};
use crate::{Batch, Gradient, Model, VitError};

/// A run in a group. Whoever asks first for the gradient of a step has it computed for all; updates are put off until somebody
/// needs the weights, and then done for all.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    group: Rc<RefCell<Group>>,
    run: usize,
}

#[derive(Debug)]
pub(super) struct Group {
    trainer: Trainer,
    runs: usize,
    /// The step whose gradients are there, and those that nobody has asked for.
    step: usize,
    gradients: Vec<Option<Gradient>>,
    /// What each run that takes part is charged with of the time that they took.
    share: Duration,
    put_off: Option<Update>,
}

/// An update of those runs that have a scale.
#[derive(Debug)]
struct Update {
    step: usize,
    lr: f64,
    scales: Vec<Option<f64>>,
}

impl Member {
    /// One for each run of `trainer`.
    pub(crate) fn all(trainer: Trainer) -> Vec<Self> {
        let runs = trainer.runs();
        let group = Group { trainer, runs, step: 0, gradients: vec![None; runs], share: Duration::ZERO, put_off: None };
        let group = Rc::new(RefCell::new(group));
        (0..runs).map(|run| Self { group: Rc::clone(&group), run }).collect()
    }

    pub(super) const fn group(&self) -> &Rc<RefCell<Group>> {
        &self.group
    }

    /// Loss and gradient in step `step` of `batch`, which is that of all runs that are at this step.
    pub(crate) fn gradient(&self, batch: &Batch, step: usize) -> Result<Gradient, VitError> {
        let group = &mut *self.group.borrow_mut();
        // As many as asked the last time, and all at first: a run that has ended, or waits for others to catch up, does not ask.
        let learning = group.gradients.iter().filter(|gradient| gradient.is_none()).count();
        let known = group.gradients[self.run].take().filter(|_| group.step == step);
        if let Some(gradient) = known {
            return Ok(gradient);
        }
        group.gradients.fill(None);
        let begun = Instant::now();
        let gradients = group.up_to_date()?.gradient(batch)?;
        group.share = begun.elapsed() / learning.max(1) as u32;
        group.step = step;
        group.gradients = gradients.into_iter().map(Some).collect();
        group.gradients[self.run].take().ok_or_else(|| VitError::NoGradient { name: "any".to_owned() })
    }

    /// This run's share of the time that the last gradient took.
    pub(crate) fn share(&self) -> Duration {
        self.group.borrow().share
    }

    /// Moves the weights along the gradient multiplied by `gradient_scale`. `step` counts from 1.
    pub(crate) fn update(&self, gradient_scale: f64, lr: f64, step: usize) -> Result<(), VitError> {
        let group = &mut *self.group.borrow_mut();
        if group.put_off.as_ref().is_some_and(|update| (update.step, update.lr) != (step, lr)) {
            group.up_to_date()?;
        }
        let runs = group.runs;
        let update = group.put_off.get_or_insert_with(|| Update { step, lr, scales: vec![None; runs] });
        update.scales[self.run] = Some(gradient_scale);
        Ok(())
    }

    /// L2 norm of all weights together.
    pub(crate) fn weight_norm(&self) -> Result<f64, VitError> {
        self.group.borrow_mut().up_to_date()?.weight_norm(self.run)
    }

    /// Hands the present weights to `model`.
    pub(crate) fn write_to(&self, model: &Model) -> Result<(), VitError> {
        self.group.borrow_mut().up_to_date()?.write_to(self.run, model)
    }

    /// Gradient of the last batch by parameter, in the parameter's layout.
    pub(crate) fn gradients(&self) -> Result<BTreeMap<String, Vec<f32>>, VitError> {
        self.group.borrow().trainer.gradients(self.run)
    }

    /// The moments by name: `adam.mean.NAME` and `adam.square.NAME`.
    pub(crate) fn moments(&self) -> Result<BTreeMap<String, Tensor>, VitError> {
        self.group.borrow_mut().up_to_date()?.moments(self.run)
    }

    /// Takes the weights of `model`, and the moments in `tensors`, which come from the file `path`.
    pub(crate) fn restore(
        &self,
        model: &Model,
        tensors: &BTreeMap<String, Tensor>,
        path: &Path,
    ) -> Result<(), VitError> {
        self.group.borrow_mut().up_to_date()?.restore(self.run, model, tensors, path)
    }
}

impl Group {
    pub(super) fn machine(&self) -> &dyn Machine {
        self.trainer.machine()
    }

    /// Reads the tokens of `source` in `stock` from now on.
    pub(super) fn hold(&mut self, source: Source, stock: &Rc<Stock>) {
        self.trainer.hold(source, stock);
    }

    /// The trainer with all updates done.
    fn up_to_date(&mut self) -> Result<&mut Trainer, VitError> {
        if let Some(Update { step, lr, scales }) = self.put_off.take() {
            self.trainer.update(&scales, lr, step)?;
        }
        Ok(&mut self.trainer)
    }
}
