//! Communicators, data parallelism, ZeRO, optimizers and sharded checkpoints for burn.
