//! How often McNemar's test of two runs calls inputs different that are not: what `docs/statistics.md` says of single seeds.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use statistics::mcnemar_exact;
use statrs::distribution::{ContinuousCDF as _, Normal};

/// The test images of six classes.
const IMAGES: f64 = 3119.0;

/// How often at 5% and with each of `seeds`, in the same direction, if expected accuracies on these images are equal, a seed moves a
/// run by a standard deviation of `deviation` points, and `apart` of the images are answered correctly by one of the two runs alone.
fn called_different(deviation: f64, apart: f64, seeds: i32) -> f64 {
    let apart = (apart * IMAGES).round() as u64;
    // The first may have so many of them, and the second the others; from so many more on they are called different.
    let is_called = |first: &u64| mcnemar_exact(*first, apart - first) <= 0.05;
    let first = (apart.div_ceil(2)..=apart).find(is_called).unwrap();
    // Counts are whole: between this and one less the line is half-way.
    let least_more = (2 * first - apart) as f64 - 1.0;
    let between_runs = Normal::new(0.0, deviation / 100.0 * IMAGES * 2.0_f64.sqrt()).unwrap();
    2.0 * (1.0 - between_runs.cdf(least_more)).powi(seeds)
}

#[test]
fn one_seed_calls_4_to_27_percent_of_equal_pairs_different_and_three_hardly_any() {
    let [fewest, most] = [(0.6, 0.25), (0.8, 0.12)].map(|(deviation, apart)| called_different(deviation, apart, 1));
    assert!((0.035..0.045).contains(&fewest) && (0.265..0.275).contains(&most), "{fewest} {most}");
    for deviation in [0.6, 0.7, 0.8] {
        for apart in [0.12, 0.15, 0.2, 0.25] {
            let [one, two, three] = [1, 2, 3].map(|seeds| called_different(deviation, apart, seeds));
            println!("{deviation} points, {apart} apart: {one:.4}, {two:.4}, {three:.5}");
            assert!((fewest..=most).contains(&one) && two < 0.04 && three < 0.005);
        }
    }
}
