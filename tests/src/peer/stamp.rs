//! Bytes that carry their own place: each 8 are a hash of the stream's id and their offset.
//!
//! Bytes that were lost, doubled, swapped, or that belong to another stream do not match.

/// The id of the streams in HTTP bodies.
pub(super) const HTTP_STREAM: u64 = 0x6874_7470;

/// Writes the bytes of the stream `id` from `offset` on.
pub(super) fn fill(id: u64, offset: u64, bytes: &mut [u8]) {
    let mut place = offset;
    let mut rest = bytes;
    while !rest.is_empty() {
        let word = word(id, place / 8).to_le_bytes();
        let from = (place % 8) as usize;
        let length = rest.len().min(8 - from);
        let (now, later) = rest.split_at_mut(length);
        now.copy_from_slice(&word[from..from + length]);
        place += length as u64;
        rest = later;
    }
}

/// The first offset at which `bytes`, which start at `offset`, are not the stream `id`'s.
pub(super) fn first_mismatch(id: u64, offset: u64, bytes: &[u8]) -> Option<u64> {
    let mut expected = vec![0; bytes.len()];
    fill(id, offset, &mut expected);
    let differ = bytes
        .iter()
        .zip(&expected)
        .position(|(is, should)| is != should)?;
    Some(offset + differ as u64)
}

/// How many of the first `bytes` are the stream `id`'s.
pub(super) fn matches_until(id: u64, bytes: &[u8]) -> u64 {
    first_mismatch(id, 0, bytes).unwrap_or(bytes.len() as u64)
}

/// Where in the first `length` bytes of the stream `id` these are, if they are: where bytes came from
/// that are in the wrong place. Fewer than 8 bytes say nothing.
pub(super) fn find(id: u64, length: u64, bytes: &[u8]) -> Option<u64> {
    if bytes.len() < 8 {
        return None;
    }
    let mut stream = vec![0; length as usize];
    fill(id, 0, &mut stream);
    let place = stream
        .windows(bytes.len())
        .position(|window| window == bytes)?;
    Some(place as u64)
}

/// The finaliser of splitmix64 over the place.
pub(super) fn word(id: u64, index: u64) -> u64 {
    let mut z = id ^ (index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_the_same_however_it_is_cut() {
        let mut whole = [0; 100];
        fill(7, 0, &mut whole);
        for cut in 0..100 {
            let mut parts = [0; 100];
            let (left, right) = parts.split_at_mut(cut);
            fill(7, 0, left);
            fill(7, cut as u64, right);
            assert_eq!(parts, whole, "cut at {cut}");
        }
    }

    #[test]
    fn loss_swaps_and_strangers_are_seen() {
        let mut bytes = [0; 64];
        fill(7, 0, &mut bytes);
        assert_eq!(first_mismatch(7, 0, &bytes), None);
        assert_eq!(first_mismatch(8, 0, &bytes), Some(0));
        assert!(first_mismatch(7, 0, &bytes[1..]).is_some());
        bytes.swap(20, 41);
        assert_eq!(first_mismatch(7, 0, &bytes), Some(20));
        assert_eq!(matches_until(7, &bytes), 20);
        bytes.swap(20, 41);
        assert_eq!(find(7, 100, &bytes[8..24]), Some(8));
        assert_eq!(find(8, 100, &bytes[8..24]), None);
    }
}
