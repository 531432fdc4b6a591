use crate::{
    annotation::Votes,
    classes::{EMOTIONS, Emotion},
};
use choice::choice;

choice! {
    /// How ten annotators' votes become a label, as Barsoum et al. (2016) define it and their code does it
    /// (`ferplus.py` in microsoft/FERPlus).
    ///
    /// Every rule first sets counts of one or none to zero, in all ten columns.
    #[derive(Default)]
    pub enum LabelRule for "data.labels" {
        /// The most voted column, if it has strictly more than half of the votes that remain.
        #[default]
        Majority = "majority",
        /// The most voted of the eight emotions, however few voted for it; the first of several.
        Plurality = "plurality",
        /// The distribution of votes over the leading emotions, from which training draws one class each
        /// time that it shows the image.
        Probability = "probability",
        /// The same distribution, learnt as a soft target.
        Crossentropy = "crossentropy",
    }
}

/// A weight for each of the eight emotions, or none when the annotators agreed on no emotion.
type Weights = Option<[u8; EMOTIONS]>;

impl LabelRule {
    /// What the votes say under this rule.
    pub(crate) fn weights(self, votes: &Votes) -> Weights {
        let votes = votes.without_single_votes();
        match self {
            Self::Majority => majority(&votes),
            Self::Plurality => plurality(&votes),
            Self::Probability | Self::Crossentropy => leading(votes),
        }
    }
}

/// The position of the largest count; the first of several, as numpy's `argmax` has it.
pub(crate) fn first_maximum<T: PartialOrd>(counts: &[T]) -> usize {
    (1..counts.len()).fold(0, |best, index| if counts[index] > counts[best] { index } else { best })
}

fn majority(votes: &[u8; Votes::COLUMNS]) -> Weights {
    let winner = first_maximum(votes);
    (winner < EMOTIONS && 2 * u32::from(votes[winner]) > total(votes)).then(|| only(Emotion::ALL[winner]))
}

fn plurality(votes: &[u8; Votes::COLUMNS]) -> Weights {
    let winner = first_maximum(&votes[..EMOTIONS]);
    (votes[winner] > 0).then(|| only(Emotion::ALL[winner]))
}

/// `ferplus.py`'s loop: takes the most voted columns, ties together, until three quarters of the votes are
/// accounted for or three columns are taken. A non-emotion ends it, and counts only if nothing was taken
/// before it. More than three columns, or no more than half of the votes, say nothing.
fn leading(mut votes: [u8; Votes::COLUMNS]) -> Weights {
    let all = total(&votes);
    let mut taken = [0u8; Votes::COLUMNS];
    let (mut accounted, mut columns, mut emotions_only) = (0, 0, true);
    while 4 * accounted < 3 * all && columns < 3 && emotions_only {
        let most = votes[first_maximum(&votes)];
        for column in 0..Votes::COLUMNS {
            if votes[column] != most {
                continue;
            }
            taken[column] = most;
            votes[column] = 0;
            accounted += u32::from(most);
            columns += 1;
            if column >= EMOTIONS {
                emotions_only = false;
                if total(&taken) > u32::from(most) {
                    taken[column] = 0;
                    columns -= 1;
                }
                break;
            }
        }
    }
    if 2 * total(&taken) <= all || columns > 3 || first_maximum(&taken) >= EMOTIONS {
        return None;
    }
    let mut weights = [0; EMOTIONS];
    weights.copy_from_slice(&taken[..EMOTIONS]);
    Some(weights)
}

fn total(votes: &[u8; Votes::COLUMNS]) -> u32 {
    votes.iter().copied().map(u32::from).sum()
}

/// All weight on one emotion.
pub(crate) fn only(emotion: Emotion) -> [u8; EMOTIONS] {
    let mut weights = [0; EMOTIONS];
    weights[emotion as usize] = 1;
    weights
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn majority_needs_strictly_more_than_half_of_what_remains() {
        let majority = |votes| LabelRule::Majority.weights(&Votes(votes)).map(|weights| first_maximum(&weights));
        assert_eq!(majority([5, 0, 0, 5, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(majority([5, 0, 0, 3, 1, 1, 0, 0, 0, 0]), Some(0), "single votes do not count against it");
        assert_eq!(majority([1, 2, 1, 1, 1, 1, 1, 1, 1, 0]), Some(1));
        assert_eq!(majority([3, 0, 0, 0, 0, 0, 0, 0, 7, 0]), None, "unknown won");
        assert_eq!(majority([0, 0, 0, 0, 0, 0, 0, 0, 0, 10]), None, "not a face won");
        assert_eq!(majority([4, 0, 0, 0, 0, 0, 0, 0, 4, 0]), None, "non-emotions count towards the sum");
        assert_eq!(majority([1, 1, 1, 1, 1, 1, 1, 1, 1, 1]), None);
    }

    #[test]
    fn plurality_looks_at_the_emotions_only() {
        let plurality = |votes| LabelRule::Plurality.weights(&Votes(votes)).map(|weights| first_maximum(&weights));
        assert_eq!(plurality([0, 0, 3, 3, 0, 0, 0, 0, 4, 0]), Some(2), "the first of two");
        assert_eq!(plurality([1, 1, 0, 0, 0, 0, 0, 0, 8, 0]), None);
    }

    #[test]
    fn soft_rules_keep_the_leading_emotions() {
        let soft = |votes| LabelRule::Crossentropy.weights(&Votes(votes));
        assert_eq!(soft([8, 2, 0, 0, 0, 0, 0, 0, 0, 0]), Some([8, 0, 0, 0, 0, 0, 0, 0]), "8 of 10 is enough");
        assert_eq!(soft([5, 3, 2, 0, 0, 0, 0, 0, 0, 0]), Some([5, 3, 0, 0, 0, 0, 0, 0]));
        assert_eq!(soft([4, 3, 3, 0, 0, 0, 0, 0, 0, 0]), Some([4, 3, 3, 0, 0, 0, 0, 0]), "ties enter together");
        assert_eq!(soft([4, 2, 2, 2, 0, 0, 0, 0, 0, 0]), None, "four columns are too many");
        assert_eq!(soft([5, 0, 0, 0, 0, 0, 0, 0, 5, 0]), None, "unknown is set aside, half is not enough");
        assert_eq!(soft([4, 0, 0, 0, 0, 0, 0, 0, 2, 0]), Some([4, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(soft([2, 0, 0, 0, 0, 0, 0, 0, 8, 0]), None, "unknown won");
        assert_eq!(soft([1, 1, 1, 1, 1, 1, 1, 1, 1, 1]), None);
    }

    /// `_process_data` of `ferplus.py` with `mode = crossentropy`, line by line in floating point.
    fn reference(votes: [u8; 10]) -> Option<Vec<f64>> {
        let mut raw = votes.map(|count| if count <= 1 { 0.0 } else { f64::from(count) });
        let sum_list: f64 = raw.iter().sum();
        let mut emotion = [0.0; 10];
        let (mut sum_part, mut count, mut valid_emotion) = (0.0, 0, true);
        while sum_part < 0.75 * sum_list && count < 3 && valid_emotion {
            let maxval = raw.iter().copied().fold(f64::MIN, f64::max);
            for i in 0..10 {
                if raw[i] == maxval {
                    emotion[i] = maxval;
                    raw[i] = 0.0;
                    sum_part += emotion[i];
                    count += 1;
                    if i >= 8 {
                        valid_emotion = false;
                        if emotion.iter().sum::<f64>() > maxval {
                            emotion[i] = 0.0;
                            count -= 1;
                        }
                        break;
                    }
                }
            }
        }
        let sum: f64 = emotion.iter().sum();
        if sum <= 0.5 * sum_list || count > 3 || first_maximum(&emotion) >= 8 {
            return None;
        }
        Some(emotion[..8].iter().map(|weight| weight / sum).collect())
    }

    proptest! {
        #[test]
        fn soft_rules_agree_with_the_published_code(votes in prop::array::uniform10(0u8..6)) {
            let weights = LabelRule::Probability.weights(&Votes(votes));
            prop_assert_eq!(weights.is_some(), reference(votes).is_some());
            for (weights, reference) in weights.into_iter().zip(reference(votes)) {
                let taken: u32 = weights.iter().copied().map(u32::from).sum();
                for (weight, expected) in weights.iter().zip(&reference) {
                    prop_assert!((f64::from(*weight) / f64::from(taken) - expected).abs() < 1e-12);
                }
            }
        }
    }
}
