//! MPI as this backend uses it: letters (short, to be read by whoever comes) and blocks (long, to a known place), both without
//! waiting. Every `unsafe` block of the backend is here. Not here: what the bytes mean (`engine.rs`).
//!
//! A [`Transport`] is made, used and finished by one thread; its raw handles keep it from being sent to another.

use std::{
    ffi::{c_int, c_void},
    ops::Range,
    ptr,
};

use mpi::ffi;

use crate::comm::{Buffer, buffer::on_vector};

/// Tag of letters. Blocks use the tags above it.
const LETTER_TAG: c_int = 0;
/// Tags of blocks; every MPI allows at least these for the transports that Open MPI offers (UCX has 24 bits).
const BLOCK_TAGS: u32 = 1 << 22;
/// Bytes of the longest letter: below every transport's eager limit, so that reading one never waits for its sender.
pub(super) const LETTER_BYTES: usize = 2048;

/// An MPI call that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{function} failed: {text}")]
pub struct MpiFault {
    /// The MPI function.
    pub function: &'static str,
    /// MPI's own words.
    pub text: String,
}

/// Who is told that a block has arrived or may be forgotten.
pub(super) type Token = u64;

/// A buffer that MPI may be reading or writing at this moment.
pub(super) struct Memory {
    buffer: Buffer,
    start: *mut u8,
    width: usize,
}

/// Part of a [`Memory`], as raw bytes.
#[derive(Clone, Copy)]
pub(super) struct Block {
    start: *mut u8,
    bytes: usize,
}

impl Memory {
    pub(super) fn new(mut buffer: Buffer) -> Self {
        let start = on_vector!(&mut buffer, v => v.as_mut_ptr().cast::<u8>());
        let width = on_vector!(&buffer, v => bytes_of_element(v));
        Self { buffer, start, width }
    }

    /// The elements `range`.
    pub(super) fn block(&self, range: &Range<usize>) -> Block {
        assert!(range.start <= range.end && range.end <= self.buffer.len(), "{range:?} of {}", self.buffer.len());
        // SAFETY: the range was just checked to lie inside the allocation that `start` points to.
        let start = unsafe { self.start.add(range.start * self.width) };
        Block { start, bytes: range.len() * self.width }
    }

    /// Copies the elements `range`, which no request may be writing, to bytes.
    pub(super) fn read(&self, range: &Range<usize>) -> Vec<u8> {
        let block = self.block(range);
        let mut bytes = vec![0; block.bytes];
        // SAFETY: `block` is inside this memory, `bytes` is a fresh allocation of its size, and elements are plain numbers.
        unsafe { ptr::copy_nonoverlapping(block.start, bytes.as_mut_ptr(), block.bytes) };
        bytes
    }

    /// Fills the elements `range`, which no request may be using, from bytes.
    pub(super) fn write(&mut self, range: &Range<usize>, bytes: &[u8]) {
        let block = self.block(range);
        assert_eq!(block.bytes, bytes.len(), "the block was measured when its letter came");
        // SAFETY: `block` is inside this memory and exactly as long as `bytes`, which is another allocation; every bit
        // pattern is an element.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), block.start, block.bytes) };
    }

    /// Copies elements of another memory, `from`, to the elements `to`. No request may be writing those or using these.
    pub(super) fn copy_from(&mut self, to: &Range<usize>, other: &Self, from: &Range<usize>) {
        let (to, from) = (self.block(to), other.block(from));
        assert_eq!(to.bytes, from.bytes, "a block is copied to a place of its size");
        // SAFETY: both blocks are inside their memories, equally long, and the memories are two allocations, as one is
        // borrowed mutably.
        unsafe { ptr::copy_nonoverlapping(from.start, to.start, to.bytes) };
    }

    /// The buffer, when no request uses it.
    pub(super) fn buffer_mut(&mut self) -> &mut Buffer {
        &mut self.buffer
    }

    /// The buffer, when no request uses it.
    pub(super) fn into_buffer(self) -> Buffer {
        self.buffer
    }

    /// Bytes of an element.
    pub(super) fn width(&self) -> usize {
        self.width
    }
}

fn bytes_of_element<T>(_: &[T]) -> usize {
    size_of::<T>()
}

/// A request under way; for letters with the bytes it reads.
struct Request {
    token: Option<Token>,
    _letter: Option<Box<[u8]>>,
}

/// One rank's end of MPI.
pub(super) struct Transport {
    comm: ffi::MPI_Comm,
    rank: usize,
    ranks: usize,
    /// Bytes of the longest single MPI message; longer blocks are cut.
    longest: usize,
    /// MPI's handles and, in the same order, what they are for.
    handles: Vec<ffi::MPI_Request>,
    requests: Vec<Request>,
    finished: Vec<c_int>,
    next_tag: u32,
    /// Letters posted to each rank.
    posted: Vec<u64>,
}

/// Turns MPI's answer into a result.
fn check(function: &'static str, code: c_int) -> Result<(), MpiFault> {
    if code == ffi::MPI_SUCCESS as c_int {
        return Ok(());
    }
    let mut text = vec![0u8; ffi::MPI_MAX_ERROR_STRING as usize];
    let mut len: c_int = 0;
    // SAFETY: `text` has the room that MPI asks for, and `len` receives how much of it was used.
    unsafe { ffi::MPI_Error_string(code, text.as_mut_ptr().cast(), &mut len) };
    text.truncate(len.max(0) as usize);
    Err(MpiFault { function, text: String::from_utf8_lossy(&text).into_owned() })
}

impl Transport {
    /// Starts MPI on this thread, which becomes its main thread.
    pub(super) fn start(longest: usize) -> Result<Self, MpiFault> {
        let mut already: c_int = 0;
        // SAFETY: may be called at any time; `already` is a valid place for the answer.
        check("MPI_Initialized", unsafe { ffi::MPI_Initialized(&mut already) })?;
        if already != 0 {
            let text = "MPI was started before in this process; a process has one MPI world".to_owned();
            return Err(MpiFault { function: "MPI_Init_thread", text });
        }
        let mut provided: c_int = 0;
        // SAFETY: MPI has not been started (checked above); null arguments mean that it gets no command line; reading the
        // library's constants is sound, as nobody writes them.
        let (wanted, code) = unsafe {
            let wanted = ffi::RSMPI_THREAD_SERIALIZED;
            (wanted, ffi::MPI_Init_thread(ptr::null_mut(), ptr::null_mut(), wanted, &mut provided))
        };
        check("MPI_Init_thread", code)?;
        if provided < wanted {
            let text = format!("this MPI offers thread level {provided}, below MPI_THREAD_SERIALIZED");
            return Err(MpiFault { function: "MPI_Init_thread", text });
        }
        let (mut rank, mut ranks): (c_int, c_int) = (0, 0);
        // SAFETY: MPI runs; every pointer is to a local that outlives its call. The duplicate keeps this backend's messages
        // apart from anything else in the process, and returns errors instead of ending it.
        let comm = unsafe {
            let mut comm = ffi::RSMPI_COMM_NULL;
            check("MPI_Comm_dup", ffi::MPI_Comm_dup(ffi::RSMPI_COMM_WORLD, &mut comm))?;
            check("MPI_Comm_set_errhandler", ffi::MPI_Comm_set_errhandler(comm, ffi::RSMPI_ERRORS_RETURN))?;
            check("MPI_Comm_rank", ffi::MPI_Comm_rank(comm, &mut rank))?;
            check("MPI_Comm_size", ffi::MPI_Comm_size(comm, &mut ranks))?;
            comm
        };
        let longest = longest.clamp(1, 1 << 30);
        let (rank, ranks) = (rank as usize, ranks as usize);
        let (handles, requests, finished) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { comm, rank, ranks, longest, handles, requests, finished, next_tag: 0, posted: vec![0; ranks] })
    }

    pub(super) fn rank(&self) -> usize {
        self.rank
    }

    pub(super) fn ranks(&self) -> usize {
        self.ranks
    }

    /// Rank 0's bytes on every rank; waits. For the start, when nothing else is under way.
    pub(super) fn broadcast_bytes(&mut self, bytes: &mut [u8]) -> Result<(), MpiFault> {
        // SAFETY: all ranks call this with equally long slices (a constant of the caller), and the call has finished with
        // `bytes` when it returns.
        let code = unsafe {
            let (start, len) = (bytes.as_mut_ptr().cast::<c_void>(), bytes.len() as c_int);
            ffi::MPI_Bcast(start, len, ffi::RSMPI_UINT8_T, 0, self.comm)
        };
        check("MPI_Bcast", code)
    }

    /// `count` consecutive tags that no other of this rank's recent blocks uses.
    pub(super) fn tags(&mut self, count: u32) -> u32 {
        if self.next_tag + count >= BLOCK_TAGS {
            self.next_tag = 0;
        }
        let first = self.next_tag + 1;
        self.next_tag += count;
        first
    }

    /// Sends a letter. Letters of one sender arrive in order.
    pub(super) fn post_letter(&mut self, letter: Vec<u8>, to: usize) -> Result<(), MpiFault> {
        assert!(letter.len() <= LETTER_BYTES, "a letter of {} bytes", letter.len());
        self.posted[to] += 1;
        let letter = letter.into_boxed_slice();
        let block = Block { start: letter.as_ptr().cast_mut(), bytes: letter.len() };
        // SAFETY: MPI only reads a sent block, and the request keeps the boxed bytes until MPI has finished with them.
        unsafe { self.start_request(block, to, LETTER_TAG, None, Some(letter), Direction::Send) }
    }

    /// Letters posted to each rank so far.
    pub(super) fn letters_posted(&self) -> &[u64] {
        &self.posted
    }

    /// Sends a block under a tag of [`Transport::tags`].
    ///
    /// # Safety
    /// The block's memory must stay alive and unwritten until `token` has been returned by [`Transport::poll`] as often as
    /// this call says, or for ever when it is not.
    pub(super) unsafe fn send(&mut self, block: Block, to: usize, tag: u32, token: Token) -> Result<usize, MpiFault> {
        // SAFETY: passed on to the caller.
        unsafe { self.start_pieces(block, to, tag, token, Direction::Send) }
    }

    /// Receives a block that is sent under this tag.
    ///
    /// # Safety
    /// The block's memory must stay alive, unread and unwritten until `token` has been returned by [`Transport::poll`] as
    /// often as this call says, or for ever when it is not.
    pub(super) unsafe fn receive(
        &mut self,
        block: Block,
        from: usize,
        tag: u32,
        token: Token,
    ) -> Result<usize, MpiFault> {
        // SAFETY: passed on to the caller.
        unsafe { self.start_pieces(block, from, tag, token, Direction::Receive) }
    }

    /// # Safety
    /// As [`Transport::send`] and [`Transport::receive`].
    unsafe fn start_pieces(
        &mut self,
        block: Block,
        peer: usize,
        tag: u32,
        token: Token,
        direction: Direction,
    ) -> Result<usize, MpiFault> {
        let pieces = block.bytes.div_ceil(self.longest);
        for piece in 0..pieces {
            let offset = piece * self.longest;
            let bytes = (block.bytes - offset).min(self.longest);
            // SAFETY: `offset + bytes` is at most the block's length, so the piece lies inside the block; the rest is the
            // caller's promise. Pieces of one tag arrive in the order in which both sides start them.
            unsafe {
                let piece = Block { start: block.start.add(offset), bytes };
                self.start_request(piece, peer, tag as c_int, Some(token), None, direction)?;
            }
        }
        Ok(pieces)
    }

    /// # Safety
    /// The block's memory must stay as MPI needs it until the request is finished.
    unsafe fn start_request(
        &mut self,
        block: Block,
        peer: usize,
        tag: c_int,
        token: Option<Token>,
        letter: Option<Box<[u8]>>,
        direction: Direction,
    ) -> Result<(), MpiFault> {
        let (start, count, peer) = (block.start.cast::<c_void>(), block.bytes as c_int, peer as c_int);
        // SAFETY: MPI runs on this thread; the memory is as the caller promises and `count` bytes long; `handle` is a local
        // that receives the request.
        let (name, code, handle) = unsafe {
            let mut handle = ffi::RSMPI_REQUEST_NULL;
            let kind = ffi::RSMPI_UINT8_T;
            let (name, code) = match direction {
                Direction::Send => ("MPI_Isend", ffi::MPI_Isend(start, count, kind, peer, tag, self.comm, &mut handle)),
                Direction::Receive => {
                    ("MPI_Irecv", ffi::MPI_Irecv(start, count, kind, peer, tag, self.comm, &mut handle))
                }
            };
            (name, code, handle)
        };
        check(name, code)?;
        self.handles.push(handle);
        self.requests.push(Request { token, _letter: letter });
        Ok(())
    }

    /// Whether any request is under way.
    pub(super) fn is_busy(&self) -> bool {
        !self.handles.is_empty()
    }

    /// Lets MPI work and adds the token of every finished request of a block to `done`. True if any request finished.
    pub(super) fn poll(&mut self, done: &mut Vec<Token>) -> Result<bool, MpiFault> {
        if self.handles.is_empty() {
            return Ok(false);
        }
        self.finished.resize(self.handles.len(), 0);
        let mut count: c_int = 0;
        // SAFETY: `handles` holds live requests of this thread and `finished` has room for as many indices.
        let code = unsafe {
            let (handles, finished) = (self.handles.as_mut_ptr(), self.finished.as_mut_ptr());
            let statuses = ffi::RSMPI_STATUSES_IGNORE;
            ffi::MPI_Testsome(self.handles.len() as c_int, handles, &mut count, finished, statuses)
        };
        check("MPI_Testsome", code)?;
        let finished = &mut self.finished[..count.max(0) as usize];
        // From the back, so that filling the gap with the last request moves none that is still to be removed.
        finished.sort_unstable_by(|a, b| b.cmp(a));
        for index in finished.iter() {
            self.handles.swap_remove(*index as usize);
            done.extend(self.requests.swap_remove(*index as usize).token);
        }
        Ok(!finished.is_empty())
    }

    /// The next letter, if one has come: its sender and its bytes.
    pub(super) fn next_letter(&mut self) -> Result<Option<(usize, Vec<u8>)>, MpiFault> {
        let mut found: c_int = 0;
        // SAFETY: an all-zero status is a valid value of this C struct of integers; MPI overwrites it before it is read.
        let mut status: ffi::MPI_Status = unsafe { std::mem::zeroed() };
        // SAFETY: every pointer is to a local that outlives the calls. A matched message is received exactly once, into
        // room for as many bytes as MPI says it has.
        unsafe {
            let mut message = ffi::RSMPI_MESSAGE_NULL;
            let code =
                ffi::MPI_Improbe(ffi::RSMPI_ANY_SOURCE, LETTER_TAG, self.comm, &mut found, &mut message, &mut status);
            check("MPI_Improbe", code)?;
            if found == 0 {
                return Ok(None);
            }
            let mut count: c_int = 0;
            check("MPI_Get_count", ffi::MPI_Get_count(&status, ffi::RSMPI_UINT8_T, &mut count))?;
            let mut bytes = vec![0u8; count.max(0) as usize];
            let start = bytes.as_mut_ptr().cast::<c_void>();
            let ignore = ffi::RSMPI_STATUS_IGNORE;
            check("MPI_Mrecv", ffi::MPI_Mrecv(start, count, ffi::RSMPI_UINT8_T, &mut message, ignore))?;
            Ok(Some((status.MPI_SOURCE as usize, bytes)))
        }
    }

    /// Ends MPI in this process. Every rank must do so, and none may have a request under way.
    pub(super) fn finish(mut self) -> Result<(), MpiFault> {
        assert!(!self.is_busy(), "requests are finished before MPI is");
        // SAFETY: MPI runs on this thread, no request is under way, and `self` is consumed, so that no call follows.
        unsafe {
            check("MPI_Comm_free", ffi::MPI_Comm_free(&mut self.comm))?;
            check("MPI_Finalize", ffi::MPI_Finalize())
        }
    }
}

#[derive(Clone, Copy)]
enum Direction {
    Send,
    Receive,
}
