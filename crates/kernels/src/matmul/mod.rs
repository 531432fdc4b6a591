//! Matrix products of 32-bit floats on one register tile, with factors as they are or rounded to bfloat16. Sums are 32-bit
//! floats in any case.
//!
//! Shapes: C (M, N) is a sum over K of products of A (M, K) and B (K, N).
//!
//! A tile is up to 14 rows × 32 columns with AVX-512: 28 accumulators, two registers of B and one broadcast value of A.
//! B comes as rows whose neighbours are columns: either packed into [`Panels`], so that a long sum reads one stretch of
//! memory, or as the rows of a matrix. A is read element by element in any layout, which makes the same tile serve
//! x Wᵀ, dY W and dYᵀ X. A [`Multiplier`] rounds what is not packed to bfloat16 when a product needs it. With AVX512-BF16
//! an element is then a pair of neighbours along the sum, which one lane multiplies and adds; on other processors it is a
//! 32-bit float again.
//!
//! Every element of C is summed in the order of K, or of pairs along K, whatever the tile it lies in. So results do not
//! depend on how the rows and columns are shared out to threads.

mod multiplier;
mod pairs;
mod panels;
mod rounded;
mod tile;

pub use multiplier::Multiplier;
pub use panels::Panels;

use half::bf16;
use panels::{Values, panel_columns};
use tile::{MOST_ROWS, Tile, Tiled};

use crate::{Isa, tile::bf16_isa};

/// Groups of terms that are summed before the next rows' turn: 128 KiB of a panel, which the second-level cache keeps.
const DEPTH_BLOCK: usize = 1024;

/// What the factors of products are rounded to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// They are as they are.
    #[default]
    F32,
    /// bfloat16, 8 bits of precision.
    Bf16,
}

impl Precision {
    /// What products of this precision multiply, where `isa` is chosen.
    fn factors(self, isa: Isa) -> Factors {
        match self {
            Self::F32 => Factors::AsTheyAre,
            Self::Bf16 if isa == Isa::Avx512 && bf16_isa(isa) == isa => Factors::Pairs,
            Self::Bf16 => Factors::Rounded,
        }
    }
}

/// What tiles multiply. Each sum of [`Rounded`](Self::Rounded) is that of rounded factors as they are, bit for bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Factors {
    AsTheyAre,
    /// 32-bit floats that were rounded to bfloat16.
    Rounded,
    /// Pairs of bfloat16.
    Pairs,
}

/// Rows of a tile for `isa`: two registers of columns each must fit beside B and A.
const fn tile_rows(isa: Isa) -> usize {
    match isa {
        Isa::Avx512 => MOST_ROWS,
        Isa::Avx2 => 6,
        Isa::Portable => 3,
    }
}

/// A matrix to read: element (row, column) is `values[row × row_step + column × column_step]`.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// The numbers.
    pub values: &'a [f32],
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// From one row to the next.
    pub row_step: usize,
    /// From one column to the next.
    pub column_step: usize,
}

impl<'a> Matrix<'a> {
    /// `values` row by row, `stride` apart.
    pub const fn rows(values: &'a [f32], rows: usize, columns: usize, stride: usize) -> Self {
        Self { values, rows, columns, row_step: stride, column_step: 1 }
    }

    /// The same numbers with rows and columns exchanged.
    pub const fn transposed(self) -> Self {
        let Self { values, rows, columns, row_step, column_step } = self;
        Self { values, rows: columns, columns: rows, row_step: column_step, column_step: row_step }
    }

    const fn extent(&self) -> usize {
        extent(self.rows, self.columns, self.row_step, self.column_step)
    }

    /// The columns from `first` on.
    fn columns_from(self, first: usize) -> Self {
        let values = self.values.get(first * self.column_step..).unwrap_or_default();
        Self { values, columns: self.columns - first, ..self }
    }

    /// `count` rows from `first` on.
    fn rows_from(self, first: usize, count: usize) -> Self {
        let values = self.values.get(first * self.row_step..).unwrap_or_default();
        Self { values, rows: count, ..self }
    }
}

/// A matrix to write, row by row.
#[derive(Debug)]
pub struct MatrixMut<'a> {
    /// The numbers.
    pub values: &'a mut [f32],
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// From one row to the next.
    pub row_step: usize,
}

const fn extent(rows: usize, columns: usize, row_step: usize, column_step: usize) -> usize {
    if rows == 0 || columns == 0 { 0 } else { (rows - 1) * row_step + (columns - 1) * column_step + 1 }
}

/// What a product is added to.
#[derive(Clone, Copy, Debug)]
pub enum Begin<'a> {
    /// Nothing.
    Zero,
    /// The same row (N) everywhere.
    Bias(&'a [f32]),
    /// What C holds.
    Present,
}

/// C = begin + A · B of rows in any layout and packed panels of 32-bit floats.
///
/// # Panics
/// If the shapes do not fit together or reach beyond their values, or the panels are of bfloat16.
pub fn multiply(a: Matrix<'_>, b: &Panels, begin: Begin<'_>, c: MatrixMut<'_>) {
    assert_eq!(b.factors, Factors::AsTheyAre, "precision of the right factor");
    multiply_floats(a, b, begin, c);
}

/// The same of factors that may be rounded.
fn multiply_floats(a: Matrix<'_>, b: &Panels, begin: Begin<'_>, c: MatrixMut<'_>) {
    assert_eq!((a.columns, b.columns), (b.depth, c.columns), "shapes of a product");
    assert!(a.extent() <= a.values.len(), "the left factor reaches beyond its values");
    let Values::Floats(values) = &b.values else { unreachable!("panels of pairs in a product of 32-bit floats") };
    let left = Left { values: a.values.as_ptr(), rows: a.rows, row: a.row_step, step: a.column_step };
    let width = panel_columns(b.isa);
    let right = Right { values: values.as_ptr(), step: width, panel: b.depth * width };
    // SAFETY: the left factor's extent is checked; the panels hold `depth` rows of a panel's columns each.
    unsafe { product(b.isa, &left, &right, b.depth, begin, c) }
}

/// C = begin + A · B where B is read row by row, as it lies. Every row of `b.values` must have as many floats behind its
/// first as a multiple of [`row_padding`] has room for; those beyond its columns may be anything.
///
/// # Panics
/// If the shapes do not fit together or reach beyond their values.
pub fn multiply_rows(isa: Isa, a: Matrix<'_>, b: Matrix<'_>, begin: Begin<'_>, c: MatrixMut<'_>) {
    isa.assert_available();
    assert_eq!((a.columns, b.columns, b.column_step), (b.rows, c.columns, 1), "shapes of a product");
    let width = panel_columns(isa);
    let padded = b.columns.div_ceil(width) * width;
    assert!(a.extent() <= a.values.len(), "the left factor reaches beyond its values");
    assert!(extent(b.rows, padded, b.row_step, 1) <= b.values.len(), "the right factor reaches beyond its values");
    let left = Left { values: a.values.as_ptr(), rows: a.rows, row: a.row_step, step: a.column_step };
    let right = Right { values: b.values.as_ptr(), step: b.row_step, panel: width };
    // SAFETY: both factors' extents are checked, B's to the end of the last panel.
    unsafe { product(isa, &left, &right, a.columns, begin, c) }
}

/// What the length of the rows that [`multiply_rows`] reads must be a multiple of.
pub const fn row_padding() -> usize {
    panel_columns(Isa::Avx512)
}

/// The left factor: where it begins, its rows, and the steps from one row to the next and from one group of terms to the
/// next.
struct Left<E> {
    values: *const E,
    rows: usize,
    row: usize,
    step: usize,
}

/// The right factor: where it begins, and the steps from one group of terms to the next and from one panel to the next.
struct Right<E> {
    values: *const E,
    step: usize,
    panel: usize,
}

/// # Safety
/// Both factors must be readable as far as their steps and `groups` groups of terms take them, the right one to the end of
/// its last panel, and `isa` must be one that the element is computed with.
unsafe fn product<E: Tiled>(isa: Isa, a: &Left<E>, b: &Right<E>, groups: usize, begin: Begin<'_>, c: MatrixMut<'_>) {
    assert_eq!(a.rows, c.rows, "rows of a product");
    assert!(extent(c.rows, c.columns, c.row_step, 1) <= c.values.len(), "the product reaches beyond its values");
    assert!(c.rows <= 1 || c.columns <= c.row_step, "the rows of the product overlap");
    if let Begin::Bias(bias) = begin {
        assert_eq!(bias.len(), c.columns, "columns of the bias");
    }
    if c.rows == 0 || c.columns == 0 {
        return;
    }
    let width = panel_columns(isa);
    let tiles = c.rows.div_ceil(tile_rows(isa));
    let c_start = c.values.as_mut_ptr();
    let mut from = 0;
    loop {
        let count = (groups - from).min(DEPTH_BLOCK);
        for index in 0..tiles {
            let (row, end) = (index * c.rows / tiles, (index + 1) * c.rows / tiles);
            for column in (0..c.columns).step_by(width) {
                let columns = width.min(c.columns - column);
                // SAFETY: C's extent was checked above; the factors are the caller's contract.
                unsafe {
                    let present = from > 0 || matches!(begin, Begin::Present);
                    let bias = match begin {
                        Begin::Bias(bias) if !present => bias.as_ptr().add(column),
                        _ => std::ptr::null(),
                    };
                    let tile = Tile {
                        a: a.values.add(row * a.row + from * a.step),
                        a_row: a.row,
                        a_step: a.step,
                        b: b.values.add(column / width * b.panel + from * b.step),
                        b_step: b.step,
                        groups: count,
                        c: c_start.add(row * c.row_step + column),
                        c_row: c.row_step,
                        columns,
                        bias,
                        present,
                    };
                    E::run(isa, &tile, end - row);
                }
            }
        }
        from += count;
        if from >= groups {
            return;
        }
    }
}
