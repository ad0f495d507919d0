//! A hint to the processor that some memory is wanted soon, for look-ups in tables that exceed its caches.

/// Asks for the byte at `at`; a place outside `bytes` is no error, the hint is useless then. Does nothing on processors other than
/// x86-64.
#[inline]
pub(super) fn prefetch(bytes: &[u8], at: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the instruction reads nothing into the program and never faults, whatever the address; the pointer is made
        // without arithmetic that could be undefined.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().wrapping_add(at).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (bytes, at);
}
