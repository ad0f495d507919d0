//! How the ranks' control connections come about: rank 0 listens, its invitation travels by MPI, the others call.

use std::{
    collections::hash_map::RandomState,
    fs,
    hash::{BuildHasher, Hasher},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::wire::{Hearing, Link, Word, halves};

/// How long a caller may take to introduce itself, and an address to answer.
const INTRODUCTION: Duration = Duration::from_secs(2);
/// Sleep between two looks at a listener nobody calls.
const LOOK: Duration = Duration::from_millis(5);
/// Bytes that an invitation takes on its way through MPI.
pub(in super::super) const INVITATION_BYTES: usize = 4096;

/// Where rank 0 listens, and the word by which its ranks are known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Invitation {
    addresses: Vec<SocketAddr>,
    cookie: String,
}

impl Invitation {
    /// Listens on every interface of this host, or on `address` alone.
    pub(in super::super) fn open(address: Option<IpAddr>) -> io::Result<(TcpListener, Self)> {
        let listener = match address {
            Some(address) => TcpListener::bind((address, 0))?,
            None => TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0))
                .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)))?,
        };
        let port = listener.local_addr()?.port();
        let hosts = address.map_or_else(own_addresses, |address| vec![address]);
        let random = || RandomState::new().build_hasher().finish();
        let cookie = format!("{:016x}{:016x}", random(), random());
        let mut addresses: Vec<_> = hosts.into_iter().map(|host| SocketAddr::new(host, port)).collect();
        // Each takes at most 50 bytes of the invitation.
        addresses.truncate(INVITATION_BYTES / 64);
        Ok((listener, Self { addresses, cookie }))
    }

    /// As bytes, padded with zeros.
    pub(in super::super) fn encode(&self) -> [u8; INVITATION_BYTES] {
        let text = serde_json::to_vec(self).expect("an invitation is plain data");
        let mut bytes = [0; INVITATION_BYTES];
        bytes[..text.len()].copy_from_slice(&text);
        bytes
    }

    pub(in super::super) fn decode(bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        serde_json::from_slice(&bytes[..end]).ok()
    }

    /// Waits for ranks `1..ranks`; callers that are none of them are turned away.
    pub(super) fn receive(
        &self,
        listener: &TcpListener,
        ranks: usize,
        deadline: Instant,
    ) -> io::Result<Vec<(Link, Hearing)>> {
        listener.set_nonblocking(true)?;
        let mut guests: Vec<Option<(Link, Hearing)>> = (1..ranks).map(|_| None).collect();
        while guests.iter().any(Option::is_none) {
            match listener.accept() {
                Ok((stream, _)) => {
                    if let Some((rank, guest)) = self.introduction(stream)
                        && let Some(place) = rank.checked_sub(1).and_then(|place| guests.get_mut(place))
                    {
                        guest.0.say(&Word::Welcome);
                        *place = Some(guest);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(LOOK),
                Err(error) => return Err(error),
            }
            if Instant::now() > deadline {
                let missing = (1..).zip(&guests).filter(|(_, guest)| guest.is_none()).map(|(rank, _)| rank);
                let missing: Vec<usize> = missing.collect();
                return Err(timed_out(format!("ranks {missing:?} did not call rank 0 at {:?}", self.addresses)));
            }
        }
        Ok(guests.into_iter().flatten().collect())
    }

    fn introduction(&self, stream: TcpStream) -> Option<(usize, (Link, Hearing))> {
        let (link, mut hearing) = halves(stream, INTRODUCTION).ok()?;
        match hearing.next() {
            Ok(Word::Hello { cookie, rank }) if cookie == self.cookie => Some((rank, (link, hearing))),
            _ => None,
        }
    }

    /// Calls rank 0 as `rank`, at every address until one answers.
    pub(super) fn accept(&self, rank: usize, deadline: Instant) -> io::Result<(Link, Hearing)> {
        loop {
            for address in &self.addresses {
                if let Ok(stream) = TcpStream::connect_timeout(address, INTRODUCTION)
                    && let Ok((link, mut hearing)) = halves(stream, INTRODUCTION)
                {
                    link.say(&Word::Hello { cookie: self.cookie.clone(), rank });
                    if let Ok(Word::Welcome) = hearing.next() {
                        return Ok((link, hearing));
                    }
                }
            }
            if Instant::now() > deadline {
                return Err(timed_out(format!("rank 0 does not answer at any of {:?}", self.addresses)));
            }
            thread::sleep(20 * LOOK);
        }
    }
}

fn timed_out(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, text)
}

/// This host's addresses, loopback first: it answers or refuses at once, wherever it is tried.
fn own_addresses() -> Vec<IpAddr> {
    let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    let v4 = fs::read_to_string("/proc/net/fib_trie").map(|table| local_v4(&table)).unwrap_or_default();
    let v6 = fs::read_to_string("/proc/net/if_inet6").map(|table| global_v6(&table)).unwrap_or_default();
    addresses.extend(v4.into_iter().map(IpAddr::V4));
    addresses.extend(v6.into_iter().map(IpAddr::V6));
    addresses
}

/// The host's own addresses in Linux' routing table, without loopback.
fn local_v4(table: &str) -> Vec<Ipv4Addr> {
    let mut addresses: Vec<Ipv4Addr> = Vec::new();
    let mut latest = None;
    for line in table.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            latest = address.parse::<Ipv4Addr>().ok();
        } else if line == "/32 host LOCAL" {
            addresses.extend(latest.filter(|address| !address.is_loopback() && !addresses.contains(address)));
        }
    }
    addresses
}

/// The addresses of global scope in Linux' list of IPv6 addresses.
fn global_v6(table: &str) -> Vec<Ipv6Addr> {
    let address = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let bits = u128::from_str_radix(fields.first()?, 16).ok()?;
        (*fields.get(3)? == "00").then(|| Ipv6Addr::from_bits(bits))
    };
    table.lines().filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIB_TRIE: &str = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n\
        Local:\n     +-- 10.77.0.0/24 2 0 2\n        |-- 10.77.0.0\n           /24 link UNICAST\n        |-- 10.77.0.1\n           \
        /32 host LOCAL\n        |-- 10.77.0.255\n           /32 link BROADCAST\n     |-- 127.0.0.1\n        /32 host LOCAL\n\
        Local:\n        |-- 10.77.0.1\n           /32 host LOCAL\n";

    #[test]
    fn the_host_s_own_addresses_are_read_once_each_from_the_routing_table() {
        assert_eq!(local_v4(FIB_TRIE), [Ipv4Addr::new(10, 77, 0, 1)]);
        let table =
            "fe80000000000000000000fffe000001 02 40 20 80 eth0\n20010db8000000000000000000000001 02 40 00 80 eth0\n";
        assert_eq!(global_v6(table), ["2001:db8::1".parse::<Ipv6Addr>().expect("an address")]);
    }

    #[test]
    fn ranks_that_know_the_cookie_are_let_in_and_strangers_are_not() {
        let (listener, invitation) = Invitation::open(Some(IpAddr::V4(Ipv4Addr::LOCALHOST))).expect("a free port");
        let received = Invitation::decode(&invitation.encode()).expect("as it was written");
        assert_eq!(received, invitation);
        let deadline = Instant::now() + Duration::from_secs(20);
        let stranger = Invitation { cookie: "guess".into(), ..invitation.clone() };
        thread::scope(|scope| {
            let host = scope.spawn(|| invitation.receive(&listener, 3, deadline));
            let refused = stranger.accept(1, Instant::now());
            assert!(refused.is_err(), "a stranger was let in");
            let guests = [1, 2].map(|rank| received.accept(rank, deadline));
            assert!(guests.iter().all(Result::is_ok), "a rank was turned away");
            assert_eq!(host.join().expect("no panic").expect("all came").len(), 2);
        });
    }

    #[test]
    fn ranks_that_do_not_call_are_named() {
        let (listener, invitation) = Invitation::open(Some(IpAddr::V4(Ipv4Addr::LOCALHOST))).expect("a free port");
        let error = invitation.receive(&listener, 3, Instant::now()).err().expect("nobody calls");
        assert!(error.to_string().contains("ranks [1, 2]"), "{error}");
    }
}
