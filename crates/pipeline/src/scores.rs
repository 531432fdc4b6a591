//! What predictions are worth.

use serde::{Deserialize, Serialize};
use statistics::wilson_95;

/// A share of correct answers with its 95% interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Correct answers.
    pub correct: u64,
    /// Answers in all.
    pub images: u64,
    /// Their ratio; none if there are no answers.
    pub accuracy: Option<f64>,
    /// Wilson's 95% interval.
    pub interval_95: [f64; 2],
}

impl Accuracy {
    /// `correct` of `images`.
    pub fn new(correct: u64, images: u64) -> Self {
        let accuracy = (images > 0).then(|| correct as f64 / images as f64);
        Self { correct, images, accuracy, interval_95: wilson_95(correct, images) }
    }
}

/// How one class fares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassScore {
    /// Its name.
    pub class: String,
    /// Images of it.
    pub images: u64,
    /// Share of the images predicted as it that are of it; 0 if none is predicted.
    pub precision: f64,
    /// Share of its images predicted as it.
    pub recall: f64,
    /// Harmonic mean of the two.
    pub f1: f64,
}

/// All scores on one split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Over all images.
    pub overall: Accuracy,
    /// Mean recall over the classes that have images.
    pub balanced_accuracy: f64,
    /// Mean F1 over the classes that have images.
    pub macro_f1: f64,
    /// Per class.
    pub classes: Vec<ClassScore>,
    /// Images by true class (rows) and predicted class (columns).
    pub confusion: Vec<Vec<u64>>,
}

impl Scores {
    /// Scores of pairs (true class, predicted class).
    pub fn new(names: &[&str], answers: &[(usize, usize)]) -> Self {
        let mut confusion = vec![vec![0; names.len()]; names.len()];
        for (truth, predicted) in answers {
            confusion[*truth][*predicted] += 1;
        }
        let ratio = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        let classes: Vec<ClassScore> = names
            .iter()
            .enumerate()
            .map(|(class, name)| {
                let hits = confusion[class][class];
                let images = confusion[class].iter().sum();
                let predicted = confusion.iter().map(|row| row[class]).sum();
                let (precision, recall) = (ratio(hits, predicted), ratio(hits, images));
                let f1 = ratio(2 * hits, images + predicted);
                ClassScore { class: (*name).to_owned(), images, precision, recall, f1 }
            })
            .collect();
        let present: Vec<&ClassScore> = classes.iter().filter(|class| class.images > 0).collect();
        let mean = |of: fn(&ClassScore) -> f64| {
            present.iter().map(|class| of(class)).sum::<f64>() / present.len().max(1) as f64
        };
        let correct = answers.iter().filter(|(truth, predicted)| truth == predicted).count();
        Self {
            overall: Accuracy::new(correct as u64, answers.len() as u64),
            balanced_accuracy: mean(|class| class.recall),
            macro_f1: mean(|class| class.f1),
            classes,
            confusion,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_intervals_are_those_of_the_literature() {
        // Newcombe 1998 (https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E),
        // table I, method 3: 81/263 and 0/20.
        let close = |got: f64, expected: f64| assert!((got - expected).abs() < 5e-5, "{got}, expected {expected}");
        let some = Accuracy::new(81, 263).interval_95;
        close(some[0], 0.2553);
        close(some[1], 0.3662);
        let nobody_asked = Accuracy::new(0, 0);
        assert_eq!((nobody_asked.accuracy, nobody_asked.interval_95), (None, [0.0, 1.0]));
        let none = Accuracy::new(0, 20).interval_95;
        close(none[0], 0.0);
        close(none[1], 0.1611);
    }

    #[test]
    fn scores_of_a_small_confusion_matrix() {
        let answers = [(0, 0), (0, 0), (0, 1), (1, 1), (1, 0), (1, 1)];
        let scores = Scores::new(&["a", "b", "c"], &answers);
        assert_eq!(scores.confusion, [[2, 1, 0], [1, 2, 0], [0, 0, 0]]);
        assert_eq!((scores.overall.correct, scores.overall.images), (4, 6));
        assert!((scores.balanced_accuracy - 2.0 / 3.0).abs() < 1e-12, "the absent class does not count");
        assert!((scores.classes[0].f1 - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(scores.classes[2].precision, 0.0);
    }
}
