//! Reads a scan's bits, the first bit of a byte first.

/// Zero bytes after the data, so that eight bytes can be read at once anywhere in it.
pub(super) const PADDING: usize = 16;

/// A position in a scan's bits. Past the end it reads zeros; [`Self::consumed`] tells.
pub(super) struct Bits<'a> {
    data: &'a [u8],
    /// The next byte that is not in the buffer.
    position: usize,
    /// The next bits, from the highest on; below `count` bits it is zero or the bits that follow.
    buffer: u64,
    count: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self {
            data,
            position: 0,
            buffer: 0,
            count: 0,
        }
    }

    /// Makes at least 32 bits available, enough for a code of 16 and its 11 or fewer extra bits.
    #[inline(always)]
    pub(super) fn refill(&mut self) {
        if self.count < 32 {
            let next = self.data.get(self.position..).and_then(|rest| rest.first_chunk::<8>());
            self.buffer |= next.map_or(0, |bytes| u64::from_be_bytes(*bytes)) >> self.count;
            self.position += ((63 - self.count) >> 3) as usize;
            self.count |= 56;
        }
    }

    /// The next `n` bits, 1 to 16.
    #[inline(always)]
    pub(super) fn peek(&self, n: u32) -> usize {
        (self.buffer >> (64 - n)) as usize
    }

    #[inline(always)]
    pub(super) fn skip(&mut self, n: u32) {
        self.buffer <<= n;
        self.count -= n;
    }

    /// The value of `size` extra bits, 0 to 11: the upper half is positive, the lower negative.
    #[inline(always)]
    pub(super) fn extend(&mut self, size: u32) -> i32 {
        if size == 0 {
            return 0;
        }
        let raw = self.peek(size) as i32;
        self.skip(size);
        extend(raw, size)
    }

    /// Number of bits read so far.
    pub(super) fn consumed(&self) -> usize {
        self.position * 8 - self.count as usize
    }
}

/// The value of `size` extra bits `raw`: ITU T.81, figure F.12.
#[inline(always)]
pub(super) fn extend(raw: i32, size: u32) -> i32 {
    let half = 1 << size >> 1;
    if raw < half { raw - (1 << size) + 1 } else { raw }
}
