//! Splitting work over threads by rows, in pieces whose size never depends on the number of threads.

use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Elements a task handles at least: below this, handing work to another thread costs more than it saves.
pub(crate) const GRAIN: usize = 16 * 1024;

/// Rows of `width` elements per task.
pub(crate) fn rows_per_task(width: usize) -> usize {
    (GRAIN / width.max(1)).max(1)
}

/// Calls `f(first_row, rows)` for blocks of whole rows of `out`; `rows` holds some rows of `width` elements.
pub(crate) fn for_row_blocks<T: Send>(out: &mut [T], width: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let rows = rows_per_task(width);
    for_blocks(out, rows * width, |block, slice| f(block * rows, slice));
}

/// Calls `f(index, block)` for consecutive blocks of `size` elements (the last may be short).
pub(crate) fn for_blocks<T: Send>(out: &mut [T], size: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    if out.len() <= size {
        if !out.is_empty() {
            f(0, out);
        }
        return;
    }
    out.par_chunks_mut(size).enumerate().for_each(|(index, block)| f(index, block));
}

/// A new vector of `len` elements that `write` fills. Saves clearing memory that is written right after.
///
/// # Safety
/// `write` writes every element of the slice it gets.
pub(crate) unsafe fn written<T>(len: usize, write: impl FnOnce(&mut [MaybeUninit<T>])) -> Vec<T> {
    let mut out = Vec::with_capacity(len);
    write(&mut out.spare_capacity_mut()[..len]);
    // SAFETY: the capacity is at least `len`, and by the caller's promise these elements are written.
    unsafe { out.set_len(len) };
    out
}

/// A mutable slice that several tasks write at places which they guarantee to be disjoint (column stripes, say).
#[derive(Clone, Copy)]
pub(crate) struct SharedMut<'a, T = f32> {
    pointer: *mut T,
    len: usize,
    lifetime: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: it stands for an exclusive borrow of elements that may be sent, split among threads; every access goes through an
// unsafe method whose caller proves that no other thread touches the same elements.
unsafe impl<T: Send> Send for SharedMut<'_, T> {}
// SAFETY: as for `Send`.
unsafe impl<T: Send> Sync for SharedMut<'_, T> {}

impl<'a, T> SharedMut<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { pointer: slice.as_mut_ptr(), len: slice.len(), lifetime: std::marker::PhantomData }
    }

    /// The elements `start..start + len`.
    ///
    /// # Safety
    /// Nobody else reads or writes these elements while the returned slice lives.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn slice(&self, start: usize, len: usize) -> &'a mut [T] {
        assert!(start + len <= self.len, "stripe {start}+{len} of {}", self.len);
        // SAFETY: in bounds by the assertion; exclusive by the caller's promise; alive as long as the borrow.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(start), len) }
    }
}
