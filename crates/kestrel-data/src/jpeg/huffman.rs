//! Huffman tables, and the reading of a block's coefficients.

use super::bits::{Bits, extend};

/// Codes up to this length are looked up at once.
const LOOKUP_BITS: u32 = 11;
/// The run of an end-of-block code: past every coefficient.
const END_OF_BLOCK: u8 = 64;
/// More than this many extra bits no coefficient of an 8-bit image has.
const MAX_SIZE: u8 = 11;

/// Where the coefficient that is read as number `k` lies in its block, row by row.
#[rustfmt::skip]
pub(super) const ZIGZAG: [u8; 64] = [
     0,  1,  8, 16,  9,  2,  3, 10, 17, 24, 32, 25, 18, 11,  4,  5,
    12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13,  6,  7, 14, 21, 28,
    35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
    58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// What the next bits mean, looked up.
#[derive(Clone, Copy, Default)]
struct Entry {
    /// The coefficient, if its bits are among those looked up.
    value: i16,
    /// Zeros before it.
    run: u8,
    /// Bits of the code and of the coefficient; 0 if they do not fit.
    bits: u8,
}

/// What the next bits mean to a block that is not looked at: as many codes as fit.
#[derive(Clone, Copy, Default)]
struct Leap {
    /// Bits of the codes and of their coefficients; 0 if not even one fits.
    bits: u8,
    /// Coefficients that they stand for.
    coefficients: u8,
    /// Whether the last of the codes ends the block.
    ends: bool,
}

/// A table of codes.
#[derive(Clone)]
pub(super) struct Huffman {
    lookup: Box<[Entry; 1 << LOOKUP_BITS]>,
    leaps: Box<[Leap; 1 << LOOKUP_BITS]>,
    /// For each length, the first value of 16 bits that is past the codes of that length.
    limit: [u32; 17],
    /// For each length, what is added to a code to give the index of its symbol.
    offset: [i32; 17],
    symbols: Vec<u8>,
}

impl Huffman {
    /// The table with `counts[i]` codes of length `i + 1`; none if there can be no such table.
    pub(super) fn new(counts: &[u8; 16], symbols: &[u8]) -> Option<Self> {
        let mut this = Self {
            lookup: Box::new([Entry::default(); 1 << LOOKUP_BITS]),
            leaps: Box::new([Leap::default(); 1 << LOOKUP_BITS]),
            limit: [0; 17],
            offset: [0; 17],
            symbols: symbols.to_vec(),
        };
        let (mut code, mut index) = (0_u32, 0_usize);
        for length in 1..=16_u32 {
            let count = usize::from(counts[length as usize - 1]);
            this.offset[length as usize] = index as i32 - code as i32;
            for &symbol in symbols.get(index..index + count)? {
                if code >= 1 << length {
                    return None;
                }
                if length <= LOOKUP_BITS {
                    this.enter(code, length, symbol);
                }
                code += 1;
            }
            index += count;
            this.limit[length as usize] = code << (16 - length);
            code <<= 1;
        }
        (index == symbols.len()).then_some(this)
    }

    /// Enters, for all next bits, the codes that lie whole in them: for [`Self::leap`].
    pub(super) fn with_leaps(mut self) -> Self {
        for bits in 0..1_usize << LOOKUP_BITS {
            let mut leap = Leap::default();
            loop {
                // The bits that are left, filled up with zeros: an entry counts if it needs no more than are left.
                let left = LOOKUP_BITS - u32::from(leap.bits);
                let entry = self.lookup[bits << leap.bits & ((1 << LOOKUP_BITS) - 1)];
                if entry.bits == 0 || u32::from(entry.bits) > left {
                    break;
                }
                leap.bits += entry.bits;
                if entry.run == END_OF_BLOCK {
                    leap.ends = true;
                    break;
                }
                leap.coefficients += entry.run + 1;
                if u32::from(leap.bits) == LOOKUP_BITS {
                    break;
                }
            }
            self.leaps[bits] = leap;
        }
        self
    }

    /// Enters a code and all values of the bits after it.
    fn enter(&mut self, code: u32, length: u32, symbol: u8) {
        let (run, size) = (symbol >> 4, u32::from(symbol & 15));
        let free = LOOKUP_BITS - length;
        for rest in 0..1_u32 << free {
            let entry = &mut self.lookup[(code << free | rest) as usize];
            if size <= free {
                let raw = (rest >> (free - size)) as i32;
                *entry = Entry {
                    value: if size == 0 { 0 } else { extend(raw, size) as i16 },
                    run: if symbol == 0 { END_OF_BLOCK } else { run },
                    bits: (length + size) as u8,
                };
            }
        }
    }

    /// The symbol that the next 16 bits start with, and the length of its code; none if the bits are no code.
    ///
    /// Takes the bits by value: a reader whose address is known elsewhere would not be kept in registers.
    #[cold]
    fn symbol(&self, next: usize) -> Option<(u8, u32)> {
        let next = next as u32;
        let length = (1..=16).find(|&length| next < self.limit[length])?;
        let index = (next >> (16 - length)) as i32 + self.offset[length];
        Some((*self.symbols.get(index as usize)?, length as u32))
    }

    /// The difference of a block's first coefficient to the one before; none if the bits are no code.
    #[inline(always)]
    pub(super) fn difference(&self, bits: &mut Bits<'_>) -> Option<i32> {
        bits.refill();
        let entry = self.lookup[bits.peek(LOOKUP_BITS)];
        // A symbol of 0 is a difference of 0 here, and its entry has the value 0.
        if entry.bits > 0 && (entry.run == 0 || entry.run == END_OF_BLOCK) {
            bits.skip(u32::from(entry.bits));
            return Some(i32::from(entry.value));
        }
        let (size, length) = self.symbol(bits.peek(16)).filter(|&(size, _)| size <= MAX_SIZE)?;
        bits.skip(length);
        Some(bits.extend(u32::from(size)))
    }

    /// Reads the other 63 coefficients and gives each that is not 0 to `put`, with its number; none if the bits are no code
    /// or run past the block.
    #[inline(always)]
    pub(super) fn coefficients(&self, bits: &mut Bits<'_>, mut put: impl FnMut(usize, i16)) -> Option<()> {
        let mut k = 1;
        while k < 64 {
            bits.refill();
            let entry = self.lookup[bits.peek(LOOKUP_BITS)];
            if entry.bits > 0 {
                bits.skip(u32::from(entry.bits));
                k += usize::from(entry.run);
                if k > 63 {
                    return (entry.run == END_OF_BLOCK).then_some(());
                }
                put(k, entry.value);
                k += 1;
            } else {
                let (value, next) = self.long_code(bits, k)?;
                k = next;
                if k <= 64 {
                    put(k - 1, value);
                }
            }
        }
        Some(())
    }

    /// Reads over the other 63 coefficients.
    #[inline(always)]
    pub(super) fn leap(&self, bits: &mut Bits<'_>) -> Option<()> {
        let mut k = 1;
        while k < 64 {
            bits.refill();
            let next = bits.peek(LOOKUP_BITS);
            let leap = self.leaps[next];
            if leap.bits > 0 && k + usize::from(leap.coefficients) <= 63 {
                bits.skip(u32::from(leap.bits));
                k += usize::from(leap.coefficients);
                if leap.ends {
                    return Some(());
                }
                continue;
            }
            // Near the block's end, a code at a time: the codes after its last are the next block's.
            let entry = self.lookup[next];
            if entry.bits > 0 {
                bits.skip(u32::from(entry.bits));
                k += usize::from(entry.run);
                if k > 63 {
                    return (entry.run == END_OF_BLOCK).then_some(());
                }
                k += 1;
            } else {
                k = self.long_code(bits, k)?.1;
            }
        }
        Some(())
    }

    /// A coefficient whose bits are not looked up at once, and the number of the next; past 64 where the block ends.
    #[inline(always)]
    fn long_code(&self, bits: &mut Bits<'_>, k: usize) -> Option<(i16, usize)> {
        let (symbol, length) = self.symbol(bits.peek(16))?;
        bits.skip(length);
        if symbol == 0 {
            return Some((0, usize::from(END_OF_BLOCK) + 1));
        }
        let size = symbol & 15;
        let k = k + usize::from(symbol >> 4);
        if k > 63 || size > MAX_SIZE {
            return None;
        }
        Some((bits.extend(u32::from(size)) as i16, k + 1))
    }
}
