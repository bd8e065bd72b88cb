"""Writes the tables of docs/leaderboard.md.

    python tools/leaderboard.py [--check]  # --check fails if the page is not what this writes

The text is written by hand. Accuracies of configs/tables/published.json come from there.
"""

import argparse
import json
import pathlib
import statistics
import sys

from gsdd_jax.core.files import write_atomically

ROOT = pathlib.Path(__file__).parent.parent
PAGE = ROOT / "docs" / "leaderboard.md"
IPC, IMAGE = (1, 10, 50), 32 * 32 * 3 * 4  # images per class, bytes of one in float32
DATA = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
COLUMNS = [f"{name}, {ipc}" for name in DATA.values() for ipc in IPC]
LABELS, SIZES = ("hard", "soft", "not stated"), ("images_per_class", "bytes_per_class")


def _read(path: str):
    return json.loads((ROOT / path).read_text(encoding="utf-8"))


def methods() -> list[dict]:
    """Returns the published methods, the best first, each with its accuracies by column."""
    rows = _read("docs/leaderboard.json")["methods"]
    printed = _read("configs/tables/published.json")["cifar"]["rows"]
    for row in rows:
        _check(row)
        if ("accuracies" in row) == (row["method"] in printed):
            sys.exit(f"leaderboard.json: {row['method']}: accuracies in one of two files, not both")
        row.setdefault("accuracies", printed.get(row["method"]))
    return sorted(rows, key=lambda row: row["accuracies"][0] or 0, reverse=True)


def _check(row: dict) -> None:
    """Ends with a line about the first field of a row that the page cannot show."""
    texts = ("method", "paper", "url", "objective", "network", "source")
    adds = row.get("adds", {})
    faults = {
        name: not isinstance(row.get(name), str) or any(c in row[name] for c in "|\n")
        for name in texts
    }
    faults |= {name: not isinstance(row.get(name), list) for name in ("counted", "not_counted")}
    faults["labels"] = row.get("labels") not in LABELS
    known = all(set(adds.get(name) or {}) <= {"image", "class"} for name in adds)
    faults["adds"] = not (
        known and set(adds) <= set(DATA) and ("why" in row or not any(adds.values()))
    )
    given = row.get("accuracies", [0.0] * len(COLUMNS))
    faults["accuracies"] = len(given) != len(COLUMNS) or any(
        number is not None and not 0 <= number <= 100 for number in given
    )
    if wrong := [name for name, fault in faults.items() if fault]:
        sys.exit(f"leaderboard.json: {row.get('method')!r:.80}: {wrong[0]}: invalid or missing")


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def accuracies(rows: list[dict]) -> str:
    """Returns a table of accuracies, the best of each column in bold."""
    best = [max(filter(None, each)) for each in zip(*(r["accuracies"] for r in rows), strict=True)]
    lines = []
    for row in rows:
        numbers = []
        for accuracy, highest in zip(row["accuracies"], best, strict=True):
            printed = f"{accuracy:.1f}" if accuracy else ""
            numbers.append(f"**{printed}**" if accuracy == highest else printed)
        method = f"{row['method']} ([{row['paper']}]({row['url']}))"
        lines.append([method, row["objective"], row["network"], *numbers])
    return _table(["method", "objective", "network", *COLUMNS], lines)


def counted(rows: list[dict]) -> str:
    """Returns a table of what the bytes of each method count, with its sources."""
    lines = []
    for row in rows:
        parts = [", ".join(row[key]) for key in ("counted", "not_counted")]
        lines.append([row["method"], *parts, row["source"]])
    return _table(["method", "counted", "not counted", "source"], lines)


def everything(rows: list[dict]) -> str:
    """Returns a table of bytes per class when labels, decoders and masks count as well."""
    lines = [["the column", *[f"{ipc * IMAGE:,}" for ipc in IPC] * 2, ""]]
    for row in (row for row in rows if "why" in row):
        cells = []
        for name in DATA:
            adds = row.get("adds", {}).get(name)
            per = adds or {}
            sizes = [ipc * (IMAGE + per.get("image", 0)) + per.get("class", 0) for ipc in IPC]
            cells += ["unknown" if adds is None else f"{size:,}" for size in sizes]
        lines.append([row["method"], *cells, row["why"]])
    return _table(["method", *COLUMNS, "what is added"], lines)


def ours() -> str:
    """Returns a table of our own results, sorted by accuracy."""
    lines = []
    for row in _read("docs/leaderboard.json")["ours"]:
        path, arm = f"benchmarks/results/{row['file']}", row.get("arm")
        result = _read(path)
        runs = result[f"{arm}_accuracies"] if arm else list(map(statistics.mean, result.values()))
        sizes = [row.get(key) or result.get(f"{arm}_{key}") or result[key] for key in SIZES]
        spread = [statistics.mean, statistics.stdev][: len(runs)]  # one network has no deviation
        numbers = (f"{round(of(runs), 3):.1f}" for of in spread)
        cells = [*(f"{size:,}" for size in sizes), " ± ".join(numbers), row["training"]]
        source = f"[{pathlib.Path(path).name}](../{path})"
        lines.append((statistics.mean(runs), [row["set"], row["labels"], *cells, source]))
    lines = [cells for _, cells in sorted(lines, reverse=True)]
    sizes = [key.replace("_", " ") for key in SIZES]
    return _table(["set", "labels", *sizes, "accuracy, %", "trained", "result"], lines)


def page(text: str) -> str:
    """Returns a page with its tables, each between <!-- NAME --> and <!-- end -->, written anew."""
    rows = methods()
    tables = {kind: accuracies([r for r in rows if r["labels"] == kind]) for kind in LABELS}
    tables |= {"counted": counted(rows), "everything": everything(rows), "ours": ours()}
    for name, table in tables.items():
        before, start, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        if not end:
            sys.exit(f"{PAGE.name}: no table between <!-- {name} --> and <!-- end -->")
        text = f"{before}{start}\n{table}\n\n{end}{after}"
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    new = page(current := PAGE.read_text(encoding="utf-8"))
    if not parser.parse_args().check:
        write_atomically(PAGE, new.encode())
    elif new != current:
        sys.exit(f"{PAGE.name} is out of date: run python tools/leaderboard.py")
