use crate::{
    annotation::Annotation,
    classes::{ClassSet, EMOTIONS, Emotion},
    rule::{LabelRule, first_maximum, only},
    split::Split,
};

/// What a classifier is to answer for an image: a probability for each class, summing to one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    probabilities: [f32; EMOTIONS],
    classes: ClassSet,
}

impl Target {
    /// One probability per class, in class order.
    pub fn probabilities(&self) -> &[f32] {
        &self.probabilities[..self.classes.len()]
    }

    /// The most probable class; the first of several.
    pub fn class(&self) -> usize {
        first_maximum(self.probabilities())
    }
}

/// The target of an image, or none if it does not take part: its winner is unknown, not a face or outside
/// `classes`, the annotators did not agree as `rule` demands, or there is no label.
///
/// `rule` is for training. Validation and test images count by majority whatever it says, so that results
/// under different rules are comparable; a class folder is one vote that everybody shares.
pub fn target(annotation: &Annotation, rule: LabelRule, classes: ClassSet, split: Split) -> Option<Target> {
    let rule = if split == Split::Train { rule } else { LabelRule::Majority };
    let weights = match annotation {
        Annotation::Votes(votes) => rule.weights(votes)?,
        Annotation::Class(emotion) => only(*emotion),
        Annotation::None => return None,
    };
    classes.index_of(Emotion::ALL[first_maximum(&weights)])?;
    let mut probabilities = [0.0; EMOTIONS];
    for (probability, emotion) in probabilities.iter_mut().zip(classes.emotions()) {
        *probability = f32::from(weights[*emotion as usize]);
    }
    let sum: f32 = probabilities.iter().sum();
    Some(Target { probabilities: probabilities.map(|weight| weight / sum), classes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::annotation::Votes;

    const MIXED: Annotation = Annotation::Votes(Votes([5, 3, 0, 0, 0, 2, 0, 0, 0, 0]));

    #[test]
    fn training_follows_the_rule_and_evaluation_the_majority() {
        let train = target(&MIXED, LabelRule::Crossentropy, ClassSet::Six, Split::Train).unwrap();
        assert_eq!(train.probabilities(), [0.625, 0.375, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(train.class(), 0);
        for split in [Split::Valid, Split::Test] {
            assert_eq!(target(&MIXED, LabelRule::Crossentropy, ClassSet::Six, split), None, "5 of 10 is no majority");
        }
    }

    #[test]
    fn six_classes_drop_a_disgusted_winner_and_renormalise_a_disgusted_minority() {
        let disgusted = Annotation::Votes(Votes([0, 0, 0, 0, 3, 7, 0, 0, 0, 0]));
        assert_eq!(target(&disgusted, LabelRule::Crossentropy, ClassSet::Six, Split::Train), None);
        let eight = target(&disgusted, LabelRule::Crossentropy, ClassSet::Eight, Split::Train).unwrap();
        assert_eq!(eight.probabilities(), [0.0, 0.0, 0.0, 0.0, 0.3, 0.7, 0.0, 0.0]);
        let angry = Annotation::Votes(Votes([0, 0, 0, 0, 6, 4, 0, 0, 0, 0]));
        let six = target(&angry, LabelRule::Crossentropy, ClassSet::Six, Split::Train).unwrap();
        assert_eq!(six.probabilities(), [0.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn a_class_folder_is_a_certain_label() {
        let fear = Annotation::Class(Emotion::Fear);
        let target_of = |rule| target(&fear, rule, ClassSet::Six, Split::Train).unwrap();
        for rule in LabelRule::ALL {
            assert_eq!(target_of(*rule).probabilities(), [0.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
        }
        let contempt = Annotation::Class(Emotion::Contempt);
        assert_eq!(target(&contempt, LabelRule::Majority, ClassSet::Six, Split::Test), None);
        assert_eq!(target(&Annotation::None, LabelRule::Plurality, ClassSet::Eight, Split::Train), None);
    }
}
