//! The register tile that all products are made of.

use half::bf16;

use crate::{
    element::Products,
    vector::{Vector, for_avx512_bf16, for_each_isa},
};

/// Rows of a tile: even shares of any count of rows have a function of their own.
pub(super) const MOST_ROWS: usize = 14;

/// Where a tile reads and writes. Steps are in elements of the factors and in floats of C; a group is as many neighbours
/// along the sum as one instruction multiplies and adds.
#[derive(Debug)]
pub(super) struct Tile<E> {
    pub(super) a: *const E,
    pub(super) a_row: usize,
    /// From one group to the next.
    pub(super) a_step: usize,
    pub(super) b: *const E,
    /// From one row of groups to the next.
    pub(super) b_step: usize,
    /// Groups in a sum.
    pub(super) groups: usize,
    pub(super) c: *mut f32,
    pub(super) c_row: usize,
    /// Columns of C that there are, up to a panel's.
    pub(super) columns: usize,
    /// What the first term is added to: a row, or C where null.
    pub(super) bias: *const f32,
    pub(super) present: bool,
}

/// An element that there are tiles for.
pub(super) trait Tiled: Sized {
    /// Computes a tile of `rows` rows.
    ///
    /// # Safety
    /// As for [`compute`], with the instructions of `isa` that the element needs.
    unsafe fn run(isa: crate::Isa, tile: &Tile<Self>, rows: usize);
}

impl Tiled for f32 {
    unsafe fn run(isa: crate::Isa, tile: &Tile<Self>, rows: usize) {
        // SAFETY: the caller's contract.
        unsafe { if tile.a_row == 1 { f32_columns(isa, tile, rows) } else { f32_rows(isa, tile, rows) } }
    }
}

impl Tiled for bf16 {
    /// Pairs are multiplied by AVX512-BF16 alone.
    unsafe fn run(_: crate::Isa, tile: &Tile<Self>, rows: usize) {
        // SAFETY: the caller's contract.
        unsafe { if tile.a_row == 2 { bf16_columns(tile, rows) } else { bf16_rows(tile, rows) } }
    }
}

for_each_isa! {
    /// A tile whose A has its rows side by side.
    fn f32_columns = f32_side_by_side(tile: &Tile<f32>, rows: usize)
}

for_each_isa! {
    /// A tile whose A has any layout.
    fn f32_rows = f32_apart(tile: &Tile<f32>, rows: usize)
}

for_avx512_bf16! {
    /// A tile whose A has its rows side by side.
    fn bf16_columns = bf16_side_by_side(tile: &Tile<bf16>, rows: usize)
}

for_avx512_bf16! {
    /// A tile whose A has any layout.
    fn bf16_rows = bf16_apart(tile: &Tile<bf16>, rows: usize)
}

#[inline(always)]
unsafe fn f32_side_by_side<V: Vector>(tile: &Tile<f32>, rows: usize) {
    // SAFETY: the caller's contract.
    unsafe { with_rows::<V, f32, true>(tile, rows) }
}

#[inline(always)]
unsafe fn f32_apart<V: Vector>(tile: &Tile<f32>, rows: usize) {
    // SAFETY: the caller's contract.
    unsafe { with_rows::<V, f32, false>(tile, rows) }
}

#[inline(always)]
unsafe fn bf16_side_by_side<V: Vector>(tile: &Tile<bf16>, rows: usize)
where
    bf16: Products<V>,
{
    // SAFETY: the caller's contract.
    unsafe { with_rows::<V, bf16, true>(tile, rows) }
}

#[inline(always)]
unsafe fn bf16_apart<V: Vector>(tile: &Tile<bf16>, rows: usize)
where
    bf16: Products<V>,
{
    // SAFETY: the caller's contract.
    unsafe { with_rows::<V, bf16, false>(tile, rows) }
}

#[inline(always)]
unsafe fn with_rows<V: Vector, E: Products<V>, const SIDE_BY_SIDE: bool>(tile: &Tile<E>, rows: usize) {
    macro_rules! tiles {
        ($($rows:literal)*) => {
            match rows {
                // Tiles higher than the instruction set's registers hold are never asked for.
                $($rows if $rows <= 3 || V::LANES > 4 && $rows <= 6 || V::LANES > 8 => {
                    // SAFETY: the caller's contract.
                    unsafe { compute::<V, E, $rows, SIDE_BY_SIDE>(tile) }
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
/// The tile's pointers must be valid for its extents, and the processor must have the instructions of `V` and `E`.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "rows index sums and addresses alike")]
unsafe fn compute<V: Vector, E: Products<V>, const ROWS: usize, const SIDE_BY_SIDE: bool>(tile: &Tile<E>) {
    // Groups per round: the compiler then keeps the addresses of the rows for all of them.
    const ROUND: usize = 4;
    // Groups that are asked for ahead: some 300 cycles, the way to the third-level cache and back.
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
        let register = V::LANES * E::GROUP;
        let a_row = if SIDE_BY_SIDE { E::GROUP } else { tile.a_row };
        let (mut a, mut b) = (tile.a, tile.b);
        for _ in 0..tile.groups / ROUND {
            for k in 0..ROUND {
                if SIDE_BY_SIDE {
                    // Walking down columns, each step is a line that no processor foresees.
                    V::prefetch(a.wrapping_add((k + AHEAD) * tile.a_step).cast());
                    V::prefetch(b.wrapping_add(AHEAD * tile.b_step).cast());
                    V::prefetch(b.wrapping_add(AHEAD * tile.b_step + register).cast());
                }
                let right = [E::load_groups(b), E::load_groups(b.add(register))];
                for row in 0..ROWS {
                    let left = E::splat_group(a.add(row * a_row + k * tile.a_step));
                    sums[row][0] = E::add_products(sums[row][0], left, right[0]);
                    sums[row][1] = E::add_products(sums[row][1], left, right[1]);
                }
                b = b.wrapping_add(tile.b_step);
            }
            a = a.wrapping_add(ROUND * tile.a_step);
        }
        for _ in 0..tile.groups % ROUND {
            let right = [E::load_groups(b), E::load_groups(b.add(register))];
            for row in 0..ROWS {
                let left = E::splat_group(a.add(row * a_row));
                sums[row][0] = E::add_products(sums[row][0], left, right[0]);
                sums[row][1] = E::add_products(sums[row][1], left, right[1]);
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
