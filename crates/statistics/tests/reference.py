"""Values of scipy, statsmodels and scikit-learn that `reference.rs` compares with.

    pip install scipy statsmodels scikit-learn
    python reference.py > reference.json
"""

import json
import random
import sys

import numpy
import scipy
import sklearn
import statsmodels
import statsmodels.api
from scipy import stats
from sklearn.calibration import calibration_curve
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

draws = random.Random(7)


def wilson():
    for correct, total in [(81, 263), (0, 20), (20, 20), (2330, 3119), (1, 2)]:
        low, high = proportion_confint(correct, total, alpha=0.05, method="wilson")
        yield {"correct": correct, "total": total, "low": low, "high": high}


def mean():
    for count in [2, 3, 5, 30]:
        values = [draws.gauss(75, 2) for _ in range(count)]
        low, high = stats.t.interval(0.95, count - 1, loc=numpy.mean(values), scale=stats.sem(values))
        deviation = float(numpy.std(values, ddof=1))
        yield {"values": values, "mean": float(numpy.mean(values)), "deviation": deviation, "low": low, "high": high}


def mcnemar_exact():
    for first, second in [(0, 0), (0, 7), (3, 12), (12, 3), (10, 10), (180, 240), (401, 399), (25, 0)]:
        p = 1.0 if first + second == 0 else mcnemar([[0, first], [second, 0]], exact=True).pvalue
        yield {"only_first": first, "only_second": second, "p": float(p)}


def sign_flip():
    for differences in [
        [draws.gauss(0.5, 1) for _ in range(15)],
        [draws.gauss(3, 1) for _ in range(15)],
        [0.5, -0.5, 0.25, 0.25, 0.0],
        [1.2, 0.3],
    ]:
        # One sample against itself negated: all ways to swap the pairs are all ways to choose the signs.
        half = numpy.array(differences) / 2
        found = stats.permutation_test(
            (half, -half),
            lambda x, y: numpy.sum(x - y),
            permutation_type="samples",
            n_resamples=numpy.inf,
            alternative="two-sided",
        )
        yield {"differences": differences, "p": float(found.pvalue)}


def holm():
    for p_values in [[0.01, 0.04, 0.03, 0.005], [0.5, 0.9], [0.02], [draws.random() ** 3 for _ in range(31)]]:
        yield {"p": p_values, "adjusted": multipletests(p_values, method="holm")[1].tolist()}


def spearman():
    for count, digits in [(31, 2), (30, 0), (9, 2), (8, 0), (5, 3), (3, 2)]:
        first = [round(draws.gauss(75, 2), digits) for _ in range(count)]
        second = [round(value + draws.gauss(0, 2), digits) for value in first]
        found = stats.spearmanr(first, second)
        p = found.pvalue
        if count <= 8:
            # How many orders are as far from zero, on either side.
            p = stats.permutation_test(
                (first,),
                lambda values: abs(stats.spearmanr(values, second).statistic),
                permutation_type="pairings",
                n_resamples=numpy.inf,
                alternative="greater",
            ).pvalue
        squares = numpy.mean((numpy.array(first) - numpy.array(second)) ** 2)
        yield {
            "first": first,
            "second": second,
            "rho": float(found.statistic),
            "p": float(p),
            "rmse": float(numpy.sqrt(squares)),
        }


def reliability():
    confidences = [draws.betavariate(3, 1.3) for _ in range(500)]
    correct = [draws.random() < confidence**1.2 for confidence in confidences]
    accuracy, confidence = calibration_curve(correct, confidences, n_bins=15, strategy="uniform")
    counts, _ = numpy.histogram(confidences, bins=15, range=(0, 1))
    counts = counts[counts > 0]
    error = float(numpy.sum(counts * numpy.abs(accuracy - confidence)) / 500)
    yield {
        "confidences": confidences,
        "correct": correct,
        "bin_confidences": confidence.tolist(),
        "bin_accuracies": accuracy.tolist(),
        "error": error,
    }


def pooled():
    # Groups are the columns of a linear model: its residuals have the pooled variance, and it predicts one more observation.
    for counts in [[3, 3, 3, 3], [2, 5, 1, 3], [3], [1, 2]]:
        groups = [[draws.gauss(0.75, 0.01) for _ in range(count)] for count in counts]
        members = numpy.repeat(numpy.eye(len(counts)), counts, axis=0)
        fitted = statsmodels.api.OLS(numpy.concatenate(groups), members).fit()
        frame = fitted.get_prediction(numpy.eye(len(counts))).summary_frame(alpha=0.05)
        yield {
            "groups": groups,
            "deviation": float(numpy.sqrt(fitted.mse_resid)),
            "freedom": int(fitted.df_resid),
            "low": frame["obs_ci_lower"].tolist(),
            "high": frame["obs_ci_upper"].tolist(),
        }


def median():
    for count in [1, 2, 15, 30]:
        values = [draws.gauss(0, 1) for _ in range(count)]
        yield {"values": values, "median": float(numpy.median(values))}


# New ones come last: all draw from the same numbers.
all_of_them = [wilson, mean, mcnemar_exact, sign_flip, holm, spearman, reliability, pooled, median]
values = {of.__name__: list(of()) for of in all_of_them}
made_by = {module.__name__: module.__version__ for module in [numpy, scipy, statsmodels, sklearn]}
json.dump({"made_by": made_by} | values, sys.stdout, indent=1)
print()
