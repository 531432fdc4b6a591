//! Paints a face, back to front.

use rand::{Rng, RngExt};

use crate::{
    actions::{Actions, Side, Unit},
    anatomy::{Anatomy, Eye},
    canvas::{Canvas, View},
    person::{Hair, Person},
    sdf::{Path, Point, ellipse, point},
};

/// Everything in the picture that belongs neither to the person nor to the expression.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    background: f32,
    /// Unit vector towards the light.
    light: Point,
    /// How much darker the side away from the light is.
    light_strength: f32,
    /// Where the eyes look, as an offset of the irises.
    gaze: Point,
}

impl Scene {
    /// Draws a scene at random.
    pub(crate) fn sample(rng: &mut impl Rng) -> Self {
        let angle = rng.random_range(0.0..std::f32::consts::TAU);
        Self {
            background: rng.random_range(0.05..0.95),
            light: point(angle.cos(), angle.sin()),
            light_strength: rng.random_range(0.0..0.3),
            gaze: point(rng.random_range(-0.06..0.06), rng.random_range(-0.02..0.03)),
        }
    }
}

/// Paints `person` with the given pulls into `view`; answers the tones, row by row.
pub(crate) fn paint(person: &Person, actions: &Actions, scene: &Scene, view: &View) -> Vec<f32> {
    let anatomy = Anatomy::new(person, actions);
    let mut painter =
        Painter { canvas: Canvas::new(view, scene.background), person, actions, anatomy: &anatomy, scene };
    painter.head();
    for eye in &anatomy.eyes {
        painter.eye(eye);
    }
    painter.nose();
    painter.wrinkles();
    painter.mouth();
    painter.hair();
    painter.brows();
    painter.light();
    painter.canvas.into_tones()
}

struct Painter<'a> {
    canvas: Canvas,
    person: &'a Person,
    actions: &'a Actions,
    anatomy: &'a Anatomy,
    scene: &'a Scene,
}

/// The head's outline: an ellipse that narrows towards the chin, longer below than above.
fn head_distance(person: &Person, chin_y: f32, at: Point) -> f32 {
    let narrowing = 1.0 + 0.14 * at.y.max(0.0);
    let half_height = if at.y > 0.0 { chin_y } else { person.head_height };
    ellipse(point(at.x * narrowing, at.y), point(0.0, 0.0), point(person.head_width, half_height))
}

impl Painter<'_> {
    /// A darker tone of the skin: 0 black, 1 the skin itself.
    fn shade(&self, fraction: f32) -> f32 {
        self.person.skin * fraction
    }

    /// The whites of eyes and teeth, which look duller in a darker face.
    fn white(&self) -> f32 {
        (0.62 + 0.36 * self.person.skin).min(0.97)
    }

    fn head(&mut self) {
        let (person, chin_y) = (self.person, self.anatomy.chin_y);
        if person.hair == Hair::Long {
            let radii = point(person.head_width * 1.22, person.head_height * 1.15);
            self.canvas.fill(person.hair_tone, 1.0, |at| {
                if at.y > 0.0 { at.x.abs() - radii.x + 0.05 * at.y } else { ellipse(at, point(0.0, 0.0), radii) }
            });
        }
        let neck = self.shade(0.7);
        self.canvas.fill(neck, 1.0, |at| (at.x.abs() - 0.55).max(0.6 - at.y));
        for side in Side::BOTH {
            let ear = point(side.sign() * person.head_width, -0.08);
            let tone = self.shade(0.85);
            self.canvas.fill(tone, 1.0, |at| ellipse(at, ear, point(0.1, 0.2)));
        }
        self.canvas.fill(person.skin, 1.0, |at| head_distance(person, chin_y, at));
        // The head is round: its rim turns away from the viewer.
        let rim = self.shade(0.6);
        self.canvas.fill_soft(rim, 0.45, 0.5, |at| {
            let edge = head_distance(person, chin_y, at);
            if edge > 0.02 { 1.0 } else { -edge - 0.1 }
        });
    }

    fn hair(&mut self) {
        let person = self.person;
        if person.hair == Hair::Bald {
            return;
        }
        let radii = point(person.head_width * 1.06, person.head_height * 1.08);
        let hairline = -person.hairline * person.head_height;
        self.canvas.fill_soft(person.hair_tone, 1.0, 0.08, |at| {
            let below_hairline = at.y - hairline - 0.35 * at.x * at.x;
            ellipse(at, point(0.0, 0.0), radii).max(below_hairline)
        });
    }

    fn brows(&mut self) {
        for brow in &self.anatomy.brows {
            let spine = Path::arc(brow.inner, brow.middle, brow.outer);
            self.canvas.fill(self.person.hair_tone * 0.8, 0.95, |at| {
                let (distance, along) = spine.nearest(at);
                distance - self.person.brow_thickness * (1.15 - 0.65 * along)
            });
        }
    }

    fn eye(&mut self, eye: &Eye) {
        let socket = self.shade(0.75);
        self.canvas.fill_soft(socket, 0.35, 0.25, |at| {
            ellipse(at, eye.centre - point(0.0, 0.04), point(eye.half_width * 1.15, 0.2))
        });
        let opening = eye.opening();
        self.canvas.fill(self.white(), 1.0, |at| opening.region(at));
        // The iris touches both lids at rest; a wide eye shows white around it.
        let (iris, radius) = (eye.centre + point(0.0, -0.02) + self.scene.gaze, 0.115);
        let clipped = |at: Point, radius: f32| ((at - iris).length() - radius).max(opening.region(at));
        self.canvas.fill(0.22, 1.0, |at| clipped(at, radius));
        self.canvas.fill(0.03, 1.0, |at| clipped(at, 0.5 * radius));
        let (inner, outer) = eye.corners();
        let upper_lid = Path::arc(inner, eye.centre - point(0.0, eye.above), outer);
        let lower_lid = Path::arc(inner, eye.centre + point(0.0, eye.below), outer);
        self.canvas.fill(self.shade(0.2), 0.95, |at| upper_lid.stroke(at, 0.028));
        self.canvas.fill(self.shade(0.5), 0.7, |at| lower_lid.stroke(at, 0.014));
    }

    fn nose(&mut self) {
        let (nose, width) = (self.anatomy.nose, self.anatomy.nose_width);
        let (dark, shadow) = (self.shade(0.3), self.shade(0.62));
        for side in Side::BOTH {
            let out = side.sign();
            self.canvas.fill(dark, 0.8, |at| ellipse(at, nose + point(out * 0.07, 0.0), point(0.045, 0.024)));
            let wing = Path::arc(
                nose + point(out * (width - 0.02), -0.09),
                nose + point(out * (width + 0.015), -0.03),
                nose + point(out * (width - 0.03), 0.02),
            );
            self.canvas.fill(shadow, 0.8, |at| wing.stroke(at, 0.02));
        }
        // One flank of the bridge lies in shadow: the one away from the light.
        let flank = -self.scene.light.x.signum();
        let bridge =
            Path::arc(point(flank * 0.09, -0.2), point(flank * 0.085, 0.0), point(flank * 0.11, nose.y - 0.08));
        self.canvas.fill_soft(shadow, 0.5, 0.08, |at| bridge.stroke(at, 0.02));
    }

    /// A furrow in the skin; at full strength about half as dark as the skin.
    fn furrow(&mut self, path: &Path, strength: f32) {
        let opacity = (strength * self.person.wrinkles).clamp(0.0, 1.0);
        self.canvas.fill(self.shade(0.4), opacity, |at| path.stroke(at, 0.016));
    }

    fn wrinkles(&mut self) {
        let (nose, mouth) = (self.anatomy.nose, &self.anatomy.mouth);
        for side in Side::BOTH {
            let out = side.sign();
            let pull = |unit| self.actions.on(unit, side);
            let (smile, wrinkle) = (pull(Unit::LipCornerPuller), pull(Unit::NoseWrinkler));
            let (raise, frown) = (pull(Unit::InnerBrowRaiser), pull(Unit::BrowLowerer));
            let corner = mouth.corner(side);
            let (dimple, drop, cheek) = (pull(Unit::Dimpler), pull(Unit::LipCornerDepressor), pull(Unit::CheekRaiser));

            // From the nose's wing around the mouth's corner: deep in smiles and with a wrinkled nose.
            let fold = Path::arc(
                nose + point(out * (self.anatomy.nose_width + 0.03), -0.04),
                point(0.5 * (out * 0.25 + corner.x) + out * 0.14, 0.5 * (nose.y + corner.y) - 0.04),
                corner + point(out * 0.13, 0.02),
            );
            self.furrow(&fold, 0.1 + 0.7 * smile + 0.7 * wrinkle);
            // Across the bridge of the nose.
            for step in 0..3 {
                let y = -0.20 + 0.10 * step as f32;
                let crease = Path::arc(point(out * 0.01, y - 0.03), point(out * 0.06, y), point(out * 0.15, y + 0.05));
                self.furrow(&crease, 1.1 * wrinkle);
            }
            // Between the brows, upright.
            let inner = self.anatomy.brows[side as usize].inner;
            let glabella = Path::arc(
                point(out * 0.07, inner.y - 0.10),
                point(out * 0.06, inner.y),
                point(out * 0.08, inner.y + 0.09),
            );
            self.furrow(&glabella, 0.8 * frown);
            // Across the forehead.
            let forehead = Path::arc(
                point(0.0, inner.y - 0.20),
                point(out * 0.22, inner.y - 0.22),
                point(out * 0.5, inner.y - 0.19),
            );
            self.furrow(&forehead, 0.6 * raise);
            // Under the eye, and crow's feet beside it.
            let eye = &self.anatomy.eyes[side as usize];
            let bag = Path::arc(
                eye.centre + point(-out * 0.17, 0.15),
                eye.centre + point(0.0, 0.19),
                eye.centre + point(out * 0.25, 0.12),
            );
            self.furrow(&bag, 0.8 * cheek);
            // Beside a dimpled corner, and down from a lowered one.
            let pit = Path::arc(
                corner + point(out * 0.05, -0.09),
                corner + point(out * 0.10, 0.0),
                corner + point(out * 0.05, 0.08),
            );
            self.furrow(&pit, 1.3 * dimple);
            let marionette = Path::arc(
                corner + point(out * 0.05, 0.02),
                corner + point(out * 0.09, 0.08),
                corner + point(out * 0.09, 0.16),
            );
            self.furrow(&marionette, 0.8 * drop);
        }
    }

    fn mouth(&mut self) {
        let mouth = &self.anatomy.mouth;
        let (lips, opening, seam) = (mouth.lips(), mouth.opening(), mouth.seam());
        self.canvas.fill(self.shade(0.68), 0.9, |at| lips.region(at));
        // Below a gap of about a pixel the lips are closed: a line, not a hole.
        if mouth.gap() > 0.05 {
            self.canvas.fill(0.06, 0.95, |at| opening.region(at));
            let pull = |unit| self.actions.mean(unit);
            let upper = 0.13 * pull(Unit::LipCornerPuller) + 0.05 * pull(Unit::LipStretcher);
            let lower = 0.03 * pull(Unit::LipStretcher) + 0.08 * pull(Unit::LowerLipDepressor);
            let (upper_y, lower_y) = (mouth.upper_teeth_y(upper), mouth.lower_teeth_y(lower));
            let inset = 0.015;
            self.canvas.fill(self.white(), 0.9, |at| (opening.region(at) + inset).max(at.y - upper_y));
            self.canvas.fill(self.white() * 0.9, 0.8, |at| (opening.region(at) + inset).max(lower_y - at.y));
        } else {
            self.canvas.fill(self.shade(0.2), 0.9, |at| seam.stroke(at, 0.022));
        }
        let below = Path::arc(
            point(-0.14, mouth.lower_teeth_y(-0.15)),
            point(0.0, mouth.lower_teeth_y(-0.17)),
            point(0.14, mouth.lower_teeth_y(-0.15)),
        );
        self.canvas.fill_soft(self.shade(0.7), 0.5, 0.06, |at| below.stroke(at, 0.01));
    }

    fn light(&mut self) {
        let (light, strength) = (self.scene.light, self.scene.light_strength);
        self.canvas.light(|at| 1.0 + strength * (at.x * light.x + at.y * light.y));
    }
}
