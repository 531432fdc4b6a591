//! Matrix products of 32-bit floats on one register tile.
//!
//! Shapes: C (M, N) is a sum over K of products of A (M, K) and B (K, N).
//!
//! A tile is up to 14 rows × 32 columns with AVX-512: 28 accumulators, two registers of B and one broadcast value of A.
//! B comes as rows whose neighbours are columns: either packed into [`Panels`], so that a long sum reads one stretch of
//! memory, or as the rows of a matrix. A is read element by element in any layout, which makes the same tile serve
//! x Wᵀ, dY W and dYᵀ X.
//!
//! Every element of C is summed in the order of K whatever the tile it lies in. So results do not depend on how the
//! rows and columns are shared out to threads.

use crate::{
    Isa,
    aligned::Aligned,
    vector::{Vector, for_each_isa},
};

/// Rows of a tile: even shares of any count of rows have a function of their own.
const MOST_ROWS: usize = 14;

/// Terms that are summed before the next rows' turn: 128 KiB of a panel, which the second-level cache keeps.
const DEPTH_BLOCK: usize = 1024;

/// Columns of a panel for `isa`.
const fn panel_columns(isa: Isa) -> usize {
    match isa {
        Isa::Avx512 => 32,
        Isa::Avx2 => 16,
        Isa::Portable => 8,
    }
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

/// The right factor (K, N) in panels: (N / panel columns, K, panel columns), the last one filled up with zeros.
#[derive(Clone, Debug)]
pub struct Panels {
    isa: Isa,
    depth: usize,
    columns: usize,
    values: Aligned<f32>,
}

impl Panels {
    /// A factor of zeros for the tiles of `isa`.
    pub fn new(isa: Isa, depth: usize, columns: usize) -> Self {
        let width = panel_columns(isa);
        Self { isa, depth, columns, values: Aligned::zeros(columns.div_ceil(width) * width * depth) }
    }

    /// Overwrites it with `matrix` (K, N).
    ///
    /// # Panics
    /// If the shapes differ or `matrix` reaches beyond its values.
    pub fn pack(&mut self, matrix: Matrix<'_>) {
        assert_eq!((matrix.rows, matrix.columns), (self.depth, self.columns), "shape of the right factor");
        assert!(matrix.extent() <= matrix.values.len(), "the right factor reaches beyond its values");
        let width = panel_columns(self.isa);
        for (index, panel) in self.values.chunks_exact_mut(self.depth.max(1) * width).enumerate() {
            let first = index * width;
            let columns = width.min(self.columns - first);
            if matrix.column_step == 1 {
                for (k, row) in panel.chunks_exact_mut(width).enumerate() {
                    let begin = k * matrix.row_step + first;
                    row[..columns].copy_from_slice(&matrix.values[begin..begin + columns]);
                }
            } else if matrix.row_step == 1 {
                let from = &matrix.values[first * matrix.column_step..];
                // SAFETY: `from` reaches as far as the matrix, and the panel has `depth` rows of `width`; the instruction
                // set comes from `Isa::available`.
                unsafe { pack_columns(self.isa, from, matrix.column_step, columns, panel, width) }
            } else {
                for (k, row) in panel.chunks_exact_mut(width).enumerate() {
                    for (column, to) in row[..columns].iter_mut().enumerate() {
                        *to = matrix.values[(first + column) * matrix.column_step + k * matrix.row_step];
                    }
                }
            }
        }
    }
}

for_each_isa! {
    /// Columns that lie one behind the other, `step` apart, into the rows of a panel.
    fn pack_columns = columns_to_rows(from: &[f32], step: usize, columns: usize, panel: &mut [f32], width: usize)
}

#[inline(always)]
unsafe fn columns_to_rows<V: Vector>(from: &[f32], step: usize, columns: usize, panel: &mut [f32], width: usize) {
    let depth = panel.len() / width;
    let (whole_depth, whole_columns) = (depth / V::LANES * V::LANES, columns / V::LANES * V::LANES);
    for k in (0..whole_depth).step_by(V::LANES) {
        for column in (0..whole_columns).step_by(V::LANES) {
            // SAFETY: a square within both.
            unsafe {
                V::transpose(
                    from.as_ptr().add(column * step + k),
                    step,
                    panel.as_mut_ptr().add(k * width + column),
                    width,
                )
            }
        }
    }
    for column in 0..columns {
        let begin = if column < whole_columns { whole_depth } else { 0 };
        for k in begin..depth {
            panel[k * width + column] = from[column * step + k];
        }
    }
}

/// Where a tile reads and writes; steps are in floats.
#[derive(Debug)]
struct Tile {
    a: *const f32,
    a_row: usize,
    a_step: usize,
    b: *const f32,
    b_step: usize,
    depth: usize,
    c: *mut f32,
    c_row: usize,
    /// Columns of C that there are, up to a panel's.
    columns: usize,
    /// What the first term is added to: a row, or C where null.
    bias: *const f32,
    present: bool,
}

/// C = begin + A · B of rows in any layout and packed panels.
///
/// # Panics
/// If the shapes do not fit together or reach beyond their values.
pub fn multiply(a: Matrix<'_>, b: &Panels, begin: Begin<'_>, c: MatrixMut<'_>) {
    assert_eq!((a.columns, b.columns), (b.depth, c.columns), "shapes of a product");
    let panel = b.depth * panel_columns(b.isa);
    // SAFETY: the panels hold `depth` rows of a panel's columns each.
    unsafe { product(b.isa, a, (b.values.as_ptr(), panel_columns(b.isa), panel), begin, c) }
}

/// C = begin + A · B where B is read row by row, as it lies. Every row of `b.values` must have as many floats behind its
/// first as a multiple of [`row_padding`] has room for; those beyond its columns may be anything.
///
/// # Panics
/// If the shapes do not fit together or reach beyond their values.
pub fn multiply_rows(isa: Isa, a: Matrix<'_>, b: Matrix<'_>, begin: Begin<'_>, c: MatrixMut<'_>) {
    assert!(Isa::available().any(|available| available == isa), "this processor has no {isa}");
    assert_eq!((a.columns, b.columns, b.column_step), (b.rows, c.columns, 1), "shapes of a product");
    let width = panel_columns(isa);
    let padded = b.columns.div_ceil(width) * width;
    assert!(extent(b.rows, padded, b.row_step, 1) <= b.values.len(), "the right factor reaches beyond its values");
    // SAFETY: all rows of B are within its values, to the end of the last panel.
    unsafe { product(isa, a, (b.values.as_ptr(), b.row_step, width), begin, c) }
}

/// What the length of the rows that [`multiply_rows`] reads must be a multiple of.
pub const fn row_padding() -> usize {
    panel_columns(Isa::Avx512)
}

/// # Safety
/// From the pointer of `b`, panel p begins p × the third number behind it, and has one row of a panel's columns every
/// second number, as many as A has columns.
unsafe fn product(
    isa: Isa,
    a: Matrix<'_>,
    (b, b_step, b_panel): (*const f32, usize, usize),
    begin: Begin<'_>,
    c: MatrixMut<'_>,
) {
    assert_eq!(a.rows, c.rows, "rows of a product");
    assert!(a.extent() <= a.values.len(), "the left factor reaches beyond its values");
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
        let depth = (a.columns - from).min(DEPTH_BLOCK);
        for index in 0..tiles {
            let (row, end) = (index * c.rows / tiles, (index + 1) * c.rows / tiles);
            for column in (0..c.columns).step_by(width) {
                let columns = width.min(c.columns - column);
                // SAFETY: the extents were checked above; B is the caller's contract.
                unsafe {
                    let present = from > 0 || matches!(begin, Begin::Present);
                    let bias = match begin {
                        Begin::Bias(bias) if !present => bias.as_ptr().add(column),
                        _ => std::ptr::null(),
                    };
                    let tile = Tile {
                        a: a.values.as_ptr().add(row * a.row_step + from * a.column_step),
                        a_row: a.row_step,
                        a_step: a.column_step,
                        b: b.add(column / width * b_panel + from * b_step),
                        b_step,
                        depth,
                        c: c_start.add(row * c.row_step + column),
                        c_row: c.row_step,
                        columns,
                        bias,
                        present,
                    };
                    run(isa, &tile, end - row);
                }
            }
        }
        from += depth;
        if from >= a.columns {
            return;
        }
    }
}

/// # Safety
/// As for [`compute`].
unsafe fn run(isa: Isa, tile: &Tile, rows: usize) {
    // SAFETY: the caller's contract.
    unsafe { if tile.a_row == 1 { columns_tile(isa, tile, rows) } else { rows_tile(isa, tile, rows) } }
}

for_each_isa! {
    /// A tile whose A has its rows side by side.
    fn columns_tile = by_rows_of_columns(tile: &Tile, rows: usize)
}

for_each_isa! {
    /// A tile whose A has any layout.
    fn rows_tile = by_rows(tile: &Tile, rows: usize)
}

#[inline(always)]
unsafe fn by_rows_of_columns<V: Vector>(tile: &Tile, rows: usize) {
    // SAFETY: the caller's contract.
    unsafe { with_rows::<V, true>(tile, rows) }
}

#[inline(always)]
unsafe fn by_rows<V: Vector>(tile: &Tile, rows: usize) {
    // SAFETY: the caller's contract.
    unsafe { with_rows::<V, false>(tile, rows) }
}

#[inline(always)]
unsafe fn with_rows<V: Vector, const SIDE_BY_SIDE: bool>(tile: &Tile, rows: usize) {
    macro_rules! tiles {
        ($($rows:literal)*) => {
            match rows {
                // Tiles higher than the instruction set's registers hold are never asked for.
                $($rows if $rows <= 3 || V::LANES > 4 && $rows <= 6 || V::LANES > 8 => {
                    // SAFETY: the caller's contract.
                    unsafe { compute::<V, $rows, SIDE_BY_SIDE>(tile) }
                })*
                _ => unreachable!("a tile of {rows} rows"),
            }
        };
    }
    tiles!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
}

/// Repeats a block for every row of a tile, with its number as a constant.
///
/// Written out instead of looped over: accumulators in an array that is ever indexed by a variable live in memory.
macro_rules! for_each_row {
    ($row:ident, $rows:expr, $body:block) => {
        for_each_row!($row, $rows, $body, 0 1 2 3 4 5 6 7 8 9 10 11 12 13);
    };
    ($row:ident, $rows:expr, $body:block, $($number:literal)*) => {
        $({
            const $row: usize = $number;
            if $row < $rows $body
        })*
    };
}

/// # Safety
/// The tile's pointers must be valid for its extents, and the processor must have `V`'s instructions.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "rows index sums and addresses alike")]
unsafe fn compute<V: Vector, const ROWS: usize, const SIDE_BY_SIDE: bool>(tile: &Tile) {
    // Terms per round: the compiler then keeps the addresses of the rows for all of them.
    const ROUND: usize = 4;
    // Terms that are asked for ahead: some 300 cycles, the way to the third-level cache and back.
    const AHEAD: usize = 24;
    // SAFETY: offsets stay within the tile's extents.
    unsafe {
        let zero = V::splat(0.0);
        let mut sums = [[zero; 2]; ROWS];
        let part = [tile.columns, tile.columns.saturating_sub(V::LANES)];
        if tile.present {
            for_each_row!(ROW, ROWS, {
                let from = tile.c.wrapping_add(ROW * tile.c_row);
                sums[ROW][0] = V::load_some(from, part[0], 0.0);
                sums[ROW][1] = V::load_some(from.wrapping_add(V::LANES), part[1], 0.0);
            });
        } else if !tile.bias.is_null() {
            let bias =
                [V::load_some(tile.bias, part[0], 0.0), V::load_some(tile.bias.wrapping_add(V::LANES), part[1], 0.0)];
            sums = [bias; ROWS];
        }

        // The product's lines are often in no cache of this core yet; they arrive while the sums are made.
        if !tile.present {
            for row in 0..ROWS {
                V::prefetch(tile.c.wrapping_add(row * tile.c_row));
                V::prefetch(tile.c.wrapping_add(row * tile.c_row + V::LANES));
            }
        }
        let a_row = if SIDE_BY_SIDE { 1 } else { tile.a_row };
        let (mut a, mut b) = (tile.a, tile.b);
        for _ in 0..tile.depth / ROUND {
            for k in 0..ROUND {
                if SIDE_BY_SIDE {
                    // Walking down columns, each step is a line that no processor foresees.
                    V::prefetch(a.wrapping_add((k + AHEAD) * tile.a_step));
                    V::prefetch(b.wrapping_add(AHEAD * tile.b_step));
                    V::prefetch(b.wrapping_add(AHEAD * tile.b_step + V::LANES));
                }
                let right = [V::load(b), V::load(b.add(V::LANES))];
                for row in 0..ROWS {
                    let left = V::splat(*a.add(row * a_row + k * tile.a_step));
                    sums[row][0] = left.mul_add(right[0], sums[row][0]);
                    sums[row][1] = left.mul_add(right[1], sums[row][1]);
                }
                b = b.wrapping_add(tile.b_step);
            }
            a = a.wrapping_add(ROUND * tile.a_step);
        }
        for _ in 0..tile.depth % ROUND {
            let right = [V::load(b), V::load(b.add(V::LANES))];
            for row in 0..ROWS {
                let left = V::splat(*a.add(row * a_row));
                sums[row][0] = left.mul_add(right[0], sums[row][0]);
                sums[row][1] = left.mul_add(right[1], sums[row][1]);
            }
            b = b.wrapping_add(tile.b_step);
            a = a.wrapping_add(tile.a_step);
        }

        for_each_row!(ROW, ROWS, {
            let to = tile.c.wrapping_add(ROW * tile.c_row);
            sums[ROW][0].store_some(to, part[0]);
            sums[ROW][1].store_some(to.wrapping_add(V::LANES), part[1]);
        });
    }
}
