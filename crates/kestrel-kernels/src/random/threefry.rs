//! Threefry-4x64: 256 random bits as a function of a 256-bit key and a counter, without a state to set up.
//!
//! A few numbers of a fresh key cost some 70 cycles, where ChaCha first fills a buffer of 256 bytes.

/// Rounds; the authors' default, with a margin over the 12 that pass BigCrush.
const ROUNDS: usize = 20;
/// By how much a word is rotated in each of eight rounds, for the two pairs of a round.
const ROTATIONS: [[u32; 2]; 8] = [
    [14, 16],
    [52, 57],
    [23, 40],
    [5, 37],
    [25, 33],
    [46, 12],
    [58, 22],
    [32, 32],
];
/// The key schedule's parity constant.
const PARITY: u64 = 0x1bd1_1bda_a9fc_1a22;
/// 32-bit numbers of a block.
const BLOCK: u64 = 8;

/// A stream of random numbers: the blocks of the counters `(0, stream, 0, 0)`, `(1, stream, 0, 0)` and so on.
///
/// # Source
/// Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3 (SC 2011); their known answers are a test.
#[derive(Clone, Debug)]
pub(super) struct Threefry {
    key: [u64; 4],
    stream: u64,
    /// The next 32-bit number's place in the stream.
    position: u64,
    /// The block that the last number came from.
    block: [u64; 4],
}

impl Threefry {
    #[inline]
    pub(super) fn new(key: [u64; 4]) -> Self {
        Self {
            key,
            stream: 0,
            position: 0,
            block: [0; 4],
        }
    }

    #[inline]
    pub(super) fn set_stream(&mut self, stream: u64) {
        self.stream = stream;
        self.set_word_pos(self.position);
    }

    /// Goes on with the `word`-th 32-bit number.
    #[inline]
    pub(super) fn set_word_pos(&mut self, word: u64) {
        self.position = word;
        if !word.is_multiple_of(BLOCK) {
            self.block = self.block_at(word / BLOCK);
        }
    }

    #[inline]
    pub(super) fn next_u32(&mut self) -> u32 {
        let within = self.position % BLOCK;
        if within == 0 {
            self.block = self.block_at(self.position / BLOCK);
        }
        self.position = self.position.wrapping_add(1);
        // The lower half of a word comes first.
        (self.block[within as usize / 2] >> (32 * (within % 2))) as u32
    }

    #[inline]
    pub(super) fn next_u64(&mut self) -> u64 {
        let low = u64::from(self.next_u32());
        low | u64::from(self.next_u32()) << 32
    }

    #[inline]
    fn block_at(&self, number: u64) -> [u64; 4] {
        block(self.key, [number, self.stream, 0, 0])
    }
}

/// The random block of a key and a counter.
fn block(key: [u64; 4], counter: [u64; 4]) -> [u64; 4] {
    let [a, b, c, d] = key;
    let schedule = [a, b, c, d, PARITY ^ a ^ b ^ c ^ d];
    let mut x = counter;
    for round in 0..=ROUNDS {
        if round % 4 == 0 {
            let number = round / 4;
            for (i, word) in x.iter_mut().enumerate() {
                *word = word.wrapping_add(schedule[(number + i) % 5]);
            }
            x[3] = x[3].wrapping_add(number as u64);
        }
        if round == ROUNDS {
            break;
        }
        // Odd rounds mix the words crosswise.
        let (first, second) = if round % 2 == 0 { (1, 3) } else { (3, 1) };
        let [left, right] = ROTATIONS[round % 8];
        x[0] = x[0].wrapping_add(x[first]);
        x[first] = x[first].rotate_left(left) ^ x[0];
        x[2] = x[2].wrapping_add(x[second]);
        x[second] = x[second].rotate_left(right) ^ x[2];
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_answers_of_random123() {
        let pi = [
            0x243f_6a88_85a3_08d3,
            0x1319_8a2e_0370_7344,
            0xa409_3822_299f_31d0,
            0x082e_fa98_ec4e_6c89,
        ];
        let pi_key = [
            0x4528_21e6_38d0_1377,
            0xbe54_66cf_34e9_0c6c,
            0xbe54_66cf_34e9_0c6c,
            0xc0ac_29b7_c97c_50dd,
        ];
        for (counter, key, expected) in [
            (
                [0; 4],
                [0; 4],
                [
                    0x0921_8ebd_e6c8_5537,
                    0x5594_1f52_66d8_6105,
                    0x4bd2_5e16_2824_34dc,
                    0xee29_ec84_6bd2_e40b,
                ],
            ),
            (
                [u64::MAX; 4],
                [u64::MAX; 4],
                [
                    0x29c2_4097_942b_ba1b,
                    0x0371_bbfb_0f6f_4e11,
                    0x3c23_1ffa_33f8_3a1c,
                    0xcd29_113f_de32_d168,
                ],
            ),
            (
                pi,
                pi_key,
                [
                    0xa7e8_fde5_9165_1bd9,
                    0xbaaf_d0c3_0138_319b,
                    0x84a5_c1a7_29e6_85b9,
                    0x901d_406c_cebc_1ba4,
                ],
            ),
        ] {
            assert_eq!(block(key, counter), expected);
        }
    }

    #[test]
    fn numbers_are_the_halves_of_the_blocks_in_order() {
        let mut rng = Threefry::new([1, 2, 3, 4]);
        rng.set_stream(9);
        for number in 0..3 {
            for word in block([1, 2, 3, 4], [number, 9, 0, 0]) {
                assert_eq!(rng.next_u32(), word as u32);
                assert_eq!(rng.next_u32(), (word >> 32) as u32);
            }
        }
        assert_eq!(rng.next_u64(), block([1, 2, 3, 4], [3, 9, 0, 0])[0]);
    }
}
