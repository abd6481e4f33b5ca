//! One of several by weight, exactly in proportion over all random numbers.

use crate::mesh::model::{HttpRoute, RouteAction, WeightedDestination};

/// The destination that `random` (uniform over all of `u32`) falls on; `None` for a route that forwards
/// nothing.
pub fn pick_destination(route: &HttpRoute, random: u32) -> Option<&WeightedDestination> {
    match &route.action {
        RouteAction::Forward(destinations) => pick_weighted(destinations, |one| one.weight, random),
        RouteAction::Redirect(_) | RouteAction::DirectResponse(_) => None,
    }
}

/// The item that `random` (uniform over all of `u32`) falls on: `w` of each `sum` go to an item of
/// weight `w`. `None` only for an empty slice; all-zero weights count as equal.
pub fn pick_weighted<T>(items: &[T], weight: impl Fn(&T) -> u32, random: u32) -> Option<&T> {
    if items.len() <= 1 {
        return items.first();
    }
    let sum: u64 = items.iter().map(|item| u64::from(weight(item))).sum();
    if sum == 0 {
        let at = (u64::from(random) * items.len() as u64) >> 32;
        return items.get(usize::try_from(at).ok()?);
    }
    // In 128 bits: the sum of many u32 weights does not fit into 32.
    let mut ticket = (u128::from(random) * u128::from(sum)) >> 32;
    items.iter().find(|item| {
        let weight = u128::from(weight(item));
        let hit = ticket < weight;
        ticket = ticket.saturating_sub(weight);
        hit
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::pick_weighted;

    /// How many of the 2^32 random numbers fall on each item: the bounds are found by bisection, since
    /// the picked index never falls as the random number grows.
    fn shares(weights: &[u32]) -> Vec<u64> {
        let indexed: Vec<(usize, u32)> = weights.iter().copied().enumerate().collect();
        let pick = |random: u64| {
            let random = u32::try_from(random).expect("a u32");
            pick_weighted(&indexed, |item| item.1, random)
                .expect("not empty")
                .0
        };
        let first_at_or_past = |index: usize| {
            let (mut low, mut high) = (0_u64, 1 << 32);
            while low < high {
                let middle = u64::midpoint(low, high);
                if pick(middle) >= index {
                    high = middle;
                } else {
                    low = middle + 1;
                }
            }
            low
        };
        (0..weights.len())
            .map(|index| first_at_or_past(index + 1) - first_at_or_past(index))
            .collect()
    }

    #[test]
    fn half_and_half_is_exactly_half() {
        assert_eq!(shares(&[50, 50]), [1 << 31, 1 << 31]);
        assert_eq!(shares(&[1, 3]), [1 << 30, 3 << 30]);
        assert_eq!(shares(&[0, 0]), [1 << 31, 1 << 31]);
        assert!(pick_weighted(&[0_u32; 0], |weight| *weight, 7).is_none());
    }

    proptest! {
        #[test]
        fn each_gets_its_weight_of_the_whole_range(
            weights in prop::collection::vec(0_u32..=u32::MAX, 1..8)
        ) {
            prop_assume!(weights.iter().any(|weight| *weight > 0));
            let sum: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
            let shares = shares(&weights);
            prop_assert_eq!(shares.iter().sum::<u64>(), 1 << 32);
            for (weight, share) in weights.iter().zip(shares) {
                if weights.len() > 1 {
                    let exact = (u128::from(*weight) << 32) / sum;
                    prop_assert!(u128::from(share).abs_diff(exact) <= 1);
                }
            }
        }
    }
}
