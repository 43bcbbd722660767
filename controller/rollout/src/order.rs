//! Who goes first: an order that is stable, and different for each rollout.

use sha2::{Digest, Sha256};

use crate::{HostId, RolloutId};

/// The place of a host in a rollout: the first 8 bytes of SHA-256(rollout ‖ 0 ‖ host), big-endian. Lower goes first.
/// The same hosts don't have to be the canary every time, and one more host moves nobody else.
#[must_use]
pub fn order(rollout: RolloutId, host: &HostId) -> u64 {
    let digest =
        Sha256::new().chain_update(rollout.to_string()).chain_update([0]).chain_update(&host.0).finalize();
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_the_golden_vector() {
        // printf 'r-000007\0HOST' | sha256sum | cut -c1-16
        let golden: [(&str, u64); 2] = [
            ("00000000-0000-4000-8000-000000000001", 0x3939_d31e_7a31_caa4),
            ("00000000-0000-4000-8000-000000000002", 0x296b_c864_b03f_8da2),
        ];
        for (host, place) in golden {
            assert_eq!(order(RolloutId(7), &HostId(host.to_owned())), place, "{host}");
        }
    }

    #[test]
    fn another_rollout_has_another_order() {
        let host = HostId("00000000-0000-4000-8000-000000000001".to_owned());
        assert_ne!(order(RolloutId(7), &host), order(RolloutId(8), &host));
    }
}
