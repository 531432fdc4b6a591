//! Signed distances: negative inside a shape, positive outside, in face units.

use std::ops::{Add, Mul, Sub};

/// A point or a vector; y grows downwards.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Point {
    pub(crate) x: f32,
    pub(crate) y: f32,
}

/// A point from its coordinates.
pub(crate) fn point(x: f32, y: f32) -> Point {
    Point { x, y }
}

impl Point {
    fn dot(self, other: Self) -> f32 {
        self.x * other.x + self.y * other.y
    }

    /// Its distance from the origin.
    pub(crate) fn length(self) -> f32 {
        self.dot(self).sqrt()
    }
}

impl Add for Point {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        point(self.x + other.x, self.y + other.y)
    }
}

impl Sub for Point {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        point(self.x - other.x, self.y - other.y)
    }
}

impl Mul<f32> for Point {
    type Output = Self;

    fn mul(self, factor: f32) -> Self {
        point(self.x * factor, self.y * factor)
    }
}

/// The distance to an ellipse, to first order: exact on its edge, which is where anti-aliasing looks.
/// Source: <https://iquilezles.org/articles/ellipsedist/>.
pub(crate) fn ellipse(at: Point, centre: Point, radii: Point) -> f32 {
    let offset = at - centre;
    let scaled = point(offset.x / radii.x, offset.y / radii.y).length();
    let gradient = point(offset.x / (radii.x * radii.x), offset.y / (radii.y * radii.y)).length();
    if gradient == 0.0 { -radii.x.min(radii.y) } else { scaled * (scaled - 1.0) / gradient }
}

/// A chain of line segments: the spine of a stroke, or the outline of a region.
#[derive(Debug, Clone)]
pub(crate) struct Path {
    points: Vec<Point>,
    low: Point,
    high: Point,
}

/// Segments per curve: at 48 px a face has no curve on which more could be seen.
const CURVE_SEGMENTS: usize = 10;

/// Beyond this distance from a path's bounding box, the distance to the box (a lower bound) is answered instead of
/// the exact one. Larger than any stroke's half width plus a pixel, so no drawn pixel can tell.
const REACH: f32 = 0.3;

impl Path {
    /// A chain through `points`.
    pub(crate) fn new(points: Vec<Point>) -> Self {
        let limits = |pick: fn(f32, f32) -> f32, start: f32| {
            points.iter().fold(point(start, start), |bound, p| point(pick(bound.x, p.x), pick(bound.y, p.y)))
        };
        let (low, high) = (limits(f32::min, f32::INFINITY), limits(f32::max, f32::NEG_INFINITY));
        Self { points, low, high }
    }

    /// A quadratic curve from `start` to `end` that passes through `middle` half way.
    pub(crate) fn arc(start: Point, middle: Point, end: Point) -> Self {
        Self::new(arc_points(start, middle, end).collect())
    }

    /// The region between two quadratic curves that share their ends.
    pub(crate) fn lens(start: Point, upper: Point, lower: Point, end: Point) -> Self {
        Self::new(arc_points(start, upper, end).chain(arc_points(end, lower, start).skip(1)).collect())
    }

    /// The distance from `at` to the chain, and where along it the nearest point lies (0 start, 1 end).
    pub(crate) fn nearest(&self, at: Point) -> (f32, f32) {
        let outside = self.outside_box(at);
        if outside > REACH {
            return (outside, 0.0);
        }
        let segments = self.points.len().saturating_sub(1).max(1) as f32;
        let mut best = (f32::INFINITY, 0.0);
        for (index, pair) in self.points.windows(2).enumerate() {
            let (offset, along) = from_segment(at, pair[0], pair[1]);
            let squared = offset.dot(offset);
            if squared < best.0 {
                best = (squared, (index as f32 + along) / segments);
            }
        }
        (best.0.sqrt(), best.1)
    }

    /// The distance to a stroke of the given half width along the chain.
    pub(crate) fn stroke(&self, at: Point, half_width: f32) -> f32 {
        self.nearest(at).0 - half_width
    }

    /// The signed distance to the region that the chain, closed, encloses.
    /// Source: <https://iquilezles.org/articles/distfunctions2d/>, polygon.
    pub(crate) fn region(&self, at: Point) -> f32 {
        let outside = self.outside_box(at);
        if outside > REACH {
            return outside;
        }
        let mut squared = f32::INFINITY;
        let mut is_inside = false;
        for (index, &start) in self.points.iter().enumerate() {
            let end = self.points[(index + 1) % self.points.len()];
            let (offset, _) = from_segment(at, start, end);
            squared = squared.min(offset.dot(offset));
            // A ray to the right crosses this edge: even-odd rule.
            if (start.y > at.y) != (end.y > at.y)
                && at.x < start.x + (at.y - start.y) / (end.y - start.y) * (end.x - start.x)
            {
                is_inside = !is_inside;
            }
        }
        if is_inside { -squared.sqrt() } else { squared.sqrt() }
    }

    /// The distance to the bounding box, 0 inside it.
    fn outside_box(&self, at: Point) -> f32 {
        let x = (self.low.x - at.x).max(at.x - self.high.x).max(0.0);
        let y = (self.low.y - at.y).max(at.y - self.high.y).max(0.0);
        point(x, y).length()
    }
}

/// Points of the quadratic curve from `start` to `end` through `middle`.
fn arc_points(start: Point, middle: Point, end: Point) -> impl Iterator<Item = Point> {
    let control = middle * 2.0 - (start + end) * 0.5;
    (0..=CURVE_SEGMENTS).map(move |step| {
        let t = step as f32 / CURVE_SEGMENTS as f32;
        start * ((1.0 - t) * (1.0 - t)) + control * (2.0 * t * (1.0 - t)) + end * (t * t)
    })
}

/// The vector to `at` from the nearest point of a segment, and where on the segment that is (0 to 1).
fn from_segment(at: Point, start: Point, end: Point) -> (Point, f32) {
    let (edge, offset) = (end - start, at - start);
    let squared = edge.dot(edge);
    let along = if squared > 0.0 { (offset.dot(edge) / squared).clamp(0.0, 1.0) } else { 0.0 };
    (offset - edge * along, along)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ellipse_is_signed_and_zero_on_its_edge() {
        let (centre, radii) = (point(1.0, 2.0), point(2.0, 0.5));
        assert!(ellipse(centre, centre, radii) < 0.0);
        assert!(ellipse(point(3.0, 2.0), centre, radii).abs() < 1e-6);
        assert!(ellipse(point(1.0, 3.0), centre, radii) > 0.0);
    }

    #[test]
    fn region_of_a_square_has_exact_distances() {
        let square = Path::new(vec![point(0.0, 0.0), point(1.0, 0.0), point(1.0, 1.0), point(0.0, 1.0)]);
        assert!((square.region(point(0.5, 0.25)) + 0.25).abs() < 1e-6);
        assert!((square.region(point(1.125, 0.5)) - 0.125).abs() < 1e-6);
    }

    #[test]
    fn far_from_a_path_the_answer_is_a_lower_bound() {
        let line = Path::arc(point(0.0, 0.0), point(0.5, 0.0), point(1.0, 0.0));
        assert!((line.nearest(point(3.0, 0.0)).0 - 2.0).abs() < 1e-6);
    }

    #[test]
    fn arcs_pass_through_their_middle() {
        let arc = Path::arc(point(-1.0, 0.0), point(0.0, 0.4), point(1.0, 0.0));
        let (distance, along) = arc.nearest(point(0.0, 0.4));
        assert!(distance < 1e-6 && (along - 0.5).abs() < 1e-6);
    }
}
