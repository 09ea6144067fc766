"""Pickles read as data: their program is followed, but no name in it is imported, and nothing in it is called.

A pickle is a program for a stack machine. Here the opcodes that would look up a class, call a function or set an
object's state leave a record on the stack, an ``Inert``. What a hostile file asks for is written down, not done.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

OPERATIONS = 5_000_000  # of one pickle; those of large real checkpoints have some 100,000
PERSISTENT = "persistent id"
RECONSTRUCTORS = ("copyreg._reconstructor", "copy_reg._reconstructor", "copyreg.__newobj__", "copyreg.__newobj_ex__")
SCALARS = (str, bytes, int, float, type(None))


@dataclass(eq=False)
class Inert:
    """An object that was not made, or with ``arguments`` None a class or function that was not looked up.

    ``name`` is its module and name; ``arguments`` is what it was to be called with, ``state`` what its attributes
    were to be, ``items`` and ``entries`` what was to be put in it as a list and as a mapping.
    """

    name: str
    arguments: tuple | None = None
    state: object = None
    items: list = field(default_factory=list)
    entries: dict = field(default_factory=dict)


class Machine:
    """The stack machine of pickle protocols 0 to 5."""

    def __init__(self) -> None:
        self.stack: list = []
        self.below: list[list] = []
        self.memo: dict[int, object] = {}
        self.persistent: list[Inert] = []

    def push(self, value: object) -> None:
        """Put ``value`` on the stack."""
        self.stack.append(value)

    def pop(self, count: int) -> list:
        """Take the ``count`` topmost values off the stack, the topmost last."""
        if len(self.stack) < count:
            raise ValueError("an operation has nothing to work on")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def mark(self) -> None:
        """Begin a new stack on top of this one."""
        self.below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list:
        """Take everything above the topmost mark, and the mark, off the stack."""
        taken, self.stack = self.stack, self.below.pop()
        return taken

    def call(self, function: object, arguments: object) -> None:
        """Push the record of a call."""
        name = function.name if isinstance(function, Inert) else type(function).__name__
        arguments = arguments if isinstance(arguments, tuple) else (arguments,)
        if name in RECONSTRUCTORS and arguments and isinstance(arguments[0], Inert):
            name = arguments[0].name
        self.push(Inert(name, arguments))

    def persist(self, identity: object) -> None:
        """Push the record of an object that is stored outside the pickle."""
        self.push(Inert(PERSISTENT, (identity,)))
        self.persistent.append(self.stack[-1])

    def extend(self, values: list) -> None:
        """Append ``values`` to the list on top of the stack, or to the record of one."""
        target = self.stack[-1]
        (target.items if isinstance(target, Inert) else as_list(target)).extend(values)

    def update(self, values: list) -> None:
        """Put ``values``, keys and values in turn, into the mapping on top of the stack, or the record of one."""
        target = self.stack[-1]
        mapping = target.entries if isinstance(target, Inert) else as_dict(target)
        for key, value in zip(values[::2], values[1::2], strict=True):
            mapping[key if isinstance(key, SCALARS) else Inert("key", (key,))] = value

    def set_state(self) -> None:
        """Note the state on top of the stack in the record below it; plain containers have none."""
        (state,) = self.pop(1)
        if isinstance(self.stack[-1], Inert):
            self.stack[-1].state = state


def as_list(value: object) -> list:
    """Return ``value`` when it is a list; raise ValueError otherwise."""
    if not isinstance(value, list):
        raise ValueError(f"{type(value).__name__} is no list")
    return value


def as_dict(value: object) -> dict:
    """Return ``value`` when it is a dict; raise ValueError otherwise."""
    if not isinstance(value, dict):
        raise ValueError(f"{type(value).__name__} is no dict")
    return value


def dictionary(machine: Machine) -> None:
    """Push a new dict of what is above the mark."""
    values = machine.since_mark()
    machine.push({})
    machine.update(values)


def named(machine: Machine, module: object, name: object) -> None:
    """Push the record of a class or function."""
    if not (isinstance(module, str) and isinstance(name, str)):
        raise ValueError("a class is named by something else than text")
    machine.push(Inert(f"{module}.{name}"))


def made_from_mark(machine: Machine, name: str | None) -> None:
    """Push the record of an object of class ``name``, "module class", or of the class after the mark."""
    values = machine.since_mark()
    function = values.pop(0) if name is None else Inert(name.replace(" ", "."))
    machine.call(function, tuple(values))


def keyword_call(machine: Machine) -> None:
    """Push the record of a call with keywords."""
    function, arguments, keywords = machine.pop(3)
    machine.call(function, (arguments, keywords))


def remember(machine: Machine, number: int | None) -> None:
    """Keep the value on top of the stack for later."""
    machine.memo[len(machine.memo) if number is None else number] = machine.stack[-1]


Operation = Callable[[Machine, Any], object]
OPCODES: dict[str, Operation] = {
    **dict.fromkeys(("PROTO", "FRAME", "READONLY_BUFFER"), lambda m, _: None),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4"), Machine.push),
    **dict.fromkeys(("FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING"), Machine.push),
    **dict.fromkeys(("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"), Machine.push),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"), Machine.push),
    "NONE": lambda m, _: m.push(None),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_SET"), lambda m, _: m.push([])),
    **dict.fromkeys(("LIST", "FROZENSET"), lambda m, _: m.push(m.since_mark())),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "DICT": lambda m, _: dictionary(m),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "TUPLE": lambda m, _: m.push(tuple(m.since_mark())),
    "TUPLE1": lambda m, _: m.push(tuple(m.pop(1))),
    "TUPLE2": lambda m, _: m.push(tuple(m.pop(2))),
    "TUPLE3": lambda m, _: m.push(tuple(m.pop(3))),
    "APPEND": lambda m, _: m.extend(m.pop(1)),
    **dict.fromkeys(("APPENDS", "ADDITEMS"), lambda m, _: m.extend(m.since_mark())),
    "SETITEM": lambda m, _: m.update(m.pop(2)),
    "SETITEMS": lambda m, _: m.update(m.since_mark()),
    "MARK": lambda m, _: m.mark(),
    "POP": lambda m, _: m.pop(1) if m.stack else m.since_mark(),
    "POP_MARK": lambda m, _: m.since_mark(),
    "DUP": lambda m, _: m.push(m.stack[-1]),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), remember),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, number: m.push(m.memo[number])),
    "GLOBAL": lambda m, name: named(m, *name.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: named(m, *m.pop(2)),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), lambda m, _: m.call(*m.pop(2))),
    "NEWOBJ_EX": lambda m, _: keyword_call(m),
    **dict.fromkeys(("INST", "OBJ"), made_from_mark),
    "BUILD": lambda m, _: m.set_state(),
    "PERSID": lambda m, identity: m.persist(identity),
    "BINPERSID": lambda m, _: m.persist(*m.pop(1)),
}


def follow(stream: BinaryIO) -> tuple[Any, list[Inert]]:
    """Follow the pickle that begins where ``stream`` stands; the stream is left behind its end.

    Returns what it describes, out of plain values, list (for sets too), tuple, dict and ``Inert``, and the records of
    all persistent ids. Raises ValueError when it is damaged, longer than ``OPERATIONS``, or no pickle at all.
    """
    machine, left = Machine(), OPERATIONS
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            left -= 1
            if left < 0:
                raise ValueError(f"its pickle has more than {OPERATIONS} operations")
            if opcode.name == "STOP":
                return machine.pop(1)[0], machine.persistent
            OPCODES[opcode.name](machine, argument)
    except (LookupError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"its pickle is damaged ({type(error).__name__})") from None
    raise ValueError("its pickle has no end")
