//! The InternLM2 / LLaMA decoder on burn: training, HF import and export, generation.
