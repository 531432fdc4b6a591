/// The candidate closest to `word` by edit distance, if it is close enough to be a likely typing error.
///
/// "Close enough" is at most a third of the longer word's letters, and at least one.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| {
            let allowed = (word.chars().count().max(candidate.chars().count()) / 3).max(1);
            (strsim::damerau_levenshtein(&word, candidate), allowed, candidate)
        })
        .filter(|(distance, allowed, _)| distance <= allowed)
        .min_by_key(|(distance, ..)| *distance)
        .map(|(.., candidate)| candidate)
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
    }
}
