//! Ten simulated annotators per face, as FERPlus had ten people.

use rand::{Rng, RngExt};

use crate::{expression::Expression, faces::Face};

/// Votes per image.
pub const ANNOTATORS: u8 = 10;

/// The columns of FERPlus's vote tables: the eight expressions, then these two.
pub const VOTE_COLUMNS: [&str; 10] =
    ["neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt", "unknown", "NF"];

/// Whoever cannot tell.
const UNKNOWN: usize = 8;

/// What an annotator who misreads the expression says instead, as weights over the first nine columns. The pairs that
/// FERPlus's annotators confuse most are here too: fear and surprise, sadness and neutral, disgust and anger.
#[rustfmt::skip]
fn misreadings(expression: Expression) -> [u32; 9] {
    match expression {
        //                       neu hap sur sad ang dis fea con unk
        Expression::Neutral   => [0, 3, 2, 6, 3, 0, 0, 3, 2],
        Expression::Happiness => [6, 0, 2, 0, 0, 0, 0, 2, 1],
        Expression::Surprise  => [2, 2, 0, 0, 0, 0, 6, 0, 1],
        Expression::Sadness   => [6, 0, 0, 0, 2, 1, 2, 1, 1],
        Expression::Anger     => [5, 0, 0, 2, 0, 3, 0, 1, 1],
        Expression::Disgust   => [2, 0, 0, 2, 5, 0, 0, 1, 1],
        Expression::Fear      => [1, 0, 7, 2, 0, 0, 0, 0, 1],
        Expression::Contempt  => [6, 4, 0, 0, 1, 1, 0, 0, 1],
    }
}

/// Lets `ANNOTATORS` people look at `face`; answers their counts in the order of [`VOTE_COLUMNS`].
pub(crate) fn vote(face: &Face, rng: &mut impl Rng) -> [u8; VOTE_COLUMNS.len()] {
    // A weak expression is read less surely, and some pictures are harder than others. A face at rest has no
    // intensity; its own number stands for how much at rest it looks.
    let sureness = 0.55 + 0.35 * face.intensity() + rng.random_range(-0.06..0.08);
    let misreadings = misreadings(face.expression());
    let total: u32 = misreadings.iter().sum();
    let mut counts = [0; VOTE_COLUMNS.len()];
    for _ in 0..ANNOTATORS {
        let column = if rng.random_bool(f64::from(sureness)) {
            face.expression() as usize
        } else {
            pick(&misreadings, rng.random_range(0..total))
        };
        counts[column] += 1;
    }
    counts
}

/// The column in which the `ticket`th of all weights lies.
fn pick(weights: &[u32], ticket: u32) -> usize {
    let mut passed = 0;
    weights
        .iter()
        .position(|weight| {
            passed += weight;
            ticket < passed
        })
        .unwrap_or(UNKNOWN)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn votes_sum_to_ten_and_mostly_have_the_right_majority() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        for expression in Expression::ALL {
            let mut agreeing = 0;
            for _ in 0..200 {
                let counts = vote(&Face::sample(expression, &mut rng), &mut rng);
                assert_eq!(counts.iter().sum::<u8>(), ANNOTATORS);
                agreeing += usize::from(counts[expression as usize] * 2 > ANNOTATORS);
            }
            assert!((150..200).contains(&agreeing), "{expression:?}: {agreeing} of 200");
        }
    }

    #[test]
    fn tickets_fall_by_weight() {
        assert_eq!([0, 1, 2, 3].map(|ticket| pick(&[2, 0, 2], ticket)), [0, 0, 2, 2]);
    }
}
