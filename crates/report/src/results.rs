//! The study's runs, gathered by combination.

use std::collections::{BTreeMap, HashMap};

use anyhow::Result;
use pipeline::{
    Context,
    evaluation::{self, EvaluatedRun, TestAnswers},
    paper::{self, PaperRow},
};
use sources::Combination;
use statistics::{MeanInterval, PooledDeviation, expected_calibration_error, reliability};

/// A run with its answers about the test images.
#[derive(Debug)]
pub struct AnsweredRun {
    /// What was measured.
    pub run: EvaluatedRun,
    /// What it answered.
    pub answers: TestAnswers,
    /// Whether each answer is correct.
    pub correct: Vec<bool>,
}

/// A combination: what the paper reports of it, and our runs.
#[derive(Debug)]
pub struct Cell {
    /// The inputs.
    pub combination: Combination,
    /// The paper's row, where ours can be set beside it.
    pub paper: Option<PaperRow>,
    /// Our runs by seed.
    pub runs: BTreeMap<u64, AnsweredRun>,
}

/// What of a run is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// Accuracy on the images trained on.
    Train,
    /// Accuracy on the validation images.
    Valid,
    /// Accuracy on the test images.
    Test,
    /// The same without images that have a copy among those trained on.
    TestWithoutCopies,
    /// Mean recall of the classes on the test images.
    Balanced,
    /// Mean F1 of the classes on the test images.
    MacroF1,
}

/// Everything that is evaluated.
#[derive(Debug)]
pub struct Results {
    /// In the order of the paper's tables.
    pub cells: Vec<Cell>,
    /// Runs of the study that are not there yet.
    pub missing: Vec<String>,
}

impl Results {
    /// Reads what is fresh.
    pub fn read(context: &Context) -> Result<Self> {
        let (report, answers) = evaluation::fresh(context)?;
        let paper =
            if report.runs.iter().any(|run| run.paper_test.is_some()) { paper::rows()? } else { Default::default() };
        let mut runs: HashMap<Combination, BTreeMap<u64, AnsweredRun>> = HashMap::new();
        for (run, answers) in report.runs.into_iter().zip(answers) {
            let correct = answers.correct();
            runs.entry(run.combination).or_default().insert(run.seed, AnsweredRun { run, answers, correct });
        }
        let asked = context.study.combinations();
        let order = Combination::all().into_iter().filter(|combination| asked.contains(combination));
        let cells = order.map(|combination| Cell {
            combination,
            paper: paper.get(&combination).cloned(),
            runs: runs.remove(&combination).unwrap_or_default(),
        });
        Ok(Self { cells: cells.collect(), missing: report.untrained })
    }

    /// The cell of `combination`, if it has runs.
    pub fn cell(&self, combination: Combination) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.combination == combination && !cell.runs.is_empty())
    }

    /// Cells with runs.
    pub fn evaluated(&self) -> impl Iterator<Item = &Cell> {
        self.cells.iter().filter(|cell| !cell.runs.is_empty())
    }

    /// All runs.
    pub fn runs(&self) -> impl Iterator<Item = &AnsweredRun> {
        self.cells.iter().flat_map(|cell| cell.runs.values())
    }

    /// Standard deviation of a run over the seeds, as a share, pooled over the combinations with several; none if there are none.
    pub fn pooled(&self, measure: Measure) -> Option<PooledDeviation> {
        PooledDeviation::of(self.evaluated().filter_map(|cell| cell.mean(measure)))
    }

    /// The run whose validation accuracy is highest, the first of several in the order of the tables and of the seeds: chosen
    /// without a look at the test images.
    pub fn best_by_validation(&self) -> Option<&AnsweredRun> {
        self.runs().reduce(|best, other| if Measure::Valid.of(other) > Measure::Valid.of(best) { other } else { best })
    }
}

impl AnsweredRun {
    /// How sure each answer about a test image is, and whether it is correct.
    pub fn confidences(&self) -> impl Iterator<Item = (f64, bool)> {
        self.answers.confidences().zip(self.correct.iter().copied())
    }

    /// Expected calibration error on the test images, as a share; none without images.
    pub fn calibration_error(&self) -> Option<f64> {
        expected_calibration_error(&reliability(&self.confidences().collect::<Vec<_>>()))
    }
}

impl Cell {
    /// Mean over the seeds; none without runs.
    pub fn mean(&self, measure: Measure) -> Option<MeanInterval> {
        let values: Vec<f64> = self.runs.values().filter_map(|run| measure.of(run)).collect();
        MeanInterval::of(&values)
    }

    /// 95% interval of `measure`: Student's over the seeds, as far as a share can be, and with a single seed Wilson's over the
    /// images, which balanced accuracy and F1 have not.
    pub fn interval(&self, measure: Measure) -> Option<[f64; 2]> {
        self.mean(measure)?.interval_95.map(|ends| ends.map(|end| end.clamp(0.0, 1.0))).or_else(|| {
            let evaluation = &self.runs.values().next()?.run.evaluation;
            match measure {
                Measure::Train => Some(evaluation.train.overall.interval_95),
                Measure::Valid => Some(evaluation.valid.overall.interval_95),
                Measure::Test => Some(evaluation.test.overall.interval_95),
                Measure::TestWithoutCopies => Some(evaluation.test_without_copies.interval_95),
                Measure::Balanced | Measure::MacroF1 => None,
            }
        })
    }

    /// Where `measure` of one more run would lie in 95 of 100 cases, from the `pooled` standard deviation of a run; where no
    /// combination has several seeds, the [`interval`](Self::interval) takes its place.
    pub fn range_of_one_run(&self, measure: Measure, pooled: Option<PooledDeviation>) -> Option<[f64; 2]> {
        let Some(pooled) = pooled else { return self.interval(measure) };
        let MeanInterval { count, mean, .. } = self.mean(measure)?;
        let half = pooled.half_prediction_95(count);
        Some([mean - half, mean + half].map(|end| end.clamp(0.0, 1.0)))
    }

    /// What the paper reports as a share; it reports training and test accuracy.
    pub fn paper(&self, measure: Measure) -> Option<f64> {
        let row = self.paper.as_ref()?;
        match measure {
            Measure::Train => Some(row.train_accuracy / 100.0),
            Measure::Test => Some(row.test_accuracy / 100.0),
            _ => None,
        }
    }
}

impl Measure {
    /// All that is measured.
    pub const ALL: [Self; 6] =
        [Self::Train, Self::Valid, Self::Test, Self::TestWithoutCopies, Self::Balanced, Self::MacroF1];

    /// As columns are titled.
    pub fn title(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Valid => "valid",
            Self::Test => "test",
            Self::TestWithoutCopies => "without copies",
            Self::Balanced => "balanced",
            Self::MacroF1 => "macro F1",
        }
    }

    /// Of one run, as a share; none where there is nothing to measure it on.
    pub fn of(self, answered: &AnsweredRun) -> Option<f64> {
        let evaluation = &answered.run.evaluation;
        match self {
            Self::Train => evaluation.train.overall.accuracy,
            Self::Valid => evaluation.valid.overall.accuracy,
            Self::Test => evaluation.test.overall.accuracy,
            Self::TestWithoutCopies => evaluation.test_without_copies.accuracy,
            Self::Balanced => Some(evaluation.test.balanced_accuracy),
            Self::MacroF1 => Some(evaluation.test.macro_f1),
        }
    }
}

/// Results that tests make up.
#[cfg(test)]
pub(crate) mod made_up {
    use std::path::PathBuf;

    use pipeline::{
        evaluation::Evaluation,
        runs::Trained,
        scores::{Accuracy, Scores},
    };
    use serde_json::json;

    use super::*;

    /// A run of `combination` whose answers about the test images are as `correct` says.
    fn run(combination: Combination, seed: u64, correct: &[bool]) -> AnsweredRun {
        let labels = vec![0; correct.len()];
        let answers: Vec<usize> = correct.iter().map(|correct| usize::from(!correct)).collect();
        let pairs: Vec<(usize, usize)> = labels.iter().copied().zip(answers.iter().copied()).collect();
        let scores = Scores::new(&["right", "wrong"], &pairs);
        let validation = json!({
            "step": 1, "loss": 1.0, "accuracy": scores.overall.accuracy, "predicted": [1, 1], "seconds": 0.1
        });
        let trained: Trained = serde_json::from_value(json!({
            "model": stage::ContentHash::of(b""),
            "metrics": stage::ContentHash::of(b""),
            "train_images": 1,
            "valid_images": 1,
            "outcome": {
                "steps": 1, "resumed_from": 0, "final_loss": 1.0, "class_entropy": 1.0, "validation": validation,
                "best_validation": validation, "collapsed": false, "parameters": 1, "wall_s": 1.0
            }
        }))
        .unwrap();
        let evaluation = Evaluation {
            fingerprint: stage::Fingerprint::default(),
            train: scores.clone(),
            valid: scores.clone(),
            test_without_copies: Accuracy::new(scores.overall.correct, scores.overall.images),
            test: scores,
            files: BTreeMap::new(),
        };
        let probabilities = answers.iter().map(|answer| if *answer == 0 { vec![0.9, 0.1] } else { vec![0.2, 0.8] });
        AnsweredRun {
            correct: correct.to_vec(),
            answers: TestAnswers {
                images: (0..correct.len()).collect(),
                labels,
                probabilities: probabilities.collect(),
                answers,
            },
            run: EvaluatedRun {
                combination,
                seed,
                folder: PathBuf::new(),
                was_fresh: true,
                trained,
                evaluation,
                paper_train: None,
                paper_test: None,
            },
        }
    }

    /// All 31 cells beside the paper's, with a run for each combination, seed and number of correct answers of `runs`. The images
    /// that a run answers correctly are the first ones, so that a better run is right wherever a worse one is.
    pub(crate) fn results(images: usize, runs: &[(&str, u64, usize)]) -> Results {
        let paper = paper::rows().unwrap();
        let cell = |combination: Combination| Cell {
            combination,
            paper: paper.get(&combination).cloned(),
            runs: runs
                .iter()
                .filter(|(name, _, _)| name.parse::<Combination>().unwrap() == combination)
                .map(|(_, seed, correct)| {
                    let correct: Vec<bool> = (0..images).map(|image| image < *correct).collect();
                    (*seed, run(combination, *seed, &correct))
                })
                .collect(),
        };
        Results { cells: Combination::all().into_iter().map(cell).collect(), missing: Vec::new() }
    }
}
