//! Action units: which facial muscles pull, and how strongly on either side.
//!
//! Units and their numbers are those of the Facial Action Coding System (P. Ekman, W. V. Friesen, *Facial Action
//! Coding System*, Consulting Psychologists Press, 1978; its table 11-1 gives combinations for emotions). The
//! combination used here for each emotion is the common short list derived from it, see
//! <https://en.wikipedia.org/wiki/Affective_computing#Facial_Action_Coding_System>.

use rand::{Rng, RngExt};

use crate::expression::Expression;

/// One action unit of FACS; the comment gives its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// 1
    InnerBrowRaiser,
    /// 2
    OuterBrowRaiser,
    /// 4
    BrowLowerer,
    /// 5
    UpperLidRaiser,
    /// 6
    CheekRaiser,
    /// 7
    LidTightener,
    /// 9
    NoseWrinkler,
    /// 12
    LipCornerPuller,
    /// 14
    Dimpler,
    /// 15
    LipCornerDepressor,
    /// 16
    LowerLipDepressor,
    /// 20
    LipStretcher,
    /// 23
    LipTightener,
    /// 25
    LipsPart,
    /// 26
    JawDrop,
}

use Unit::*;

const UNITS: usize = JawDrop as usize + 1;

/// The side of the picture, not of the person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::Left, Self::Right];

    /// -1 left, 1 right: the sign of x on this side of the face.
    pub(crate) fn sign(self) -> f32 {
        match self {
            Self::Left => -1.0,
            Self::Right => 1.0,
        }
    }
}

/// The units of an expression with their weight at full intensity.
fn prototype(expression: Expression) -> &'static [(Unit, f32)] {
    match expression {
        Expression::Neutral => &[],
        Expression::Happiness => &[(CheekRaiser, 1.0), (LipCornerPuller, 1.0)],
        Expression::Surprise => {
            &[(InnerBrowRaiser, 1.0), (OuterBrowRaiser, 1.0), (UpperLidRaiser, 0.8), (JawDrop, 1.0)]
        }
        Expression::Sadness => &[(InnerBrowRaiser, 1.0), (BrowLowerer, 0.8), (LipCornerDepressor, 1.0)],
        Expression::Anger => &[(BrowLowerer, 1.0), (UpperLidRaiser, 0.5), (LidTightener, 0.9), (LipTightener, 1.0)],
        Expression::Disgust => &[(NoseWrinkler, 1.0), (LipCornerDepressor, 0.7), (LowerLipDepressor, 1.0)],
        Expression::Fear => &[
            (InnerBrowRaiser, 0.9),
            (OuterBrowRaiser, 0.5),
            (BrowLowerer, 0.8),
            (UpperLidRaiser, 1.0),
            (LipStretcher, 1.0),
            (JawDrop, 0.75),
        ],
        // R12A + R14A: the letter A means a trace, and only one side acts.
        Expression::Contempt => &[(LipCornerPuller, 0.75), (Dimpler, 1.0)],
    }
}

/// The strength of every unit on either side, 0 at rest, about 1 at most.
#[derive(Debug, Clone)]
pub(crate) struct Actions([[f32; 2]; UNITS]);

impl Actions {
    /// Draws one person's way of showing `expression`. `intensity` runs from 0 (at rest) to 1.
    pub(crate) fn sample(expression: Expression, intensity: f32, rng: &mut impl Rng) -> Self {
        let mut strengths = [[0.0; 2]; UNITS];
        // No face is ever quite at rest: a little of everything, squared so that most of it is next to nothing.
        for strength in &mut strengths {
            *strength = [0.16 * rng.random::<f32>().powi(2); 2];
        }
        let acting_side = if rng.random_bool(0.5) { Side::Left } else { Side::Right };
        for &(unit, weight) in prototype(expression) {
            let mut pull = intensity * weight * rng.random_range(0.8..1.15);
            if rng.random_bool(0.06) {
                pull *= 0.35; // one sign of the expression may be all but absent
            }
            for side in Side::BOTH {
                let acts = expression != Expression::Contempt || side == acting_side;
                if acts {
                    strengths[unit as usize][side as usize] += pull * rng.random_range(0.88..1.0);
                }
            }
        }
        // Smiles and angry mouths show their teeth about half the time; FACS codes that apart, as 25.
        let parts_lips = match expression {
            Expression::Happiness => rng.random_bool(0.6),
            Expression::Disgust => rng.random_bool(0.5),
            _ => false,
        };
        if parts_lips {
            let pull = intensity * rng.random_range(0.4..1.0);
            strengths[LipsPart as usize] = [pull; 2];
        }
        Self(strengths)
    }

    /// The strength of `unit` on `side`.
    pub(crate) fn on(&self, unit: Unit, side: Side) -> f32 {
        self.0[unit as usize][side as usize]
    }

    /// The mean strength of `unit` over both sides, for what lies on the middle line.
    pub(crate) fn mean(&self, unit: Unit) -> f32 {
        let [left, right] = self.0[unit as usize];
        0.5 * (left + right)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn mean_over_faces(expression: Expression, unit: Unit) -> f32 {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        (0..200).map(|_| Actions::sample(expression, 0.8, &mut rng).mean(unit)).sum::<f32>() / 200.0
    }

    #[test]
    fn each_expression_pulls_its_own_units() {
        for expression in Expression::ALL {
            for &(unit, _) in prototype(expression) {
                let (acting, at_rest) = (mean_over_faces(expression, unit), mean_over_faces(Expression::Neutral, unit));
                assert!(acting > at_rest + 0.15, "{expression:?} {unit:?}: {acting} against {at_rest}");
            }
        }
    }

    #[test]
    fn only_contempt_is_one_sided() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        for expression in [Expression::Happiness, Expression::Contempt] {
            let actions = Actions::sample(expression, 1.0, &mut rng);
            let difference = actions.on(LipCornerPuller, Side::Left) - actions.on(LipCornerPuller, Side::Right);
            assert_eq!(difference.abs() > 0.2, expression == Expression::Contempt, "{expression:?}: {difference}");
        }
    }
}
