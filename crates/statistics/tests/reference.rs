//! Against scipy, statsmodels and scikit-learn: `reference.py` says how the values were made.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use serde_json::Value;
use statistics::{
    MeanInterval, PooledDeviation, expected_calibration_error, holm, mcnemar_exact, median, reliability, rmse,
    sign_flip_exact, spearman, wilson_95,
};

fn cases(of: &str) -> Vec<Value> {
    let reference: Value = serde_json::from_str(include_str!("reference.json")).unwrap();
    let cases = reference[of].as_array().unwrap().clone();
    assert!(!cases.is_empty(), "{of}");
    cases
}

fn number(case: &Value, key: &str) -> f64 {
    case[key].as_f64().unwrap_or_else(|| panic!("no {key} in {case}"))
}

fn numbers(case: &Value, key: &str) -> Vec<f64> {
    case[key].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

fn assert_close(got: f64, expected: f64, what: &Value) {
    assert!((got - expected).abs() <= 1e-9 + 1e-9 * expected.abs(), "{got}, expected {expected}: {what}");
}

#[test]
fn wilson_intervals() {
    for case in cases("wilson") {
        let [low, high] = wilson_95(case["correct"].as_u64().unwrap(), case["total"].as_u64().unwrap());
        assert_close(low, number(&case, "low"), &case);
        assert_close(high, number(&case, "high"), &case);
    }
    assert_eq!(wilson_95(0, 0), [0.0, 1.0]);
}

#[test]
fn intervals_of_means() {
    for case in cases("mean") {
        let found = MeanInterval::of(&numbers(&case, "values")).unwrap();
        assert_close(found.mean, number(&case, "mean"), &case);
        assert_close(found.deviation.unwrap(), number(&case, "deviation"), &case);
        let [low, high] = found.interval_95.unwrap();
        assert_close(low, number(&case, "low"), &case);
        assert_close(high, number(&case, "high"), &case);
    }
    assert_eq!(MeanInterval::of(&[]), None);
    let single = MeanInterval::of(&[75.5]).unwrap();
    assert_eq!(
        (single.mean, single.deviation, single.interval_95),
        (75.5, None, None),
        "one says nothing of the spread"
    );
}

#[test]
fn one_more_measurement() {
    for case in cases("pooled") {
        let groups = case["groups"].as_array().unwrap().iter();
        let means: Vec<MeanInterval> = groups
            .map(|group| group.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect::<Vec<_>>())
            .map(|values| MeanInterval::of(&values).unwrap())
            .collect();
        let pooled = PooledDeviation::of(means.iter().copied()).unwrap();
        assert_close(pooled.deviation, number(&case, "deviation"), &case);
        assert_eq!(pooled.freedom as u64, case["freedom"].as_u64().unwrap(), "{case}");
        for ((mean, low), high) in means.iter().zip(numbers(&case, "low")).zip(numbers(&case, "high")) {
            let half = pooled.half_prediction_95(mean.count);
            assert_close(mean.mean - half, low, &case);
            assert_close(mean.mean + half, high, &case);
        }
    }
    let single = MeanInterval::of(&[75.5]).unwrap();
    assert_eq!((PooledDeviation::of([single; 3]), PooledDeviation::of([])), (None, None), "nothing to pool");
}

#[test]
fn medians() {
    for case in cases("median") {
        assert_close(median(&numbers(&case, "values")).unwrap(), number(&case, "median"), &case);
    }
    assert_eq!(median(&[]), None);
}

#[test]
fn exact_mcnemar_tests() {
    for case in cases("mcnemar_exact") {
        let [first, second] = ["only_first", "only_second"].map(|key| case[key].as_u64().unwrap());
        assert_close(mcnemar_exact(first, second), number(&case, "p"), &case);
    }
}

#[test]
fn exact_sign_flips() {
    for case in cases("sign_flip") {
        assert_close(sign_flip_exact(&numbers(&case, "differences")).unwrap(), number(&case, "p"), &case);
    }
    assert_eq!(sign_flip_exact(&[]), Some(1.0));
    assert_eq!(sign_flip_exact(&[1.0; 25]), None, "too many to try all");
}

#[test]
fn holm_adjustment() {
    for case in cases("holm") {
        let adjusted = holm(&numbers(&case, "p"));
        for (got, expected) in adjusted.iter().zip(numbers(&case, "adjusted")) {
            assert_close(*got, expected, &case);
        }
        assert_eq!(adjusted.len(), numbers(&case, "p").len());
    }
    assert_eq!(holm(&[]), Vec::<f64>::new());
}

#[test]
fn rank_correlation_and_error() {
    for case in cases("spearman") {
        let pairs: Vec<(f64, f64)> = numbers(&case, "first").into_iter().zip(numbers(&case, "second")).collect();
        let found = spearman(&pairs).unwrap();
        assert_close(found.rho, number(&case, "rho"), &case);
        assert_close(found.p, number(&case, "p"), &case);
        assert_close(rmse(&pairs).unwrap(), number(&case, "rmse"), &case);
    }
    assert_eq!((spearman(&[(1.0, 2.0), (2.0, 3.0)]), rmse(&[])), (None, None));
    assert_eq!(spearman(&[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]), None, "a side that does not vary has no ranks");
    let line: Vec<(f64, f64)> = (0..10).map(|i| (f64::from(i), f64::from(-i))).collect();
    assert_eq!(spearman(&line).unwrap().rho, -1.0);
}

#[test]
fn reliability_diagrams() {
    for case in cases("reliability") {
        let correct = case["correct"].as_array().unwrap().iter().map(|value| value.as_bool().unwrap());
        let answers: Vec<(f64, bool)> = numbers(&case, "confidences").into_iter().zip(correct).collect();
        let bins = reliability(&answers);
        let filled: Vec<_> = bins.iter().flatten().collect();
        let expected = numbers(&case, "bin_confidences").into_iter().zip(numbers(&case, "bin_accuracies"));
        assert_eq!(filled.len(), expected.len());
        for (bin, (confidence, accuracy)) in filled.into_iter().zip(expected) {
            assert_close(bin.confidence, confidence, &case["error"]);
            assert_close(bin.accuracy, accuracy, &case["error"]);
        }
        assert_close(expected_calibration_error(&bins).unwrap(), number(&case, "error"), &case["error"]);
    }
    assert_eq!(expected_calibration_error(&reliability(&[])), None);
    let ends = reliability(&[(0.0, false), (1.0, true)]);
    assert!(ends[0].is_some() && ends[14].is_some(), "both ends have a bin");
}
