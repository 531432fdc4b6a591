/// How runs share a GPU's memory.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sharing {
    /// Runs that are trained together at most.
    pub(super) most_together: usize,
    pub(super) holds: Holds,
}

/// Whose tokens are brought into a GPU's memory if they seem to fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    /// Those of the training images and of the validation images.
    All,
    /// Those of the training images.
    Training,
    /// Nobody's.
    Nothing,
}

impl Sharing {
    /// As much as is foreseen to fit.
    pub(super) const fn as_foreseen() -> Self {
        Self { most_together: usize::MAX, holds: Holds::All }
    }

    /// Takes note that no validation image's tokens are held, for want of room or of a GPU: there is nothing to gain by giving them up.
    pub(super) fn holds_no_validation(&mut self) {
        if self.holds == Holds::All {
            self.holds = Holds::Training;
        }
    }

    /// Shares less, since it was too much with `together` runs, and says so; false if there is nothing left to do without: others,
    /// which may need less, begin as foreseen. What costs
    /// least comes first: validation images are asked about now and then, and runs that are not trained now are trained later.
    pub(super) fn reduce(&mut self, together: usize) -> bool {
        match self.holds {
            Holds::All => {
                self.holds = Holds::Training;
                tracing::warn!("no memory for the tokens of all validation images; going on without holding them");
            }
            _ if together > 1 => {
                self.most_together = together / 2;
                tracing::warn!("no memory for {together} runs at once; going on with {} at most", self.most_together);
            }
            Holds::Training => {
                self.holds = Holds::Nothing;
                tracing::warn!("no memory for the tokens of all images; going on with those of a batch at a time");
            }
            Holds::Nothing => {
                *self = Self::as_foreseen();
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_validation_tokens_then_fewer_runs_then_no_tokens_then_no_more() {
        let mut sharing = Sharing::as_foreseen();
        assert!(sharing.reduce(31));
        assert_eq!(sharing, Sharing { most_together: usize::MAX, holds: Holds::Training });
        for most_together in [15, 7, 3, 1] {
            assert!(sharing.reduce(2 * most_together + 1));
            assert_eq!(sharing, Sharing { most_together, holds: Holds::Training });
        }
        assert!(sharing.reduce(1));
        assert_eq!(sharing, Sharing { most_together: 1, holds: Holds::Nothing });
        assert!(!sharing.reduce(1));
        assert_eq!(sharing, Sharing::as_foreseen(), "for the next run");
    }

    #[test]
    fn what_is_not_held_is_not_given_up() {
        let mut sharing = Sharing::as_foreseen();
        sharing.holds_no_validation();
        assert!(sharing.reduce(31));
        assert_eq!(sharing, Sharing { most_together: 15, holds: Holds::Training });
        let mut nothing = Sharing { most_together: 1, holds: Holds::Nothing };
        nothing.holds_no_validation();
        assert_eq!(nothing.holds, Holds::Nothing);
    }
}
