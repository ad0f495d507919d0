#!/usr/bin/env python3
"""One piece of work done by another tool, on texts that are in memory already; prints one JSON line with MB of text and CPU seconds.

  peer.py train-hf CORPUS tokenizer.json          train a vocabulary of the same size and split as tokenizer.json
  peer.py encode-hf CORPUS tokenizer.json         tokenizers, encode_batch_fast
  peer.py encode-tiktoken CORPUS tokenizer.json   tiktoken with the same merges and split
  peer.py filters-datatrove CORPUS -              Gopher repetition and quality, C4, FineWeb; every document sees all of them
  peer.py minhash-rensa|minhash-datasketch CORPUS -   128 functions, 16 bands, similarity estimated at 0.7, English documents

CORPUS holds {en,zh,code}/*.jsonl and, for the recall of minhash, truth.jsonl. Threads: --threads."""
import argparse, glob, json, os, re, resource, sys, time

ap = argparse.ArgumentParser()
ap.add_argument("work"); ap.add_argument("corpus"); ap.add_argument("tokenizer")
ap.add_argument("--threads", type=int, default=2); ap.add_argument("--megabytes", type=float, default=1e9)
a = ap.parse_args()
os.environ["RAYON_NUM_THREADS"] = str(a.threads); os.environ["TOKENIZERS_PARALLELISM"] = "true"


def documents(langs):
    left = a.megabytes * 1e6
    for lang in langs:
        for path in sorted(glob.glob(f"{a.corpus}/{lang}/*.jsonl")):
            for line in open(path, encoding="utf-8"):
                document = json.loads(line); left -= len(document["text"].encode())
                if left < 0: return
                yield document


def cpu():
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def measure(texts, run, **more):
    mb = sum(len(text.encode()) for text in texts) / 1e6
    start, before = time.time(), cpu()
    more |= run() or {}
    spent = cpu() - before
    print(json.dumps({"mb": mb, "cpu_s": spent, "wall_s": time.time() - start, "mb_per_cpu_s": mb / spent, **more}))


def batches(texts):
    return [texts[i:i + 256] for i in range(0, len(texts), 256)]


def train_hf():
    from tokenizers import Tokenizer, models, trainers
    given = Tokenizer.from_file(a.tokenizer)
    tokenizer = Tokenizer(models.BPE()); tokenizer.pre_tokenizer = given.pre_tokenizer
    from tokenizers.pre_tokenizers import ByteLevel
    trainer = trainers.BpeTrainer(vocab_size=given.get_vocab_size(), initial_alphabet=ByteLevel.alphabet(),
                                  special_tokens=["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"],
                                  min_frequency=2, show_progress=False)
    texts = [d["text"] for d in documents(("en", "zh", "code"))]
    measure(texts, lambda: tokenizer.train_from_iterator(texts, trainer))


def encode_hf():
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(a.tokenizer); tokenizer.encode_special_tokens = True
    texts = [d["text"] for d in documents(("en", "zh", "code"))]
    encode = lambda batch: tokenizer.encode_batch_fast(batch, add_special_tokens=False)
    measure(texts, lambda: {"tokens": sum(len(e.ids) for batch in batches(texts) for e in encode(batch))})


def encode_tiktoken():
    import tiktoken
    file = json.load(open(a.tokenizer, encoding="utf-8"))
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    byte_of = {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}
    special = {token["content"] for token in file["added_tokens"]}
    ranks = {bytes(byte_of[c] for c in token): i for token, i in file["model"]["vocab"].items() if token not in special}
    pattern = file["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
    encoding = tiktoken.Encoding("same", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    texts = [d["text"] for d in documents(("en", "zh", "code"))]
    encode = lambda batch: encoding.encode_ordinary_batch(batch, num_threads=a.threads)
    measure(texts, lambda: {"tokens": sum(len(ids) for batch in batches(texts) for ids in encode(batch))})


def filters_datatrove():
    from datatrove.data import Document
    from datatrove.pipeline.filters import C4QualityFilter, FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
    filters = [GopherRepetitionFilter(), GopherQualityFilter(), C4QualityFilter(filter_no_terminal_punct=False), FineWebQualityFilter()]
    found = [Document(text=d["text"], id=d["id"]) for d in documents(("en",))]
    for f in filters: f.filter(Document(text="Models are loaded with the first document.", id="first"))
    def run():
        for document in found:
            for f in filters: f.filter(document)
    measure([d.text for d in found], run)


TOKEN = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+")


def minhash(library):
    found = list(documents(("en",)))
    kept = set()
    def grams(text):
        words = TOKEN.findall(text.lower())
        return [" ".join(words[i:i + 5]) for i in range(max(1, len(words) - 4))]
    def rensa():
        from rensa import RMinHash, RMinHashLSH
        lsh, signatures = RMinHashLSH(threshold=0.7, num_perm=128, num_bands=16), {}
        for number, document in enumerate(found):
            m = RMinHash(num_perm=128, seed=42); m.update(grams(document["text"]))
            if any(signatures[k].jaccard(m) >= 0.7 for k in lsh.query(m)): continue
            lsh.insert(number, m); signatures[number] = m; kept.add(document["id"])
    def datasketch():
        from datasketch import MinHash, MinHashLSH
        lsh, signatures, empty = MinHashLSH(num_perm=128, params=(16, 8)), {}, MinHash(num_perm=128)
        for document in found:
            m = empty.copy(); m.update_batch([g.encode() for g in grams(document["text"])])
            if any(signatures[k].jaccard(m) >= 0.7 for k in lsh.query(m)): continue
            lsh.insert(document["id"], m); signatures[document["id"]] = m; kept.add(document["id"])
    def run():
        {"rensa": rensa, "datasketch": datasketch}[library]()
        ids = {d["id"] for d in found}
        pairs = [t for t in map(json.loads, open(f"{a.corpus}/truth.jsonl")) if t["id"] in ids and t["jaccard"] >= 0.7]
        hits = sum(t["id"] not in kept or t["dup_of"] not in kept for t in pairs)
        return {"recall": hits / max(len(pairs), 1), "removed": len(ids) - len(kept)}
    measure([d["text"] for d in found], run)


WORK = {"train-hf": train_hf, "encode-hf": encode_hf, "encode-tiktoken": encode_tiktoken, "filters-datatrove": filters_datatrove,
        "minhash-rensa": lambda: minhash("rensa"), "minhash-datasketch": lambda: minhash("datasketch")}
if a.work not in WORK: sys.exit(f"{a.work} is none of {', '.join(WORK)}")
WORK[a.work]()
