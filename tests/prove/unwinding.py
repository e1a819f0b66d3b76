"""The properties of the unwind tables: at each instruction they give the registers that the caller
really gets back.

These are found by running the code, so no table is compared with another table.
"""

from cfi import Ehabi, Tables, evaluate
from machine import split


class Unwinding:
    def __init__(self, prover):
        self.prover, self.abi, self.core = prover, prover.abi, prover.core
        names = prover.processor.names
        self.dwarf = {number: name for number, name in self.abi.dwarf.items() if name in names}
        self.tables, self.ehabi = Tables(prover.image, self.abi.word), Ehabi(prover.image)

    def around_switch(self, end, name):
        """In SWITCH, the table of the surrounding function relies on the registers that SWITCH
        preserves. They are right except in the last `window` instructions."""
        first, text = self.prover.first, self.prover.text_in_line
        gone = [
            state
            for state in end.trail
            if state.pc in text
            and not all(state.get(it).eq(first(name, it)) for it in self.core.kept)
        ]
        if gone:
            self.prover.require(
                len(gone) <= self.core.window,
                f"the registers of the caller are not there in {len(gone)} instructions before the jump",
                gone[0].pc,
            )

    def in_resume(self, end):
        """In `resume`, the caller is the resumed frame: its registers are those with which `resume`
        ends."""
        routine = self.prover.routine("resume")
        for index, state in enumerate(end.trail):
            if state.pc in routine:
                left = next((it for it in end.trail[index:] if it.pc not in routine), end)
                registers = {it: left.get(it) for it in self.core.kept}
                back = end.target if left is end else self.prover.address(left.pc)
                self.compare(
                    state, self.tables.unwind(state, self.dwarf), registers, back, end.path
                )

    def in_entry(self, end, departure=None):
        """In `entry`, the caller is the frame in which the parent Q is suspended and, when the
        departure has been read, that of the resumed A."""
        routine, read = self.prover.routine("entry"), False
        for state in end.trail:
            if state.pc in routine:
                self.in_entry_at(state, end.path, "A" if read else "Q")
            if departure is not None:
                region, at = split(departure)
                read = read or any(
                    pc == state.pc and kind == "load" and symbol.eq(region) and offset == at
                    for pc, kind, symbol, offset, _ in end.log
                    if symbol is not None
                )

    def in_entry_at(self, state, path, whose):
        if whose in state.told:
            return
        state.told.add(whose)
        registers = {it: self.prover.first(whose, it) for it in self.core.kept}
        back = self.prover.resume_address
        unwound = self.tables.unwind(state, self.dwarf)
        self.compare(state, unwound, registers, back, path)
        if whose == "Q":
            for number, name in self.dwarf.items():
                if name in self.abi.kept and name not in registers:
                    # The function in which the parent is suspended has saved it, if it needs it.
                    undefined = number not in unwound[0]
                    what = f"unwinding: {name} is not undefined"
                    self.prover.require(undefined, what, state.pc)
            if self.core.ehabi:  # which have one description for all of a function
                self.compare(state, (self.ehabi.unwind(state), 14), registers, back, path)

    def before_entry_pc(self):
        """Unwinders look up the instruction before a return address, and that of a new greenlet is
        entry_pc. The instruction before it is in `entry`, with the same rules."""
        entry, entry_pc = self.prover.image.code("entry"), self.prover.image.code("entry_pc")
        self.prover.require(entry < entry_pc, "entry_pc is not inside entry", entry)
        same = self.tables.row(entry_pc - 1) == self.tables.row(entry_pc)
        self.prover.require(same, "the rules before entry_pc are others", entry)

    def compare(self, state, unwound, registers, back, path):
        """The unwound registers are these, and the return address is `back`."""
        (found, ra), pc, sp = unwound, state.pc, self.abi.sp
        equal, signal = self.prover.equal, self.tables.entry(pc)[2]["signal"]
        # Otherwise gdb rejects a caller whose stack lies below.
        self.prover.require(signal, "it is not marked as a signal frame", pc)
        equal("unwinding: the CFA", pc, found["cfa"], registers[sp], path)
        for number, name in self.dwarf.items():
            if name in registers and name != sp:
                self.prover.require(number in found, f"unwinding: {name} is undefined", pc)
                equal(f"unwinding: {name}", pc, found[number], registers[name], path)
        address = found[ra] if ra in found else self.return_address(state, found["cfa"], ra)
        bit_0 = -2 if self.abi.name in ("arm", "riscv") else -1
        equal("unwinding: the return address", pc, address & bit_0, back & bit_0, path)

    def return_address(self, state, cfa, column):
        """x86_64: the return address has a number of its own, which is no register."""
        rule, look = self.tables.row(state.pc)[0].get(column), state.copy()
        self.prover.require(rule is not None, "unwinding: no return address", state.pc)
        kind, value = rule
        if kind == "register":
            return look.get(self.dwarf[value])
        place = (
            cfa + value
            if kind == "offset"
            else evaluate(value, look, self.dwarf, [cfa], self.abi.word)
        )
        return look.load(place, self.abi.word, logged=False)
