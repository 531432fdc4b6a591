/// How runs share a GPU's memory.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sharing {
    /// Runs that are trained together at most.
    pub(super) most_together: usize,
    /// Whether the tokens of all images are brought there if they seem to fit.
    pub(super) holds_tokens: bool,
}

impl Sharing {
    /// As much as is foreseen to fit.
    pub(super) const fn as_foreseen() -> Self {
        Self { most_together: usize::MAX, holds_tokens: true }
    }

    /// Shares less, since it was too much with `together` runs, and says so; false if there is nothing left to do without.
    pub(super) fn reduce(&mut self, together: usize) -> bool {
        if together > 1 {
            self.most_together = together / 2;
            tracing::warn!("no memory for {together} runs at once; going on with {} at most", self.most_together);
            return true;
        }
        if self.holds_tokens {
            self.holds_tokens = false;
            tracing::warn!("no memory for the tokens of all images; going on with those of a batch at a time");
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_runs_then_no_tokens_then_no_more() {
        let mut sharing = Sharing::as_foreseen();
        for most_together in [15, 7, 3, 1] {
            assert!(sharing.reduce(2 * most_together + 1));
            assert_eq!(sharing, Sharing { most_together, holds_tokens: true });
        }
        assert!(sharing.reduce(1));
        assert_eq!(sharing, Sharing { most_together: 1, holds_tokens: false });
        assert!(!sharing.reduce(1));
    }
}
