//! Waiting for a condition, with what was seen last in the message when it does not come.

use std::time::Duration;

use tokio::time::Instant;

use crate::exit::Failure;

const POLL: Duration = Duration::from_millis(50);

/// Polls until `look` succeeds, and returns what it saw.
///
/// # Errors
/// Not within `limit`: [`Failure::TimedOut`] with the last reason.
pub(crate) async fn until<T, E: std::fmt::Display>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> anyhow::Result<T> {
    let begin = Instant::now();
    loop {
        match look().await {
            Ok(seen) => return Ok(seen),
            Err(reason) if begin.elapsed() > limit => {
                let text = format!("waited {} s for {what}: {reason}", limit.as_secs_f64());
                return Err(Failure::TimedOut(text).into());
            }
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_reason_is_told() {
        let mut looks = 0;
        let outcome = until("rain", Duration::from_millis(120), async || {
            looks += 1;
            Err::<(), _>(format!("look {looks}: sun"))
        });
        let error = outcome.await.unwrap_err();
        assert_eq!(error.to_string(), format!("waited 0.12 s for rain: look {looks}: sun"));
        assert!(matches!(error.downcast_ref(), Some(Failure::TimedOut(_))));
    }

    #[tokio::test]
    async fn what_comes_late_is_still_seen() {
        let mut looks = 0;
        let outcome = until("rain", Duration::from_secs(10), async || {
            looks += 1;
            if looks < 3 { Err("sun") } else { Ok(looks) }
        });
        assert_eq!(outcome.await.unwrap(), 3);
    }
}
