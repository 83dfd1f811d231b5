//! One backend of many, by weight. The draw is an argument: any number, each as likely as the others.

use super::Backend;

/// The backend that a draw falls on; `None` if no backend has a weight above 0.
pub fn split<C>(backends: &[Backend<C>], draw: u32) -> Option<&Backend<C>> {
    share(backends.iter().map(|backend| backend.weight), draw).map(|at| &backends[at])
}

/// The position that a draw falls on; `None` if no weight is above 0.
pub fn share(weights: impl Iterator<Item = u32> + Clone, draw: u32) -> Option<usize> {
    let total: u64 = weights.clone().map(u64::from).sum();
    let mut left = scale(draw, total);
    weights.enumerate().find_map(|(at, weight)| {
        let weight = u64::from(weight);
        if left < weight {
            return Some(at);
        }
        left -= weight;
        None
    })
}

/// A draw of 32 bits as a number below `total` (0 if that is 0), each nearly as likely as the others.
pub(crate) fn scale(draw: u32, total: u64) -> u64 {
    ((u128::from(draw) * u128::from(total)) >> 32) as u64
}
