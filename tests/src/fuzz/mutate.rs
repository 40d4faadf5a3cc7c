//! Mutations of what is in a corpus: the same for the same seed, on every machine.

/// The longest input that is made, in bytes.
pub const LENGTH_MAX: usize = 64 << 10;

/// How often an input is changed before it is tried, at most.
const CHANGES_MAX: u64 = 4;

/// Bytes where lengths, signs, quotes and lines change.
const BYTES: [u8; 16] = *b"\x00\x01\x7f\x80\xff\n\r\"\\{}[]=-0";

/// Numbers at the edges of their types.
const NUMBERS: [&str; 8] = [
    "-1",
    "0",
    "255",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "1e999",
];

/// A source of numbers that look random: SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of `0..count`; zero of none.
    pub fn below(&mut self, count: usize) -> usize {
        let count = u64::try_from(count.max(1)).unwrap_or(u64::MAX);
        usize::try_from(self.next() % count).unwrap_or(0)
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// A part of `bytes`, of any place and length.
    fn part(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        // Short ones more often.
        let most = if self.below(2) == 0 { 8 } else { length };
        let end = start + self.below(most.min(length - start) + 1);
        start..end
    }
}

/// One of `corpus`, changed in a few places; parts of others come into it.
///
/// # Panics
///
/// If the corpus is empty.
#[must_use]
pub fn mutate<B: AsRef<[u8]>>(corpus: &[B], random: &mut Random) -> Vec<u8> {
    let mut bytes = random.of(corpus).as_ref().to_vec();
    for _ in 0..=random.next() % CHANGES_MAX {
        let place = random.below(bytes.len());
        let part = random.part(bytes.len());
        match random.below(8) {
            0 => bytes
                .get_mut(place)
                .into_iter()
                .for_each(|byte| *byte ^= 1 << random.below(8)),
            1 => bytes
                .get_mut(place)
                .into_iter()
                .for_each(|byte| *byte = *random.of(&BYTES)),
            2 => bytes.insert(place, *random.of(&BYTES)),
            3 => drop(bytes.drain(part)),
            4 => drop(bytes.splice(place..place, bytes[part].to_vec())),
            5 => {
                let other = random.of(corpus).as_ref();
                let foreign = random.part(other.len());
                drop(bytes.splice(part, other[foreign].iter().copied()));
            }
            6 => {
                let digits = bytes
                    .iter()
                    .enumerate()
                    .filter(|(_, byte)| byte.is_ascii_digit());
                let digits: Vec<usize> = digits.map(|(place, _)| place).collect();
                let start = if digits.is_empty() {
                    place
                } else {
                    *random.of(&digits)
                };
                let rest = bytes[start..]
                    .iter()
                    .take_while(|byte| byte.is_ascii_digit());
                let end = start + rest.count();
                drop(bytes.splice(start..end, random.of(&NUMBERS).bytes()));
            }
            _ => bytes.truncate(place),
        }
    }
    bytes.truncate(LENGTH_MAX);
    bytes
}
