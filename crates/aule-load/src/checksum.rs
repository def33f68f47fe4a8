//! A sum over contents, to compare what one server gave with what another gave, or what one node got with the next. It is
//! quick, so that it does not slow down what is measured, and notices bytes that are missing, changed or in another place;
//! against somebody who means to deceive it is of no use.

/// An odd number with its bits well mixed (2^64 divided by the golden ratio).
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// Four sums side by side, as each multiplication waits for the one before it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Checksum {
    lanes: [u64; 4],
    length: u64,
}

impl Checksum {
    /// Takes bytes in. How contents are cut into pieces matters: callers cut them by rules of their own.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        let (blocks, rest) = bytes.as_chunks::<32>();
        for block in blocks {
            let (words, _) = block.as_chunks::<8>();
            for (lane, word) in self.lanes.iter_mut().zip(words) {
                *lane = (lane.rotate_left(5) ^ u64::from_le_bytes(*word)).wrapping_mul(FACTOR);
            }
        }
        for byte in rest {
            self.lanes[0] = (self.lanes[0].rotate_left(5) ^ u64::from(*byte)).wrapping_mul(FACTOR);
        }
        self.length += bytes.len() as u64;
    }

    /// The sum of all that was taken in.
    pub(crate) fn value(&self) -> u64 {
        self.lanes.iter().fold(self.length, |sum, lane| (sum.rotate_left(7) ^ lane).wrapping_mul(FACTOR))
    }
}

/// The sum of these bytes.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    let mut sum = Checksum::default();
    sum.add(bytes);
    sum.value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_noticed() {
        let bytes: Vec<u8> = (0..1000_u32).map(|it| (it % 251) as u8).collect();
        let sum = checksum(&bytes);
        assert_eq!(sum, checksum(&bytes));
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 0x10;
            assert_ne!(checksum(&other), sum, "byte {at}");
        }
        let mut swapped = bytes.clone();
        swapped.swap(3, 35);
        assert_ne!(checksum(&swapped), sum);
        assert_ne!(checksum(&bytes[..999]), sum);
        assert_ne!(checksum(&[0; 32]), checksum(&[0; 64]));
    }
}
