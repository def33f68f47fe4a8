//! Bytes that look random but are the same every time.

/// A generator of numbers (SplitMix64, by Steele, Lea and Flood).
#[derive(Debug, Clone)]
pub struct Noise(u64);

impl Noise {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Noise(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.number() % bound as u64) as usize
    }

    /// `length` bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend(self.number().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}

/// Damaged versions of `image`, always the same ones: flipped bits, overwritten bytes and numbers, zeroed and cut ends.
/// `regions` are the parts to damage, as those with metadata are a small share of most images.
pub fn damage(
    image: &[u8],
    regions: &[std::ops::Range<usize>],
    count: usize,
    seed: u64,
) -> impl Iterator<Item = Vec<u8>> {
    let mut noise = Noise::new(seed);
    (0..count).map(move |round| {
        let mut bytes = image.to_vec();
        if round % 16 == 15 {
            bytes.truncate(noise.below(image.len()));
            return bytes;
        }
        for _ in 0..=noise.below(3) {
            let region = &regions[noise.below(regions.len())];
            let at = region.start + noise.below(region.len());
            let odd: [u32; 6] = [0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0xffff];
            match noise.below(4) {
                0 => bytes[at] ^= 1 << noise.below(8),
                1 => bytes[at] = noise.number() as u8,
                2 => {
                    let value = odd[noise.below(odd.len())].to_le_bytes();
                    let at = at & !3;
                    let length = value.len().min(bytes.len() - at);
                    bytes[at..at + length].copy_from_slice(&value[..length]);
                }
                // A copy of another place makes structures that are right but in the wrong place.
                _ => {
                    let from = &regions[noise.below(regions.len())];
                    let length = 1 + noise.below(64).min(from.len() - 1).min(bytes.len() - at - 1);
                    let start = from.start + noise.below(from.len() - length + 1);
                    let piece = bytes[start..start + length].to_vec();
                    bytes[at..at + length].copy_from_slice(&piece);
                }
            }
        }
        bytes
    })
}
