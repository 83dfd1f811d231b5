//! Whether the redirect rules are in force. A process of the proxy's own user is exempt from them, so it
//! could test no rule but one: two documentation addresses are redirected for everybody. At start the
//! proxy dials the one of each family that its pod has, and must hear itself answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gauze_model::Code;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::control_plane::Complaint;
use crate::settings::Mode;

/// RFC 5737 and RFC 3849: addresses that nobody has. The redirect step knows the same.
pub const PROBE_V4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), PROBE_PORT);
pub const PROBE_V6: SocketAddr =
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), PROBE_PORT);
pub const PROBE_PORT: u16 = 15002;

/// What this process answers to its own probe, and nobody else can know.
#[derive(Debug)]
pub struct SelfCheck {
    word: [u8; 16],
    passed: AtomicBool,
}

/// A redirect that does not work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "connections to {probe} do not come back to this proxy ({problem}): the redirect rules do not hold; run `gauze-proxy redirect` in this pod before (it needs NET_ADMIN)"
)]
pub struct NotRedirected {
    pub probe: SocketAddr,
    pub problem: String,
}

/// A redirected connection stays on this machine: more than enough.
const TIMEOUT: Duration = Duration::from_secs(1);

/// A check that failed is repeated: the rules may come later.
const INTERVAL: Duration = Duration::from_secs(1);

impl SelfCheck {
    /// Without a redirect there is nothing to check.
    pub fn new(mode: Mode) -> SelfCheck {
        SelfCheck { word: fastrand::u128(..).to_le_bytes(), passed: AtomicBool::new(mode == Mode::None) }
    }

    pub fn has_passed(&self) -> bool {
        self.passed.load(Ordering::Relaxed)
    }

    /// Repeats the check until it passes. Not afterwards: rules do not go away by themselves.
    pub async fn until_passed(&self, pod_ips: &[IpAddr]) {
        let mut complaint = Complaint::default();
        while !self.has_passed() {
            match self.check(pod_ips).await {
                Ok(()) => self.passed.store(true, Ordering::Relaxed),
                Err(problem) => {
                    if complaint.is_new(&problem) {
                        tracing::error!(code = %Code::REDIRECT_NOT_WORKING, %problem, "not ready");
                    }
                    tokio::time::sleep(INTERVAL).await;
                }
            }
        }
        tracing::debug!("connections of the app come to this proxy");
    }

    /// Whether a redirected connection was meant for the self-check.
    pub fn is_probe(original_destination: SocketAddr) -> bool {
        original_destination == PROBE_V4 || original_destination == PROBE_V6
    }

    /// Answers a probe, as the outbound listener, and closes it.
    pub async fn answer(&self, mut stream: TcpStream) {
        // Whoever dialled and went away again asked nothing.
        let _ = tokio::time::timeout(TIMEOUT, stream.write_all(&self.word)).await;
    }

    /// Dials the probe of each family in `pod_ips`.
    ///
    /// # Errors
    /// The first family whose connections are not redirected to this process.
    pub async fn check(&self, pod_ips: &[IpAddr]) -> Result<(), NotRedirected> {
        for (probe, has_family) in
            [(PROBE_V4, pod_ips.iter().any(IpAddr::is_ipv4)), (PROBE_V6, pod_ips.iter().any(IpAddr::is_ipv6))]
        {
            if has_family {
                self.dial(probe).await.map_err(|problem| NotRedirected { probe, problem })?;
            }
        }
        Ok(())
    }

    async fn dial(&self, probe: SocketAddr) -> Result<(), String> {
        let word = async {
            let mut word = [0; 16];
            TcpStream::connect(probe).await?.read_exact(&mut word).await?;
            Ok::<_, std::io::Error>(word)
        };
        let word = tokio::time::timeout(TIMEOUT, word).await.map_err(|_| "no answer".to_owned())?;
        let word = word.map_err(|error| error.to_string())?;
        if word == self.word { Ok(()) } else { Err("another process answered".to_owned()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn only_the_two_probe_addresses_are_probes() {
        assert!(SelfCheck::is_probe(PROBE_V4));
        assert!(SelfCheck::is_probe("[2001:db8::1]:15002".parse().expect("an address")));
        assert!(!SelfCheck::is_probe("192.0.2.1:80".parse().expect("an address")));
    }

    #[test]
    fn only_our_own_answer_passes() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("bound");
            let (ours, other) = (SelfCheck::new(Mode::Transparent), SelfCheck::new(Mode::Transparent));
            for (answering, expected) in
                [(&ours, Ok(())), (&other, Err("another process answered".to_owned()))]
            {
                let accept = async { answering.answer(listener.accept().await.expect("a probe").0).await };
                let (seen, ()) = tokio::join!(ours.dial(address), accept);
                assert_eq!(seen, expected);
            }
        });
    }
}
