//! Where a person's features lie when their muscles pull: action units become curves in face units.
//!
//! The displacements are our own, chosen by looking at the drawn faces until the expressions could be told apart;
//! each follows the direction that FACS describes for its unit. y grows downwards, so raising is negative.

use crate::{
    actions::{Actions, Side, Unit},
    person::Person,
    sdf::{Path, Point, point},
};

/// One brow, from its inner to its outer end.
#[derive(Debug, Clone)]
pub(crate) struct Brow {
    pub(crate) inner: Point,
    pub(crate) middle: Point,
    pub(crate) outer: Point,
}

impl Brow {
    fn new(person: &Person, actions: &Actions, side: Side) -> Self {
        let pull = |unit| actions.on(unit, side);
        let (raise_inner, raise_outer) = (pull(Unit::InnerBrowRaiser), pull(Unit::OuterBrowRaiser));
        let (lower, wrinkle) = (pull(Unit::BrowLowerer), pull(Unit::NoseWrinkler));
        // Against a raised inner brow the brow lowerer only draws the brows together: the oblique brow of sadness.
        let lower_inner = lower * (1.0 - 0.8 * raise_inner.min(1.0));
        let rest = EYE_Y - person.brow_height;
        let at = |x: f32, y: f32| point(side.sign() * x, rest + y);
        Self {
            inner: at(0.20 - 0.06 * lower, 0.03 - 0.17 * raise_inner + 0.21 * lower_inner + 0.10 * wrinkle),
            middle: at(
                person.eye_spacing + 0.02,
                -person.brow_arch - 0.09 * raise_inner - 0.12 * raise_outer + 0.12 * lower + 0.06 * wrinkle,
            ),
            outer: at(0.74, 0.03 - 0.16 * raise_outer + 0.05 * lower),
        }
    }
}

/// One eye.
#[derive(Debug, Clone)]
pub(crate) struct Eye {
    pub(crate) centre: Point,
    /// Half the width between its corners.
    pub(crate) half_width: f32,
    /// From the centre up to the upper lid.
    pub(crate) above: f32,
    /// From the centre down to the lower lid.
    pub(crate) below: f32,
}

impl Eye {
    fn new(person: &Person, actions: &Actions, side: Side) -> Self {
        let pull = |unit| actions.on(unit, side);
        let (widen, cheek, tighten) = (pull(Unit::UpperLidRaiser), pull(Unit::CheekRaiser), pull(Unit::LidTightener));
        let wrinkle = pull(Unit::NoseWrinkler);
        let above =
            0.125 + 0.085 * widen - 0.035 * cheek - 0.03 * tighten - 0.06 * wrinkle - 0.02 * pull(Unit::BrowLowerer);
        let below = 0.085 + 0.025 * widen - 0.065 * cheek - 0.05 * tighten - 0.05 * wrinkle;
        Self {
            centre: point(side.sign() * person.eye_spacing, EYE_Y),
            half_width: 0.23 * person.eye_size,
            above: above.max(0.02) * person.eye_size,
            below: below.max(0.01) * person.eye_size,
        }
    }

    /// The inner corner and the outer one, which lies a little higher.
    pub(crate) fn corners(&self) -> (Point, Point) {
        let outward = self.half_width * self.centre.x.signum();
        (self.centre + point(-outward, 0.015), self.centre + point(outward, -0.015))
    }

    /// The opening between the lids.
    pub(crate) fn opening(&self) -> Path {
        let (inner, outer) = self.corners();
        Path::lens(inner, self.centre - point(0.0, self.above), self.centre + point(0.0, self.below), outer)
    }
}

/// The mouth: all its curves run from the left corner to the right one.
#[derive(Debug, Clone)]
pub(crate) struct Mouth {
    centre: Point,
    half_width: f32,
    /// How far the left and right corners lie below the centre.
    drop: [f32; 2],
    /// From the seam up to the upper lip's lower edge, at the middle.
    open_above: f32,
    /// From the seam down to the lower lip's upper edge, at the middle.
    open_below: f32,
    upper_lip: f32,
    lower_lip: f32,
}

impl Mouth {
    fn new(person: &Person, actions: &Actions) -> Self {
        let pull = |unit| actions.mean(unit);
        let (smile, stretch, jaw) = (pull(Unit::LipCornerPuller), pull(Unit::LipStretcher), pull(Unit::JawDrop));
        let (tighten, part) = (pull(Unit::LipTightener), pull(Unit::LipsPart));
        let (wrinkle, lower) = (pull(Unit::NoseWrinkler), pull(Unit::LowerLipDepressor));
        // A falling jaw rounds the mouth unless the lips are stretched.
        let round = jaw * (1.0 - 0.9 * stretch.min(1.0));
        let width = 1.0 + 0.28 * smile + 0.34 * stretch - 0.28 * tighten - 0.34 * round;
        let drop = Side::BOTH.map(|side| {
            let on = |unit| actions.on(unit, side);
            person.mouth_droop - 0.20 * on(Unit::LipCornerPuller) - 0.10 * on(Unit::Dimpler)
                + 0.17 * on(Unit::LipCornerDepressor)
                + 0.05 * stretch
        });
        let thickness = person.lip_fullness * (1.0 - 0.65 * tighten.min(1.0));
        Self {
            centre: point(0.0, person.mouth_y + 0.03 * smile - 0.06 * wrinkle - 0.02 * part),
            half_width: person.mouth_width * width,
            drop,
            open_above: 0.05 * jaw + 0.07 * wrinkle * lower + 0.02 * part,
            open_below: 0.30 * jaw * (1.0 - 0.35 * stretch.min(1.0)) + 0.13 * part + 0.13 * lower,
            upper_lip: 0.05 * thickness,
            lower_lip: 0.075 * thickness * (1.0 + 0.5 * lower),
        }
    }

    /// A point at `along` (-1 left corner, 1 right corner), `below` the seam.
    fn at(&self, along: f32, below: f32) -> Point {
        // Each corner bends only its own half, and mostly near its end.
        let (side, weight) = (if along < 0.0 { Side::Left } else { Side::Right }, along.abs().powf(1.6));
        let bend = self.drop[side as usize] * weight;
        self.centre + point(along * self.half_width, bend + below)
    }

    /// A curve that lies on the seam at both corners and `below` it in the middle.
    fn curve(&self, below: f32) -> impl DoubleEndedIterator<Item = Point> {
        const STEPS: i32 = 8;
        (-STEPS..=STEPS).map(move |step| {
            let along = step as f32 / STEPS as f32;
            self.at(along, below * (1.0 - along * along))
        })
    }

    fn between(&self, above: f32, below: f32) -> Path {
        Path::new(self.curve(-above).chain(self.curve(below).rev()).collect())
    }

    /// Both lips, with whatever opening lies between them.
    pub(crate) fn lips(&self) -> Path {
        self.between(self.open_above + self.upper_lip, self.open_below + self.lower_lip)
    }

    /// The opening between the lips.
    pub(crate) fn opening(&self) -> Path {
        self.between(self.open_above, self.open_below)
    }

    /// The line on which closed lips meet.
    pub(crate) fn seam(&self) -> Path {
        Path::new(self.curve(0.5 * (self.open_below - self.open_above)).collect())
    }

    /// How far the lips are apart in the middle.
    pub(crate) fn gap(&self) -> f32 {
        self.open_above + self.open_below
    }

    /// The height of the upper teeth's edge when `length` of them shows.
    pub(crate) fn upper_teeth_y(&self, length: f32) -> f32 {
        self.centre.y - self.open_above + length
    }

    /// The height of the lower teeth's edge when `length` of them shows.
    pub(crate) fn lower_teeth_y(&self, length: f32) -> f32 {
        self.centre.y + self.open_below - length
    }

    /// The corner on `side`.
    pub(crate) fn corner(&self, side: Side) -> Point {
        self.at(side.sign(), 0.0)
    }
}

/// The line of the eyes.
const EYE_Y: f32 = -0.20;

/// All features of one face.
#[derive(Debug, Clone)]
pub(crate) struct Anatomy {
    pub(crate) brows: [Brow; 2],
    pub(crate) eyes: [Eye; 2],
    /// Where the nostrils lie, on the middle line.
    pub(crate) nose: Point,
    /// Half the width between the nostrils' wings.
    pub(crate) nose_width: f32,
    pub(crate) mouth: Mouth,
    /// The chin.
    pub(crate) chin_y: f32,
}

impl Anatomy {
    /// Moves `person`'s features as `actions` pull them.
    pub(crate) fn new(person: &Person, actions: &Actions) -> Self {
        let wrinkle = actions.mean(Unit::NoseWrinkler);
        Self {
            brows: Side::BOTH.map(|side| Brow::new(person, actions, side)),
            eyes: Side::BOTH.map(|side| Eye::new(person, actions, side)),
            nose: point(0.0, EYE_Y + person.nose_length - 0.05 * wrinkle),
            nose_width: 0.15 + 0.04 * wrinkle + 0.02 * actions.mean(Unit::LipCornerPuller),
            mouth: Mouth::new(person, actions),
            chin_y: person.head_height + 0.10 * actions.mean(Unit::JawDrop),
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::expression::Expression;

    /// The mean of `measure` over many people who show `expression` clearly.
    fn mean(expression: Expression, measure: fn(&Anatomy) -> f32) -> f32 {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let total: f32 = (0..200)
            .map(|_| {
                let person = Person::sample(&mut rng);
                measure(&Anatomy::new(&person, &Actions::sample(expression, 0.9, &mut rng)))
            })
            .sum();
        total / 200.0
    }

    fn corner_drop(anatomy: &Anatomy) -> f32 {
        Side::BOTH.map(|side| anatomy.mouth.corner(side).y - anatomy.mouth.centre.y).iter().sum::<f32>() / 2.0
    }

    fn brow_slant(anatomy: &Anatomy) -> f32 {
        anatomy.brows[0].inner.y - anatomy.brows[0].outer.y
    }

    fn eye_opening(anatomy: &Anatomy) -> f32 {
        anatomy.eyes[0].above + anatomy.eyes[0].below
    }

    #[test]
    fn mouth_corners_rise_in_happiness_and_fall_in_sadness() {
        let at_rest = mean(Expression::Neutral, corner_drop);
        assert!(mean(Expression::Happiness, corner_drop) < at_rest - 0.1);
        assert!(mean(Expression::Sadness, corner_drop) > at_rest + 0.1);
    }

    #[test]
    fn inner_brows_fall_in_anger_and_rise_in_sadness() {
        let at_rest = mean(Expression::Neutral, brow_slant);
        assert!(mean(Expression::Anger, brow_slant) > at_rest + 0.08);
        assert!(mean(Expression::Sadness, brow_slant) < at_rest - 0.08);
    }

    #[test]
    fn eyes_widen_in_surprise_and_fear_and_narrow_in_happiness() {
        let at_rest = mean(Expression::Neutral, eye_opening);
        assert!(mean(Expression::Surprise, eye_opening) > at_rest + 0.05);
        assert!(mean(Expression::Fear, eye_opening) > at_rest + 0.05);
        assert!(mean(Expression::Happiness, eye_opening) < at_rest - 0.05);
    }

    #[test]
    fn the_mouth_gapes_in_surprise_and_is_wider_in_fear() {
        let gap = |expression| mean(expression, |anatomy| anatomy.mouth.gap());
        let width = |expression| mean(expression, |anatomy| anatomy.mouth.half_width);
        assert!(gap(Expression::Surprise) > gap(Expression::Fear));
        assert!(gap(Expression::Fear) > gap(Expression::Neutral) + 0.05);
        assert!(width(Expression::Fear) > width(Expression::Surprise) + 0.1);
    }
}
