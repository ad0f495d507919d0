"""The decoder and training step of `benches/src/step.rs`, in PyTorch eager on the CPU (f32).

Run by `cargo xtask peers train`. The last line printed is `tokens_per_second <median>`.
"""

import argparse
import time

import torch
import torch.nn.functional as F
from torch import nn

NAMES = ("hidden", "layers", "heads", "kv", "ffn", "vocab", "seq", "batch")
SHAPES = {
    "tiny": (256, 4, 8, 4, 704, 4096, 256, 4),
    "5m": (256, 4, 8, 4, 704, 4096, 256, 4),
    "base": (512, 4, 8, 4, 1408, 8192, 512, 2),
    "30m": (512, 8, 8, 4, 1280, 8192, 512, 2),
    "125m": (768, 12, 12, 4, 2048, 32000, 512, 2),
}


def sizes(shape, tokens=None):
    """The shape's dimensions, over `tokens` tokens if given."""
    c = dict(zip(NAMES, SHAPES[shape]))
    if tokens:
        c["seq"] = min(c["seq"], tokens)
        c["batch"] = tokens // c["seq"]
    return c


class RMSNorm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return F.rms_norm(x, (x.shape[-1],), self.weight, 1e-5)


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads, self.kv = c["heads"], c["kv"]
        self.head_dim = c["hidden"] // c["heads"]
        self.attention_norm = RMSNorm(c["hidden"])
        self.wqkv = nn.Linear(c["hidden"], (self.heads + 2 * self.kv) * self.head_dim, bias=False)
        self.wo = nn.Linear(self.heads * self.head_dim, c["hidden"], bias=False)
        self.ffn_norm = RMSNorm(c["hidden"])
        self.w1 = nn.Linear(c["hidden"], c["ffn"], bias=False)
        self.w3 = nn.Linear(c["hidden"], c["ffn"], bias=False)
        self.w2 = nn.Linear(c["ffn"], c["hidden"], bias=False)

    def forward(self, x, cos, sin):
        b, s, h = x.shape
        group = self.heads // self.kv
        qkv = self.wqkv(self.attention_norm(x)).view(b, s, self.kv, group + 2, self.head_dim)
        q = qkv[..., :group, :].reshape(b, s, self.heads, self.head_dim).transpose(1, 2)
        k, v = qkv[..., -2, :].transpose(1, 2), qkv[..., -1, :].transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.wo(o.transpose(1, 2).reshape(b, s, h))
        y = self.ffn_norm(x)
        return x + self.w2(F.silu(self.w1(y)) * self.w3(y))


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class Decoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embed = nn.Embedding(c["vocab"], c["hidden"])
        self.blocks = nn.ModuleList(Block(c) for _ in range(c["layers"]))
        self.norm = RMSNorm(c["hidden"])
        self.head = nn.Linear(c["hidden"], c["vocab"], bias=False)
        half = c["hidden"] // c["heads"] // 2
        angles = torch.outer(torch.arange(c["seq"]), 10000.0 ** (-torch.arange(half) / half))
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, tokens, labels):
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1), labels.flatten())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", default="tiny", choices=SHAPES)
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    c = sizes(args.shape, args.tokens)
    model = Decoder(c)
    for p in model.parameters():
        if p.dim() > 1:
            nn.init.normal_(p, std=0.02)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
    count = c["batch"] * c["seq"]
    seconds = []
    for step in range(args.steps + 2):
        stream = torch.tensor([(i * 7 + step * 3) % 97 for i in range(count + 1)])
        tokens, labels = stream[:-1].view(c["batch"], -1), stream[1:].view(c["batch"], -1)
        start = time.perf_counter()
        loss = model(tokens, labels)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - start)
        print(f"step {step} loss {loss.item():.5f} {seconds[-1] * 1e3:.1f} ms")
    timed = sorted(seconds[2:])
    print(f"tokens_per_second {count / timed[len(timed) // 2]:.1f}")


if __name__ == "__main__":
    main()
