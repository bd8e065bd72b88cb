"""Counts a device's work in one run of a compiled program.

`compiled.cost_analysis()` is XLA's count. Its `flops` are those of elementwise operations and of
convolutions and matrix products, a product and a sum each, without padding. Its bytes are read and
written by operations that are not fused into others. This count differs:

- XLA counts the body of a loop once. Here the body is analysed as its own program, and counts as
  often as XLA says that it runs (`known_trip_count`). A loop of unknown length counts once.
- XLA counts the most expensive branch of a conditional. Here each branch counts by its share:
  branches are drawn augmentations.
- XLA knows nothing of a custom call. Here its operands and results count as bytes, without FLOPs.
- XLA counts the whole array that a fused gather or scatter indexes. Here only indexed parts count.

`operations` estimate the kernels that a GPU launches: operations that are not fused into another
and write more than 64 bytes. Collectives have calls and the bytes of their results, by kind.
"""

from __future__ import annotations

import collections
import functools
import math
import re
from typing import Any

import jax
from jaxlib import _jax

try:
    from jaxlib import _hlo
except ImportError:  # before JAX 0.10.2
    _hlo = _jax

COLLECTIVES = {
    *("all-reduce", "all-gather", "reduce-scatter", "all-to-all"),
    *("collective-permute", "collective-broadcast"),
}
CALLS = ("while", "conditional", "call")
FREE = {*CALLS, "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all",
        "partition-id", "replica-id"}  # fmt: skip
SMALL = 64  # bytes: a CPU computes random keys by many such operations, a GPU by one
COMPUTATION = re.compile(r"^(ENTRY )?%([\w.\-]+) (\(.*?^\})", re.DOTALL | re.MULTILINE)
OPERATION = re.compile(r"^ +(?:ROOT )?%\S+ = (.*?) ([\w\-]+)\((.*)$", re.MULTILINE)
CALLED = re.compile(r"(?:condition|body|to_apply|calls|\w+_computations?)=(%[\w.\-]+|\{.*?\})")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
ARRAY = re.compile(r"([a-z]+)(\d*)\w*\[([\d,]*)\]")
OPERAND = re.compile(r"(\S+) %([\w.\-]+)")
NAME = re.compile(r"%([\w.\-]+)")


def count(compiled: jax.stages.Compiled) -> dict[str, Any]:
    """Returns `flops`, `bytes`, `operations`, and `calls` and `moved` bytes per collective."""
    total = Program(compiled).total
    row = {key: total[key] for key in ("flops", "bytes", "operations")}
    for key in ("calls", "moved"):
        row[key] = {kind: total[key, kind] for kind in sorted(COLLECTIVES) if total[key, kind]}
    return row


def sent(moved: dict[str, float], devices: int) -> float:
    """Returns the bytes that each device sends in collectives on rings."""
    others = (devices - 1) / devices
    of_result = {"all-reduce": 2 * others, "all-gather": others, "reduce-scatter": devices - 1,
                 "all-to-all": others}  # fmt: skip
    return sum(of_result.get(kind, 1) * size for kind, size in moved.items())


class Program:
    """A compiled program as computations, and the `total` of one run."""

    def __init__(self, compiled: jax.stages.Compiled):
        options = _hlo.HloPrintOptions()
        options.print_metadata, options.print_operand_shape = False, True
        (module,) = compiled.runtime_executable().hlo_modules()
        found = COMPUTATION.findall(module.to_string(options))
        self.texts = {name: text for _, name, text in found}
        self.cost, self.analysis = functools.cache(self._cost), functools.cache(self._analysis)
        self.total = self.cost(next(name for entry, name, _ in found if entry))

    def _cost(self, name: str) -> collections.Counter:
        """Counts one run of a computation, with all that it calls."""
        found = collections.Counter(self.analysis(name))
        for result, code, rest in OPERATION.findall(self.texts[name]):
            found["operations"] += code not in FREE and size(result) > SMALL
            callees = NAME.findall(" ".join(CALLED.findall(rest)))
            if code in COLLECTIVES:
                found["calls", code] += 1
                found["moved", code] += size(result)
            elif code == "custom-call":  # XLA counts -1 of each
                found["flops"] += 1
                found["bytes"] += 1 + size(result) + size(rest.partition("custom_call_target")[0])
            elif code == "fusion":
                found["bytes"] -= sum(map(self.not_indexed, callees))
            elif code in CALLS:
                trips = TRIPS.search(rest)
                times, once = int(trips[1]) if trips else 1, sum
                if code == "conditional":
                    times, once = 1 / len(callees), max
                for key in ("flops", "bytes"):
                    found[key] -= once(self.analysis(callee)[key] for callee in callees)
                for callee in callees:
                    for key, value in self.cost(callee).items():
                        found[key] += times * value
        return found

    def _analysis(self, name: str) -> dict[str, float]:
        """Returns XLA's count of a computation with all that it calls."""
        needed, new = set(), {name}
        while new:
            needed |= new
            named = (NAME.findall(self.texts[other]) for other in new)
            new = {other for names in named for other in names if other in self.texts} - needed
        texts = (
            f"{'ENTRY ' * (other == name)}%{other} {text}"
            for other, text in self.texts.items()
            if other in needed
        )
        module = _hlo.hlo_module_from_text("HloModule part\n\n" + "\n\n".join(texts))
        found = _jax.hlo_module_cost_analysis(jax.devices()[0].client, module)
        return {"flops": found.get("flops", 0.0), "bytes": found.get("bytes accessed", 0.0)}

    def not_indexed(self, fused: str) -> int:
        """Returns the bytes of arrays in memory that a fused gather or scatter does not index."""
        total = 0
        for result, code, rest in OPERATION.findall(self.texts[fused]):
            if code in ("gather", "scatter"):
                (whole, name), *_, (updates, _) = OPERAND.findall(rest.partition(")")[0])
                if f"%{name} = {whole} parameter(" in self.texts[fused]:
                    times, indexed = (1, result) if code == "gather" else (2, updates)
                    total += times * (size(whole) - size(indexed))
        return total


def size(text: str) -> int:
    """Returns the bytes of all arrays whose shapes are in a text."""
    return sum(
        -(-int(bits or 8 * (kind == "pred")) * math.prod(map(int, re.findall(r"\d+", sides))) // 8)
        for kind, bits, sides in ARRAY.findall(text)
    )
