//! Fused training kernels for burn: attention, norm, rotary, SwiGLU, cross-entropy.
