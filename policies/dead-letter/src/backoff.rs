//! How long until the next attempt: exponential, bounded, and spread by the message itself.

use crate::config::Config;

impl Config {
    /// The delay after a failure, in ms. `id` is the hash of the message's id, `attempt` counts the
    /// failures before this one.
    ///
    /// `min(delay_max_ms, delay_base_ms × delay_factor^attempt)`, and by up to `jitter_percent` of that
    /// more or less, as a hash of `id` and `attempt` has it. In whole numbers, so that a component and
    /// a native build agree.
    pub(crate) fn delay_ms(&self, id: u64, attempt: u32) -> u64 {
        let grown = self.delay_factor.checked_pow(attempt);
        let even = grown.and_then(|factor| self.delay_base_ms.checked_mul(factor));
        let even = even.map_or(self.delay_max_ms, |even| even.min(self.delay_max_ms));
        let spread = even * self.jitter_percent / 100;
        even - spread + split_mix(id, attempt) % (2 * spread + 1)
    }
}

/// Output `attempt` of the SplitMix64 generator that starts at `id` (Steele, Lea, Flood 2014).
const fn split_mix(id: u64, attempt: u32) -> u64 {
    const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut bits = id.wrapping_add(GAMMA.wrapping_mul(attempt as u64 + 1));
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn even() -> Config {
        Config {
            jitter_percent: 0,
            ..Config::default()
        }
    }

    #[test]
    fn it_doubles_up_to_its_maximum() {
        let delays = (0..9).map(|attempt| even().delay_ms(7, attempt));
        let expected = [
            500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000,
        ];
        assert!(delays.eq(expected));
        assert_eq!(even().delay_ms(7, u32::MAX), 60_000);
        let none = Config {
            delay_base_ms: 0,
            ..Config::default()
        };
        assert_eq!(none.delay_ms(7, 3), 0);
    }

    #[test]
    fn the_generator_is_the_published_one() {
        // What the reference implementation gives for the seed 1234567.
        assert_eq!(split_mix(1_234_567, 0), 6_457_827_717_110_365_317);
        assert_eq!(split_mix(1_234_567, 1), 3_203_168_211_198_807_973);
    }

    #[test]
    fn messages_that_failed_together_come_back_apart() {
        let config = Config::default();
        let delays: Vec<u64> = (0..1_000).map(|id| config.delay_ms(id, 0)).collect();
        for tenth in 0..10 {
            let times = 400 + 20 * tenth..400 + 20 * (tenth + 1);
            let count = delays.iter().filter(|delay| times.contains(*delay)).count();
            assert!((60..140).contains(&count), "{count} in tenth {tenth}");
        }
    }

    proptest! {
        #[test]
        fn it_stays_in_its_bounds(id in any::<u64>(), attempt in any::<u32>(), percent in 0u64..=100) {
            let config = Config { jitter_percent: percent, ..Config::default() };
            let (even, delay) = (even().delay_ms(id, attempt), config.delay_ms(id, attempt));
            let spread = even * percent / 100;
            prop_assert!((even - spread..=even + spread).contains(&delay), "{delay} {even}");
        }
    }
}
