"""Where the core keeps the registers of a suspended greenlet: what it may touch, what belongs to whom, and
what `prepare` makes. contract.py has the properties.
"""

import z3

from machine import Failure, word


class Contexts:
    """SWITCH, compiled in line, stores what it keeps in the context that leaves, and loads the same from
    the one that is resumed. `site` is such a place."""

    routines = ("site", "resume", "entry")
    hop = None  # for HOP: {"state": offset of the byte, "active": …, "refused": …}
    entry_frame = 48

    def __init__(self, registers, size, kept, window, bti=False, shared=False):
        """size: bytes of registers in a context; behind them lies the parent.
        window: instructions at the end of SWITCH in which the unwind table around it is not true.
        """
        self.me, self.to, self.word, self.kind, self.argument = registers.split()
        self.size, self.kept, self.window = size, kept.split(), window
        self.bti, self.shared = bti, shared

    def place(self, prover):
        start = prover.image.code("site")
        return start, start + prover.image.size("site")

    def has_tables(self, prover, pc):
        return not self.site <= pc < self.landed  # there they are the compiler's

    def back_of(self, prover, name):
        thumb = prover.processor.thumb
        return word(self.landed | thumb, prover.abi.word)

    def context(self, prover, name):
        return (
            z3.BitVec("P.context", 8 * prover.abi.word)
            if name == "P"
            else prover.first(name, self.me)
        )

    def leaves(self, prover, state):
        state.pc = self.site
        state.knows(state.get(self.me))
        state.knows(state.get(self.to))

    def resumes(self, prover, state, name):
        state.set(self.to, self.handle(prover, state, name))

    def handle(self, prover, state, name):
        return self.context(prover, name)

    def owns(self, prover, name, symbol, offset):
        """Its registers in its context, and its stack."""
        if symbol.eq(self.context(prover, name)):
            return 0 <= offset < self.size
        return symbol.eq(prover.first(name, prover.abi.sp)) and offset >= 0

    def owns_link(self, prover, name, symbol, offset):
        return symbol.eq(z3.BitVec(f"{name}.link", 8 * prover.abi.word))

    def in_context(self, prover, name, symbol, offset, size):
        return symbol.eq(self.context(prover, name)) and 0 <= offset and offset + size <= self.size

    def in_frame_of_entry(self, prover, name, symbol, offset, size):
        top = -prover.abi.align
        return (
            symbol.eq(self.top(prover, name))
            and top - self.entry_frame <= offset
            and offset + size <= 0
        )

    def asked(self, prover, end):
        """What HOP decides by, as it was at first: the thread's running context and the byte; and what
        the running context is in the end."""
        before = end.trail[0].copy()
        place = next(
            symbol + offset
            for _, kind, symbol, offset, size in end.log
            if kind == "load" and symbol is not None and self.is_word(prover, symbol, offset, size)
        )
        running = before.load(place, prover.abi.word, logged=False)
        byte = before.load(before.get(self.to) + self.hop["state"], 1, logged=False)
        return running, byte, end.copy().load(place, prover.abi.word, logged=False)

    def is_word(self, prover, symbol, offset, size):
        """One of the two thread-local words of the core (x86_64: the running context, and the hint
        which one will be resumed)."""
        if prover.abi.name != "x86_64" or size != prover.abi.word:
            return False
        names = {str(it).split(".", 1)[-1] for it in symbol.children() or [symbol]}
        offsets = (0, 8) if self.hop else (8,)  # SWITCH knows only the hint
        if self.shared:
            return names == {"FS_OFFSET", "RAX of the descriptor"} and offset in offsets
        return names == {"FS_OFFSET"} and offset - prover.image.thread_local("words") in offsets

    def may_store(self, prover, name, end, symbol, offset, size):
        if self.is_word(prover, symbol, offset, size):
            return True
        if self.shared and symbol.eq(prover.first(name, prover.abi.sp)):
            return (offset, size) == (
                -8,
                8,
            )  # where the call of the descriptor puts its return address
        if name == "P":
            return (
                self.in_frame_of_entry(prover, name, symbol, offset, size)
                and offset + size <= -prover.abi.align
            )
        return self.in_context(prover, name, symbol, offset, size)

    def may_load(self, prover, name, end, symbol, offset, size):
        if symbol is None:
            return self.shared  # the descriptor
        if self.is_word(prover, symbol, offset, size) or self.in_context(
            prover, name, symbol, offset, size
        ):
            return True
        if self.hop and (offset, size) == (self.hop["state"], 1):
            return symbol.eq(end.trail[0].get(self.to))
        if name == "P":
            return self.in_frame_of_entry(prover, name, symbol, offset, size) or self.in_context(
                prover, "A", symbol, offset, size
            )
        return symbol.eq(prover.first(name, self.to)) and 0 <= offset and offset + size <= self.size

    def top(self, prover, name):
        return z3.BitVec(f"{name}.top", 8 * prover.abi.word)

    def prepared(self, prover, state, name, parent):
        """As `Registers::prepare` of src/arch/mod.rs does."""
        size, top, context = prover.abi.word, self.top(prover, name), self.context(prover, name)
        new = lambda it: z3.BitVec(f"{name}.{it}", 8 * size)
        values = [
            (prover.first(parent, prover.abi.fp), new("link")),
            (self.back_of(prover, parent), word(prover.image.symbol("entry_pc"), size)),
            (prover.first(parent, prover.abi.sp), top - prover.abi.align),
            (prover.first(parent, self.argument), new("argument")),
            *(
                (
                    prover.first(parent, it),
                    z3.BitVec(f"{name}.{it}", 8 * prover.processor.register(it).size),
                )
                for it in prover.abi.kept_bits
            ),
        ]
        base = self.context(prover, parent)
        for symbol in (top, context):
            state.knows(symbol)
        for old, value in values:
            places = [
                (offset, index)
                for (region, offset), (term, index) in state.memory.content.items()
                if region == base.get_id() and term.eq(old)
            ]
            if not places:
                raise Failure(f"no place for {old} in the context")
            for offset, index in places:
                state.memory.content[context.get_id(), offset] = (z3.simplify(value), index)
        state.store(top - prover.abi.align, new("start"), logged=False)
        state.store(new("link"), base, logged=False)
        state.set(self.to, context)
