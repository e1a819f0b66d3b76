"""What a core must preserve, and which memory it may use for that: asm/README.md, "Contract" and
"Registers"."""

import dataclasses

import z3

from guide import CONTROL_WORDS


@dataclasses.dataclass
class Hop:
    """HOP switches only if the byte at `state`, behind the context to resume, is `active`; otherwise
    it returns the kind `refused`."""

    state: int
    active: int
    refused: int


@dataclasses.dataclass
class Core:
    """
    me to word kind   the registers of SWITCH: both contexts, the message
    argument          the register of a new context that holds the argument of `start`
    offsets size      where the saved registers and "resume" lie in a context, and the bytes of all
    window            instructions at the end of SWITCH in which the unwind table around it is wrong
    marks             "bti" or "ibt": indirect jumps are checked by the processor
    words             the thread's words are used; shared: from a shared object
    ehabi             the program has EHABI tables for `entry`
    hop               Hop, if the text is HOP instead of SWITCH
    """

    me: str
    to: str
    word: str
    kind: str
    argument: str
    offsets: dict
    size: int
    window: int
    marks: str = ""
    words: bool = False
    shared: bool = False
    ehabi: bool = False
    hop: Hop = None

    @property
    def kept(self):
        """The registers that SWITCH gives back; all others are left to the compiler."""
        return [it for it in self.offsets if it not in ("resume", *CONTROL_WORDS.values())]

    # The part of the new stack that `entry` uses, below the word that holds `start`: a departure
    # of three words, two control words, a return address.
    entry_frame = 48


class Memory:
    """The memory that each actor of contract.py owns. `first(name, register)` is the initial value of
    an actor's register; each such value that is an address is a region."""

    def __init__(self, abi, core, image, first):
        self.abi, self.core, self.image, self.first = abi, core, image, first

    def symbol(self, name):
        return z3.BitVec(name, 8 * self.abi.word)

    def context(self, name):
        return self.symbol("P.context") if name == "P" else self.first(name, self.core.me)

    def is_in(self, region, start, end, symbol, offset, size=1):
        return symbol.eq(region) and start <= offset and offset + size <= end

    def owns(self, name, symbol, offset):
        """Returns `true` if nothing else changes that byte while `name` is suspended: it is a
        register in its context, or on its stack."""
        if self.is_in(self.context(name), 0, self.core.size, symbol, offset):
            return True
        return symbol.eq(self.first(name, self.abi.sp)) and offset >= 0

    def is_own(self, name, symbol, offset, size):
        """Returns `true` if `name` may store there in a switch: its registers in its context. The new
        P has the frame of `entry`."""
        if name == "P":
            top, end = self.symbol("P.top"), -self.abi.align
            return self.is_in(top, end - self.core.entry_frame, end, symbol, offset, size)
        return self.is_in(self.context(name), 0, self.core.size, symbol, offset, size)

    def may_load(self, resumed, symbol, offset, size):
        """Returns `true` for the registers of the resumed context and, if it is new, the word with
        `start`."""
        return self.is_in(resumed, 0, self.core.size, symbol, offset, size) or self.is_in(
            self.symbol("P.top"), -self.abi.align, 0, symbol, offset, size
        )

    def is_thread_word(self, symbol, offset, size):
        """x86_64: the word of the running context, which HOP reads and writes, and the hint behind
        it. They lie at an offset from fs, or at the offset that the descriptor returns."""
        if not self.core.words or size != self.abi.word:
            return False
        parts = {str(it).split(".", 1)[-1] for it in symbol.children() or [symbol]}
        if self.core.shared:
            base, expected = 0, {"FS_OFFSET", "RAX of the descriptor"}
        else:
            base, expected = self.image.thread_local("words"), {"FS_OFFSET"}
        return parts == expected and offset - base in ((0, 8) if self.core.hop else (8,))

    def is_state(self, to, symbol, offset, size):
        """The byte that HOP compares with `active`."""
        hop = self.core.hop
        return hop is not None and symbol.eq(to) and (offset, size) == (hop.state, 1)
