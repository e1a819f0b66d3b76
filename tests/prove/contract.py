"""What asm/README.md, "Contract", promises, as properties of machine code.

The actors, each with registers and memory of which nothing is known:
    A   leaves, and is later resumed
    C   the one that runs then, wherever it came from, and resumes A
    P   a new greenlet, as `prepare` makes it; Q is its parent, suspended
Between two steps others run: they change every register and all memory but what the suspended ones
own (see `owns` in places.py). And after every instruction a signal handler may run, which overwrites all
below the stack pointer.
"""

import z3

from cfi import Ehabi, Tables, evaluate
from machine import Bytes, Failure, Processor, State, split, word


class Prover:
    def __init__(self, image, abi, places, language, thumb=False, place=None):
        self.abi, self.places, self.image = abi, places, image
        self.processor = Processor(image, language, abi.sp, thumb)
        self.processor.feasible = self.feasible
        self.at(place or places.place(self))
        self.processor.returns = self.descriptor_is_called
        self.dwarf = {
            number: name for number, name in abi.dwarf.items() if name in self.processor.names
        }
        self.tables, self.ehabi = Tables(image, abi.word), Ehabi(image)
        self.solver = z3.Solver()
        self.solver.set("timeout", 60_000)
        self.checks = self.asked = 0
        self.covered = set()

    def at(self, place):
        """The text of the switch that is looked at: first and last address."""
        self.places.site, end = place
        # BTI: behind the text is the landing pad.
        self.places.landed = end - 4 if self.places.bti else end
        self.processor.stops = (self.places.landed,)

    # ---- asking

    def feasible(self, path):
        self.asked += 1
        return self.solver.check(path) != z3.unsat

    def equal(self, what, pc, left, right, path, mask=None):
        self.checks += 1
        if left is right:
            return
        if mask is not None:
            left, right = left & mask, right & mask
        left, right = z3.simplify(left), z3.simplify(right)
        if left.eq(right):
            return
        self.asked += 1
        differ = [*path, left != right]
        answer = self.solver.check(differ)
        if answer == z3.unsat:
            return
        lines = [
            f"{self.place(pc)}: {what}",
            f"    is         {shorten(left)}",
            f"    should be  {shorten(right)}",
        ]
        if answer == z3.sat:
            model = self.solver.model()
            values = [
                f"{it.name()} = {model[it].as_long():#x}"
                for it in model.decls()
                if z3.is_bv_value(model[it])
            ]
            lines.append("    when       " + (", ".join(sorted(values)[:12]) or "always"))
        else:
            lines.append("    (the solver does not know)")
        raise Failure("\n".join(lines))

    def require(self, condition, what, pc):
        self.checks += 1
        if not condition:
            raise Failure(f"{self.place(pc)}: {what}")

    def place(self, pc):
        for name in sorted(self.image.symbols, key=self.image.symbols.get, reverse=True):
            start = self.image.symbols[name]
            if name.startswith("greenlet_") and start <= pc < start + 0x400:
                return f"{name.split('_', 4)[-1]}+{pc - start:#x}: {self.processor.text(pc)}"
        return f"{pc:#x}: {self.processor.text(pc)}"

    # ---- running

    def descriptor_is_called(self, state):
        """In a shared library, x86_64 calls the function of a TLS descriptor ("ELF Handling For
        Thread-Local Storage", "TLS Descriptors"): it changes rax and flags, and uses the stack."""
        if (
            self.places.shared
            and state.jumps[-1][1] == "CALLIND"
            and not self.in_entry(state.left_from)
        ):
            sp = state.get(self.abi.sp)
            state.pc = z3.simplify(state.load(sp, self.abi.word, logged=False)).as_long()
            state.set(self.abi.sp, sp + self.abi.word)
            for register in ("RAX", "CF", "PF", "AF", "ZF", "SF", "OF"):
                size = 8 * self.processor.register(register).size
                state.set(register, z3.BitVec(f"{state.name}.{register} of the descriptor", size))
            state.logged = len(state.log)  # what the call has stored is done with
            self.processor.settle(state)
            state.jumps[-1] = (state.left_from, "DESCRIPTOR")
            state.target = None

    def run(self, state):
        ends = self.processor.run(state)
        for end in ends:
            self.covered.update(it.pc for it in end.trail)
            self.jumps_are_allowed(end)
        if not ends:
            raise Failure(f"{self.place(state.pc)}: nothing comes of it")
        return ends

    def start(self, name):
        return State(self.processor, name)

    def first(self, name, register):
        """The value that a register of an actor has at first."""
        return State(self.processor, name).get(register)

    def kept(self, register):
        """The part of a kept register that is the caller's."""
        if register.startswith("fs") and self.abi.name == "riscv":
            return 8 * self.abi.floats
        return 8 * self.processor.register(register).size

    # ---- the properties

    def prove(self, whole=True):
        """`whole`: with `entry`, too."""
        # Unwinders look up the address before a return address, and a new greenlet's is entry_pc.
        self.require(
            self.image.code("entry") < self.image.code("entry_pc"),
            "entry_pc is not inside entry",
            self.image.code("entry"),
        )
        suspended = {name: self.leave(name) for name in "AQ"}
        for a in suspended["A"]:
            self.resumed_by_another(a)
            if whole:
                self.resumed_by_the_end_of_a_new_one(a, suspended["Q"][0])
        self.all_covered()

    def leave(self, name):
        """`name` switches to anybody. Returns what it owns then, each way that differs."""
        state = self.start(name)
        self.places.leaves(self, state)
        found = []
        for end in self.run(state):
            self.stores_are_allowed(end, name)
            self.loads_are_allowed(end, name)
            if self.is_refused(end, name):
                continue
            self.messages(
                end, self.first(name, self.places.word), self.first(name, self.places.kind)
            )
            self.tables_are_true(end, name)
            self.callers_tables_are_true(end, name)
            self.others(end, name)
            if not any(same(end.memory, it.memory) for it in found):
                found.append(end)
        if not found:
            raise Failure(f"{self.place(state.pc)}: nobody ever leaves")
        return found

    def is_refused(self, end, name):
        """HOP goes on in the caller at once, and does nothing, if the caller's context is not the running
        one or the byte of the other says that it is not to be resumed; and only then."""
        hop = self.places.hop
        if hop is None:
            return False
        pc, abi, path = end.left_from, self.abi, end.path
        running, byte, runs_then = self.places.asked(self, end)
        to = end.trail[0].get(self.places.to)
        if not end.get(abi.sp).eq(self.first(name, abi.sp)):
            me = self.first(name, self.places.me)
            self.equal("the running context, which leaves", pc, running, me, path)
            self.equal(
                "the byte of the one that is resumed", pc, byte, word(hop["active"], 1), path
            )
            self.equal("the running context", pc, runs_then, to, path)
            return False
        stores = [it for it in end.log if it[1] == "store" and not self.places.shared]
        self.require(not stores, "it stores something and does not switch", pc)
        self.equal(
            f"{self.places.to}, as it does not switch", pc, end.get(self.places.to), to, path
        )
        for register in [*self.places.kept, self.places.word, *abi.kept_bits]:
            self.equal(
                f"{register}, as it does not switch",
                pc,
                end.get(register),
                self.first(name, register),
                path,
            )
        self.equal(
            "the answer", pc, end.get(self.places.kind), word(hop["refused"], abi.word), path
        )
        self.leaves_the_threads_alone(end, name)
        me = self.first(name, self.places.me)
        may = z3.And(running == me, byte == hop["active"])
        self.require(
            self.processor.implied(path, z3.Not(may)), "it does not switch although it might", pc
        )
        return True

    def others(self, state, *suspended):
        """Others run: only what the suspended own is as it was."""
        state.keep_only(
            lambda symbol, offset: any(
                self.places.owns(self, it, symbol, offset) for it in suspended
            )
        )
        state.path = []

    def resumed_by_another(self, a):
        state = a.copy()
        self.begin(state, "C")
        self.places.leaves(self, state)
        self.places.resumes(self, state, "A")
        for end in self.run(state):
            if self.is_refused(end, "C"):
                continue
            self.is_back(end, "A", "C")
            self.stores_are_allowed(end, "C")
            self.loads_are_allowed(end, "C", "A")
            self.messages(end, self.first("C", self.places.word), self.first("C", self.places.kind))
            self.tables_are_true(end, "C")

    def begin(self, state, name):
        """`name` is at some point of its code, about which nothing is known."""
        state.name = name
        state.registers = Bytes()
        state.path, state.log, state.below, state.trail, state.jumps = [], [], [], [], []

    def is_back(self, end, name, other):
        """All that the ABI gives to the caller is as `name` left it; the rest is the thread's, and as
        `other` left it, or what a callee may change."""
        pc, abi, path = end.left_from, self.abi, end.path
        for register in self.places.kept:
            bits = self.kept(register)
            self.equal(
                f"{register} of the resumed one",
                pc,
                low(bits, end.get(register)),
                low(bits, self.first(name, register)),
                path,
            )
        for register, mask in abi.kept_bits.items():
            self.equal(
                f"{register} of the resumed one",
                pc,
                end.get(register),
                self.first(name, register),
                path,
                mask,
            )
        self.goes_to(end, self.places.back_of(self, name))
        self.leaves_the_threads_alone(end, other)

    def leaves_the_threads_alone(self, end, other):
        """A register that is neither the caller's nor a callee's to change is as it was."""
        pc, abi, path = end.left_from, self.abi, end.path
        may = set()
        for register in [*abi.kept, *abi.kept_bits, *abi.changed, abi.pc]:
            where = self.processor.names.get(register)
            may.update(range(where.offset, where.offset + where.size) if where else ())
        for (_, place), (term, index) in list(end.registers.content.items()):
            if place not in may:
                register, where = self.processor.widest[place]
                self.equal(
                    f"{register}, which is not this routine's",
                    pc,
                    end.get(register),
                    self.first(other, register),
                    path,
                )

    def goes_to(self, end, address):
        """The jump leads to `address`; on arm bit 0 chooses the instruction set."""
        if self.abi.name == "arm":
            self.equal("the target", end.left_from, end.target, address & ~1, end.path)
            mode = z3.Extract(7, 0, address & 1)
            self.equal(
                "the instruction set", end.left_from, end.get("ISAModeSwitch"), mode, end.path
            )
        elif self.abi.name == "riscv":
            # The processor clears bit 0 in jalr; SLEIGH leaves it for `c.jr`.
            self.equal("the target", end.left_from, end.target & ~1, address & ~1, end.path)
        else:
            self.equal("the target", end.left_from, end.target, address, end.path)

    def messages(self, end, sent_word, sent_kind):
        self.equal(
            "the message's word", end.left_from, end.get(self.places.word), sent_word, end.path
        )
        self.equal(
            "the message's kind", end.left_from, end.get(self.places.kind), sent_kind, end.path
        )

    def resumed_by_the_end_of_a_new_one(self, a, q):
        """C switches to P, new; it calls `start`, which returns; A is resumed."""
        state = a.copy()
        state.memory.content.update(q.memory.content)
        state.regions.update(q.regions)
        self.begin(state, "C")
        self.places.leaves(self, state)
        self.places.prepared(self, state, "P", "Q")
        for end in self.run(state):
            if self.is_refused(end, "C"):
                continue
            self.stores_are_allowed(end, "C", "P")
            self.loads_are_allowed(end, "C", "P")
            self.leaves_the_threads_alone(end, "C")
            returned, departure = self.start_is_called(end)
            for last in self.run(returned):
                self.loads_are_allowed(last, "P")
                self.is_back(last, "A", "E")
                self.messages(
                    last,
                    z3.BitVec("P.sent.word", 8 * self.abi.word),
                    z3.BitVec("P.sent.kind", 8 * self.abi.word),
                )
                self.stores_are_allowed(last, "P")
                self.entry_tables_are_true(last, "Q", "A", departure)
                # In the second half the tables tell of the one that is resumed.
                self.tables_are_true(last, None)
            self.entry_tables_are_true(end, "Q")

    def start_is_called(self, end):
        """`end` is at the call. Returns the state in which `start` has returned."""
        abi, pc, size = self.abi, end.left_from, self.abi.word
        self.require(end.jumps[-1][1] == "CALLIND", "it does not call start", pc)
        target = z3.BitVec("P.start", 8 * size)
        self.goes_to(end, target)
        sp = end.get(abi.sp)
        if abi.link is None:
            back, sp = end.load(sp, size), sp + size
        else:
            back = end.get(abi.link)
        back = z3.simplify(back)
        self.require(z3.is_bv_value(back), "the return address is not known", pc)
        top, depth = split(sp)
        self.require(
            top is not None and top.eq(self.places.top(self, "P")), "sp is not on the new stack", pc
        )
        self.require(
            depth <= 0 and depth % abi.align == 0,
            f"sp is not a multiple of {abi.align} at the call",
            pc,
        )
        for register, value in zip(abi.arguments, ("argument", "word", "kind")):
            expected = {
                "argument": z3.BitVec("P.argument", 8 * size),
                "word": self.first("C", self.places.word),
                "kind": self.first("C", self.places.kind),
            }[value]
            self.equal(
                f"the {value} that start is called with", pc, end.get(register), expected, end.path
            )
        departure = end.get(abi.arguments[3])
        region, at = split(departure)
        self.require(
            region is not None and region.eq(top) and depth <= at and at + 3 * size <= 0,
            "the departure is not in the frame of entry",
            pc,
        )
        for register, mask in abi.kept_bits.items():
            self.equal(
                f"{register} of the new one",
                pc,
                end.get(register),
                z3.BitVec(f"P.{register}", 8 * self.processor.register(register).size),
                end.path,
                mask,
            )
        # `start` runs: it gives back what the ABI says, and has filled in the departure.
        state = end.copy()
        kept = {it: state.get(it) for it in abi.kept}  # by the ABI: `start` is a function
        self.begin_after_call(state, top, depth)
        for register, term in kept.items():
            bits = self.kept(register)
            state.set(
                register,
                (
                    z3.Concat(
                        z3.Extract(
                            8 * self.processor.register(register).size - 1,
                            bits,
                            state.get(register),
                        ),
                        z3.Extract(bits - 1, 0, term),
                    )
                    if bits < term.size()
                    else term
                ),
            )
        state.set(abi.sp, sp)
        state.store(departure, self.places.handle(self, state, "A"), logged=False)
        state.store(departure + size, z3.BitVec("P.sent.word", 8 * size), logged=False)
        state.store(departure + 2 * size, z3.BitVec("P.sent.kind", 8 * size), logged=False)
        state.pc = back.as_long() & ~1 if abi.name == "arm" else back.as_long()
        return state, departure

    def begin_after_call(self, state, top, depth):
        owned = lambda symbol, offset: symbol.eq(top) and offset >= depth
        places = self.places
        state.keep_only(
            lambda symbol, offset: owned(symbol, offset)
            or places.owns(self, "A", symbol, offset)
            or places.owns(self, "Q", symbol, offset)
            or places.owns_link(self, "P", symbol, offset)
        )
        self.begin(state, "E")

    # ---- stores, loads, jumps

    def stores_are_allowed(self, end, *actors):
        for pc, kind, symbol, offset, size in end.log:
            if kind == "store":
                self.require(
                    symbol is not None
                    and any(
                        self.places.may_store(self, it, end, symbol, offset, size) for it in actors
                    ),
                    f"it stores {size} bytes at {symbol}{offset:+}",
                    pc,
                )
        for pc, offset in end.below:
            self.require(False, f"it reaches {-offset} bytes below the stack pointer", pc)

    def loads_are_allowed(self, end, *actors):
        for pc, kind, symbol, offset, size in end.log:
            if kind == "load":
                self.require(
                    any(self.places.may_load(self, it, end, symbol, offset, size) for it in actors),
                    f"it loads {size} bytes at {symbol if symbol is not None else ''}{offset:+}",
                    pc,
                )

    def jumps_are_allowed(self, end):
        for pc, kind in end.jumps:
            text = self.processor.text(pc)
            allowed = kind in ("BRANCH", "CBRANCH", "BRANCHIND", "DESCRIPTOR")
            if kind == "CALLIND":
                allowed = pc == end.left_from and self.in_entry(pc)
            self.require(allowed, f"it is a {kind}: {text}", pc)

    def in_entry(self, pc):
        start = self.image.code("entry")
        return start <= pc < start + self.image.size("entry")

    # ---- unwind tables

    def tables_are_true(self, end, name):
        """In resume they give what the resumed one receives."""
        after = next((it for it in end.trail if self.in_entry(it.pc)), end) if name else end
        truth = {it: after.get(it) for it in self.places.kept}
        back = word(after.pc, self.abi.word) if after is not end else end.target
        for state in end.trail:
            if not self.in_entry(state.pc) and self.places.has_tables(self, state.pc):
                self.compare(state, truth, back, end.path, self.tables.unwind(state, self.dwarf))

    def callers_tables_are_true(self, end, name):
        """In line, the unwind table is the compiler's, which counts on these registers: it is true but
        for the last few instructions."""
        untrue = [
            state
            for state in end.trail
            if not self.places.has_tables(self, state.pc)
            and not all(state.get(it).eq(self.first(name, it)) for it in self.places.kept)
        ]
        if untrue:
            many = f"the registers of the caller are not there in {len(untrue)} instructions before the jump"
            self.require(len(untrue) <= self.places.window, many, untrue[0].pc)

    def entry_tables_are_true(self, end, parent, resumed=None, departure=None):
        """In entry they give what the parent has left; where the departure has been read, what the one
        has left that is resumed."""
        read = False
        for state in end.trail:
            if self.in_entry(state.pc):
                whose = resumed if read else parent
                if whose not in state.told:
                    state.told.add(whose)
                    self.require(
                        self.tables.entry(state.pc)[2]["signal"],
                        "it is not marked as a signal frame",
                        state.pc,
                    )
                    truth = {it: self.first(whose, it) for it in self.places.kept}
                    back = self.places.back_of(self, whose)
                    unwound = self.tables.unwind(state, self.dwarf)
                    self.compare(state, truth, back, end.path, unwound)
                    for number, name in self.dwarf.items():
                        if whose == parent and name in self.abi.kept and name not in truth:
                            # The function in which the parent waits has saved it, if it needs it.
                            self.require(
                                number not in unwound[0],
                                f"unwinding: {name} is not undefined",
                                state.pc,
                            )
                    if self.ehabi.functions and whose == parent:
                        # d8-d15 are passed over there.
                        few = {it: value for it, value in truth.items() if not it.startswith("d")}
                        self.compare(state, few, back, end.path, (self.ehabi.unwind(state), 14))
            if departure is not None:
                region, at = split(departure)
                read = read or any(
                    pc == state.pc and kind == "load" and symbol.eq(region) and offset == at
                    for pc, kind, symbol, offset, _ in end.log
                    if symbol is not None
                )

    def compare(self, state, truth, back, path, unwound):
        found, ra = unwound
        numbers = {name: number for number, name in self.dwarf.items()}
        self.equal("unwinding: the CFA", state.pc, found["cfa"], truth[self.abi.sp], path)
        for register in truth:
            if register == self.abi.sp:
                continue
            number = numbers[register]
            self.require(number in found, f"unwinding: {register} is undefined", state.pc)
            bits = self.kept(register)
            self.equal(
                f"unwinding: {register}",
                state.pc,
                low(bits, found[number]),
                low(bits, truth[register]),
                path,
            )
        if ra in found:
            address = found[ra]
        else:
            # x86_64: the return address has a column of its own.
            rule = self.tables.row(state.pc)[0].get(ra)
            self.require(rule is not None, "unwinding: no return address", state.pc)
            look = state.copy()
            if rule[0] == "register":
                address = look.get(self.dwarf[rule[1]])
            elif rule[0] == "offset":
                address = look.load(found["cfa"] + rule[1], self.abi.word, logged=False)
            else:
                address = look.load(
                    evaluate(rule[1], look, self.dwarf, [found["cfa"]], self.abi.word),
                    self.abi.word,
                    logged=False,
                )
        clear = -2 if self.abi.name in ("arm", "riscv") else -1
        self.equal("unwinding: the return address", state.pc, address & clear, back & clear, path)

    # ---- coverage

    def all_covered(self):
        """A proof that has not seen an instruction says nothing of it."""
        for name in self.places.routines:
            if name == "resume" and not self.image.has(name):
                continue  # without control words it is not needed
            if name == "site":
                start, size = self.places.site, self.places.landed - self.places.site
            else:
                start, size = self.image.code(name), self.image.size(name)
            pc, end = start, start + size
            jumps = [it for it in self.covered if start <= it < end]
            while pc < end:
                # The nop of entry is for unwinders only; on arm, what follows the jump aligns.
                entry = name == "entry" and pc == start
                behind = name == "site" and self.abi.name == "arm" and pc > max(jumps)
                if not entry and not behind:
                    self.require(pc in self.covered, "no path leads here", pc)
                pc += self.processor.instruction(pc)[0]


def low(bits, term):
    return term if term.size() == bits else z3.Extract(bits - 1, 0, term)


def same(left, right):
    return left.content.keys() == right.content.keys() and all(
        left.content[it][0].eq(right.content[it][0]) and left.content[it][1] == right.content[it][1]
        for it in left.content
    )


def shorten(term):
    text = " ".join(str(term).split())
    return text if len(text) < 160 else text[:157] + "..."
