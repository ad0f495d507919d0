//! Small conversations on top of any communicator: byte strings of different length, and agreement on success.

use super::{Buffer, CommError, Communicator, ReduceOp};

/// Everybody's bytes, in rank order; they may differ in length. Collective.
///
/// # Errors
/// A failed world.
pub fn gather_bytes(comm: &dyn Communicator, bytes: &[u8]) -> Result<Vec<Vec<u8>>, CommError> {
    let lengths = comm.all_gather(Buffer::I64(vec![bytes.len() as i64]))?.wait()?.into_i64();
    let longest = lengths.iter().copied().max().unwrap_or(0) as usize;
    let mut padded = bytes.to_vec();
    padded.resize(longest, 0);
    let all = comm.all_gather(Buffer::U8(padded))?.wait()?.into_u8();
    let part = |(rank, len): (usize, &i64)| all[rank * longest..rank * longest + *len as usize].to_vec();
    Ok(lengths.iter().enumerate().map(part).collect())
}

/// Makes one rank's failure everybody's: with `None` from all ranks the result is `None`, otherwise it is the world rank and
/// the message of the first rank that has one. Collective.
///
/// # Errors
/// A failed world.
pub fn agree(comm: &dyn Communicator, failure: Option<&str>) -> Result<Option<(usize, String)>, CommError> {
    let failed = comm.all_reduce(Buffer::I64(vec![i64::from(failure.is_some())]), ReduceOp::Sum)?.wait()?.into_i64();
    if failed[0] == 0 {
        return Ok(None);
    }
    // A leading byte tells an empty message from none.
    let mine = failure.map(|text| [b"!", text.as_bytes()].concat()).unwrap_or_default();
    let all = gather_bytes(comm, &mine)?;
    let first = all.iter().zip(comm.world_ranks()).find(|(text, _)| !text.is_empty());
    Ok(first.map(|(text, rank)| (*rank, String::from_utf8_lossy(&text[1..]).into_owned())))
}
