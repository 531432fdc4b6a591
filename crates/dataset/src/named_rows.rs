use rayon::prelude::*;

use crate::{
    annotation::Votes,
    audit::RepeatedName,
    label_table::{LabelTable, VoteRow},
    split::Split,
};

/// The rows of a table that have a name, ordered by split and name; where a name occurs twice, in the order of the file.
///
/// Tables and listings of folders have much the same order, so that two of a million entries are brought together by walking
/// along both, without a look-up.
pub(crate) struct NamedRows<'a>(Vec<&'a VoteRow>);

impl<'a> NamedRows<'a> {
    pub(crate) fn of(table: &'a LabelTable) -> Self {
        let mut rows: Vec<&VoteRow> = table.rows.iter().filter(|row| !row.name.is_empty()).collect();
        rows.par_sort_by(|one, other| one.key().cmp(&other.key()));
        Self(rows)
    }

    /// How many different names there are.
    pub(crate) fn names(&self) -> usize {
        self.groups().count()
    }

    /// The names that occur more than once, in the order of their first rows.
    pub(crate) fn repeated(&self) -> Vec<RepeatedName> {
        let repeated = self.groups().filter(|rows| rows.len() > 1).map(|rows| RepeatedName {
            name: rows[0].name.clone(),
            lines: rows.iter().map(|row| row.line).collect(),
            same_votes: rows.iter().all(|row| row.votes == rows[0].votes),
        });
        let mut repeated: Vec<RepeatedName> = repeated.collect();
        repeated.sort_by(|one, other| one.lines.cmp(&other.lines));
        repeated
    }

    /// For asking about names in their order.
    pub(crate) const fn walk(&self) -> Walk<'_, 'a> {
        Walk { rows: self, next: 0 }
    }

    fn groups(&self) -> impl Iterator<Item = &[&'a VoteRow]> {
        self.0.chunk_by(|one, other| one.key() == other.key())
    }
}

/// Goes along the rows, once.
pub(crate) struct Walk<'r, 'a> {
    rows: &'r NamedRows<'a>,
    next: usize,
}

impl Walk<'_, '_> {
    /// The votes for an image, of its first row. Images must be asked about in the order of their splits and names.
    pub(crate) fn votes(&mut self, split: Split, name: &str) -> Option<Votes> {
        let rows = &self.rows.0;
        while rows.get(self.next).is_some_and(|row| row.key() < (split, name)) {
            self.next += 1;
        }
        rows.get(self.next).filter(|row| row.key() == (split, name)).map(|row| row.votes)
    }
}

impl VoteRow {
    fn key(&self) -> (Split, &str) {
        (self.split, &self.name)
    }
}
