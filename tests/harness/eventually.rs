//! Waiting for a condition instead of sleeping.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// How long a condition may take when no issue names a bound: generous, since machines are shared.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again and again until `look` yields `Ok`, and returns that.
///
/// # Panics
/// Not within `PATIENCE`: prints what was awaited and what was last seen.
pub(crate) async fn eventually<T, E: Debug>(what: &str, look: impl AsyncFnMut() -> Result<T, E>) -> T {
    within(PATIENCE, what, look).await
}

/// The same with a bound that is itself a promise; prints how long it took.
pub(crate) async fn within<T, E: Debug>(
    bound: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let start = Instant::now();
    loop {
        // The last look starts within the bound, so a slow look cannot shrink it.
        let late = start.elapsed() >= bound;
        match look().await {
            Ok(value) => {
                println!("{what}: after {:?} (bound {bound:?})", start.elapsed());
                return value;
            }
            Err(seen) => assert!(!late, "{what}: not within {bound:?}; last seen: {seen:?}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// `Ok` if the condition holds, else what was seen.
pub(crate) fn holds<E: Debug>(condition: bool, seen: E) -> Result<(), E> {
    if condition { Ok(()) } else { Err(seen) }
}
