"""What a compiled program does in one run, counted from its own text.

XLA's `cost_analysis` counts the body of a loop once. Here it counts as often as it runs, which XLA
writes beside a loop whose length is known. The text is that of one device's part of a program that
is spread over several.

- Products: multiplications and additions of convolutions and matrix products, two for each pair,
  padding left out. Elementwise work and custom calls are not in it.
- Bytes: operands and results of every operation that is not inside of another, once each; of a
  slice or an update in place what it touches.
- Operations: about as many kernels as a GPU runs. Those that write a few numbers are left out: most
  are how a CPU computes random keys, where a GPU has one for all.
- Collectives: calls and bytes of their results, by kind.

A branch of a conditional counts by its share, as if each were taken as often: so it is with a drawn
augmentation.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import re

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
)
# What computes nothing, or only names other operations.
FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"),
    *("partition-id", "replica-id", "while", "conditional", "call"),
}
SMALL = 64  # bytes
SLICES = ("slice", "dynamic-slice", "gather")
UPDATES = {"dynamic-update-slice": 1, "scatter": -1}  # which operand is written
BITS = re.compile(r"(?:[a-z]*?)(\d+)")
SHAPE = re.compile(r"([a-z]+\d*\w*)\[([\d,]*)\]")
NAME = re.compile(r"%([\w.\-]+)")
HEAD = re.compile(r"\s*(ROOT )?%?([\w.\-]+) = ")
START = re.compile(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$")


@dataclasses.dataclass
class Counts:
    """Of one run on one device."""

    products: float = 0.0  # FLOPs
    bytes: float = 0.0
    operations: float = 0.0  # not inside of others, that write more than `SMALL` bytes
    calls: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    moved: collections.Counter = dataclasses.field(default_factory=collections.Counter)

    def add(self, other: Counts, times: float) -> None:
        """As much as `times` the other."""
        for name in ("products", "bytes", "operations"):
            setattr(self, name, getattr(self, name) + times * getattr(other, name))
        for name in ("calls", "moved"):
            mine, others = getattr(self, name), getattr(other, name)
            for kind, count in others.items():
                mine[kind] += times * count


@dataclasses.dataclass(frozen=True)
class _Operation:
    name: str
    type: str
    code: str
    operands: tuple[str, ...]
    rest: str  # attributes
    root: bool


def count(text: str, unknown: int | None = None) -> Counts:
    """What one run of a compiled program takes, from `compiled.as_text()`.

    Args:
      text: of the whole program, optimized.
      unknown: how often a loop of unknown length runs; 1 also counts every loop once.

    Raises:
      ValueError: for a loop of unknown length where `unknown` is None.
    """
    return _Program(text, unknown, once=False).total()


def count_once(text: str) -> Counts:
    """The same with every loop counted once, and the largest branch: as XLA's own analysis does."""
    return _Program(text, 1, once=True).total()


class _Program:
    def __init__(self, text: str, unknown: int | None, once: bool):
        self.unknown, self.once = unknown, once
        self.computations: dict[str, dict[str, _Operation]] = {}
        self.known: dict[str, Counts] = {}
        current = None
        for line in text.splitlines():
            line = re.sub(r"/\*.*?\*/", "", line)
            if line.startswith("}"):
                current = None
            elif current is None:
                if (start := START.match(line)) and "->" in line:
                    current = self.computations.setdefault(start[1], {})
                    if line.startswith("ENTRY"):
                        self.entry = start[1]
            elif operation := _parsed(line):
                current[operation.name] = operation

    def total(self) -> Counts:
        return self.of(self.entry)

    def of(self, name: str) -> Counts:
        """One run of a computation, with all that it calls."""
        if name in self.known:
            return self.known[name]
        counts = Counts()
        for operation in self.computations[name].values():
            for callee, times in self.callees(operation):
                counts.add(self.of(callee), times)
            if operation.code == "fusion":
                inside = self.computations[_attribute(operation, "calls")]
                counts.products += sum(_products(o, inside) for o in inside.values())
            counts.products += _products(operation, self.computations[name])
            if operation.code in FREE:
                continue
            counts.operations += _size(operation.type) > SMALL
            counts.bytes += self.touched(operation, self.computations[name])
            if operation.code in COLLECTIVES:
                counts.calls[operation.code] += 1
                counts.moved[operation.code] += _size(operation.type)
        self.known[name] = counts
        return counts

    def callees(self, operation: _Operation) -> list[tuple[str, float]]:
        """Computations that an operation runs, and how often."""
        if operation.code == "while":
            times = self.trips(operation)
            return [(_attribute(operation, which), times) for which in ("body", "condition")]
        if operation.code == "call":
            return [(_attribute(operation, "to_apply"), 1)]
        if operation.code == "conditional":
            several = re.search(r"branch_computations=\{(.*?)\}", operation.rest)
            names = NAME.findall(
                several[1]
                if several
                else " ".join(re.findall(r"(?:true|false)_computation=(%[\w.\-]+)", operation.rest))
            )
            if self.once:
                return [(max(names, key=lambda name: self.of(name).bytes), 1)]
            return [(name, 1 / len(names)) for name in names]
        return []

    def trips(self, operation: _Operation) -> int:
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"', operation.rest)
        if known and not self.once:
            return int(known[1])
        if self.unknown is None:
            raise ValueError(f"hlo: the length of loop {operation.name} is not known")
        return self.unknown

    def touched(self, operation: _Operation, among: dict[str, _Operation]) -> int:
        """Bytes that it reads and writes."""
        if operation.code in SLICES:
            return 2 * _size(operation.type)
        if operation.code in UPDATES:
            return 2 * _size(among[operation.operands[UPDATES[operation.code]]].type)
        operands = [_size(among[name].type) for name in operation.operands]
        if operation.code != "fusion":
            return sum(operands) + _size(operation.type)
        inside = self.computations[_attribute(operation, "calls")]
        parameters = {
            int(o.rest.partition(")")[0]): o.name for o in inside.values() if o.code == "parameter"
        }
        for place, name in parameters.items():
            users = [o for o in inside.values() if name in o.operands]
            if users and all(o.code in SLICES and o.operands[0] == name for o in users):
                operands[place] = sum(_size(o.type) for o in users)
            elif users and all(o.code in UPDATES and o.operands[0] == name for o in users):
                operands[place] = 0  # updated in place
        root = next(o for o in inside.values() if o.root)
        written = _size(operation.type)
        if root.code in UPDATES:
            written = _size(inside[root.operands[UPDATES[root.code]]].type)
        return sum(operands) + written


def _parsed(line: str) -> _Operation | None:
    head = HEAD.match(line)
    if head is None:
        return None
    rest = line[head.end() :]
    type_, rest = _balanced(rest) if rest.startswith("(") else rest.split(" ", 1)
    code, rest = re.match(r"\s*([\w\-]+)(.*)$", rest).groups()
    inner, attributes = _balanced(rest)
    # A parameter's and a constant's are numbers: they stay where they can be read.
    if code == "parameter":
        attributes = inner[1:]
    names = tuple(NAME.findall(inner)) if code not in ("parameter", "constant") else ()
    return _Operation(head[2], type_, code, names, attributes, bool(head[1]))


def _balanced(text: str) -> tuple[str, str]:
    """A leading parenthesis, and what follows it."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[: place + 1], text[place + 1 :]
    raise ValueError(f"hlo: expected a closing parenthesis in {text[:60]!r}")


def _attribute(operation: _Operation, name: str) -> str:
    return re.search(rf"\b{name}=%?([\w.\-]+)", operation.rest)[1]


def _shapes(type_: str) -> list[tuple[int, tuple[int, ...]]]:
    """(bits of an element, dimensions) of each array of a type; tokens have no bits."""
    found = []
    for kind, dimensions in SHAPE.findall(type_):
        bits = 8 if kind == "pred" else int(BITS.match(kind)[1]) if BITS.match(kind) else 0
        found.append((bits, tuple(int(d) for d in dimensions.split(",") if d)))
    return found


def _size(type_: str) -> int:
    """Bytes."""
    return sum(-(-bits * math.prod(dimensions) // 8) for bits, dimensions in _shapes(type_))


def _dimensions(type_: str) -> tuple[int, ...]:
    return _shapes(type_)[0][1]


def _products(operation: _Operation, among: dict[str, _Operation]) -> int:
    if operation.code == "dot":
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", operation.rest)[1]
        lhs = _dimensions(among[operation.operands[0]].type)
        inner = math.prod(lhs[int(d)] for d in contracted.split(",") if d)
        return 2 * math.prod(_dimensions(operation.type)) * inner
    if operation.code == "convolution":
        return _convolution(operation, among)
    return 0


def _convolution(operation: _Operation, among: dict[str, _Operation]) -> int:
    """Pairs of a pixel and a weight that meet, times two."""
    lhs_labels, kernel_labels, out_labels = re.search(
        r"dim_labels=(\w+)_(\w+)->(\w+)", operation.rest
    ).groups()
    lhs, kernel = (_dimensions(among[name].type) for name in operation.operands)
    out = _dimensions(operation.type)
    window = re.search(r"window=\{(.*?)\}", operation.rest)
    options = dict(part.split("=") for part in window[1].split()) if window else {}
    pairs = 1
    for place, axis in enumerate(sorted(label for label in out_labels if label.isdigit())):
        option = lambda name, default, place=place: options.get(
            name, "x".join([default] * (place + 1))
        ).split("x")[place]
        low = int(option("pad", "0_0").split("_")[0])
        stride, apart = int(option("stride", "1")), int(option("rhs_dilate", "1"))
        spread = int(option("lhs_dilate", "1"))
        size = lhs[lhs_labels.index(axis)]
        pairs *= sum(
            0 <= position <= (size - 1) * spread and position % spread == 0
            for o in range(out[out_labels.index(axis)])
            for k in range(kernel[kernel_labels.index(axis)])
            for position in [o * stride + k * apart - low]
        )
    batch, features = out[out_labels.index("b")], out[out_labels.index("f")]
    return 2 * batch * features * kernel[kernel_labels.index("i")] * pairs
