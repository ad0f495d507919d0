"""Checks a Hugging Face export with the libraries that will read it: `check_export.py EXPORT_DIR`."""

import json
import pathlib
import sys

from safetensors.numpy import load_file
from tokenizers import Tokenizer

TEXTS = ["fn main() { println!(\"hello\"); }", "Permission is hereby granted, 2026.", "中文，かな, naïve 🦀\n\n\ttabs"]


def main():
    folder = pathlib.Path(sys.argv[1])
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"], config["architectures"]
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors.update(load_file(path))
    hidden, vocab = config["hidden_size"], config["vocab_size"]
    head_dim, kv = config["head_dim"], config["num_key_value_heads"]
    expected = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,), "lm_head.weight": (vocab, hidden)}
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        width, ffn = config["num_attention_heads"] * head_dim, config["intermediate_size"]
        expected |= {
            f"{layer}.input_layernorm.weight": (hidden,),
            f"{layer}.post_attention_layernorm.weight": (hidden,),
            f"{layer}.self_attn.q_proj.weight": (width, hidden),
            f"{layer}.self_attn.k_proj.weight": (kv * head_dim, hidden),
            f"{layer}.self_attn.v_proj.weight": (kv * head_dim, hidden),
            f"{layer}.self_attn.o_proj.weight": (hidden, width),
            f"{layer}.mlp.gate_proj.weight": (ffn, hidden),
            f"{layer}.mlp.up_proj.weight": (ffn, hidden),
            f"{layer}.mlp.down_proj.weight": (hidden, ffn),
        }
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    assert shapes == expected, set(shapes.items()) ^ set(expected.items())
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.get_vocab_size() <= vocab
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text).ids) == text, text
    print(f"{len(tensors)} tensors and a vocabulary of {tokenizer.get_vocab_size()} are as config.json says")


if __name__ == "__main__":
    main()
