"""PyTorch's kernels on the same card, under the names of `benches/src/calls/list.rs`: what `benches/gpu.sh` compares with.

    python3 benches/gpu/peers.py OUT.json [--seconds 240] [--dry-run]

Each peer is one of PyTorch's own routes: scaled_dot_product_attention on its flash and cuDNN back ends, torch.compile,
cuBLAS, fused optimizers. A peer that this machine cannot run is listed with the reason.
"""

import argparse
import json
import statistics
import sys
import time

TOKENS, HIDDEN, INTERMEDIATE, VOCAB = 16384, 4096, 14336, 128256
BATCH, HEADS, KV_HEADS, SEQUENCE = 2, 32, 8, 8192
PARAMETERS = 1 << 28
WINDOWS, WINDOW = 7, 0.02


def seconds_of(torch, run):
    """Seconds per call: the median of windows between two device events, after warm-up."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def window(calls):
        start.record()
        for _ in range(calls):
            run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / calls

    window(3)
    calls = max(1, min(2000, round(WINDOW / window(3))))
    return statistics.median(window(calls) for _ in range(WINDOWS))


def gradients(torch, output, inputs, output_gradient):
    """Runs the backward alone, again and again over one graph."""
    return lambda: torch.autograd.grad(output, inputs, output_gradient, retain_graph=True)


def memory_bound(torch, dtype):
    """(call, shape, peer, function that prepares and returns what is timed)."""
    functional = torch.nn.functional

    def rows(*shape):
        return torch.randn(*shape, device="cuda", dtype=dtype, requires_grad=True)

    def norm(x, weight):
        return functional.rms_norm(x, (HIDDEN,), weight, 1e-5)

    def residual(x, y, weight):
        total = x + y
        return functional.rms_norm(total, (HIDDEN,), weight, 1e-5), total

    def gated(gate, up):
        return functional.silu(gate) * up

    def forward(function, *inputs):
        compiled = torch.compile(function)
        with torch.no_grad():
            compiled(*inputs)

        def run():
            with torch.no_grad():
                compiled(*inputs)

        return run

    def backward(function, *inputs):
        output = torch.compile(function)(*inputs)
        output = output if isinstance(output, tuple) else (output,)
        return gradients(torch, output, inputs, [torch.randn_like(o) for o in output])

    shape, wide = f"{TOKENS}×{HIDDEN}", f"{TOKENS}×{INTERMEDIATE}"
    x, y, weight = rows(TOKENS, HIDDEN), rows(TOKENS, HIDDEN), rows(HIDDEN)
    gate, up = rows(TOKENS, INTERMEDIATE), rows(TOKENS, INTERMEDIATE)
    return [
        ("rms_norm forward", shape, "torch.compile", lambda: forward(norm, x, weight)),
        ("rms_norm backward", shape, "torch.compile", lambda: backward(norm, x, weight)),
        ("rms_norm forward_residual", shape, "torch.compile", lambda: forward(residual, x, y, weight)),
        ("rms_norm backward_residual", shape, "torch.compile", lambda: backward(residual, x, y, weight)),
        ("swiglu forward", wide, "torch.compile", lambda: forward(gated, gate, up)),
        ("swiglu backward", wide, "torch.compile", lambda: backward(gated, gate, up)),
    ]


def rope(torch, dtype):
    half = 64
    turn = torch.outer(torch.arange(TOKENS, device="cuda"), 10000 ** (-torch.arange(half, device="cuda") / half))
    cos, sin = turn.cos()[:, None, :], turn.sin()[:, None, :]
    qk = torch.randn(TOKENS, HEADS + KV_HEADS, 2 * half, device="cuda", dtype=dtype)

    @torch.compile
    def rotate(x):
        a, b = x[..., :half].float(), x[..., half:].float()
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)

    return lambda: rotate(qk)


def cross_entropy(torch, dtype, backward):
    logits = torch.randn(TOKENS // 2, VOCAB, device="cuda", dtype=dtype, requires_grad=backward)
    labels = torch.randint(VOCAB, (TOKENS // 2,), device="cuda")
    loss = torch.compile(lambda x: torch.nn.functional.cross_entropy(x.float(), labels))
    if not backward:
        return lambda: loss(logits)

    def run():
        logits.grad = None
        loss(logits).backward()

    return run


def linear_cross_entropy(torch, dtype):
    tokens = TOKENS // 2
    x = torch.randn(tokens, HIDDEN, device="cuda", dtype=dtype, requires_grad=True)
    weight = (0.02 * torch.randn(VOCAB, HIDDEN, device="cuda", dtype=torch.float32)).to(dtype).requires_grad_()
    labels = torch.randint(VOCAB, (tokens,), device="cuda")
    loss = torch.compile(lambda x, w: torch.nn.functional.cross_entropy((x @ w.T).float(), labels))

    def run():
        x.grad = weight.grad = None
        loss(x, weight).backward()

    return run


def attention(torch, dtype, head_dim, backend, backward):
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def heads(count):
        return torch.randn(BATCH, count, SEQUENCE, head_dim, device="cuda", dtype=dtype, requires_grad=True)

    q, k, v = heads(HEADS), heads(KV_HEADS), heads(KV_HEADS)
    route = getattr(SDPBackend, backend)

    def forward():
        with sdpa_kernel(route):
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    if not backward:

        def run():
            with torch.no_grad():
                forward()

        return run
    output = forward()
    return gradients(torch, output, (q, k, v), torch.randn_like(output))


def adamw(torch):
    parameters = [torch.randn(PARAMETERS // 16, device="cuda", requires_grad=True) for _ in range(16)]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    return torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.1, fused=True).step


def grad_norm(torch):
    tensors = [torch.randn(PARAMETERS // 16, device="cuda") for _ in range(16)]
    return lambda: torch.nn.utils.get_total_norm(tensors)


def product(torch, dtype, size=8192):
    a, b = (torch.randn(size, size, device="cuda", dtype=dtype) for _ in range(2))
    return lambda: a @ b


def peers(torch):
    """Every peer: (call, type, shape, peer, prepare)."""
    for name, dtype in (("bf16", torch.bfloat16), ("f32", torch.float32)):
        for call, shape, peer, prepare in memory_bound(torch, dtype):
            yield call, name, shape, peer, prepare
    b = torch.bfloat16
    loss = f"{TOKENS // 2}×{VOCAB}"
    yield "rotary", "bf16", f"{TOKENS}×{HEADS}+{KV_HEADS}×128", "torch.compile", lambda: rope(torch, b)
    yield "cross_entropy forward", "bf16", loss, "torch.compile", lambda: cross_entropy(torch, b, False)
    yield "cross_entropy forward+gradient", "bf16", loss, "torch.compile", lambda: cross_entropy(torch, b, True)
    both = f"{TOKENS // 2}×{HIDDEN}×{VOCAB}"
    yield "linear_cross_entropy forward+backward", "bf16", both, "torch.compile", lambda: linear_cross_entropy(torch, b)
    yield "adamw", "f32", str(PARAMETERS), "torch fused AdamW", lambda: adamw(torch)
    yield "grad_norm", "f32", str(PARAMETERS), "torch foreach norm", lambda: grad_norm(torch)
    yield "gemm", "bf16", "8192×8192×8192", "cuBLAS", lambda: product(torch, b)
    for head_dim in (64, 128, 256):
        shape = f"{BATCH}×{HEADS}/{KV_HEADS}×{SEQUENCE}×{head_dim} causal"
        for backend, peer in (("FLASH_ATTENTION", "SDPA flash"), ("CUDNN_ATTENTION", "SDPA cuDNN")):
            for backward, call in ((False, "attention forward"), (True, "attention backward")):
                prepare = lambda d=head_dim, r=backend, w=backward: attention(torch, b, d, r, w)  # noqa: E731
                yield call, "bf16", shape, peer, prepare


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--dry-run", action="store_true", help="say what is missing and time nothing")
    options = parser.parse_args()
    results = {"peers": [], "skipped": []}
    try:
        import torch

        results["torch"] = torch.__version__
        missing = None if torch.cuda.is_available() else "torch sees no CUDA device"
    except ImportError as error:
        missing = str(error)
    if missing or options.dry_run:
        results["skipped"].append(missing or "dry run")
    else:
        measure(torch, options.seconds, results)
    with open(options.out, "w") as file:
        json.dump(results, file, indent=1, ensure_ascii=False)
    for reason in results["skipped"]:
        print(f"skipped: {reason}", file=sys.stderr)


def measure(torch, budget, results):
    results["device"] = torch.cuda.get_device_name()
    begin = time.monotonic()
    for call, elem, shape, peer, prepare in peers(torch):
        label = f"{peer} for {call} {elem} {shape}"
        if time.monotonic() - begin > budget:
            results["skipped"].append(f"{label}: no time left")
            continue
        try:
            seconds = seconds_of(torch, prepare())
        except Exception as error:  # a peer may miss a back end, a compiler, memory: the others go on
            results["skipped"].append(f"{label}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
            continue
        finally:
            torch.cuda.empty_cache()
        print(f"{label}: {seconds * 1e6:.1f} µs", flush=True)
        results["peers"].append({"name": call, "elem": elem, "shape": shape, "peer": peer, "seconds": seconds})


if __name__ == "__main__":
    main()
