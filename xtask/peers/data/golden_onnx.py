"""A tiny BERT in an ONNX file, its tokenizer, and what onnxruntime says about texts: `internevo-data/tests/golden/onnx/`.

    python golden_onnx.py OUT        (torch, tokenizers, onnx, onnxscript, onnxruntime)

The network has the parts of `BertForSequenceClassification` (embeddings of words, places and segments, post-norm encoder, pooler,
classifier) and learns to tell three kinds of invented sentences apart, so that its answers are far from even."""
import json, pathlib, random, sys

import numpy, onnxruntime, torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

WIDTH, HEADS, LAYERS, PLACES = 32, 4, 2, 64
LABELS = ["fine", "toxic", "spam"]
WORDS = {
    "fine": "the committee met in spring to hear a report on bridge and river".split(),
    "toxic": "you vile awful stupid liar i will hate your ugly face".split(),
    "spam": "win free coins casino tonight buy cheap now click bonus".split(),
}
WINDOW = 16


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.key, self.value, self.output = (torch.nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = torch.nn.Linear(WIDTH, 2 * WIDTH), torch.nn.Linear(2 * WIDTH, WIDTH)
        self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(WIDTH, eps=1e-12) for _ in range(2))

    def forward(self, x, bias):
        split = lambda y: y.view(y.shape[0], y.shape[1], HEADS, WIDTH // HEADS).transpose(1, 2)
        q, k, v = split(self.query(x)), split(self.key(x)), split(self.value(x))
        scores = (q @ k.transpose(2, 3)) / (WIDTH // HEADS) ** 0.5 + bias
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(x.shape)
        x = self.norms[0](x + self.output(mixed))
        return self.norms[1](x + self.down(torch.nn.functional.gelu(self.up(x))))


class Bert(torch.nn.Module):
    def __init__(self, vocab):
        super().__init__()
        self.words, self.places, self.segments = (torch.nn.Embedding(n, WIDTH) for n in (vocab, PLACES, 2))
        self.norm = torch.nn.LayerNorm(WIDTH, eps=1e-12)
        self.layers = torch.nn.ModuleList(Layer() for _ in range(LAYERS))
        self.pooler, self.classifier = torch.nn.Linear(WIDTH, WIDTH), torch.nn.Linear(WIDTH, len(LABELS))

    def forward(self, input_ids, attention_mask, token_type_ids):
        places = torch.arange(input_ids.shape[1], device=input_ids.device).unsqueeze(0)
        x = self.norm(self.words(input_ids) + self.places(places) + self.segments(token_type_ids))
        bias = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * torch.finfo(x.dtype).min
        for layer in self.layers:
            x = layer(x, bias)
        return self.classifier(torch.tanh(self.pooler(x[:, 0])))


def sentence(rng, label, words):
    mixed = WORDS[label] * 4 + sum(WORDS.values(), [])
    return " ".join(rng.choice(mixed) for _ in range(words))


def make_tokenizer(rng):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    texts = [sentence(rng, label, 12) for label in LABELS for _ in range(50)] + ["12 34, 56. 有毒 的 ! ?"] * 5
    tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=160, special_tokens=special, show_progress=False))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return tokenizer


def arrays(encodings):
    length = max(len(e.ids) for e in encodings)
    pad = lambda row: row + [0] * (length - len(row))
    columns = ([pad(getattr(e, name)) for e in encodings] for name in ("ids", "attention_mask", "type_ids"))
    return [numpy.array(column, dtype=numpy.int64) for column in columns]


def train(model, tokenizer, rng):
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(150):
        labels = [rng.randrange(len(LABELS)) for _ in range(32)]
        batch = tokenizer.encode_batch([sentence(rng, LABELS[label], rng.randrange(2, 20)) for label in labels])
        logits = model(*(torch.from_numpy(column) for column in arrays(batch)))
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels))
        optimizer.zero_grad(), loss.backward(), optimizer.step()
    print(f"loss {loss.item():.4f}")


def export(model, path):
    example = tuple(torch.ones(2, 7, dtype=torch.int64) for _ in range(3))
    names = ["input_ids", "attention_mask", "token_type_ids"]
    torch.onnx.export(
        model.eval(), example, path, input_names=names, output_names=["logits"], opset_version=17, dynamo=False,
        dynamic_axes={name: {0: "batch", 1: "sequence"} for name in names} | {"logits": {0: "batch"}})


def main(out):
    out.mkdir(parents=True, exist_ok=True)
    rng = random.Random(7)
    torch.manual_seed(7)
    tokenizer = make_tokenizer(rng)
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    model = Bert(tokenizer.get_vocab_size())
    train(model, tokenizer, rng)
    export(model, str(out / "model.onnx"))
    session = onnxruntime.InferenceSession(str(out / "model.onnx"))
    names = [i.name for i in session.get_inputs()]
    tokenizer.enable_truncation(WINDOW)
    texts = ["you vile liar", "The committee met.", "win", "", "有毒!", "unseen zebra 99", "click now, buy cheap coins"]
    texts += [sentence(rng, label, words) for label in LABELS for words in (3, 14, 15, 40, 90)]
    with open(out / "logits.jsonl", "w") as file:
        for text in texts:
            encoding = tokenizer.encode(text)
            windows = [encoding, *encoding.overflowing]
            # One by one: nothing is padded.
            logits = [session.run(None, dict(zip(names, arrays([w]))))[0][0].tolist() for w in windows]
            rows = [{"tokens": len(w.ids), "logits": row} for w, row in zip(windows, logits)]
            file.write(json.dumps({"text": text, "windows": rows}, ensure_ascii=False) + "\n")


main(pathlib.Path(sys.argv[1]))
