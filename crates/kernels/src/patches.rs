/// How maps (side, side, channels) are cut into the square patches that become tokens, row by row. A token's values are
/// those of its patch in the order row, column, channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patches {
    /// Side of a map in pixels.
    pub side: usize,
    /// Tokens per side. If there are more than pixels, several tokens share one.
    pub grid: usize,
    /// Side of a patch in pixels.
    pub patch_side: usize,
    /// Values per pixel.
    pub channels: usize,
}

impl Patches {
    /// Tokens of a map.
    pub const fn tokens(self) -> usize {
        self.grid * self.grid
    }

    /// Values of a token.
    pub const fn token_width(self) -> usize {
        self.patch_side * self.run()
    }

    /// Values of a map.
    pub const fn values_per_map(self) -> usize {
        self.side * self.side * self.channels
    }

    /// Values of a row of a patch, which lie one after the other.
    pub const fn run(self) -> usize {
        self.patch_side * self.channels
    }

    /// Where row `y` of the patch of `token` begins in its map.
    pub const fn start(self, token: usize, y: usize) -> usize {
        let top = token / self.grid * self.side / self.grid;
        let left = token % self.grid * self.side / self.grid;
        ((top + y) * self.side + left) * self.channels
    }
}
