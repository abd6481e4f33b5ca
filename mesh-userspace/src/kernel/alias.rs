//! The alias table (A. J. Walker 1977, M. D. Vose 1991): a weighted choice in two look-ups.

/// One slot: taken where a random 32-bit number is at most `threshold`, else the slot `alias` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Inclusive.
    pub threshold: u32,
    /// Index of another slot (its own where the threshold leaves nothing over).
    pub alias: u32,
}

/// The table for some weights, in integers throughout. Zero weights are never chosen, unless all are
/// zero: then each is as likely as any.
pub fn table(weights: &[u32]) -> Vec<Slot> {
    let count = weights.len() as u64;
    let total: u64 = weights.iter().copied().map(u64::from).sum();
    if total == 0 {
        return (0..weights.len() as u32)
            .map(|index| Slot {
                threshold: u32::MAX,
                alias: index,
            })
            .collect();
    }
    // Shares of a slot, in units of 1/total: every slot holds `total` units in the end.
    let mut shares: Vec<u64> = weights
        .iter()
        .map(|&weight| u64::from(weight) * count)
        .collect();
    let mut slots: Vec<Slot> = (0..weights.len() as u32)
        .map(|index| Slot {
            threshold: u32::MAX,
            alias: index,
        })
        .collect();
    let (mut poor, mut rich): (Vec<usize>, Vec<usize>) =
        (0..weights.len()).partition(|&index| shares[index] < total);
    while let (Some(&low), Some(&high)) = (poor.last(), rich.last()) {
        poor.pop();
        slots[low] = Slot {
            threshold: threshold(shares[low], total),
            alias: high as u32,
        };
        shares[high] -= total - shares[low];
        if shares[high] < total {
            rich.pop();
            poor.push(high);
        }
    }
    slots
}

/// The largest draw that still takes a slot's own endpoint: a share of 1/n of 2³² draws has n·2³² − 1.
fn threshold(share: u64, total: u64) -> u32 {
    let draws = (u128::from(share) << 32) / u128::from(total);
    // A share of nothing keeps one draw in 2³²: the table has no way to say "never", except by pointing
    // the one draw elsewhere, which is not worth a branch in the kernel.
    u32::try_from(draws.saturating_sub(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How many of the 2³² × n equally likely (slot, draw) pairs lead to each index.
    fn chances(slots: &[Slot]) -> Vec<u64> {
        let mut chances = vec![0u64; slots.len()];
        for (index, slot) in slots.iter().enumerate() {
            let own = u64::from(slot.threshold) + 1;
            chances[index] += own;
            chances[slot.alias as usize] += (1 << 32) - own;
        }
        chances
    }

    #[test]
    fn equal_weights_need_no_alias() {
        assert!(
            table(&[7, 7, 7])
                .iter()
                .all(|slot| slot.threshold == u32::MAX)
        );
        assert!(table(&[0, 0]).iter().all(|slot| slot.threshold == u32::MAX));
        assert!(table(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn every_weight_gets_its_share(weights in prop::collection::vec(0u32..100_000, 1..200)) {
            let total: u64 = weights.iter().copied().map(u64::from).sum();
            prop_assume!(total > 0);
            let chances = chances(&table(&weights));
            let all = (weights.len() as u128) << 32;
            for (&weight, &chance) in weights.iter().zip(&chances) {
                let exact = all * u128::from(weight) / u128::from(total);
                // Rounding costs at most one draw per slot that feeds an index.
                prop_assert!(u128::from(chance).abs_diff(exact) <= 2 * weights.len() as u128 + 1);
            }
        }
    }
}
