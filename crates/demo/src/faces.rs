//! A face: who, how strongly, seen how.

use rand::{Rng, RngExt};

pub use crate::canvas::FACE_SIZE_PX;
use crate::{
    actions::Actions,
    camera::Camera,
    canvas::View,
    expression::Expression,
    paint::{Scene, paint},
    person::Person,
};

/// The parameters of one drawn face.
#[derive(Debug, Clone)]
pub struct Face {
    expression: Expression,
    intensity: f32,
    person: Person,
    actions: Actions,
    scene: Scene,
    view: View,
    camera: Camera,
}

impl Face {
    /// Draws the parameters of a face that shows `expression`.
    pub fn sample(expression: Expression, rng: &mut impl Rng) -> Self {
        let intensity = rng.random_range(WEAKEST..1.0);
        Self {
            expression,
            intensity,
            person: Person::sample(rng),
            actions: Actions::sample(expression, intensity, rng),
            scene: Scene::sample(rng),
            view: View::sample(rng),
            camera: Camera::sample(rng),
        }
    }

    /// What it shows.
    pub fn expression(&self) -> Expression {
        self.expression
    }

    /// How strongly, from 0.6 to 1.
    pub fn intensity(&self) -> f32 {
        self.intensity
    }

    /// The picture: `FACE_SIZE_PX` rows of as many grey bytes. `rng` makes the sensor's noise.
    pub fn render(&self, rng: &mut impl Rng) -> Vec<u8> {
        let tones = paint(&self.person, &self.actions, &self.scene, &self.view);
        self.camera.develop(&tones, rng)
    }
}

/// Weaker expressions look neutral at 48 px.
const WEAKEST: f32 = 0.6;

/// Draws a 48×48 grey face that shows `expression`; everything else about it is random.
///
/// ```
/// use rand::SeedableRng;
///
/// let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
/// let pixels = demo::draw(demo::Expression::Happiness, &mut rng);
/// assert_eq!(pixels.len(), demo::FACE_SIZE_PX * demo::FACE_SIZE_PX);
/// ```
pub fn draw(expression: Expression, rng: &mut impl Rng) -> Vec<u8> {
    Face::sample(expression, rng).render(rng)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_face() {
        let face = |seed| draw(Expression::Fear, &mut ChaCha8Rng::seed_from_u64(seed));
        assert_eq!(face(1), face(1));
        assert_ne!(face(1), face(2));
    }

    #[test]
    fn expressions_of_the_same_person_differ() {
        let faces: Vec<Vec<u8>> =
            Expression::ALL.map(|expression| draw(expression, &mut ChaCha8Rng::seed_from_u64(5))).into();
        for (index, face) in faces.iter().enumerate() {
            assert_eq!(face.len(), FACE_SIZE_PX * FACE_SIZE_PX);
            assert!(faces[..index].iter().all(|other| other != face), "{:?}", Expression::ALL[index]);
        }
    }

    #[test]
    fn pictures_use_the_grey_range() {
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        for expression in Expression::ALL {
            let pixels = draw(expression, &mut rng);
            let (darkest, brightest) = (pixels.iter().min().unwrap(), pixels.iter().max().unwrap());
            assert!(brightest - darkest > 60, "{expression:?}: {darkest} to {brightest}");
        }
    }
}
