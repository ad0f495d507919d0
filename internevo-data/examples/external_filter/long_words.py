"""A filter in Python for `external` (internevo-data/src/external): drops texts whose words are long on average.

    [pipeline]
    clean = ["external"]
    [pipeline.filter.external]
    command = ["python3", "long_words.py"]

A document a line comes in, a verdict a line goes out, flushed before the next document is read."""
import json, sys

for line in sys.stdin:
    document = json.loads(line)
    words = document["text"].split()
    mean = sum(map(len, words)) / max(len(words), 1)
    verdict = {"id": document["id"], "keep": mean <= 10, "reason": "long_words", "value": mean}
    print(json.dumps(verdict), flush=True)
