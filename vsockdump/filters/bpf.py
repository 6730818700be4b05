"""Classic BPF: instructions, an assembler with labels, a listing, and an interpreter.

Nothing here knows of filters or of vsock.  The interpreter runs a program as the kernel
does on a packet, so that what is compiled can be tested without one; it is not fast.

Sources: Documentation/networking/filter.rst of Linux; include/uapi/linux/bpf_common.h and
filter.h for the codes; McCanne and Jacobson, "The BSD Packet Filter", 1993.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

MAX_INSTRUCTIONS: Final = 4096  # BPF_MAXINSNS
MEMORY_WORDS: Final = 16  # BPF_MEMWORDS
_WORD: Final = 0xFFFFFFFF
_FARTHEST: Final = 255  # of a conditional jump, which has 8 bits for each way

# Classes.
LD, LDX, ST, STX, ALU, JMP, RET, MISC = range(8)
# Sizes and modes of a load.
W, H, B = 0x00, 0x08, 0x10
IMM, ABS, IND, MEM, LEN = 0x00, 0x20, 0x40, 0x60, 0x80
# Operations of ALU and JMP, and their operand.
ADD, SUB, MUL, DIV, OR, AND, LSH, RSH, NEG, MOD, XOR = range(0, 0xB0, 0x10)
JA, JEQ, JGT, JGE, JSET = range(0, 0x50, 0x10)
K, X = 0x00, 0x08
A = 0x10  # of RET
TAX, TXA = 0x00, 0x80

SIZES: Final = {1: B, 2: H, 4: W}
_BYTES: Final = {size: count for count, size in SIZES.items()}


class Instruction(NamedTuple):
    """struct sock_filter: a code, jumps where it is true and false, an operand."""

    code: int
    jt: int
    jf: int
    k: int


Program = list[Instruction]


class Label:
    """A place in a program that is not known yet."""

    __slots__ = ()


class _Jump(NamedTuple):
    """A conditional jump before its labels are places."""

    code: int
    k: int
    true: Label
    false: Label


class Assembler:
    """Puts a program together; all jumps go forward, as classic BPF demands."""

    def __init__(self) -> None:
        self._items: list[Instruction | _Jump | Label] = []

    def emit(self, code: int, k: int = 0) -> None:
        """An instruction that goes on to the next."""
        self._items.append(Instruction(code, 0, 0, k & _WORD))

    def jump(self, operation: int, k: int, true: Label, false: Label, operand: int = K) -> None:
        """Compare A with k, or with X where `operand` is X."""
        self._items.append(_Jump(JMP | operation | operand, k & _WORD, true, false))

    def place(self, label: Label) -> None:
        """What stands next is where the label's jumps go."""
        self._items.append(label)

    def program(self) -> Program:
        """The instructions; far jumps go by way of an unconditional one."""
        far: set[int] = set()
        while True:
            places = self._places(far)
            more = {
                index
                for index, at, jump in self._jumps(far)
                if max(places[jump.true], places[jump.false]) - at - 1 > _FARTHEST
            }
            if more <= far:
                return self._assembled(far, places)
            far |= more

    def _places(self, far: set[int]) -> dict[Label, int]:
        places, at = {}, 0
        for index, item in enumerate(self._items):
            if isinstance(item, Label):
                places[item] = at
            else:
                at += 3 if index in far else 1
        return places

    def _jumps(self, far: set[int]) -> Iterator[tuple[int, int, _Jump]]:
        """(index, place, jump) of all conditional jumps."""
        at = 0
        for index, item in enumerate(self._items):
            if isinstance(item, _Jump):
                yield index, at, item
            if not isinstance(item, Label):
                at += 3 if index in far else 1

    def _assembled(self, far: set[int], places: dict[Label, int]) -> Program:
        program: Program = []
        for index, item in enumerate(self._items):
            if isinstance(item, Instruction):
                program.append(item)
            elif isinstance(item, _Jump):
                true = places[item.true] - len(program) - 1
                false = places[item.false] - len(program) - 1
                if index in far:
                    program.append(Instruction(item.code, 0, 1, item.k))
                    program.append(Instruction(JMP | JA, 0, 0, true - 1))
                    program.append(Instruction(JMP | JA, 0, 0, false - 2))
                else:
                    program.append(Instruction(item.code, true, false, item.k))
        return program


# --- listing -------------------------------------------------------------------------------

_LOADS: Final = {W: "ld", H: "ldh", B: "ldb"}
_ALU_NAMES: Final = {
    ADD: "add",
    SUB: "sub",
    MUL: "mul",
    DIV: "div",
    OR: "or",
    AND: "and",
    LSH: "lsh",
    RSH: "rsh",
    NEG: "neg",
    MOD: "mod",
    XOR: "xor",
}
_JUMP_NAMES: Final = {JA: "ja", JEQ: "jeq", JGT: "jgt", JGE: "jge", JSET: "jset"}


def listing(program: Program) -> Iterator[str]:
    """The program in mnemonics, as tcpdump -d prints it."""
    for at, instruction in enumerate(program):
        name, operand = _mnemonic(at, instruction)
        line = f"({at:03}) {name:<8} {operand}"
        if instruction.code & 7 == JMP and instruction.code & 0xF0 != JA:
            true, false = at + 1 + instruction.jt, at + 1 + instruction.jf
            line = f"{line:<31} jt {true}\tjf {false}"
        yield line.rstrip()


def _mnemonic(at: int, instruction: Instruction) -> tuple[str, str]:
    code, _, _, k = instruction
    operand = "x" if code & X else f"#{k:#x}"
    match code & 7:
        case 0:
            return _LOADS[code & 0x18], _load_operand(code, k)
        case 1:
            return "ldx", _load_operand(code, k)
        case 2 | 3:
            return ("st", "stx")[code & 7 == STX], f"M[{k}]"
        case 4:
            return _ALU_NAMES[code & 0xF0], "" if code & 0xF0 == NEG else operand
        case 5:
            name = _JUMP_NAMES[code & 0xF0]
            return name, str(at + 1 + k) if code & 0xF0 == JA else operand
        case 6:
            return "ret", "a" if code & A else f"#{k}"
        case _:
            return ("txa" if code & TXA else "tax"), ""


def _load_operand(code: int, k: int) -> str:
    return {
        IMM: f"#{k:#x}",
        ABS: f"[{k}]",
        IND: f"[x + {k}]",
        MEM: f"M[{k}]",
        LEN: "#pktlen",
    }[code & 0xE0]


def c_source(program: Program) -> Iterator[str]:
    """The program as initializers of struct sock_filter, as tcpdump -dd prints it."""
    for code, jt, jf, k in program:
        yield f"{{ {code:#x}, {jt}, {jf}, {k:#010x} }},"


def decimal(program: Program) -> Iterator[str]:
    """The program in decimal numbers, its length before it, as tcpdump -ddd prints it."""
    yield str(len(program))
    for instruction in program:
        yield " ".join(map(str, instruction))


# --- interpreter ---------------------------------------------------------------------------


def run(program: Program, packet: bytes, wirelen: int | None = None) -> int:
    """What the program returns for a packet: how many bytes of it to keep, 0 for none.

    `wirelen` is the packet's length where it was cut (None: it was not).  A load beyond the
    packet and a division by zero return 0.  IndexError for a program that leaves its end.
    """
    return _Machine(packet, len(packet) if wirelen is None else wirelen).run(program)


class _Machine:
    def __init__(self, packet: bytes, wirelen: int) -> None:
        self._packet = packet
        self._wirelen = wirelen
        self._memory = [0] * MEMORY_WORDS
        self._a = self._x = 0

    def run(self, program: Program) -> int:
        at = 0
        while True:
            code, jt, jf, k = program[at]
            at += 1
            kind = code & 7
            operand = self._x if code & X else k
            if kind == RET:
                return self._a if code & A else k
            if kind in (LD, LDX):
                value = self._load(code, k)
                if value is None:
                    return 0
                if kind == LD:
                    self._a = value
                else:
                    self._x = value
            elif kind in (ST, STX):
                self._memory[k] = self._a if kind == ST else self._x
            elif kind == ALU:
                if code & 0xF0 in (DIV, MOD) and not operand:
                    return 0
                self._a = _computed(code & 0xF0, self._a, operand) & _WORD
            elif kind == JMP:
                at += k if code & 0xF0 == JA else (jt if self._test(code & 0xF0, operand) else jf)
            elif code & TXA:
                self._a = self._x
            else:
                self._x = self._a

    def _load(self, code: int, k: int) -> int | None:
        """A value, or None beyond the packet."""
        mode = code & 0xE0
        if mode in (ABS, IND):
            start = k if mode == ABS else k + self._x & _WORD
            size = _BYTES[code & 0x18]
            data = self._packet[start : start + size]
            return int.from_bytes(data, "big") if len(data) == size else None
        return {IMM: k, LEN: self._wirelen}[mode] if mode != MEM else self._memory[k]

    def _test(self, operation: int, operand: int) -> bool:
        if operation == JEQ:
            return self._a == operand
        if operation == JGT:
            return self._a > operand
        if operation == JGE:
            return self._a >= operand
        return bool(self._a & operand)


def _computed(operation: int, a: int, operand: int) -> int:
    if operation in (LSH, RSH):
        if operand > 31:
            return 0
        return a << operand if operation == LSH else a >> operand
    if operation == NEG:
        return -a
    return {
        ADD: a + operand,
        SUB: a - operand,
        MUL: a * operand,
        DIV: a // operand if operand else 0,
        MOD: a % operand if operand else 0,
        OR: a | operand,
        AND: a & operand,
        XOR: a ^ operand,
    }[operation]
