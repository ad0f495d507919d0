"""fastText's own models and predictions on lines of `documents.jsonl`.

    golden_fasttext.py DOCUMENTS OUT              OUT is internevo-data/tests/golden/fasttext

Then `zstd -19 --rm *.bin *.ftz`. One tiny model for each loss and each way to quantise, and what each says about lines: every
label with its probability, in fastText's order. One thread, so that the same arguments give the same models.
"""

import json
import random
import sys
import tempfile
from pathlib import Path

import fasttext

COMMON = {"dim": 7, "epoch": 5, "lr": 0.5, "minCount": 8, "thread": 1, "seed": 3, "verbose": 0}
TRAINED = {
    "softmax": {"loss": "softmax", "wordNgrams": 2, "bucket": 400},
    "hierarchical": {"loss": "hs", "wordNgrams": 1, "bucket": 400, "minn": 2, "maxn": 4},
    "one_vs_all": {"loss": "ova", "wordNgrams": 3, "bucket": 300, "minn": 3, "maxn": 3},
    "negative_sampling": {"loss": "ns", "wordNgrams": 1, "minn": 0, "maxn": 0},
}
# Name -> model it is made from and arguments of `quantize`; `cutoff` prunes n-grams, 7 dimensions in parts of 3 leave a short one.
QUANTISED = {
    "quantised": ("softmax", {"dsub": 2}),
    "quantised_norm": ("hierarchical", {"dsub": 3, "qnorm": True}),
    "quantised_pruned": ("one_vs_all", {"dsub": 2, "cutoff": 400, "qnorm": True}),
}


def label(document):
    kind = document["id"].rsplit("-", 1)[0].split("-")[0]
    return kind if kind in ("book", "zh", "readme", "example") else "other"


def main(documents, out):
    passages = [json.loads(line) for line in open(documents, encoding="utf-8")]
    random.Random(5).shuffle(passages)
    rows = [(label(p), line.strip()) for p in passages for line in p["text"].splitlines() if len(line.split()) > 2]
    random.Random(6).shuffle(rows)
    odd = ["", " ", "one", "\u3000", "naïve café __label__zh x", "a\tb\x0bc\x0cd\re\0f", "</s> </s>", "😀 👩‍👩‍👧", "所有权"]
    asked = odd + [text for _, text in rows[3000:3051]] + [" ".join(text for _, text in rows[3100:3130])]
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as examples:
        examples.writelines(f"__label__{name} {text}\n" for name, text in rows[:2000])
        examples.flush()
        models = {name: fasttext.train_supervised(examples.name, **COMMON, **args) for name, args in TRAINED.items()}
        for name, model in models.items():
            model.save_model(str(out / f"{name}.bin"))
        for name, (source, args) in QUANTISED.items():
            model = fasttext.load_model(str(out / f"{source}.bin"))
            model.quantize(input=examples.name, thread=1, **args)
            model.save_model(str(out / f"{name}.ftz"))
            models[name] = fasttext.load_model(str(out / f"{name}.ftz"))
    with open(out / "predictions.jsonl", "w", encoding="utf-8") as predictions:
        for name, model in models.items():
            for text in asked:
                found = [[label, round(p, 7)] for p, label in model.f.predict(text + "\n", -1, 0.0, "strict")]
                json.dump({"model": name, "text": text, "labels": found}, predictions, ensure_ascii=False)
                predictions.write("\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
