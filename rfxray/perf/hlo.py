"""Matrix products, memory traffic and collectives of a compiled module, read from its text.

XLA's own cost analysis counts the body of a loop once and knows no custom kernels. So this walks
the text of the optimised module: through loops as often as they run, into fusions for their matrix
products, along the schedule for the work that runs while a collective is in progress.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Callable

import numpy as np

KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")

_BYTES = {"pred": 1, "bf16": 2} | {
    f"{t}{b}": b / 8 for t in "sufc" for b in (1, 2, 4, 8, 16, 32, 64, 128)
}


# Names of small floats continue after the number of bits: f8e4m3fn.
_ARRAY = re.compile(r"\b([a-z]+\d+|pred)(?:e\d\w*)?\[([\d,]*)\](\{[^}]*\})?")

_FREE = (
    *("parameter", "constant", "bitcast", "tuple", "get-tuple-element", "after-all"),
    *("partition-id", "while", "call", "conditional"),
)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation: `%name = result opcode(arguments), rest`."""

    name: str
    opcode: str
    result: str
    arguments: str
    rest: str

    @property
    def operands(self) -> list[str]:
        return re.findall(r"%([\w.\-]+)", self.arguments)

    def called(self, attribute: str) -> str:
        """The name of the computation in an attribute such as `body`, or an empty string."""
        found = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.rest)
        return found[1] if found else ""


@dataclasses.dataclass(frozen=True)
class Module:
    """Computations by name, each in the order of its schedule; the name of the first one; and the
    number of devices that run it."""

    entry: str
    computations: dict[str, list[Instruction]]
    devices: int


def parse(text: str) -> Module:
    """Parses the text of `jax.stages.Compiled.as_text()`."""
    computations: dict[str, list[Instruction]] = {}
    current, entry = None, ""
    for line in text.splitlines():
        if current is None:
            if found := re.match(r"(ENTRY )?%?([\w.\-]+) .*\{\s*$", line):
                current = computations[found[2]] = []
                entry = found[2] if found[1] else entry
        elif line.rstrip() == "}":  # the metadata of a kernel may have lines that begin with }
            current = None
        elif instruction := _instruction(line):
            current.append(instruction)
    counts = re.findall(r"\b(?:num_partitions|replica_count)=(\d+)", text.partition("\n")[0])
    return Module(entry, computations, math.prod(map(int, counts)))


def _instruction(line: str) -> Instruction | None:
    head = re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = ", line)
    if not head:
        return None
    operation = re.compile(r" ([a-z][\w\-]*)\(").search(line, head.end() - 1)
    if not operation:
        return None
    begin = end = operation.end()
    depth = 1
    for end in range(begin, len(line)):
        depth += {"(": 1, ")": -1}.get(line[end], 0)
        if not depth:
            break
    result = line[head.end() : operation.start()]
    return Instruction(head[1], operation[1], result, line[begin:end], line[end + 1 :])


def size(shape: str, fast: bool = True) -> float:
    """Bytes of a shape or a tuple of shapes; without `fast`, only those in memory space 0 (HBM)."""
    return sum(
        _BYTES.get(dtype, 4) * math.prod(int(d) for d in dims.split(",") if d)
        for dtype, dims, layout in _ARRAY.findall(shape)
        if fast or not re.search(r"S\([1-9]", layout)
    )


def executions(module: Module) -> collections.Counter:
    """How often a step runs each computation of the schedule, without fusions."""
    times = collections.Counter()

    def visit(name: str, k: int):
        times[name] += k
        for i in module.computations.get(name, ()):
            if i.opcode == "while":
                visit(i.called("body"), k * _trips(module, i.called("condition")))
            elif i.opcode == "call":
                visit(i.called("to_apply"), k)
            elif i.opcode == "conditional":
                for branch in re.findall(r"%([\w.\-]+)", i.rest.split("metadata=")[0]):
                    visit(branch, k)

    visit(module.entry, 1)
    return times


def _trips(module: Module, condition: str) -> int:
    """Trips of a scan, which counts from 0 to the only integer that its condition compares with."""
    constants = (i for i in module.computations[condition] if i.opcode == "constant")
    bounds = [int(i.arguments) for i in constants if re.fullmatch(r"\d+", i.arguments)]
    return max(bounds, default=1)


# ---------------------------------------------------------------------------------------------
# Matrix products


def matmul_flops(module: Module, name: str | None = None) -> float:
    """Operations of all matrix products of a step, two per multiply-add, with those of kernels.

    Args:
      module: Module of one device, so the count is per device.
      name: Name of a computation to count once; None for the whole schedule.
    """
    if name is None:
        return sum(k * matmul_flops(module, c) for c, k in executions(module).items())
    shapes = results(module, name)
    return sum(flops(module, i, shapes) for i in module.computations.get(name, ()))


def results(module: Module, name: str) -> dict[str, str]:
    """Shapes of all values of a computation, by name."""
    return {i.name: i.result for i in module.computations.get(name, ())}


def flops(module: Module, i: Instruction, shapes: dict[str, str]) -> float:
    """Operations of the matrix products of an instruction, with those inside a fusion."""
    if i.opcode == "fusion":
        return matmul_flops(module, i.called("calls"))
    if i.opcode == "convolution":
        return _convolution_flops(i, *(_dims(shapes[o]) for o in i.operands))
    if i.opcode == "dot":
        contracted = _found(r"lhs_contracting_dims=\{([\d,]*)\}", i.rest)[1]
        lhs = _dims(shapes[i.operands[0]])
        inner = math.prod(lhs[int(d)] for d in contracted.split(",") if d)
        return 2.0 * math.prod(_dims(i.result)) * inner
    if i.opcode == "custom-call" and 'custom_call_target="tpu_custom_call"' in i.rest:
        return _kernel_flops(i)
    return 0.0


def _dims(shape: str) -> list[int]:
    return [int(d) for d in _found(_ARRAY, shape)[2].split(",") if d]


def _found(pattern: str | re.Pattern[str], text: str) -> re.Match[str]:
    """The match of a pattern that every instruction of a kind has."""
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"HLO without {pattern} is not supported: {text[:200]}")
    return found


def _convolution_flops(i: Instruction, lhs: list[int], rhs: list[int]) -> float:
    """Operations of a convolution. TPUs write a matrix product as a convolution with a window over
    dimensions such as batch and heads; only positions inside both operands count."""
    left, right, out = _found(r"dim_labels=(\w+)_(\w+)->(\w+)", i.rest).groups()
    written = _found(r"window=\{([^}]*)\}|$", i.rest)[1] or ""
    window = dict(re.findall(r"(\w+)=([\dx_\-]+)", written))
    result = _dims(i.result)
    flops = 2.0 * result[out.index("b")] * result[out.index("f")] * rhs[right.index("i")]
    for d in range(len(left) - 2):

        def value(key, default, d=d):
            return window[key].split("x")[d] if key in window else default

        low = int(value("pad", "0_0").split("_")[0])
        stride, spread = int(value("stride", "1")), int(value("lhs_dilate", "1"))
        dilate, axis = int(value("rhs_dilate", "1")), str(d)
        places = np.arange(result[out.index(axis)])[:, None] * stride - low
        places = places + np.arange(rhs[right.index(axis)]) * dilate
        last = (lhs[left.index(axis)] - 1) * spread
        flops *= int(((places >= 0) & (places <= last) & (places % spread == 0)).sum())
    return flops


# Matrix products of [tokens, head_dim] × [head_dim, tokens] in each of our kernels: the backward
# kernel of attention computes the logits again, and rotation needs no products.
_KERNELS = {"splash_mha_fwd": 2, "splash_mha_dkv": 5, "norm_rotate_fwd": 0, "norm_rotate_bwd": 0}


def _kernel_flops(i: Instruction) -> float:
    for name, products in _KERNELS.items():
        if i.name.startswith(name):
            if not products:
                return 0.0
            shapes = _ARRAY.findall(i.rest.split("frontend_attributes")[0])
            query = next(dims for _, dims, _ in shapes if dims.count(",") == 3)
            batch, heads, tokens, head_dim = (int(d) for d in query.split(","))
            return 2.0 * products * batch * heads * tokens**2 * head_dim
    raise ValueError(f"the operations of the kernel {i.name} are unknown; add it to _KERNELS")


# ---------------------------------------------------------------------------------------------
# Memory traffic


def traffic(module: Module, i: Instruction, shapes: dict[str, str]) -> float:
    """Bytes that an instruction of the schedule reads from and writes to HBM.

    A fusion that slices a stacked array reads only the slice; one that updates a slice writes only
    the slice.
    """
    if i.opcode in _FREE or i.opcode.endswith("-done") or "AllocateBuffer" in i.rest:
        return 0.0
    read = 0.0
    inside = i.called("calls")
    for n, operand in enumerate(i.operands):
        whole = size(shapes.get(operand, ""), fast=False)
        read += _read(module, inside, n, whole) if inside else whole
    written = size(i.result, fast=False)
    lines = module.computations.get(inside, ())
    sizes = {line.name: size(line.result) for line in lines}
    for line in lines:
        if line.opcode == "dynamic-update-slice":
            written -= sizes[line.name] - sizes[line.operands[1]]
    return read + max(0.0, written)


def _read(module: Module, computation: str, parameter: int, whole: float) -> float:
    """Bytes that a fused computation reads of a parameter that has `whole` bytes."""
    lines = module.computations.get(computation, ())
    names = [p.name for p in lines if p.opcode == "parameter" and p.arguments == str(parameter)]
    total = 0.0
    while names:
        name = names.pop()
        for user in (line for line in lines if name in line.operands):
            if user.opcode == "bitcast":
                names.append(user.name)
            elif user.opcode == "fusion":
                inner = user.called("calls")
                total += _read(module, inner, user.operands.index(name), whole)
            elif user.opcode == "dynamic-slice" and user.operands[0] == name:
                total += size(user.result)
            elif not (user.opcode == "dynamic-update-slice" and user.operands[0] == name):
                total += whole
    return min(whole, total)


# ---------------------------------------------------------------------------------------------
# Collectives


@dataclasses.dataclass(frozen=True)
class Collective:
    """A collective of the schedule.

    Attributes:
      kind: One of `KINDS`.
      bytes: Bytes of the input or the output of a device, whichever is larger.
      group: Devices of its first group, as positions in the mesh.
      times: Number of times that a step runs it.
      hidden: Seconds of other work between its start and its end; None if the device only waits.
    """

    kind: str
    bytes: float
    group: tuple[int, ...]
    times: int
    hidden: float | None


def collectives(
    module: Module, seconds: Callable[[Instruction, dict[str, str]], float]
) -> list[Collective]:
    """Every collective of a step.

    TPUs split a collective into steps, each inside the fusion of a matrix product; a chain of such
    fusions is one collective, in progress from the first to the last.

    Args:
      module: Module of one device.
      seconds: Function of an instruction and the shapes of its computation that returns its time.
    """
    found = []
    for name, times in executions(module).items():
        schedule, shapes = module.computations[name], results(module, name)
        ends = {}  # last instruction of each collective, by its first
        for n, i in enumerate(schedule):
            if i.opcode.endswith("-done"):
                ends |= dict.fromkeys(i.operands, n)
            for inner, _ in _communication(module, i, shapes):
                if chain := _chain(inner):
                    ends[chain] = n
        seen = set()
        for n, i in enumerate(schedule):
            for inner, within in _communication(module, i, shapes):
                chain = _chain(inner)
                if chain in seen:
                    continue
                if chain:
                    seen.add(chain)
                hidden, end = None, ends.get(chain or i.name)
                if end is not None:
                    hidden = sum(seconds(j, shapes) for j in schedule[n + 1 : end])
                elif i.opcode == "fusion":
                    hidden = seconds(i, shapes) or None
                put = sum(size(within.get(o, "")) for o in inner.operands)
                got = size(inner.result) - (put if inner.opcode.endswith("-start") else 0)
                kind = inner.opcode.removesuffix("-start")
                if kind == "all-reduce" and _scatters(module, i):
                    kind = "reduce-scatter"
                found.append(
                    Collective(kind, max(put, got), _group(inner, module.devices), times, hidden)
                )
    return found


def _chain(i: Instruction) -> str | None:
    found = re.search(r'chain_id="(\d+)"', i.rest)
    return f"chain {found[1]}" if found else None


def _communication(module: Module, i: Instruction, shapes: dict[str, str]):
    """The collectives that an instruction is or contains, with the shapes of their computation."""
    if i.opcode.removesuffix("-start") in KINDS:
        yield i, shapes
    elif i.opcode in ("fusion", "async-start") and (name := i.called("calls")):
        inside = results(module, name)
        for line in module.computations.get(name, ()):
            yield from _communication(module, line, inside)


def _scatters(module: Module, i: Instruction) -> bool:
    """Whether it is a reduce-scatter, which TPUs write as a fusion of an all-reduce and a slice."""
    return "all-reduce-scatter" in i.name or "all-reduce-scatter" in i.called("calls")


def _group(i: Instruction, devices: int) -> tuple[int, ...]:
    """The first group of devices that communicate, from any notation of HLO."""
    if "replica_groups={}" in i.rest:
        return tuple(range(devices))
    if found := re.search(r"source_target_pairs=\{(.*?)\}\}", i.rest):
        pairs = re.findall(r"(\d+),(\d+)", found[1])
        return next(((int(a), int(b)) for a, b in pairs if a != b), (0,))
    if found := re.search(r"replica_groups=\{\{([\d,]+)\}", i.rest):
        return tuple(int(n) for n in found[1].split(","))
    if found := re.search(r"replica_groups=\[(\d+),(\d+)\]<=(\S+?)(?:, |$)", i.rest):
        return tuple(_iota(found[3]).reshape(int(found[1]), -1)[0].tolist())
    mesh = r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\((\S+)\))? \{([^}]*)\}"
    if found := re.search(mesh, i.rest):
        axes = dict(re.findall(r"'(\w+)'=(\d+)", found[1]))
        sizes = [int(n) for n in axes.values()]
        grid = _iota(found[2] or f"[{math.prod(sizes)}]").reshape(sizes)
        first = tuple(slice(None) if f"'{axis}'" in found[3] else 0 for axis in axes)
        return tuple(grid[first].ravel().tolist())
    raise ValueError(f"replica groups in a notation that is not supported: {i.name}{i.rest[:200]}")


def _iota(text: str) -> np.ndarray:
    """The array of a notation such as `[4,2]T(1,0)`: 0, 1, … in that shape, transposed."""
    dims, _, order = text.partition("T")
    dims = [int(n) for n in dims.strip("[]").split(",")]
    devices = np.arange(math.prod(dims)).reshape(dims)
    return devices.transpose([int(n) for n in order.strip("()").split(",")]) if order else devices
