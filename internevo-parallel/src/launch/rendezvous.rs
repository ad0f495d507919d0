//! Handing a few bytes (such as the 128 of an NCCL id) from rank 0 to every other rank over plain TCP, before there is a
//! communicator. For private networks: a caller is believed when it speaks the protocol and names this job's size and purpose.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, ToSocketAddrs},
    thread,
    time::{Duration, Instant},
};

/// Bytes that may be handed over.
pub const MOST_BYTES: usize = 64 << 10;
/// The first bytes of either side; the last one counts versions.
const GREETING: [u8; 8] = *b"ievo-rv\x01";
const ACKNOWLEDGEMENT: u8 = b'+';
/// How long one caller may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Sleep between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// Why ranks did not meet.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RendezvousError {
    /// More than [`MOST_BYTES`], or a rank outside the world.
    #[error("a rendezvous cannot be held: {reason}")]
    Invalid {
        /// What is wrong with the call.
        reason: String,
    },
    /// Rank 0 cannot listen.
    #[error("rank 0 cannot listen at {address}: {source}")]
    Listen {
        /// Where.
        address: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Ranks that did not come in time.
    #[error("after {waited:?} at {address}, ranks {missing:?} had not called; {refused} other callers were refused")]
    Missing {
        /// Where rank 0 listened.
        address: String,
        /// The missing ranks.
        missing: Vec<usize>,
        /// Callers that did not speak the protocol, or belong to another job.
        refused: usize,
        /// How long rank 0 waited.
        waited: Duration,
    },
    /// Rank 0 did not answer in time.
    #[error("after {waited:?}, rank 0 had not answered rank {rank} at {address}: {last}")]
    Unanswered {
        /// Who called.
        rank: usize,
        /// Where.
        address: String,
        /// How the last try ended.
        last: io::Error,
        /// How long it tried.
        waited: Duration,
    },
}

/// One handing over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rendezvous<'a> {
    /// `host:port` of rank 0.
    pub address: &'a str,
    /// Ranks, with rank 0.
    pub world: usize,
    /// What is handed over. Several rendezvous at one address are told apart by it.
    pub purpose: &'a str,
    /// How long the ranks wait for each other.
    pub patience: Duration,
}

impl Rendezvous<'_> {
    /// Rank 0: hands `bytes` to every other rank.
    ///
    /// # Errors
    /// [`RendezvousError`], which names the ranks that did not come.
    pub fn serve(&self, bytes: &[u8]) -> Result<(), RendezvousError> {
        if bytes.len() > MOST_BYTES {
            let reason = format!("{} bytes are more than {MOST_BYTES}", bytes.len());
            return Err(RendezvousError::Invalid { reason });
        }
        let started = Instant::now();
        let listener = self.listen().map_err(|source| {
            // Which port is busy is what can be acted upon.
            RendezvousError::Listen { address: self.address.to_owned(), source }
        })?;
        let (mut come, mut refused) = (vec![false; self.world], 0);
        come[0] = true;
        while come.contains(&false) {
            match listener.accept().and_then(|(stream, _)| self.answer(stream, bytes)) {
                Ok(rank) => come[rank] = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(PAUSE),
                Err(_) => refused += 1,
            }
            let waited = started.elapsed();
            if waited > self.patience && come.contains(&false) {
                let missing = (0..self.world).filter(|rank| !come[*rank]).collect();
                return Err(RendezvousError::Missing { address: self.address.to_owned(), missing, refused, waited });
            }
        }
        Ok(())
    }

    fn listen(&self) -> io::Result<TcpListener> {
        let port = self.address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        let port = port.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no `host:port`"))?;
        // On every interface: the name that the others use need not be one of this host's own.
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).or_else(|error| match error.kind() {
            io::ErrorKind::AddrInUse => Err(error),
            _ => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)),
        })?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    /// Answers a caller, and returns its rank when it has acknowledged.
    fn answer(&self, mut stream: TcpStream, bytes: &[u8]) -> io::Result<usize> {
        let stranger = || io::Error::new(io::ErrorKind::InvalidData, "a stranger");
        stream.set_nonblocking(false)?;
        be_patient(&stream)?;
        let mut hello = [0; 32];
        // Silence counts as a stranger too, not as "nobody there yet".
        stream.read_exact(&mut hello).map_err(|_| stranger())?;
        let rank = u64::from_le_bytes(hello[24..].try_into().expect("eight bytes"));
        let rank = usize::try_from(rank).ok().filter(|rank| (1..self.world).contains(rank)).ok_or_else(stranger)?;
        if hello != self.hello(rank) {
            return Err(stranger());
        }
        let head = [&GREETING[..], &(bytes.len() as u64).to_le_bytes()].concat();
        let mut acknowledgement = [0];
        let talk = stream.write_all(&[&head, bytes].concat()).and_then(|()| stream.read_exact(&mut acknowledgement));
        talk.map_err(|_| stranger())?;
        if acknowledgement == [ACKNOWLEDGEMENT] { Ok(rank) } else { Err(stranger()) }
    }

    /// Greeting, purpose, size and rank: 32 bytes.
    fn hello(&self, rank: usize) -> [u8; 32] {
        let purpose = blake3::hash(self.purpose.as_bytes());
        let mut hello = [0; 32];
        hello[..8].copy_from_slice(&GREETING);
        hello[8..16].copy_from_slice(&purpose.as_bytes()[..8]);
        hello[16..24].copy_from_slice(&(self.world as u64).to_le_bytes());
        hello[24..].copy_from_slice(&(rank as u64).to_le_bytes());
        hello
    }

    /// Another rank: receives rank 0's bytes. Tries until rank 0 answers or the time is up.
    ///
    /// # Errors
    /// [`RendezvousError`].
    pub fn fetch(&self, rank: usize) -> Result<Vec<u8>, RendezvousError> {
        if !(1..self.world).contains(&rank) {
            let reason = format!("rank {rank} does not call rank 0 in a world of {}", self.world);
            return Err(RendezvousError::Invalid { reason });
        }
        let started = Instant::now();
        loop {
            match self.call(rank) {
                Ok(bytes) => return Ok(bytes),
                Err(_) if started.elapsed() <= self.patience => thread::sleep(PAUSE),
                Err(last) => {
                    let (address, waited) = (self.address.to_owned(), started.elapsed());
                    return Err(RendezvousError::Unanswered { rank, address, last, waited });
                }
            }
        }
    }

    fn call(&self, rank: usize) -> io::Result<Vec<u8>> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let connected = self
            .address
            .to_socket_addrs()?
            .find_map(|address| TcpStream::connect_timeout(&address, PATIENCE).map_err(|error| last = error).ok());
        let Some(mut stream) = connected else { return Err(last) };
        be_patient(&stream)?;
        stream.write_all(&self.hello(rank))?;
        let mut head = [0; 16];
        stream.read_exact(&mut head)?;
        let (greeting, len) = head.split_at(8);
        let len = u64::from_le_bytes(len.try_into().expect("eight bytes"));
        let len = usize::try_from(len).ok().filter(|len| greeting == GREETING && *len <= MOST_BYTES);
        let len = len.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "somebody else listens there"))?;
        let mut bytes = vec![0; len];
        stream.read_exact(&mut bytes)?;
        stream.write_all(&[ACKNOWLEDGEMENT])?;
        Ok(bytes)
    }
}

fn be_patient(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An address whose port was free a moment ago.
    fn free_address() -> String {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listener.local_addr().expect("bound").to_string()
    }

    fn meeting<'a>(address: &'a str, purpose: &'a str) -> Rendezvous<'a> {
        Rendezvous { address, world: 4, purpose, patience: Duration::from_secs(20) }
    }

    #[test]
    fn every_rank_receives_rank_zero_s_bytes_whoever_comes_first() {
        let address = free_address();
        let id: Vec<u8> = (0..128).collect();
        let meeting = meeting(&address, "nccl");
        let received: Vec<Vec<u8>> = thread::scope(|scope| {
            let early: Vec<_> = (1..3).map(|rank| scope.spawn(move || meeting.fetch(rank))).collect();
            thread::sleep(5 * PAUSE);
            let server = scope.spawn(|| meeting.serve(&id));
            thread::sleep(5 * PAUSE);
            let late = meeting.fetch(3).expect("served");
            let early = early.into_iter().map(|rank| rank.join().expect("no panic").expect("served"));
            let all = early.chain([late]).collect();
            server.join().expect("no panic").expect("all came");
            all
        });
        assert!(received.iter().all(|bytes| *bytes == id));
    }

    #[test]
    fn strangers_and_other_meetings_are_refused_and_missing_ranks_are_named() {
        let address = free_address();
        let short = Rendezvous { patience: Duration::from_millis(900), ..meeting(&address, "nccl") };
        let other = Rendezvous { patience: Duration::from_millis(300), ..meeting(&address, "something else") };
        let error = thread::scope(|scope| {
            let server = scope.spawn(|| short.serve(b"id"));
            thread::sleep(5 * PAUSE);
            let mut stranger = TcpStream::connect(&address).expect("somebody listens");
            stranger.write_all(b"GET / HTTP/1.1\r\nHost: example\r\n\r\n").expect("sent");
            let mut answer = Vec::new();
            // The connection may be reset: what counts is that nothing was said.
            let _ = stranger.read_to_end(&mut answer);
            assert!(answer.is_empty(), "a stranger was answered: {answer:?}");
            assert!(matches!(other.fetch(2), Err(RendezvousError::Unanswered { rank: 2, .. })));
            assert_eq!(short.fetch(1).expect("served"), b"id");
            server.join().expect("no panic").expect_err("two ranks never came")
        });
        let RendezvousError::Missing { missing, refused, .. } = &error else { panic!("{error}") };
        assert!(missing == &[2, 3] && *refused >= 2, "{error}");
    }

    #[test]
    fn calls_that_make_no_sense_are_refused() {
        let address = free_address();
        let meeting = meeting(&address, "nccl");
        assert!(matches!(meeting.serve(&vec![0; MOST_BYTES + 1]), Err(RendezvousError::Invalid { .. })));
        assert!(matches!(meeting.fetch(0), Err(RendezvousError::Invalid { .. })));
        let busy =
            TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)));
        let port = busy.as_ref().expect("a free port").local_addr().expect("bound").port();
        let address = format!("localhost:{port}");
        let error = Rendezvous { address: &address, ..meeting }.serve(b"id").expect_err("the port is busy");
        assert!(matches!(error, RendezvousError::Listen { .. }) && error.to_string().contains(&address), "{error}");
    }
}
