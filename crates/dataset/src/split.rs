use choice::choice;

choice! {
    /// What an image is for.
    #[derive(PartialOrd, Ord)]
    pub enum Split for "split" {
        /// Learnt from.
        Train = "train",
        /// Chosen by: hyper-parameters and the moment to stop.
        Valid = "valid",
        /// Looked at once, at the end.
        Test = "test",
    }
}

impl Split {
    /// The word that FER2013's and FERPlus's tables use in their `Usage` column.
    pub(crate) const fn usage(self) -> &'static str {
        match self {
            Self::Train => "Training",
            Self::Valid => "PublicTest",
            Self::Test => "PrivateTest",
        }
    }

    /// The split that a `Usage` column names.
    pub(crate) fn from_usage(usage: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|split| split.usage() == usage)
    }
}
