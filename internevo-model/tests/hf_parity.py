"""Loads an exported folder with transformers and compares its logits with ours.

Usage: python hf_parity.py MODEL_DIR CASES_JSON
CASES_JSON: [{"tokens": [...], "logits": [[...], ...], "most": n, "greedy": [...]}, ...]: a prompt, our logits,
and our continuation of at most n tokens.
Prints {"max_abs_diff": x, ...} as one JSON line.
"""

import json
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    folder, cases_path = sys.argv[1:3]
    model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    model.float().eval()
    with open(cases_path) as file:
        cases = json.load(file)
    worst = 0.0
    last_logits = []
    same_text = True
    for case in cases:
        prompt = torch.tensor([case["tokens"]])
        with torch.no_grad():
            theirs = model(prompt).logits[0]
            text = model.generate(
                prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=case["most"], do_sample=False
            )
        # Both stop at the eos token; ours does not give it out.
        continuation = [t for t in text[0, prompt.shape[1] :].tolist() if t != model.config.eos_token_id]
        same_text &= continuation == case["greedy"]
        ours = torch.tensor(case["logits"])
        assert theirs.shape == ours.shape, f"{theirs.shape} against {ours.shape}"
        worst = max(worst, (theirs - ours).abs().max().item())
        last_logits.append([round(x, 6) for x in theirs[-1].tolist()])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    result = {
        "max_abs_diff": worst,
        "same_text": same_text,
        "last_logits": last_logits,
        "token_ids": tokenizer.encode("abba"),
        "special": [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id],
        "class": type(model).__name__,
        "missing": sorted(report["missing_keys"]),
        "unexpected": sorted(report["unexpected_keys"]),
        "transformers": transformers.__version__,
        "torch": torch.__version__,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
