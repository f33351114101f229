//! The only source of chance in a simulation.

/// SplitMix64: small, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator for this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from `from` up to but without `to`.
    pub const fn range(&mut self, from: u64, to: u64) -> u64 {
        from + self.bits() % if to > from { to - from } else { 1 }
    }

    /// An index below `len`.
    pub const fn index(&mut self, len: usize) -> usize {
        (self.bits() % if len > 0 { len as u64 } else { 1 }) as usize
    }

    /// True in so many of a thousand cases.
    pub const fn per_mille(&mut self, cases: u64) -> bool {
        self.bits() % 1_000 < cases
    }
}
