//! A grey canvas that is painted in face units.

use rand::{Rng, RngExt};

use crate::sdf::{Point, point};

/// The side of every picture, in pixels, as in FER2013.
pub const FACE_SIZE_PX: usize = 48;

/// Where the face stands in the picture.
#[derive(Debug, Clone)]
pub(crate) struct View {
    /// Clockwise, in radians.
    rotation: f32,
    /// Pixels per face unit.
    scale_px: f32,
    /// Width over height of a face unit.
    aspect: f32,
    /// From the picture's centre, in pixels.
    shift_px: Point,
}

impl View {
    /// Draws a view such as FER2013's crops show: upright to ±10°, the head filling most of the frame.
    pub(crate) fn sample(rng: &mut impl Rng) -> Self {
        Self {
            rotation: rng.random_range(-10.0_f32..10.0).to_radians(),
            scale_px: rng.random_range(18.0..21.0),
            aspect: rng.random_range(0.9..1.1),
            shift_px: point(rng.random_range(-1.5..1.5), rng.random_range(-1.5..1.5)),
        }
    }

    /// The face-unit coordinates of the middle of a pixel.
    fn face_point(&self, column: usize, row: usize) -> Point {
        let half = FACE_SIZE_PX as f32 / 2.0;
        let offset = point(column as f32 + 0.5 - half, row as f32 + 0.5 - half) - self.shift_px;
        let (sin, cos) = self.rotation.sin_cos();
        let upright = point(cos * offset.x + sin * offset.y, cos * offset.y - sin * offset.x);
        point(upright.x / self.aspect, upright.y) * (1.0 / self.scale_px)
    }
}

/// Greys from 0 (black) to 1 (white), row by row.
pub(crate) struct Canvas {
    tones: Vec<f32>,
    points: Vec<Point>,
    pixel: f32,
}

impl Canvas {
    /// A canvas of one tone, seen through `view`.
    pub(crate) fn new(view: &View, tone: f32) -> Self {
        let points = (0..FACE_SIZE_PX)
            .flat_map(|row| (0..FACE_SIZE_PX).map(move |column| view.face_point(column, row)))
            .collect();
        Self { tones: vec![tone; FACE_SIZE_PX * FACE_SIZE_PX], points, pixel: 1.0 / view.scale_px }
    }

    /// Paints a shape, given by its signed distance. Its edge is one pixel wide, which anti-aliases it.
    pub(crate) fn fill(&mut self, tone: f32, opacity: f32, distance: impl Fn(Point) -> f32) {
        self.fill_soft(tone, opacity, self.pixel, distance);
    }

    /// Paints a shape whose edge fades over `softness` face units.
    pub(crate) fn fill_soft(&mut self, tone: f32, opacity: f32, softness: f32, distance: impl Fn(Point) -> f32) {
        for (pixel, &at) in self.tones.iter_mut().zip(&self.points) {
            let coverage = (0.5 - distance(at) / softness).clamp(0.0, 1.0);
            *pixel += (tone - *pixel) * coverage * opacity;
        }
    }

    /// Multiplies every tone by a factor that depends on the place.
    pub(crate) fn light(&mut self, factor: impl Fn(Point) -> f32) {
        for (pixel, &at) in self.tones.iter_mut().zip(&self.points) {
            *pixel *= factor(at);
        }
    }

    /// The finished tones.
    pub(crate) fn into_tones(self) -> Vec<f32> {
        self.tones
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_covered_pixel_takes_half_the_tone() {
        let view = View { rotation: 0.0, scale_px: 1.0, aspect: 1.0, shift_px: point(0.0, 0.0) };
        let mut canvas = Canvas::new(&view, 0.0);
        canvas.fill(1.0, 1.0, |at| at.x - 0.5);
        let tones = canvas.into_tones();
        assert_eq!(tones[FACE_SIZE_PX / 2 - 1..FACE_SIZE_PX / 2 + 2], [1.0, 0.5, 0.0]);
    }
}
