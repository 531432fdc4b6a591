use statrs::distribution::{Binomial, DiscreteCDF as _};

/// Two-sided p of McNemar's exact test (McNemar 1947, <https://doi.org/10.1007/BF02295996>): two classifiers answered the same
/// questions, `only_first` were answered correctly by the first alone and `only_second` by the second alone. If both were
/// as good, the first's would be binomial with one half.
pub fn mcnemar_exact(only_first: u64, only_second: u64) -> f64 {
    let all = only_first + only_second;
    if all == 0 {
        return 1.0;
    }
    let fair = Binomial::new(0.5, all).expect("one half is a probability");
    (2.0 * fair.cdf(only_first.min(only_second))).min(1.0)
}

/// Most differences whose signs are all tried.
const MOST_FLIPPED: usize = 24;

/// Two-sided p of Fisher's randomisation test for paired differences: the share of the 2ⁿ ways to choose their signs
/// whose sum is as far from zero as theirs. 1 without differences; none if there are more than 24.
pub fn sign_flip_exact(differences: &[f64]) -> Option<f64> {
    if differences.len() > MOST_FLIPPED {
        return None;
    }
    let ways = 1_u32 << differences.len();
    let sum_of = |signs: u32| -> f64 {
        let signed = differences.iter().enumerate();
        signed.map(|(i, difference)| if signs >> i & 1 == 0 { *difference } else { -difference }).sum()
    };
    // Sums that differ by rounding alone are equal.
    let tolerance = 1e-9 * differences.iter().map(|difference| difference.abs()).sum::<f64>();
    let observed = sum_of(0).abs() - tolerance;
    let as_far = (0..ways).filter(|signs| sum_of(*signs).abs() >= observed).count();
    Some(as_far as f64 / f64::from(ways))
}
