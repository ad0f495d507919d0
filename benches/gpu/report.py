"""Joins what `benches/gpu.sh` measured into one JSON file and one Markdown section for benches/RESULTS.md.

    python3 benches/gpu/report.py FOLDER      # reads ours.json and peers.json, writes results.json and results.md
"""

import datetime
import json
import pathlib
import sys


def load(path):
    return json.loads(path.read_text()) if path.exists() else {}


def key(row):
    """What a peer's row must agree in: our second route of a function has its name in front, peers have one."""
    return row["name"].removeprefix("wgmma "), row["elem"], row["shape"]


def table(ours, peers):
    """One line per timed call: rate, share of the roof, and every peer's time over ours."""
    copy = ours.get("copy_bytes_per_second") or 0.0
    gemm = [2 * 8192**3 / row["seconds"] for row in peers.get("peers", []) if row["name"] == "gemm"]
    lines = [
        "| call | type | shape | time µs | rate | of roof | peers: their time / ours |",
        "|---|---|---|---:|---:|---:|---|",
    ]
    for row in ours.get("times", []):
        if row["flops"]:
            rate, roof, unit = row["flops"] / row["seconds"], gemm[0] if gemm else 0.0, ("TFLOP/s", 1e12)
        else:
            rate, roof, unit = row["bytes"] / row["seconds"], copy, ("GB/s", 1e9)
        share = f"{100 * rate / roof:.0f} %" if roof else "unknown"
        ratios = [f"{p['peer']} {p['seconds'] / row['seconds']:.2f}" for p in peers.get("peers", []) if key(p) == key(row)]
        lines.append(
            f"| {row['name']} | {row['elem']} | {row['shape']} | {row['seconds'] * 1e6:.1f} | "
            f"{rate / unit[1]:.0f} {unit[0]} | {share} | {', '.join(ratios) or 'none'} |"
        )
    return lines, copy, gemm


def checks(ours):
    rows = ours.get("checks", [])
    failed = [row for row in rows if not row["passed"]]
    lines = [f"{len(rows)} checks against f64 at real shapes, {len(failed)} failed."]
    for row in failed:
        error = "not run" if row["error"] is None else f"error {row['error']:.1e}, allowed {row['tolerance']:.0e}"
        lines.append(f"- {row['name']} {row['elem']} {row['shape']}: {error} {row['message']}".rstrip())
    return lines


def main():
    folder = pathlib.Path(sys.argv[1])
    ours, peers = load(folder / "ours.json"), load(folder / "peers.json")
    lines, copy, gemm = table(ours, peers)
    roofs = [f"copy {copy / 1e9:.0f} GB/s"] if copy else []
    roofs += [f"cuBLAS bf16 8192³ {gemm[0] / 1e12:.0f} TFLOP/s"] if gemm else []
    date = datetime.date.today().isoformat()
    text = [
        f"### GPU kernels, {ours.get('device', 'no device')}, {date}",
        "",
        f"`benches/gpu.sh`; torch {peers.get('torch', 'absent')}; roofs: {', '.join(roofs) or 'not measured'}.",
        "",
        *checks(ours),
        "",
        *lines,
        "",
        *(f"- skipped: {reason}" for reason in ours.get("skipped", []) + peers.get("skipped", [])),
    ]
    (folder / "results.md").write_text("\n".join(text).rstrip() + "\n")
    (folder / "results.json").write_text(json.dumps({"date": date, "ours": ours, "peers": peers}, ensure_ascii=False, indent=1))


if __name__ == "__main__":
    main()
