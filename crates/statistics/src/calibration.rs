use serde::{Deserialize, Serialize};

/// Bins of a reliability diagram, as in Guo et al. (2017), <https://arxiv.org/abs/1706.04599>.
pub const BINS: usize = 15;

/// Answers whose confidence is alike.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// How many there are.
    pub answers: usize,
    /// Mean probability of the class that was answered.
    pub confidence: f64,
    /// Share of correct ones.
    pub accuracy: f64,
}

/// Answers (confidence, whether correct) in [`BINS`] bins of equal width, each from its lower end exclusively to its upper end
/// inclusively; none where a bin is empty.
pub fn reliability(answers: &[(f64, bool)]) -> Vec<Option<Bin>> {
    let mut sums = vec![(0_usize, 0.0, 0_usize); BINS];
    for (confidence, correct) in answers {
        let bin = ((confidence * BINS as f64).ceil() as usize).clamp(1, BINS) - 1;
        let (count, confidences, hits) = &mut sums[bin];
        *count += 1;
        *confidences += confidence;
        *hits += usize::from(*correct);
    }
    let bin = |(answers, confidences, hits): (usize, f64, usize)| {
        let share = 1.0 / answers as f64;
        (answers > 0).then_some(Bin { answers, confidence: confidences * share, accuracy: hits as f64 * share })
    };
    sums.into_iter().map(bin).collect()
}

/// How far confidence and accuracy lie apart, averaged over all answers (Guo et al. 2017, equation 3); none without answers.
pub fn expected_calibration_error(bins: &[Option<Bin>]) -> Option<f64> {
    let all: usize = bins.iter().flatten().map(|bin| bin.answers).sum();
    let apart = |bin: &Bin| bin.answers as f64 * (bin.accuracy - bin.confidence).abs();
    (all > 0).then(|| bins.iter().flatten().map(apart).sum::<f64>() / all as f64)
}
