"""The operations of `benches/src/operations.rs` in PyTorch eager on the CPU, timed on request.

Run by `cargo xtask peers kernels`, in turns with ours. Each line read is the name of an operation; the answer is its
shortest time in seconds, or `none` where PyTorch has no such operation.
"""

import argparse
import sys
import time

import torch
import torch.nn.functional as F

from train_step import SHAPES, rotate, sizes

BUDGET, RUNS = 0.3, 5
EXPERTS = 8


def leaf(*shape, dtype=torch.float32):
    return torch.randn(shape, dtype=dtype, requires_grad=True)


def both(forward, *inputs):
    """The forward alone, and with the backward of a gradient of ones."""
    ones = torch.ones_like(forward())
    return forward, lambda: torch.autograd.grad(forward(), inputs, ones)


def attention(c, window=None, causal=True, lengths=None):
    """Scaled dot product over rows, or over packed documents: one call per length, as eager PyTorch has it on a CPU."""
    group, dim = c["heads"] // c["kv"], c["hidden"] // c["heads"]
    qkv = leaf(c["batch"], c["seq"], c["kv"], group + 2, dim)
    mask = None
    if window:
        offset = torch.arange(c["seq"])[:, None] - torch.arange(c["seq"])
        mask = (offset >= 0) & (offset < window)

    def forward():
        q = qkv[..., :group, :].reshape(c["batch"], c["seq"], c["heads"], dim).transpose(1, 2)
        k, v = qkv[..., -2, :].transpose(1, 2), qkv[..., -1, :].transpose(1, 2)
        parts = zip(*(x.split(lengths or [c["seq"]], dim=2) for x in (q, k, v)))
        outputs = [
            F.scaled_dot_product_attention(*part, attn_mask=mask, is_causal=causal and not window, enable_gqa=True)
            for part in parts
        ]
        return torch.cat(outputs, dim=2).transpose(1, 2).reshape(c["batch"], c["seq"], -1)

    return both(forward, qkv)


def rotary(c):
    group, dim = c["heads"] // c["kv"], c["hidden"] // c["heads"]
    qkv = leaf(c["batch"], c["seq"], c["kv"], group + 2, dim)
    half = dim // 2
    angles = torch.outer(torch.arange(c["seq"]), 10000.0 ** (-torch.arange(half) / half))
    cos, sin = angles.cos()[:, None, None], angles.sin()[:, None, None]
    return both(lambda: torch.cat((rotate(qkv[..., :-1, :], cos, sin), qkv[..., -1:, :]), dim=-2), qkv)


def grouped_linear(x, ffn):
    """Rows divided among experts: one product per expert, as eager PyTorch has it on a CPU."""
    weight = leaf(EXPERTS, ffn, x.shape[1])
    ends = [x.shape[0] * expert // EXPERTS for expert in range(EXPERTS + 1)]
    lengths = [end - start for start, end in zip(ends, ends[1:])]
    return both(lambda: torch.cat([F.linear(*part) for part in zip(x.split(lengths), weight)]), x, weight)


def rms_norm_residual(x, weight):
    residual = leaf(*x.shape)

    def forward():
        stream = x + residual
        return F.rms_norm(stream, weight.shape, weight, 1e-5), stream

    ones = [torch.ones_like(x)] * 2
    return forward, lambda: torch.autograd.grad(forward(), (x, residual, weight), ones)


def cross_entropy_shard(tokens, words, labels):
    """A rank's part of a vocabulary-parallel loss, in place, as Megatron-LM writes it in eager PyTorch; no reductions."""
    logits, rows = torch.randn(tokens, words), torch.arange(tokens)
    held = labels < words
    places = labels.masked_fill(~held, 0)

    def run():
        logits.sub_(logits.amax(dim=-1, keepdim=True))
        torch.exp(logits, out=logits)
        logits.div_(logits.sum(dim=-1, keepdim=True))
        logits[rows, places] -= held.float()

    return run


def adamw(elements):
    parameter = leaf(elements)
    parameter.grad = torch.randn(elements)
    return torch.optim.AdamW([parameter], lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True).step


def operations(c):
    tokens, hidden, ffn, vocab = c["batch"] * c["seq"], c["hidden"], c["ffn"], c["vocab"]
    x, w = leaf(tokens, hidden), leaf(ffn, hidden)
    norm, gate, up = leaf(hidden), leaf(tokens, ffn), leaf(tokens, ffn)
    table = leaf(vocab, hidden)
    ids = torch.arange(tokens) * 7 % vocab
    labels = torch.arange(tokens) * 13 % vocab
    logits = leaf(tokens, vocab)
    eighth, quarter = c["seq"] // 8, c["seq"] // 4
    pairs = {
        "linear": both(lambda: F.linear(x, w), x, w),
        "embedding": both(lambda: F.embedding(ids, table), table),
        "attention": attention(c),
        "attention_full": attention(c, causal=False),
        "attention_window": attention(c, window=max(c["seq"] // 4, 1)),
        "attention_packed": attention(c, lengths=[eighth, quarter, c["seq"] - eighth - quarter]),
        "attention_halves": attention(c, lengths=[c["seq"] // 2, c["seq"] - c["seq"] // 2]),
        "rms_norm": both(lambda: F.rms_norm(x, (hidden,), norm, 1e-5), x, norm),
        "rms_norm_residual": rms_norm_residual(x, norm),
        "rotary": rotary(c),
        "swiglu": both(lambda: F.silu(gate) * up, gate, up),
        "grouped_linear": grouped_linear(x, ffn),
    }
    table_of = {f"{name}/{part}": run for name, parts in pairs.items() for part, run in zip(("forward", "both"), parts)}
    source, target = torch.randn(16 << 20), torch.empty(16 << 20)
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    xb, wb = x.detach().bfloat16(), w.detach().bfloat16()
    narrow, table_bf16 = source.bfloat16(), table.detach().bfloat16()
    table_of |= {
        "copy": lambda: target.copy_(source),
        "gemm": lambda: a @ b,
        "cross_entropy/both": lambda: torch.autograd.grad(F.cross_entropy(logits, labels, reduction="sum"), logits),
        "cross_entropy_shard/both": cross_entropy_shard(tokens, vocab // 4, labels),
        "linear_cross_entropy/both": lambda: torch.autograd.grad(
            F.cross_entropy(F.linear(x, table), labels, reduction="sum"), (x, table)
        ),
        "linear_bf16/forward": lambda: F.linear(xb, wb),
        "embedding_bf16/forward": lambda: F.embedding(ids, table_bf16),
        "adamw/step": adamw(16 << 20),
        "grad_norm/squares": lambda: torch.linalg.vector_norm(source),
        "cast_to_bf16": lambda: narrow.copy_(source),
        "cast_from_bf16": lambda: target.copy_(narrow),
    }
    return table_of


def shortest_seconds(run):
    run()
    start, seconds = time.perf_counter(), []
    while time.perf_counter() - start < BUDGET or len(seconds) < RUNS:
        one = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - one)
    return min(seconds)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", default="30m", choices=SHAPES)
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    known = operations(sizes(args.shape, args.tokens))
    for line in sys.stdin:
        run = known.get(line.strip())
        print(shortest_seconds(run) if run else "none", flush=True)


if __name__ == "__main__":
    main()
