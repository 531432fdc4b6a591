use rayon::prelude::*;

use crate::{
    annotation::Votes,
    audit::RepeatedName,
    label_table::{LabelTable, VoteRow},
    split::Split,
};

/// The rows of a table that have a name, as indices, ordered by split and name; where a name occurs twice, in the order of the
/// file.
///
/// Tables and listings of folders have much the same order, so that two of a million entries are brought together by walking
/// along both, without a look-up.
#[derive(Debug)]
pub(crate) struct NamedRows(Vec<u32>);

impl NamedRows {
    pub(crate) fn of(rows: &[VoteRow]) -> Self {
        let named = (0..rows.len() as u32).into_par_iter().filter(|row| !rows[*row as usize].name.is_empty());
        let mut order: Vec<u32> = named.collect();
        order.par_sort_by(|one, other| rows[*one as usize].key().cmp(&rows[*other as usize].key()));
        Self(order)
    }

    /// The rows of each name.
    fn groups<'a>(&'a self, rows: &'a [VoteRow]) -> impl Iterator<Item = &'a [u32]> {
        self.0.chunk_by(|one, other| rows[*one as usize].key() == rows[*other as usize].key())
    }

    /// The names that occur more than once, in the order of their first rows.
    pub(crate) fn repeated(&self, rows: &[VoteRow]) -> Vec<RepeatedName> {
        let repeated = self.groups(rows).filter(|group| group.len() > 1).map(|group| {
            let rows: Vec<&VoteRow> = group.iter().map(|row| &rows[*row as usize]).collect();
            RepeatedName {
                name: rows[0].name.to_string(),
                lines: rows.iter().map(|row| row.line).collect(),
                same_votes: rows.iter().all(|row| row.votes == rows[0].votes),
            }
        });
        let mut repeated: Vec<RepeatedName> = repeated.collect();
        repeated.sort_by(|one, other| one.lines.cmp(&other.lines));
        repeated
    }
}

impl LabelTable {
    /// How many different names there are.
    pub(crate) fn names(&self) -> usize {
        let NamedRows(order) = &self.named;
        let key = |row: u32| self.rows[row as usize].key();
        usize::from(!order.is_empty()) + order.par_windows(2).filter(|pair| key(pair[0]) != key(pair[1])).count()
    }

    /// For asking about names.
    pub(crate) const fn walk(&self) -> Walk<'_> {
        Walk { table: self, next: None }
    }
}

/// Goes along the rows of a table that have names.
pub(crate) struct Walk<'a> {
    table: &'a LabelTable,
    /// Where to look for the next name; none before the first.
    next: Option<usize>,
}

impl Walk<'_> {
    /// The votes for an image, of its first row. The first image may be any; then they must be asked about in the order of their
    /// splits and names.
    pub(crate) fn votes(&mut self, split: Split, name: &str) -> Option<Votes> {
        let LabelTable { rows, named: NamedRows(order), .. } = self.table;
        let key = |place: usize| order.get(place).map(|row| rows[*row as usize].key());
        let first = || order.partition_point(|row| rows[*row as usize].key() < (split, name));
        let mut next = self.next.unwrap_or_else(first);
        while key(next).is_some_and(|key| key < (split, name)) {
            next += 1;
        }
        self.next = Some(next);
        (key(next) == Some((split, name))).then(|| rows[order[next] as usize].votes)
    }
}

impl VoteRow {
    fn key(&self) -> (Split, &str) {
        (self.split, &self.name)
    }
}
