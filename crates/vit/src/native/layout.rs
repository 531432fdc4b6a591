use std::{collections::BTreeMap, ops::Range};

use candle_core::Tensor;

use crate::{Parameters, VitError};

/// Where each parameter lies among all trainable numbers, which are one stretch of memory in the order of their names.
#[derive(Clone, Debug)]
pub(crate) struct Layout(BTreeMap<String, (Slot, Vec<usize>)>);

/// A place in a stretch of memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    start: usize,
    len: usize,
}

impl Slot {
    pub(crate) const fn new(start: usize, len: usize) -> Self {
        Self { start, len }
    }

    pub(crate) const fn range(self) -> Range<usize> {
        self.start..self.start + self.len
    }

    /// Its part of `numbers`.
    pub(crate) fn of(self, numbers: &[f32]) -> &[f32] {
        &numbers[self.range()]
    }

    /// Its part of `numbers`.
    pub(crate) fn of_mut(self, numbers: &mut [f32]) -> &mut [f32] {
        &mut numbers[self.range()]
    }
}

impl Layout {
    pub(crate) fn new(parameters: &Parameters) -> Self {
        let mut start = 0;
        let place = |(name, var): (&str, &candle_core::Var)| {
            let slot = Slot::new(start, var.elem_count());
            start += slot.len;
            (name.to_owned(), (slot, var.dims().to_vec()))
        };
        Self(parameters.iter().map(place).collect())
    }

    /// How many numbers there are.
    pub(crate) fn len(&self) -> usize {
        self.0.values().map(|(slot, _)| slot.len).sum()
    }

    /// The parameter `name`.
    pub(crate) fn slot(&self, name: &str) -> Result<Slot, VitError> {
        let missing = || candle_core::Error::Msg(format!("no parameter `{name}`"));
        Ok(self.0.get(name).ok_or_else(missing)?.0)
    }

    /// Names, places and shapes, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, Slot, &[usize])> {
        self.0.iter().map(|(name, (slot, shape))| (name.as_str(), *slot, shape.as_slice()))
    }

    /// `numbers` cut into the parameters, for threads to write to.
    pub(crate) fn cut<'a>(&self, mut numbers: &'a mut [f32]) -> Parts<'a> {
        let part = |(slot, _): &(Slot, Vec<usize>)| {
            let (part, rest) = std::mem::take(&mut numbers).split_at_mut(slot.len);
            numbers = rest;
            (slot.start, part)
        };
        Parts(self.0.values().map(part).collect())
    }

    /// Copies the values of `parameters` into `numbers`.
    pub(crate) fn read(&self, parameters: &Parameters, numbers: &mut [f32]) -> Result<(), VitError> {
        for (name, var) in parameters.iter() {
            let values = var.as_detached_tensor().flatten_all()?.to_vec1::<f32>()?;
            self.slot(name)?.of_mut(numbers).copy_from_slice(&values);
        }
        Ok(())
    }

    /// Copies `numbers` into `parameters`.
    pub(crate) fn write(&self, numbers: &[f32], parameters: &Parameters) -> Result<(), VitError> {
        for (name, var) in parameters.iter() {
            var.set(&Tensor::from_slice(self.slot(name)?.of(numbers), var.shape(), var.device())?)?;
        }
        Ok(())
    }
}

/// The parameters' parts of a stretch of memory, each with where it begins, until they are taken.
#[derive(Debug)]
pub(crate) struct Parts<'a>(Vec<(usize, &'a mut [f32])>);

impl<'a> Parts<'a> {
    /// The part at `slot`.
    ///
    /// # Panics
    /// If no parameter lies there, or it is taken already.
    pub(crate) fn take(&mut self, slot: Slot) -> &'a mut [f32] {
        let index = self.0.partition_point(|(start, _)| *start < slot.start);
        let part = std::mem::take(&mut self.0[index].1);
        assert_eq!(part.len(), slot.len, "a parameter's part of the gradient");
        part
    }
}
