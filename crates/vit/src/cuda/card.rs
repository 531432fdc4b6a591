use candle_core::{CudaDevice, DType, Device};
use gpu::{Card, Constants};

use super::{Answers, Member, Trainer, constants, is_written_out, supports};
use crate::{Model, Precision, Recipe, VitError};

/// A member for each of `models`, which lie on one GPU; none where the step is not written out. Those whose kernels are the same
/// make a group.
pub(crate) fn members(
    models: &[&Model],
    recipe: &Recipe,
    precision: Precision,
) -> Result<Option<Vec<Member>>, VitError> {
    let Some(Device::Cuda(device)) = models.first().map(|model| model.device()) else { return Ok(None) };
    let is_supported = |model: &&Model| model.dtype() == DType::F32 && supports(model.about(), recipe);
    if !models.iter().all(is_supported) {
        return Ok(None);
    }
    let mut members: Vec<(usize, Member)> = Vec::with_capacity(models.len());
    for Group { card, places, models } in groups(models, device, precision)? {
        let trainer = Trainer::new(Box::new(card), &models, recipe, precision)?;
        members.extend(places.into_iter().zip(Member::all(trainer)));
    }
    members.sort_by_key(|(index, _)| *index);
    Ok(Some(members.into_iter().map(|(_, member)| member).collect()))
}

/// The answers of some models, with their places among all.
pub(crate) type AnswersOfGroup = (Vec<usize>, Answers);

/// The answers of `models`, which lie on one GPU, by groups of those whose kernels are the same; none where the network is not
/// written out.
pub(crate) fn answers(models: &[&Model]) -> Result<Option<Vec<AnswersOfGroup>>, VitError> {
    let Some(Device::Cuda(device)) = models.first().map(|model| model.device()) else { return Ok(None) };
    if !models.iter().all(|model| model.dtype() == DType::F32 && is_written_out(model.about())) {
        return Ok(None);
    }
    let of_group = |Group { card, places, models }| Ok((places, Answers::new(Box::new(card), &models)?));
    groups(models, device, Precision::F32)?.into_iter().map(of_group).collect::<Result<_, _>>().map(Some)
}

/// Models whose kernels are the same, with their places among all, and the card with these kernels.
struct Group<'a> {
    card: Card,
    places: Vec<usize>,
    models: Vec<&'a Model>,
}

fn groups<'a>(models: &[&'a Model], device: &CudaDevice, precision: Precision) -> Result<Vec<Group<'a>>, VitError> {
    let mut groups: Vec<(Constants, Group<'a>)> = Vec::new();
    for (place, model) in models.iter().enumerate() {
        let of_model = constants(model.about(), precision);
        if let Some((_, group)) = groups.iter_mut().find(|(constants, _)| *constants == of_model) {
            group.places.push(place);
            group.models.push(model);
            continue;
        }
        let card = Card::new(&device.cuda_stream(), &of_model.program())?;
        groups.push((of_model, Group { card, places: vec![place], models: vec![*model] }));
    }
    Ok(groups.into_iter().map(|(_, group)| group).collect())
}

/// Bytes that are free on the GPU `device`; none if it is none.
pub(crate) fn free_bytes(device: &Device) -> Option<u64> {
    let Device::Cuda(device) = device else { return None };
    // From a GPU that has failed nothing can be had; the next to ask is told why.
    Some(gpu::free_bytes(&device.cuda_stream()).unwrap_or(0))
}
