//! How much one client may ask: a bucket of tokens each (the generic cell rate algorithm of `governor`).
//!
//! Whoever has a good token has a bucket of its own, so that strangers who ask without one cannot use up what a pipeline needs; all others share
//! one for each address, guesses at tokens too.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;

use axum::http::StatusCode;
use governor::clock::DefaultClock;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

use super::ApiError;

/// Most clients of each kind that are counted at once; more are refused until some of those have been still for a moment.
const CLIENTS_MAX: usize = 4096;
/// A client that was still may ask for so many seconds' worth at once.
const BURST_SECONDS: u32 = 2;

type Buckets = RateLimiter<String, HashMapStateStore<String>, DefaultClock>;

/// What clients have asked for of late.
#[derive(Debug)]
pub struct Limits {
    known: Buckets,
    addresses: Buckets,
    per_second: NonZeroU32,
}

impl Limits {
    /// No client may ask more often than `per_second` for long.
    #[must_use]
    pub fn new(per_second: NonZeroU32) -> Self {
        let burst = NonZeroU32::new(per_second.get().saturating_mul(BURST_SECONDS)).unwrap_or(per_second);
        let quota = Quota::per_second(per_second).allow_burst(burst);
        Self { known: RateLimiter::hashmap(quota), addresses: RateLimiter::hashmap(quota), per_second }
    }

    /// Counts a request of who has the token, or a certificate, of that name.
    pub(super) fn known(&self, name: &str) -> Result<(), ApiError> {
        self.count(&self.known, name)
    }

    /// Counts a request from an address.
    pub(super) fn address(&self, address: Option<IpAddr>) -> Result<(), ApiError> {
        self.count(&self.addresses, &address.map_or_else(String::new, network))
    }

    fn count(&self, buckets: &Buckets, who: &str) -> Result<(), ApiError> {
        if buckets.len() >= CLIENTS_MAX {
            buckets.retain_recent();
            if buckets.len() >= CLIENTS_MAX {
                return Err(too_many("too many clients ask at once; try again after a second".to_owned()));
            }
        }
        buckets.check_key(&who.to_owned()).map_err(|_| {
            let often = self.per_second;
            too_many(format!(
                "{who} asks more than {often} times a second; try again after a second (requestsPerSecond in controller.yaml)"
            ))
        })
    }
}

fn too_many(detail: String) -> ApiError {
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", detail)
}

/// What counts as one client: an IPv4 address, or the /64 of an IPv6 one, since a machine there has all addresses of it.
fn network(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{}/64", Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(per_second: u32) -> Limits {
        Limits::new(NonZeroU32::new(per_second).expect("not zero"))
    }

    #[test]
    fn a_client_is_an_address_or_a_network() {
        let of = |text: &str| network(text.parse().expect("an address"));
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!((of("2001:db8:1:2:3::4"), of("2001:db8:1:2::9")), ("2001:db8:1:2::/64".to_owned(), "2001:db8:1:2::/64".to_owned()));
    }

    #[test]
    fn addresses_are_counted_up_to_a_number_and_known_clients_go_on() {
        let limits = limits(1);
        let address = |n: u32| Some(IpAddr::from(n.to_be_bytes()));
        let taken = (0..2 * u32::try_from(CLIENTS_MAX).expect("small")).filter(|n| limits.address(address(*n)).is_ok()).count();
        // Some may have been still for long enough on a slow machine, and made room.
        assert!(taken >= CLIENTS_MAX && limits.addresses.len() <= CLIENTS_MAX, "{taken}");
        assert!(limits.known("ci").is_ok());
    }
}
