"""What a compiled program does, read from its text (XLA's HLO)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_COLLECTIVES = (
    *("all-reduce", "all-gather", "all-to-all", "ragged-all-to-all", "reduce-scatter"),
    *("collective-permute", "collective-broadcast"),
)
_MOVES = ("copy", "transpose")
# How an instruction names the computations that run on their own, and a part of itself (a fusion).
_ON_THEIR_OWN, _PART = ("body", "condition", "branch_computations", "to_apply"), "calls"

_HEADER = re.compile(r"(ENTRY )?%?([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.-]+) = (.*?) ([a-z][a-z0-9-]*)\(([^)]*)\)(.*)$")
_CALLED = re.compile(r"\b(\w+)=(\{%[^}]*\}|%[\w.-]+)")
_CAME_FROM = re.compile(r'op_name="([^"]*)"')
_NAME = re.compile(r"%([\w.-]+)")
_ARRAY = re.compile(r"\b([a-z]+)(\d*)\w*\[([\d,]*)\]")


class Instruction(NamedTuple):
    """A line of a computation.

    Attributes:
      result: type, shape and layout of what it makes, e.g. `f32[4,65]{1,0}`; several in brackets.
      operation: e.g. `copy`.
      operands: as they are written: names, or a constant's value.
      called: computations by how they are called, `condition`, `body`, `calls` …
      came_from: the path in the program that was compiled.
      is_root: whether it is the result of its computation.
    """

    result: str
    operation: str
    operands: str
    called: dict[str, list[str]]
    came_from: str
    is_root: bool


# The instructions of a computation by their names.
Computation = dict[str, Instruction]


class Program(NamedTuple):
    """Computations by name, and which of them it begins with."""

    computations: dict[str, Computation]
    entry: str


class Run(NamedTuple):
    """An instruction that runs some times; the arrays it makes or gives have bytes, elements."""

    operation: str
    result: str
    came_from: str
    times: int
    bytes: int
    elements: int


def parse(text: str) -> Program:
    """A program from its text."""
    computations: dict[str, Computation] = {}
    entry, inside = "", ""
    for line in text.splitlines():
        if header := _HEADER.match(line):
            inside = header[2]
            computations[inside] = {}
            entry = inside if header[1] else entry
        elif inside and (found := _INSTRUCTION.match(line)):
            root, name, result, operation, operands, rest = found.groups()
            called = {how: _NAME.findall(whom) for how, whom in _CALLED.findall(rest)}
            came_from = _CAME_FROM.search(rest)
            computations[inside][name] = Instruction(
                *(result, operation, operands, called),
                came_from=came_from[1] if came_from else "",
                is_root=root is not None,
            )
    return Program(computations, entry)


def collectives(program: Program) -> list[Run]:
    """What devices tell each other, in the bytes that each of them gives; what is asynchronous
    counts where it starts."""
    found = []
    for name, times in times_run(program).items():
        for lines in (program.computations[name], *_parts(program, name)):
            for one in lines.values():
                operation = one.operation.removesuffix("-start")
                if operation in _COLLECTIVES:
                    given = [lines[n].result for n in _NAME.findall(one.operands) if n in lines]
                    found.append(_run(one, operation, " ".join(given), times))
    return found


def moves(program: Program) -> list[Run]:
    """Copies and transposes from memory to memory, those that are all of a fusion among them."""
    found = []
    for name, times in times_run(program).items():
        for one in program.computations[name].values():
            operation = one.operation
            if operation == "fusion":
                (part,) = one.called[_PART]
                operation = _root(program.computations[part]).operation
            if operation in _MOVES:
                found.append(_run(one, operation, one.result, times))
    return found


def _run(one: Instruction, operation: str, arrays: str, times: int) -> Run:
    sizes = bytes_of(arrays), elements_of(arrays)
    return Run(operation, one.result, one.came_from, times, *sizes)


def bytes_of(arrays: str) -> int:
    """Bytes of the arrays of a type, without what a layout pads."""
    return sum(
        _elements(sizes) * (8 if kind == "pred" else int(bits or 0)) // 8
        for kind, bits, sizes in _ARRAY.findall(arrays)
    )


def elements_of(arrays: str) -> int:
    """Elements of the arrays of a type."""
    return sum(_elements(sizes) for _, _, sizes in _ARRAY.findall(arrays))


def _elements(sizes: str) -> int:
    return math.prod(int(size) for size in sizes.split(",") if size)


def times_run(program: Program) -> dict[str, int]:
    """How often each computation runs that is no part of an instruction.

    Loops of a known length are counted as often as they run, those of an unknown one once.
    """
    times = {program.entry: 1}
    waiting = [program.entry]
    for name in waiting:  # grows on the way
        for one in program.computations[name].values():
            if one.operation not in ("while", "conditional", "call"):
                continue
            length = _length(program, one) if one.operation == "while" else 1
            for how in _ON_THEIR_OWN:
                for called in one.called.get(how, ()):
                    times[called] = times.get(called, 0) + times[name] * length
                    waiting.append(called)
    return times


def _length(program: Program, loop: Instruction) -> int:
    """Of a loop that counts from 0 to a constant, as JAX writes them; 1 of any other."""
    (condition,) = loop.called["condition"]
    lines = program.computations[condition]
    root = _root(lines)
    operands = (lines[name] for name in _NAME.findall(root.operands) if name in lines)
    bounds = [int(one.operands) for one in operands if one.operation == "constant"]
    return bounds[0] if root.operation == "compare" and len(bounds) == 1 else 1


def _root(lines: Computation) -> Instruction:
    (root,) = (one for one in lines.values() if one.is_root)
    return root


def _parts(program: Program, name: str) -> Iterator[Computation]:
    """The computations that instructions of a computation are made of."""
    for one in program.computations[name].values():
        for part in one.called.get(_PART, ()):
            yield program.computations[part]
