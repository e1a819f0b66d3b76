"""The contract of asm/README.md, "Contract", as properties of machine code.

The actors, whose registers and memory are unknown at first:
    A   switches away, and is resumed later
    C   runs at that time, and resumes A
    P   is a new greenlet, as `Registers::prepare` makes it; Q is its parent, suspended
    E   is P in `entry`, when `start` has returned
Between two steps other code runs. It changes every register, and all memory except what a suspended
actor owns (core.py). After every instruction a signal handler may run, which overwrites everything
below the stack pointer.
"""

import z3

from core import Memory
from machine import Bytes, Failure, Processor, State, split, word
from questions import Questions
from unwinding import Unwinding


class Prover(Questions):
    def __init__(self, image, abi, core, language, thumb=False, text=None):
        """text: first and last address of a text of the switch; default: it is assembled alone."""
        super().__init__(image, Processor(image, language, abi.sp, thumb))
        self.abi, self.core, self.firsts = abi, core, {}
        self.processor.returns = self.descriptor_is_called
        self.memory = Memory(abi, core, image, self.first)
        self.covered = set()  # addresses of instructions that some path has reached
        alone = (self.routine(it) for it in ("site", "odd") if image.has(it))
        self.texts = [text] if text else [(it.start, it.stop) for it in alone]
        self.look_at(*self.texts[0])
        self.unwinding = Unwinding(self)

    def look_at(self, start, end):
        """Selects the text of the switch that is proved next."""
        # Behind the text, where a resumed context continues; BTI requires a landing pad there.
        self.back = end - 4 if self.core.marks == "bti" else end
        self.text_in_line = range(start, self.back)
        self.resume_address = self.address(self.back | self.processor.thumb)
        self.processor.stops = (self.back,)

    def address(self, value):
        return word(value, self.abi.word)

    def routine(self, name):
        """Returns the addresses of a routine, or an empty range if there is none."""
        if not self.image.has(name):
            return range(0)
        start = self.image.code(name)
        return range(start, start + self.image.size(name))

    def first(self, name, register):
        """Returns the initial value of an actor's register."""
        if (name, register) not in self.firsts:
            self.firsts[name, register] = State(self.processor, name).get(register)
        return self.firsts[name, register]

    # ---- the properties

    def prove(self):
        for text in self.texts:
            self.look_at(*text)
            self.prove_text(whole=text == self.texts[0])

    def prove_text(self, whole):
        """Proves the current text of the switch; with `whole`, also `entry`."""
        self.unwinding.before_entry_pc()
        ways, parent = self.leaves("A"), self.leaves("Q")[0]
        for a in ways:
            self.is_resumed(a)
            if whole:
                self.starts_and_finishes(a, parent)
        if self.core.hop:
            self.switches_to_itself()
        self.all_is_covered()

    def leaves(self, name):
        """`name` switches away: its registers are stored in its context, nothing else is written, the
        message arrives, and the unwind tables are right. Returns the states after other code has
        run, without duplicates."""
        found = []
        for end in self.switch(name):
            self.memory_is_its_own(end, name, resumed=self.first(name, self.core.to))
            self.context_is_filled(end, name)
            self.message_arrives(end, name)
            self.unwinding.around_switch(end, name)
            self.unwinding.in_resume(end)
            end.keep_only(lambda symbol, offset: self.memory.owns(name, symbol, offset))
            end.registers = Bytes()
            add_unless_same(found, end)
        return found

    def is_resumed(self, a):
        """C resumes A: A has its registers and memory again, and the message."""
        context = self.memory.context("A")
        for end in self.switch("C", a, to=context):
            self.memory_is_its_own(end, "C", resumed=context)
            self.message_arrives(end, "C")
            self.has_its_own_again(end, "A")
            self.leaves_the_threads_alone(end, "C")
            self.unwinding.in_resume(end)

    def starts_and_finishes(self, a, parent):
        """C switches to the new P: `start` is called with its arguments. It returns with a departure
        that resumes A."""
        before = a.copy()
        before.memory.content.update(parent.memory.content)
        before.regions.update(parent.regions)
        called = []
        for end in self.switch("C", before, prepare=True):
            self.memory_is_its_own(end, "C", "P", resumed=self.memory.context("P"))
            self.leaves_the_threads_alone(end, "C")
            self.unwinding.in_entry(end)
            add_unless_same(called, self.start_is_called(end))
        for state in called:
            departure = state.departure
            for end in self.run(state):
                self.memory_is_its_own(end, "P", resumed=self.memory.context("A"))
                self.has_its_own_again(end, "A")
                self.leaves_the_threads_alone(end, "E")
                sent = [self.memory.symbol(it) for it in ("P.sent.word", "P.sent.kind")]
                self.message_is(end, *sent)
                self.unwinding.in_entry(end, departure)
                self.unwinding.in_resume(end)

    def switches_to_itself(self):
        """HOP to the running context returns at once, with the message."""
        context = self.memory.context("C")
        for end in self.switch("C", to=context):
            self.memory_is_its_own(end, "C", resumed=context)
            self.message_arrives(end, "C")
            self.has_its_own_again(end, "C")
            self.leaves_the_threads_alone(end, "C")

    # ---- steps

    def switch(self, name, before=None, to=None, prepare=False):
        """Runs `name` through the text, in the memory of `before`. Returns the states in which it has
        switched, at least one."""
        state = before.copy() if before else State(self.processor, name)
        self.begin(state, name)
        state.pc = self.text_in_line[0]
        if to is not None:
            state.set(self.core.to, to)
        for register in (self.core.me, self.core.to):
            state.knows(state.get(register))
        if prepare:
            self.prepare(state)
        ends = [end for end in self.run(state) if not self.is_refused(end, name)]
        self.require(ends, "no path leads through it", state.pc)
        return ends

    def begin(self, state, name):
        """Returns a state of `name` in which its registers are unknown."""
        state.name = name
        state.registers = Bytes()
        state.path, state.log, state.trail, state.jumps = [], [], [], []
        state.unwritten, state.below = [], []

    def run(self, state):
        ends = self.processor.run(state)
        for end in ends:
            self.covered.update(it.pc for it in end.trail)
            self.jumps_are_allowed(end)
        self.require(ends, "it leads nowhere", state.pc)
        return ends

    def descriptor_is_called(self, state):
        """In a shared object, x86_64 calls the function of a TLS descriptor ("Thread-Local Storage
        Descriptors for IA32 and AMD64/EM64T", "Descriptor Calls"). It changes rax and flags, and
        returns."""
        if self.core.shared and state.jumps[-1][1] == "CALLIND":
            if state.left_from in self.text_in_line:
                sp, size = state.get(self.abi.sp), self.abi.word
                state.pc = z3.simplify(state.load(sp, size, logged=False)).as_long()
                state.set(self.abi.sp, sp + size)
                for register in ("RAX", "CF", "PF", "AF", "ZF", "SF", "OF"):
                    bits = 8 * self.processor.register(register).size
                    state.set(
                        register, z3.BitVec(f"{state.name}.{register} of the descriptor", bits)
                    )
                state.logged = len(state.log)  # the stores of the call do not matter any more
                self.processor.settle(state)
                state.jumps[-1] = (state.left_from, "DESCRIPTOR")
                state.target = None

    def prepare(self, state):
        """Makes P as `Registers::prepare` of src/arch/mod.rs does, with Q as its parent."""
        symbol, core, sp = self.memory.symbol, self.core, self.abi.sp
        context, start = symbol("P.context"), symbol("P.top") - self.abi.align
        values = {
            self.abi.fp: symbol("P.link"),
            "resume": self.address(self.image.symbol("entry_pc")),
            sp: start,
            core.argument: symbol("P.argument"),
            # Any values, as in a new context.
            **{it: self.first("P", it) for it in self.abi.kept_bits},
        }
        for region in (symbol("P.top"), context):
            state.knows(region)
        for register, value in values.items():
            state.store(context + core.offsets[register], value, logged=False)
        state.store(start, symbol("P.start"), logged=False)
        state.store(symbol("P.link"), self.memory.context("Q"), logged=False)
        state.set(core.to, context)

    def prepare_is_true(self, pc):
        """The function at `pc` is `Context::prepare` as compiled. It makes the state that `prepare`
        here assumes."""
        core, size, state = self.core, self.abi.word, State(self.processor, "C")
        context, top, start, argument = (self.first("C", it) for it in self.abi.arguments)
        state.pc = pc
        (end,) = self.processor.run(state)
        pc, stack = end.left_from, (top & -self.abi.align) - self.abi.align
        values = {
            self.abi.fp: context + core.size,  # the parent link
            "resume": self.address(self.image.symbol("entry_pc")),
            self.abi.sp: stack,
            core.argument: argument,
            **{it: self.first("C", it) for it in self.abi.kept_bits},
        }
        for register, value in values.items():
            stored = end.load(context + core.offsets[register], value.size() // 8)
            self.equal(f"{register} of a new context", pc, stored, value, end.path)
        self.equal("start at the stack pointer", pc, end.load(stack, size), start, end.path)

    def start_is_called(self, end):
        """`end` is at the call of `start`, with its arguments and a departure to fill in. Returns the
        state after the call; `departure` is the address of the departure."""
        abi, core, pc, path = self.abi, self.core, end.left_from, end.path
        size, symbol, top = abi.word, self.memory.symbol, self.memory.symbol("P.top")
        self.require(end.jumps[-1][1] == "CALLIND", "it does not call start", pc)
        self.leads_to(end, symbol("P.start"))
        sp = end.get(abi.sp)
        back = end.load(sp, size) if abi.link is None else end.get(abi.link)
        sp = sp + size if abi.link is None else sp
        back = z3.simplify(back)
        self.require(z3.is_bv_value(back), "the return address is not known", pc)
        region, depth = split(sp)
        self.require(region is not None and region.eq(top), "sp is not on the new stack", pc)
        aligned = depth <= 0 and depth % abi.align == 0
        self.require(aligned, f"sp is not a multiple of {abi.align} at the call", pc)
        word_and_kind = [self.first("C", it) for it in (core.word, core.kind)]
        arguments = [symbol("P.argument"), *word_and_kind]
        for register, name, value in zip(abi.arguments, ("argument", "word", "kind"), arguments):
            self.equal(f"the {name} of start", pc, end.get(register), value, path)
        for register, mask in abi.kept_bits.items():
            value = self.first("P", register)
            self.equal(f"{register} of the new one", pc, end.get(register), value, path, mask)
        departure = end.get(abi.arguments[3])
        region, at = split(departure)
        inside = region is not None and region.eq(top) and depth <= at and at + 3 * size <= 0
        self.require(inside, "the departure is not in the frame of entry", pc)

        # `start` runs: it preserves callee-saved registers, and has filled in the departure.
        state = end.copy()
        kept = {it: end.get(it) for it in abi.kept}
        state.keep_only(
            lambda region, offset: region.eq(top)
            and offset >= depth
            or region.eq(symbol("P.link"))
            or self.memory.owns("A", region, offset)
            or self.memory.owns("Q", region, offset)
        )
        self.begin(state, "E")
        for register, term in kept.items():
            bits = self.bits_kept(register)
            if bits < term.size():
                changed = z3.Extract(term.size() - 1, bits, state.get(register))
                term = z3.Concat(changed, z3.Extract(bits - 1, 0, term))
            state.set(register, term)
        state.set(abi.sp, sp)
        filled = self.memory.context("A"), symbol("P.sent.word"), symbol("P.sent.kind")
        for number, value in enumerate(filled):
            state.store(departure + number * size, value, logged=False)
        state.pc = back.as_long() & ~1 if abi.name == "arm" else back.as_long()
        state.departure = departure
        return state

    # ---- what holds when control leaves

    def is_refused(self, end, name):
        """HOP does nothing and returns the refusal if, and only if, `name` is not the running context
        or the other context is not active. Otherwise the other context becomes the running one."""
        hop, pc, path = self.core.hop, end.left_from, end.path
        if hop is None:
            return False
        before = end.trail[0].copy()
        me, to = before.get(self.core.me), before.get(self.core.to)
        places = [
            symbol + offset
            for _, kind, symbol, offset, size in end.log
            if kind == "load" and symbol is not None
            if self.memory.is_thread_word(symbol, offset, size)
        ]
        self.require(places, "it does not look at the running context", pc)
        place, size = places[0], self.abi.word
        running = before.load(place, size, logged=False)
        state = before.load(to + hop.state, 1, logged=False)
        may = z3.And(running == me, state == hop.active)
        if self.processor.implied(path, may):
            then = end.copy().load(place, size, logged=False)
            self.equal("the running context", pc, then, to, path)
            return False
        not_may = self.processor.implied(path, z3.Not(may))
        self.require(not_may, "it does not look at all of its conditions", pc)
        stores = [it for it in end.log if it[1] == "store" and not self.is_descriptor(end, *it)]
        self.require(not stores, "it stores something and does not switch", pc)
        unchanged = [*self.core.kept, self.core.word, self.core.to, *self.abi.kept_bits]
        for register in unchanged:
            value = before.get(register)
            self.equal(f"{register}, as it does not switch", pc, end.get(register), value, path)
        answer = self.address(hop.refused)
        self.equal("the answer", pc, end.get(self.core.kind), answer, path)
        self.equal("the target", pc, end.target, self.resume_address, path)
        self.leaves_the_threads_alone(end, name)
        return True

    def context_is_filled(self, end, name):
        """Each register is at the offset that asm/README.md gives."""
        for register, offset in self.core.offsets.items():
            resumes = register == "resume"
            value = self.resume_address if resumes else self.first(name, register)
            place = self.memory.context(name) + offset
            stored = end.copy().load(place, value.size() // 8, logged=False)
            self.equal(f"{register} in the context", end.left_from, stored, value, end.path)

    def message_arrives(self, end, name):
        self.message_is(end, *(self.first(name, it) for it in (self.core.word, self.core.kind)))

    def message_is(self, end, sent_word, sent_kind):
        pc, path = end.left_from, end.path
        self.equal("the message's word", pc, end.get(self.core.word), sent_word, path)
        self.equal("the message's kind", pc, end.get(self.core.kind), sent_kind, path)

    def has_its_own_again(self, end, name):
        """The registers and memory of `name` are as they were when it switched away, and it continues
        there."""
        pc, path = end.left_from, end.path
        for register in self.core.kept:
            value = self.first(name, register)
            self.equal(f"{register} of the resumed one", pc, end.get(register), value, path)
        for register, mask in self.abi.kept_bits.items():
            value = self.first(name, register)
            self.equal(f"{register} of the resumed one", pc, end.get(register), value, path, mask)
        self.leads_to(end, self.resume_address)

    def leaves_the_threads_alone(self, end, name):
        """Registers that are neither callee-saved nor caller-saved belong to the thread. They are as
        `name` had them."""
        may = set()
        for register in [*self.abi.kept, *self.abi.kept_bits, *self.abi.changed, self.abi.pc]:
            where = self.processor.names.get(register)
            may.update(range(where.offset, where.offset + where.size) if where else ())
        for _, place in list(end.registers.content):
            if place not in may:
                register, _ = self.processor.widest[place]
                what = f"{register}, which is the thread's"
                value = self.first(name, register)
                self.equal(what, end.left_from, end.get(register), value, end.path)

    def leads_to(self, end, address):
        """The jump goes to `address`. On arm, bit 0 selects the instruction set."""
        pc, path, target = end.left_from, end.path, end.target
        if self.abi.name == "arm":
            self.equal("the target", pc, target, address & ~1, path)
            mode = z3.Extract(7, 0, address & 1)
            self.equal("the instruction set", pc, end.get("ISAModeSwitch"), mode, path)
        elif self.abi.name == "riscv":
            # The processor clears bit 0 in jalr; SLEIGH leaves it for `c.jr`.
            self.equal("the target", pc, target & ~1, address & ~1, path)
        else:
            self.equal("the target", pc, target, address, path)

    def memory_is_its_own(self, end, *actors, resumed):
        """The text stores only to memory of `name`, loads only from that and from the context
        `resumed`, and uses nothing below the stack pointer."""
        for access in end.log:
            pc, kind, symbol, offset, size = access
            if pc in self.text_in_line and self.is_the_threads(end, *access):
                continue
            where = f"{symbol if symbol is not None else ''}{offset:+}"
            allowed = symbol is not None and (
                any(self.memory.is_own(it, symbol, offset, size) for it in actors)
                or (kind == "load" and self.memory.may_load(resumed, symbol, offset, size))
            )
            self.require(allowed, f"it {kind}s {size} bytes at {where}", pc)
        for pc, symbol in end.unwritten:
            if symbol is not None and symbol.eq(self.memory.symbol("P.top")):
                self.require(False, "it loads what nobody has stored on the new stack", pc)
        for pc, offset in end.below:
            self.require(False, f"it reaches {-offset} bytes below the stack pointer", pc)

    def is_the_threads(self, end, pc, kind, symbol, offset, size):
        """Accesses of the thread's words, of the state byte of HOP, and by the call of a
        descriptor."""
        if self.is_descriptor(end, pc, kind, symbol, offset, size):
            return True
        if symbol is None:
            return False
        to = end.trail[0].get(self.core.to)
        return self.memory.is_thread_word(symbol, offset, size) or (
            kind == "load" and self.memory.is_state(to, symbol, offset, size)
        )

    def is_descriptor(self, end, pc, kind, symbol, offset, size):
        """A descriptor's address is loaded, and the call stores its return address on the stack."""
        if not self.core.shared or size != self.abi.word:
            return False
        if kind == "load":
            return symbol is None
        sp, depth = split(end.trail[0].get(self.abi.sp))
        called = (pc, "DESCRIPTOR") in end.jumps
        return called and symbol is not None and symbol.eq(sp) and offset == depth - size

    def jumps_are_allowed(self, end):
        """There is no return, and no call except that of `start`, so returns are predicted as usual.
        Where the processor checks the targets of jumps, they have its marks."""
        for pc, kind in end.jumps:
            text = self.processor.text(pc)
            allowed = kind in ("BRANCH", "CBRANCH", "BRANCHIND", "DESCRIPTOR")
            if kind == "CALLIND":
                allowed = pc == end.left_from and pc in self.routine("entry")
            self.require(allowed, f"it is a {kind}: {text}", pc)
            if kind == "BRANCHIND" and self.abi.name == "arm":
                # Arm ARM, "Interworking": before ARMv7 other jumps do not select the instruction set.
                self.require(text.startswith("bx "), "it is not bx", pc)
            if kind == "BRANCHIND" and self.abi.name == "riscv":
                # RISC-V ISA, "Zicfilp": a jump through t2 needs no landing pad.
                self.require(text.split()[-1].endswith("t2"), f"it is not through t2: {text}", pc)
            if kind == "BRANCHIND" and self.core.marks == "ibt":
                # Intel SDM, "Control-flow Enforcement Technology": 3e is notrack.
                self.require(self.image.constant(pc, 1) == b"\x3e", "it is not notrack", pc)
        if self.core.marks == "bti":
            # Arm ARM, "BTI": hint 36 is "bti j".
            for pc in (self.back, self.image.code("entry_pc")):
                pad = self.image.constant(pc, 4) == 0xD503249F.to_bytes(4, "little")
                self.require(pad, "it is no landing pad", pc)

    def bits_kept(self, register):
        """Returns how many bits of a register are callee-saved."""
        if register.startswith("fs") and self.abi.name == "riscv":
            return 8 * self.abi.floats
        return 8 * self.processor.register(register).size

    def all_is_covered(self):
        """Every instruction was reached: an instruction that no path reaches is not proved."""
        for routine in (self.text_in_line, self.routine("resume"), self.routine("entry")):
            pc = routine.start
            while pc in routine:
                # The nop of `entry` is for unwinders only; those behind the jump of arm align.
                seldom = pc == self.image.code("entry") or (
                    routine == self.text_in_line
                    and self.abi.name == "arm"
                    and not any(it in routine for it in self.covered if it >= pc)
                )
                if not seldom:
                    self.require(pc in self.covered, "no path leads here", pc)
                pc += self.processor.instruction(pc)[0]


def add_unless_same(states, new):
    """Adds a state unless there is one with the same registers and memory."""

    def same(left, right):
        return left.keys() == right.keys() and all(
            left[it][0].eq(right[it][0]) and left[it][1] == right[it][1] for it in left
        )

    for old in states:
        if same(old.registers.content, new.registers.content):
            if same(old.memory.content, new.memory.content):
                return
    states.append(new)
