//! The results of Oh & Yoo (2023), "A study on the effectiveness of intermediate features in deep learning on
//! facial expression recognition", Tables 1–3.

use std::collections::HashMap;

use anyhow::Result;
use serde::Deserialize;
use sources::Combination;

const TABLES: &str = include_str!("../paper_tables.csv");

/// One row of the paper's tables.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct PaperRow {
    /// The inputs.
    pub inputs: Combination,
    /// Training accuracy in percent.
    pub train_accuracy: f64,
    /// Test accuracy in percent.
    pub test_accuracy: f64,
    /// Number of the table.
    pub table: u8,
}

/// All 31 rows by their inputs.
pub fn rows() -> Result<HashMap<Combination, PaperRow>> {
    let mut reader = csv::Reader::from_reader(TABLES.as_bytes());
    reader.deserialize().map(|row| row.map(|row: PaperRow| (row.inputs, row)).map_err(Into::into)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_cells_are_there() {
        let rows = rows().unwrap();
        assert_eq!(rows.len(), 31);
        let best = rows.values().max_by(|a, b| a.test_accuracy.total_cmp(&b.test_accuracy)).unwrap();
        assert_eq!((best.inputs.to_string().as_str(), best.test_accuracy), ("orig+fm2+fm3+fm4", 79.21));
    }
}
