"""Loads a checkpoint with torch.distributed.checkpoint and compares it with `expected.json`: `torch_dcp.py CKPT EXPECTED`.

`expected.json` maps each parameter to its shape and the bits of its elements.
"""

import json
import sys

import torch
import torch.distributed.checkpoint as dcp


def main():
    checkpoint, expected_path = sys.argv[1:]
    with open(expected_path) as file:
        expected = json.load(file)
    reader = dcp.HuggingFaceStorageReader(checkpoint)
    stored = reader.read_metadata().state_dict_metadata
    state = {name: torch.full(tuple(stored[name].size), float("nan")) for name in expected}
    moments = [name for name in stored if name.startswith("optimizer.")]
    assert moments, sorted(stored)
    state |= {name: torch.full(tuple(stored[name].size), float("nan")) for name in moments}
    dcp.load(state, storage_reader=dcp.HuggingFaceStorageReader(checkpoint), no_dist=True)
    for name, want in expected.items():
        bits = state[name].flatten().view(torch.int32).tolist()
        assert list(state[name].shape) == want["shape"], (name, state[name].shape)
        assert [b & 0xFFFFFFFF for b in bits] == want["bits"], name
    assert all(torch.isfinite(state[name]).all() for name in moments)
    print(f"torch {torch.__version__} read {len(expected)} parameters bit for bit and {len(moments)} optimizer tensors")


if __name__ == "__main__":
    main()
