use crate::{Batch, Held, Model, Predictor, VitError};

/// An answer of each model to each image: its logits (K).
pub type Answers = Vec<Vec<Vec<f32>>>;

/// The answers of several models to the same batches, without what training needs. On a GPU all are computed at once.
#[derive(Debug)]
pub struct Predictors<'a>(Kind<'a>);

#[derive(Debug)]
enum Kind<'a> {
    EachByItself(Vec<Predictor<'a>>),
    /// By groups.
    #[cfg(feature = "cuda")]
    Cuda(Vec<crate::cuda::AnswersOfGroup>),
}

impl<'a> Predictors<'a> {
    /// Of `models` as they are now, which lie on one device.
    ///
    /// # Errors
    /// If `FMSTUDY_ISA` asks for an instruction set that this processor lacks, or the device fails.
    pub fn new(models: &[&'a Model]) -> Result<Self, VitError> {
        #[cfg(feature = "cuda")]
        if let Some(groups) = crate::cuda::answers(models)? {
            return Ok(Self(Kind::Cuda(groups)));
        }
        let each = models.iter().map(|model| Predictor::new(model)).collect::<Result<_, _>>()?;
        Ok(Self(Kind::EachByItself(each)))
    }

    /// The same, reading what is `held` where the models lie. Only who answers on a GPU can: others miss it in their batches.
    #[cfg_attr(not(feature = "cuda"), expect(unused_variables, unused_mut, reason = "nothing is held elsewhere"))]
    #[cfg_attr(not(feature = "cuda"), expect(clippy::missing_const_for_fn, reason = "it is the other's twin"))]
    #[must_use]
    pub fn reading(mut self, held: &[Held]) -> Self {
        #[cfg(feature = "cuda")]
        if let Kind::Cuda(groups) = &mut self.0 {
            for (_, answers) in groups {
                held.iter().for_each(|held| held.tokens.lend_to_answers(answers));
            }
        }
        self
    }

    /// Bytes of a GPU's memory that asking `model` about batches of `images` takes beside others, nearly; none elsewhere.
    #[cfg_attr(not(feature = "cuda"), expect(unused_variables, reason = "there is no other memory"))]
    pub fn bytes(model: &Model, images: usize) -> u64 {
        #[cfg(feature = "cuda")]
        if model.device().is_cuda() && crate::cuda::is_written_out(model.about()) {
            return crate::cuda::Answers::bytes(model, images);
        }
        0
    }

    /// Logits (K) of each image of `batch`, for each model.
    ///
    /// # Errors
    /// If the batch is not what a model reads, or the device fails.
    pub fn logits(&mut self, batch: &Batch) -> Result<Answers, VitError> {
        match &mut self.0 {
            Kind::EachByItself(each) => each.iter_mut().map(|predictor| predictor.logits(batch)).collect(),
            #[cfg(feature = "cuda")]
            Kind::Cuda(groups) => {
                let mut logits = vec![Vec::new(); groups.iter().map(|(places, _)| places.len()).sum()];
                for (places, answers) in groups {
                    for (place, of_model) in places.iter().zip(answers.logits(batch)?) {
                        logits[*place] = of_model;
                    }
                }
                Ok(logits)
            }
        }
    }
}
