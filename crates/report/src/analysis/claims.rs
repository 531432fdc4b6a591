use std::fmt;

use sources::{Combination, Source};
use statistics::holm;

use super::{ALPHA, Comparison, Effect, Spread, weakest_input};
use crate::results::{Measure, Results};

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It is so in our runs, with every seed, beyond what the choice of test images explains.
    Holds,
    /// The opposite is so, in the same way.
    DoesNotHold,
    /// The choice of test images or the seed may have decided, as with a single one it always may, or runs are missing.
    CannotBeTold,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Holds => "holds",
            Self::DoesNotHold => "does not hold",
            Self::CannotBeTold => "cannot be told",
        })
    }
}

/// A conclusion of the paper, tested on our runs.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Claim {
    /// As the paper has it.
    pub statement: &'static str,
    /// What became of it.
    pub verdict: Verdict,
    /// Why, in one sentence.
    pub because: String,
    /// The tests behind it.
    pub comparisons: Vec<Comparison>,
}

/// Everything that is tested.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Analysis {
    /// The paper's conclusions; none where our runs are on other data than the paper's.
    pub claims: Vec<Claim>,
    /// What each source adds; those without a context are left out.
    pub effects: Vec<Effect>,
    /// The single input of the lowest test accuracy, whose context the effects are also given without.
    pub weakest_input: Option<Combination>,
    /// Tests that Holm's method adjusted together.
    pub tests: usize,
    /// How far another seed moves a run; empty if no combination has several.
    pub spread: Vec<Spread>,
}

/// A claim that one combination stands out from others.
struct StandsOut {
    statement: &'static str,
    champion: Combination,
    /// `champion` and the others.
    among: Vec<Combination>,
    /// Whether it should be better than the others; else worse.
    above: bool,
}

impl Analysis {
    /// Tests the paper's conclusions.
    pub fn of(results: &Results) -> Self {
        let mut effects: Vec<Effect> =
            Source::ALL.into_iter().filter_map(|source| Effect::of(results, source)).collect();
        let compared = |claim: StandsOut| {
            let comparisons = comparisons(results, &claim);
            (claim, comparisons)
        };
        let has_paper = results.cells.iter().any(|cell| cell.paper.is_some());
        let claims = if has_paper { claims() } else { Vec::new() };
        let standing: Vec<(StandsOut, Vec<Comparison>)> = claims.into_iter().map(compared).collect();

        // A pair that several claims ask for is one test; the effects are tests, too. A single seed tests nothing, and its
        // small p would make the others' adjustment too mild.
        let mut pairs: Vec<(Combination, Combination, f64)> = Vec::new();
        for comparison in standing.iter().flat_map(|(_, comparisons)| comparisons) {
            if comparison.seeds > 1 && find(&pairs, comparison).is_none() {
                pairs.push((comparison.first, comparison.second, comparison.p));
            }
        }
        let p_values: Vec<f64> =
            pairs.iter().map(|(_, _, p)| *p).chain(effects.iter().map(|effect| effect.p)).collect();
        let adjusted = holm(&p_values);
        for (effect, p) in effects.iter_mut().zip(&adjusted[pairs.len()..]) {
            effect.adjusted_p = *p;
        }
        let mut claims: Vec<Claim> = standing
            .into_iter()
            .map(|(claim, mut comparisons)| {
                for comparison in &mut comparisons {
                    comparison.adjusted_p = find(&pairs, comparison).map(|index| adjusted[index]);
                }
                claim.judge(results, comparisons)
            })
            .collect();
        if has_paper {
            claims.push(adding_orig(effects.iter().find(|effect| effect.source == Source::Orig)));
        }
        let (weakest_input, spread) = (weakest_input(results), Spread::of(results));
        Self { claims, effects, weakest_input, tests: p_values.len(), spread }
    }
}

fn find(pairs: &[(Combination, Combination, f64)], comparison: &Comparison) -> Option<usize> {
    let Comparison { first, second, .. } = comparison;
    pairs.iter().position(|(a, b, _)| (a == first && b == second) || (a == second && b == first))
}

/// The paper's section 4 and conclusion: what stands out.
fn claims() -> Vec<StandsOut> {
    let all = Combination::all();
    let of = |sources: &[Source]| Combination::new(sources.iter().copied());
    let sized = |len: usize| all.iter().copied().filter(|combination| combination.len() == len).collect::<Vec<_>>();
    use Source::{Fm1, Fm2, Fm3, Fm4, Orig};
    [
        ("FM2 is the best single input", of(&[Fm2]), sized(1), true),
        ("FM1+FM2 is the best pair", of(&[Fm1, Fm2]), sized(2), true),
        ("orig+FM2+FM3+FM4 is the best of all", of(&[Orig, Fm2, Fm3, Fm4]), all.clone(), true),
        ("FM4 is the weakest single input", of(&[Fm4]), sized(1), false),
    ]
    .into_iter()
    .filter_map(|(statement, champion, among, above)| Some(StandsOut { statement, champion: champion?, among, above }))
    .collect()
}

/// The champion against each of the others that has runs.
fn comparisons(results: &Results, claim: &StandsOut) -> Vec<Comparison> {
    let Some(champion) = results.cell(claim.champion) else { return Vec::new() };
    let others = claim.among.iter().filter(|other| **other != claim.champion);
    others.filter_map(|other| Comparison::of(champion, results.cell(*other)?)).collect()
}

impl StandsOut {
    fn judge(&self, results: &Results, comparisons: Vec<Comparison>) -> Claim {
        let (verdict, because) = self.verdict(results, &comparisons);
        Claim { statement: self.statement, verdict, because, comparisons }
    }

    fn verdict(&self, results: &Results, comparisons: &[Comparison]) -> (Verdict, String) {
        let sign = if self.above { 1.0 } else { -1.0 };
        let is_told = |comparison: &&Comparison| comparison.is_told();
        let behind = |comparison: &&Comparison| sign * comparison.difference < 0.0;
        let furthest_ahead = comparisons
            .iter()
            .filter(is_told)
            .filter(behind)
            .min_by(|a, b| (sign * a.difference).total_cmp(&(sign * b.difference)));
        if let Some(winner) = furthest_ahead {
            return (Verdict::DoesNotHold, self.beaten_by(winner));
        }
        let mean = results.cell(self.champion).and_then(|cell| cell.mean(Measure::Test));
        let (Some(mean), false) = (mean, comparisons.is_empty()) else {
            let because = format!("There are no runs of {} and of a rival of the same seed.", self.champion);
            return (Verdict::CannotBeTold, because);
        };
        let place = self.place(mean.mean, 1 + comparisons.iter().filter(behind).count(), comparisons.len());
        let told = comparisons.iter().filter(is_told).count();
        let missing = self.among.len() - 1 - comparisons.len();
        let verdict = if missing == 0 && told == comparisons.len() { Verdict::Holds } else { Verdict::CannotBeTold };
        let facts = [place].into_iter().chain(self.told(comparisons, told)).chain(doubts(comparisons, told, missing));
        (verdict, format!("{}.", facts.collect::<Vec<_>>().join("; ")))
    }

    /// The champion's accuracy and rank among its `rivals` and itself.
    fn place(&self, accuracy: f64, rank: usize, rivals: usize) -> String {
        let best = if self.above { "highest" } else { "lowest" };
        let place = if rank == 1 { format!("the {best}") } else { format!("the {} {best}", ordinal(rank)) };
        format!("{} has {}, {place} of {}", self.champion, percent(accuracy), rivals + 1)
    }

    /// How many rivals are told apart; none where a single seed tells nothing of any.
    fn told(&self, comparisons: &[Comparison], told: usize) -> Option<String> {
        let worse = if self.above { "worse" } else { "better" };
        comparisons.iter().any(|comparison| comparison.seeds > 1).then(|| {
            let rivals = comparisons.len();
            format!("{told} of its {rivals} rivals are {worse} beyond what the choice of test images explains")
        })
    }

    fn beaten_by(&self, winner: &Comparison) -> String {
        let [champion, rival] = winner.accuracies.map(percent);
        format!(
            "{} has {champion}; {}, with {rival}, is {} by {:.1} points ({} seeds, adjusted p {}).",
            self.champion,
            winner.second,
            if self.above { "better" } else { "worse" },
            100.0 * winner.difference.abs(),
            winner.seeds,
            winner.adjusted_p.map(p_value).unwrap_or_default(),
        )
    }
}

/// Why a claim cannot be told; empty if every rival is told apart.
fn doubts(comparisons: &[Comparison], told: usize, missing: usize) -> Vec<String> {
    let rivals = comparisons.len();
    let single = comparisons.iter().filter(|comparison| comparison.seeds == 1).count();
    let disagreements = comparisons.iter().filter(|comparison| comparison.seeds_disagree).count();
    let mut doubts = Vec::new();
    if missing > 0 {
        let have = if missing == 1 { "has" } else { "have" };
        doubts.push(format!("{missing} {have} no run of the same seed yet"));
    }
    if single > 0 {
        doubts.push(format!(
            "with {single} of its {rivals} rivals it has 1 seed in common, and one seed cannot tell what another would \
             have changed: with two or more (study.seeds) a difference can show with each"
        ));
    }
    if disagreements > 0 {
        doubts.push(format!("of {disagreements} rivals some seeds say one thing, some the other"));
    }
    if doubts.is_empty() && told < rivals {
        doubts.push("the test images do not tell it from all of them".to_owned());
    }
    doubts
}

fn percent(share: f64) -> String {
    format!("{:.2}%", 100.0 * share)
}

fn adding_orig(effect: Option<&Effect>) -> Claim {
    let statement = "Adding the original image helps";
    let claim = |verdict, because| Claim { statement, verdict, because, comparisons: Vec::new() };
    let Some(effect) = effect else {
        return claim(Verdict::CannotBeTold, "There are no runs with and without orig.".to_owned());
    };
    let (all, helped) = (effect.contexts.len(), effect.contexts.iter().filter(|(_, change)| *change > 0.0).count());
    let because = format!(
        "It changes test accuracy by {:+.2} points on average and raises it in {helped} of {all} contexts \
         (randomised signs, {}, adjusted p {}).",
        100.0 * effect.mean.mean,
        seeds(effect.seeds),
        p_value(effect.adjusted_p),
    );
    let verdict = match (effect.adjusted_p < ALPHA, effect.mean.mean > 0.0) {
        (true, true) => Verdict::Holds,
        (true, false) => Verdict::DoesNotHold,
        (false, _) => Verdict::CannotBeTold,
    };
    claim(verdict, because)
}

/// From the fewest to the most, in words.
fn seeds([fewest, most]: [usize; 2]) -> String {
    match (fewest, most) {
        (1, 1) => "1 seed".to_owned(),
        _ if fewest == most => format!("{most} seeds"),
        _ => format!("{fewest} to {most} seeds"),
    }
}

/// 2nd, 3rd, 4th.
fn ordinal(rank: usize) -> String {
    let ending = match (rank % 10, rank % 100) {
        (1, last) if last != 11 => "st",
        (2, last) if last != 12 => "nd",
        (3, last) if last != 13 => "rd",
        _ => "th",
    };
    format!("{rank}{ending}")
}

/// As it is usually written.
pub(crate) fn p_value(p: f64) -> String {
    if p < 0.001 { "< 0.001".to_owned() } else { format!("{p:.3}") }
}

#[cfg(test)]
mod tests {
    use super::{super::Discordant, *};
    use crate::results::made_up::results;

    const IMAGES: usize = 1000;

    fn judged(runs: &[(&str, u64, usize)], statement: &str) -> Claim {
        let analysis = Analysis::of(&results(IMAGES, runs));
        analysis.claims.into_iter().find(|claim| claim.statement == statement).unwrap()
    }

    /// The same runs with seeds 0 and 1.
    fn twice<'a>(runs: &[(&'a str, u64, usize)]) -> Vec<(&'a str, u64, usize)> {
        let again = runs.iter().map(|(name, _, correct)| (*name, 1, *correct));
        runs.iter().copied().chain(again).collect()
    }

    #[test]
    fn the_best_is_the_best_only_beyond_chance() {
        const STATEMENT: &str = "FM2 is the best single input";
        let singles = |fm2: usize, fm3: usize| {
            twice(&[("fm2", 0, fm2), ("orig", 0, 500), ("fm1", 0, 600), ("fm3", 0, fm3), ("fm4", 0, 400)])
        };
        let clear = judged(&singles(800, 700), STATEMENT);
        assert_eq!(clear.verdict, Verdict::Holds, "{}", clear.because);
        assert!(clear.because.contains("fm2 has 80.00%, the highest of 5; 4 of its 4 rivals"), "{}", clear.because);

        let close = judged(&singles(702, 700), STATEMENT);
        assert_eq!(close.verdict, Verdict::CannotBeTold);
        assert!(
            close.because.contains("3 of its 4 rivals") && close.because.contains("from all of them"),
            "{}",
            close.because
        );

        let beaten = judged(&singles(650, 700), STATEMENT);
        assert_eq!(beaten.verdict, Verdict::DoesNotHold);
        assert!(beaten.because.contains("fm3, with 70.00%, is better by 5.0 points"), "{}", beaten.because);

        let alone = judged(&twice(&[("fm2", 0, 800), ("orig", 0, 500), ("fm1", 0, 600)]), STATEMENT);
        assert_eq!(alone.verdict, Verdict::CannotBeTold, "two have no runs");
        assert!(alone.because.contains("2 have no run of the same seed yet"), "{}", alone.because);
        assert!(judged(&[], STATEMENT).because.contains("no runs of fm2"));
    }

    #[test]
    fn the_weakest_is_judged_the_other_way_round() {
        const STATEMENT: &str = "FM4 is the weakest single input";
        let singles =
            |fm4: usize| twice(&[("orig", 0, 500), ("fm1", 0, 600), ("fm2", 0, 700), ("fm3", 0, 700), ("fm4", 0, fm4)]);
        assert_eq!(judged(&singles(400), STATEMENT).verdict, Verdict::Holds);
        let strong = judged(&singles(750), STATEMENT);
        assert_eq!(strong.verdict, Verdict::DoesNotHold);
        assert!(strong.because.contains("orig, with 50.00%, is worse by 25.0 points"), "{}", strong.because);
    }

    #[test]
    fn one_seed_tells_nothing() {
        const STATEMENT: &str = "FM2 is the best single input";
        let singles =
            |fm3: usize| [("orig", 0, 500), ("fm1", 0, 600), ("fm2", 0, 800), ("fm3", 0, fm3), ("fm4", 0, 400)];
        for fm3 in [700, 900] {
            let claim = judged(&singles(fm3), STATEMENT);
            assert_eq!(claim.verdict, Verdict::CannotBeTold, "{}", claim.because);
            let said = "of 5; with 4 of its 4 rivals it has 1 seed in common, and one seed cannot tell";
            assert!(claim.because.contains(said) && claim.because.contains("study.seeds"), "{}", claim.because);
            assert!(claim.comparisons.iter().all(|comparison| comparison.p < 0.001 && comparison.adjusted_p.is_none()));
        }
        assert_eq!(Analysis::of(&results(IMAGES, &singles(700))).tests, 0);
        // One rival with a second seed is enough to be beaten by, not to be the best.
        let runs = |fm3| [&singles(fm3)[..], &[("fm2", 1, 800), ("fm3", 1, fm3)]].concat();
        let best = judged(&runs(700), STATEMENT);
        assert_eq!(best.verdict, Verdict::CannotBeTold);
        assert!(
            best.because.contains("1 of its 4 rivals are worse") && best.because.contains("with 3 of its 4 rivals")
        );
        assert_eq!(judged(&runs(900), STATEMENT).verdict, Verdict::DoesNotHold);
    }

    #[test]
    fn seeds_that_disagree_say_nothing() {
        let runs = [("fm1", 0, 500), ("fm2", 0, 800), ("fm1", 1, 800), ("fm2", 1, 560)];
        let claim = judged(&runs, "FM2 is the best single input");
        assert_eq!((claim.comparisons[0].seeds, claim.comparisons[0].p), (2, 1.0));
        assert!((claim.comparisons[0].difference - 0.03).abs() < 1e-9, "{:?}", claim.comparisons);
        // A draw of two sure seeds is no defeat.
        let draw = [("fm1", 0, 500), ("fm2", 0, 800), ("fm1", 1, 800), ("fm2", 1, 500)];
        let claim = judged(&draw, "FM2 is the best single input");
        assert_eq!((claim.verdict, claim.comparisons[0].p), (Verdict::CannotBeTold, 1.0), "{}", claim.because);
    }

    #[test]
    fn only_seeds_that_both_have_are_compared() {
        let runs = [("fm1", 0, 500), ("fm2", 0, 800), ("fm2", 1, 100)];
        let claim = judged(&runs, "FM2 is the best single input");
        let [comparison] = &claim.comparisons[..] else { panic!("{:?}", claim.comparisons) };
        assert_eq!((comparison.seeds, comparison.accuracies), (1, [0.8, 0.5]));
        assert_eq!(comparison.discordant, [Discordant { seed: 0, only_first: 300, only_second: 0 }]);
        let effect =
            &Analysis::of(&results(IMAGES, &[("fm1", 0, 500), ("fm1+fm2", 0, 700), ("fm1", 1, 900)])).effects[0];
        assert_eq!((effect.source, effect.contexts.len()), (Source::Fm2, 1));
        assert!((effect.mean.mean - 0.2).abs() < 1e-9, "{effect:?}");
    }

    #[test]
    fn an_odd_context_is_seen() {
        // fm3 adds 2 points to all but orig alone, to which it adds 30.
        let pairs = [("orig", 400, 700), ("fm1", 600, 620), ("fm2", 650, 670)];
        let names = ["orig+fm3", "fm1+fm3", "fm2+fm3"];
        let runs: Vec<(&str, u64, usize)> = pairs
            .iter()
            .zip(names)
            .flat_map(|((name, without, with), added)| [(*name, 0, *without), (added, 0, *with), (added, 1, *with)])
            .chain([("fm2", 1, 650)])
            .collect();
        let analysis = Analysis::of(&results(IMAGES, &runs));
        assert_eq!(analysis.weakest_input, Combination::new([Source::Orig]));
        let effect = analysis.effects.iter().find(|effect| effect.source == Source::Fm3).unwrap();
        let without = effect.mean_without_weakest.unwrap();
        assert_eq!((effect.contexts.len(), effect.seeds, without.count), (3, [1, 2], 2));
        assert!((effect.mean.mean - 0.34 / 3.0).abs() < 1e-9 && (effect.median - 0.02).abs() < 1e-9, "{effect:?}");
        assert!((without.mean - 0.02).abs() < 1e-9, "{effect:?}");
        let single = Analysis::of(&results(IMAGES, &[("fm1", 0, 500), ("fm1+fm2", 0, 700)]));
        assert_eq!(single.weakest_input, None, "of one input none is the weakest");
        assert_eq!(single.effects[0].mean_without_weakest, Some(single.effects[0].mean));
    }

    #[test]
    fn effects_are_those_of_all_contexts() {
        let all = Combination::all();
        let names: Vec<String> = all.iter().map(ToString::to_string).collect();
        // orig adds 4 points to whatever it is added to, fm4 takes 2.
        let runs: Vec<(&str, u64, usize)> = all
            .iter()
            .zip(&names)
            .map(|(combination, name)| {
                let of = |source| usize::from(combination.contains(source));
                (name.as_str(), 0, 600 + 40 * of(Source::Orig) - 20 * of(Source::Fm4))
            })
            .collect();
        let analysis = Analysis::of(&results(IMAGES, &runs));
        let effect = |source| analysis.effects.iter().find(|effect| effect.source == source).unwrap();
        assert_eq!(effect(Source::Orig).contexts.len(), 15);
        assert!((effect(Source::Orig).mean.mean - 0.04).abs() < 1e-9);
        assert!((effect(Source::Fm4).mean.mean + 0.02).abs() < 1e-9);
        // fm4 alone is the weakest.
        assert_eq!(analysis.weakest_input, Combination::new([Source::Fm4]));
        assert_eq!((effect(Source::Orig).seeds, effect(Source::Orig).median), ([1, 1], 0.04));
        assert_eq!(effect(Source::Orig).mean_without_weakest.unwrap().count, 14);
        // The paper's own effects: +3.7 points for orig, −0.7 for fm4.
        let paper = |source| 100.0 * effect(source).paper_mean.unwrap();
        assert!((paper(Source::Orig) - 3.7).abs() < 0.05 && (paper(Source::Fm4) + 0.7).abs() < 0.05);
        let claim = analysis.claims.iter().find(|claim| claim.statement == "Adding the original image helps").unwrap();
        assert_eq!(claim.verdict, Verdict::Holds);
        assert!(
            claim.because.contains("raises it in 15 of 15 contexts (randomised signs, 1 seed, "),
            "{}",
            claim.because
        );
        assert_eq!(analysis.tests, 5, "a single seed tests no pair");
        // 4 + 9 + 30 + 4 comparisons, of which fm2 against fm4 is asked for twice, and 5 effects.
        assert_eq!(Analysis::of(&results(IMAGES, &twice(&runs))).tests, 4 + 9 + 30 + 3 + 5);
    }
}
