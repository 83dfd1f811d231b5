//! Which addresses this proxy is subscribed to: those that its app dials, at most so many, and not for
//! longer than they are used. Bookkeeping only; time is an argument.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Use;
use crate::target::OutboundTarget;

/// The addresses that are subscribed to.
pub struct Subscriptions {
    names: HashMap<SocketAddr, Subscribed>,
    most: usize,
    idle: Duration,
}

struct Subscribed {
    used: Arc<Use>,
    last_used: Instant,
}

/// What comes of a wish to subscribe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It is subscribed to already.
    Already,
    Subscribe,
    /// Room must be made: the least recently used goes.
    Replace(SocketAddr),
    /// All names are in use.
    Full,
}

/// Last answers about Services that are no longer subscribed to; the oldest goes first.
#[derive(Default)]
pub struct Kept {
    targets: HashMap<SocketAddr, Arc<OutboundTarget>>,
    order: VecDeque<SocketAddr>,
}

/// Last answers at most.
const KEPT_MAX: usize = 1024;

impl Subscriptions {
    pub fn new(most: usize, idle: Duration) -> Subscriptions {
        Subscriptions { names: HashMap::new(), most, idle }
    }

    /// Subscribes to `address`, if there is room or one that `is_open` does not hold can go.
    pub fn ask(&mut self, address: SocketAddr, now: Instant, is_open: impl Fn(SocketAddr) -> bool) -> Asked {
        if self.names.contains_key(&address) {
            return Asked::Already;
        }
        let asked = match self.names.len() < self.most {
            true => Asked::Subscribe,
            false => self.replace_least_recent(now, is_open),
        };
        if asked != Asked::Full {
            self.names.insert(address, Subscribed { used: Arc::default(), last_used: now });
        }
        asked
    }

    fn replace_least_recent(&mut self, now: Instant, is_open: impl Fn(SocketAddr) -> bool) -> Asked {
        self.look(now, &is_open);
        let free = self.names.iter().filter(|(address, _)| !is_open(**address));
        let Some((&address, _)) = free.min_by_key(|(_, subscribed)| subscribed.last_used) else {
            return Asked::Full;
        };
        self.names.remove(&address);
        Asked::Replace(address)
    }

    /// Unsubscribes from what nobody has used for the idle time, and says what that is.
    pub fn sweep(&mut self, now: Instant, is_open: impl Fn(SocketAddr) -> bool) -> Vec<SocketAddr> {
        self.look(now, &is_open);
        let idle = |name: &Subscribed| now.saturating_duration_since(name.last_used) >= self.idle;
        let unused: Vec<_> =
            self.names.iter().filter(|(_, name)| idle(name)).map(|(address, _)| *address).collect();
        for address in &unused {
            self.names.remove(address);
        }
        unused
    }

    /// Notes which names were used since the last look.
    fn look(&mut self, now: Instant, is_open: impl Fn(SocketAddr) -> bool) {
        for (address, name) in &mut self.names {
            if name.used.since_last_look() || is_open(*address) {
                name.last_used = now;
            }
        }
    }

    pub fn uses(&self) -> HashMap<SocketAddr, Arc<Use>> {
        self.names.iter().map(|(address, name)| (*address, name.used.clone())).collect()
    }

    pub fn len(&self) -> usize {
        self.names.len()
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

impl Kept {
    pub fn keep(&mut self, target: Arc<OutboundTarget>) {
        let address = target.address;
        self.forget(address);
        if self.order.len() == KEPT_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.targets.remove(&oldest);
        }
        self.order.push_back(address);
        self.targets.insert(address, target);
    }

    /// A newer answer has come.
    pub fn forget(&mut self, address: SocketAddr) {
        if self.targets.remove(&address).is_some() {
            self.order.retain(|kept| *kept != address);
        }
    }

    pub fn targets(&self) -> &HashMap<SocketAddr, Arc<OutboundTarget>> {
        &self.targets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(300);

    fn address(port: u16) -> SocketAddr {
        ([10, 96, 0, 1], port).into()
    }

    fn nothing_open(_: SocketAddr) -> bool {
        false
    }

    #[test]
    fn a_name_that_nobody_used_for_the_idle_time_goes() {
        let mut names = Subscriptions::new(10, IDLE);
        let start = Instant::now();
        names.ask(address(1), start, nothing_open);
        names.ask(address(2), start, nothing_open);
        let uses = names.uses();
        uses[&address(2)].asked();
        assert_eq!(names.sweep(start + IDLE, nothing_open), [address(1)]);
        assert_eq!(names.ask(address(2), start, nothing_open), Asked::Already);
        assert_eq!(names.sweep(start + IDLE * 2, nothing_open), [address(2)]);
        assert!(names.is_empty());
    }

    #[test]
    fn a_name_stays_while_connections_to_it_are_open_or_pass() {
        let mut names = Subscriptions::new(10, IDLE);
        let start = Instant::now();
        names.ask(address(1), start, nothing_open);
        names.ask(address(2), start, nothing_open);
        let passing = crate::config::Passing::through(&names.uses()[&address(2)]);
        let open = |address: SocketAddr| address.port() == 1;
        assert_eq!(names.sweep(start + IDLE, open), []);
        assert_eq!(names.sweep(start + IDLE * 2, open), []);
        drop(passing);
        assert_eq!(names.sweep(start + IDLE * 3, open), [address(2)]);
    }

    #[test]
    fn the_least_recently_used_name_makes_room() {
        let mut names = Subscriptions::new(2, IDLE);
        let start = Instant::now();
        assert_eq!(names.ask(address(1), start, nothing_open), Asked::Subscribe);
        assert_eq!(names.ask(address(2), start + IDLE / 3, nothing_open), Asked::Subscribe);
        names.uses()[&address(1)].asked();
        assert_eq!(names.ask(address(3), start + IDLE / 2, nothing_open), Asked::Replace(address(2)));
        assert_eq!(names.ask(address(4), start + IDLE / 2, |_| true), Asked::Full);
        assert_eq!(names.len(), 2);
    }
}
