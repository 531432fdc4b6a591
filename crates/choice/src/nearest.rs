/// The candidate closest to `word` by edit distance, if it is close enough to be a likely typing error.
///
/// "Close enough" is at most a third of the longer word's letters, and at least one.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let letters = word.chars().count();
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let of_candidate = candidate.chars().count();
            let allowed = (letters.max(of_candidate) / 3).max(1);
            // As many letters at least would have to come or go: a word that is a page long costs nothing.
            let is_out_of_reach = letters.abs_diff(of_candidate) > allowed;
            let distance = (!is_out_of_reach).then(|| strsim::damerau_levenshtein(&word, candidate))?;
            (distance <= allowed).then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn finds_the_likely_word_and_nothing_far_fetched() {
        let valid = ["orig", "fm1", "fm2"];
        assert_eq!(nearest("origg", valid), Some("orig"));
        assert_eq!(nearest("FM2", valid), Some("fm2"));
        assert_eq!(nearest("resnet", valid), None);
        assert_eq!(nearest(&"orig".repeat(1_000_000), valid), None);
    }
}
