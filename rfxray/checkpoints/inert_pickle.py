"""Reads a pickle as data: nothing that it names is imported, and nothing that it calls is run.

A pickle is a program for a stack machine. Python's own unpickler imports what the program names and
calls it; this one knows the operations that files of tensors consist of, builds dicts, lists,
tuples and numbers, and keeps every class as a name with a state (`Inert`). A call is refused unless
it is one of those by which such files are built; an operation that is not in the table is refused.

Pickled data cannot make it use much more memory than the file has bytes: lengths are bounded by the
file, and the memo is a dict (that of the unpickler in C is an array, which a file of 10 bytes can
make 64 GiB).
"""

import dataclasses
import pickletools
from collections.abc import Callable
from typing import Any, Protocol

from rfxray.errors import DataError, first_line

MODULE_PACKAGES = ("torch", "torchvision", "torchxrayvision", "numpy")

_VALUES = {
    "BININT",
    "BININT1",
    "BININT2",
    "LONG1",
    "BINFLOAT",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE8",
    "BINSTRING",
    "SHORT_BINSTRING",
    "BINBYTES",
    "SHORT_BINBYTES",
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_SET": list}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


class Source(Protocol):
    """File that is read: `read` must never allocate more than is left (bytes, mmap)."""

    def read(self, size: int, /) -> bytes: ...
    def readline(self) -> bytes: ...
    def tell(self) -> int: ...


@dataclasses.dataclass(frozen=True)
class Name:
    """A class or function that the pickle names; it is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclasses.dataclass(eq=False)
class Inert:
    """An object of a class that is not looked up.

    Attributes:
      kind: Name of its class.
      state: Attributes that it was pickled with, by name.
    """

    kind: Name
    state: dict[str, Any] = dataclasses.field(default_factory=dict)


class Refused(DataError):
    """The pickle does what a file of tensors does not need."""


def load(
    source: Source,
    calls: dict[str, Callable[..., Any]],
    persistent: Callable[[Any], Any],
    modules: bool,
) -> Any:
    """The value that a pickle describes.

    Args:
      source: File, at the begin of the pickle; it is left after the end.
      calls: Our own functions in place of the calls that the pickle may make, by `module.name`.
      persistent: Function from a persistent id of the pickle to the value that it stands for.
      modules: Whether objects of any class may occur, as `Inert`. Without it a pickle holds dicts,
        lists, tuples, numbers, text and what `calls` and `persistent` give.

    Raises:
      Refused: For any other call, class or operation.
      DataError: If it is damaged.
    """
    machine = _Machine(calls, persistent, modules)
    try:
        for operation, argument, _ in pickletools.genops(source):  # type: ignore[arg-type]
            machine.take(operation.name, argument)
        (value,) = machine.stack
    except DataError:
        raise
    except (ValueError, KeyError, IndexError, TypeError, OverflowError, MemoryError) as error:
        raise DataError(f"a damaged pickle ({first_line(error)})") from None
    return value


class _Machine:
    def __init__(self, calls, persistent, modules: bool):
        self.stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._calls, self._persistent, self._modules = calls, persistent, modules

    def take(self, operation: str, argument: Any) -> None:
        stack = self.stack
        if operation in _VALUES:
            stack.append(argument)
        elif operation in _CONSTANTS:
            stack.append(_CONSTANTS[operation])
        elif operation in _EMPTY:
            stack.append(_EMPTY[operation]())
        elif operation in _TUPLES:
            items = tuple(stack[-_TUPLES[operation] :])
            del stack[-_TUPLES[operation] :]
            stack.append(items)
        elif operation in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif operation in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif operation == "GLOBAL":
            module, _, name = argument.partition(" ")
            stack.append(Name(module, name))
        elif operation not in ("PROTO", "FRAME", "STOP"):
            if operation not in _METHODS:
                raise Refused(f"the pickle operation {operation}, which no file of tensors has")
            _METHODS[operation](self)

    def _mark(self):
        self.stack.append(_MARK)

    def _memoize(self):
        self._memo[len(self._memo)] = self.stack[-1]

    def _pop(self):
        self.stack.pop()

    def _tuple(self):
        self.stack.append(tuple(self._from_mark()))

    def _append(self):
        item = self.stack.pop()
        self._of(list).append(item)

    def _appends(self):
        items = self._from_mark()
        self._of(list).extend(items)

    def _setitem(self):
        self._set(self.stack[-2:], 2)

    def _setitems(self):
        items = self._from_mark()
        self._set(items, 0)

    def _set(self, items: list, pops: int) -> None:
        del self.stack[len(self.stack) - pops :]
        into = self._of(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            into[_key(key)] = value

    def _stack_global(self):
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise DataError("a damaged pickle (a class without a name)")
        self.stack.append(Name(module, name))

    def _binpersid(self):
        self.stack.append(self._persistent(self.stack.pop()))

    def _reduce(self):
        arguments, called = self.stack.pop(), self.stack.pop()
        if not isinstance(called, Name) or not isinstance(arguments, tuple):
            raise DataError("a damaged pickle (a call of what is not a function)")
        if str(called) in self._calls:
            self.stack.append(self._calls[str(called)](*arguments))
        elif self._modules and called.module.split(".")[0] in MODULE_PACKAGES:
            self.stack.append(Inert(called))
        else:
            raise Refused(f"a call of {called}, which a file of tensors does not need")

    def _newobj(self):
        _, kind = self.stack.pop(), self.stack.pop()
        if not isinstance(kind, Name):
            raise DataError("a damaged pickle (an object without a class)")
        if not self._modules:
            raise Refused(f"an object of the class {kind}, where only tensors are read")
        self.stack.append(Inert(kind))

    def _build(self):
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Inert) and isinstance(state, dict):
            target.state.update(state)

    def _of(self, kind: type) -> Any:
        target = self.stack[-1]
        if isinstance(target, Inert):  # items of a subclass of list or dict
            return kind()
        if not isinstance(target, kind):
            raise DataError(f"a damaged pickle (items for what is not a {kind.__name__})")
        return target

    def _from_mark(self) -> list[Any]:
        stack = self.stack
        at = len(stack) - 1
        while stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise DataError("a damaged pickle (no mark)")
        items = stack[at + 1 :]
        del stack[at:]
        return items


_METHODS = {
    "MARK": _Machine._mark,
    "MEMOIZE": _Machine._memoize,
    "POP": _Machine._pop,
    "TUPLE": _Machine._tuple,
    "APPEND": _Machine._append,
    "APPENDS": _Machine._appends,
    "ADDITEMS": _Machine._appends,
    "SETITEM": _Machine._setitem,
    "SETITEMS": _Machine._setitems,
    "STACK_GLOBAL": _Machine._stack_global,
    "BINPERSID": _Machine._binpersid,
    "REDUCE": _Machine._reduce,
    "NEWOBJ": _Machine._newobj,
    "BUILD": _Machine._build,
}


def _key(key: Any) -> str | int:
    # Other keys would be hashed: tuples of tuples can take longer than the age of the universe.
    if not isinstance(key, str | int):
        raise Refused(f"a dict with a key of type {type(key).__name__}; keys are text or numbers")
    return key
