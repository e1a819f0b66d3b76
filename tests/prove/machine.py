"""Executes machine code symbolically: registers and memory hold z3 terms, and an instruction has the
effect that Ghidra's SLEIGH (pypcode) gives.

Memory consists of *regions*. An address is a symbol plus a number, and each symbol is a region
that does not overlap the others; that is an assumption of the proof. A first read of memory that
was not written returns a fresh symbol, so nothing is assumed about its contents.
"""

import functools

import pypcode
import z3


class Unknown(Exception):
    """Code that the model does not cover, so nothing is proved."""


class Failure(Exception):
    """A property that does not hold, or that could not be proved."""


def word(value, size):
    return z3.BitVecVal(value, 8 * size)


def flag(condition):
    return z3.If(condition, word(1, 1), word(0, 1))


def split(address):
    """Returns an address as (symbol, number); the symbol is None if there is none."""
    address = z3.simplify(address)
    bits = address.size()
    signed = lambda value: value - (1 << bits) if value >> (bits - 1) else value
    if z3.is_bv_value(address):
        return None, address.as_long()
    if z3.is_app_of(address, z3.Z3_OP_BADD) and z3.is_bv_value(address.arg(0)):
        rest = address.children()[1:]
        symbol = rest[0] if len(rest) == 1 else z3.simplify(sum(rest[1:], rest[0]))
        return symbol, signed(address.arg(0).as_long())
    return address, 0


class Bytes:
    """Bytes by offset. Each is (term, index): byte number `index` of the term."""

    def __init__(self, content=None):
        self.content = dict(content or {})

    def write(self, space, offset, term):
        term = z3.simplify(term)
        for index in range(term.size() // 8):
            self.content[space, offset + index] = (term, index)

    def read(self, space, offset, size, fresh):
        """`fresh(offset)` fills in what is not there yet."""
        pieces = []  # term, first and last index, lowest first
        for place in range(offset, offset + size):
            if (space, place) not in self.content:
                fresh(place)
            term, index = self.content[space, place]
            if (
                pieces
                and (pieces[-1][0] is term or pieces[-1][0].eq(term))
                and pieces[-1][2] + 1 == index
            ):
                pieces[-1][2] = index
            else:
                pieces.append([term, index, index])
        term, first, last = pieces[0]
        if len(pieces) == 1 and first == 0 and 8 * (last + 1) == term.size():
            return term
        terms = [z3.Extract(8 * last + 7, 8 * first, term) for term, first, last in pieces]
        return z3.simplify(terms[0] if len(terms) == 1 else z3.Concat(*reversed(terms)))


class State:
    """The machine between two instructions."""

    def __init__(self, processor, name):
        self.processor, self.name = processor, name
        self.registers, self.memory = Bytes(), Bytes()
        self.regions = {}  # id of a symbol: the symbol
        self.path = []  # the conditions of the branches taken so far
        self.log = []  # (pc, "load"|"store", symbol, offset, size)
        self.unwritten = []  # (pc, symbol) of loads of memory that was not written
        self.below = []  # (pc, offset) of stores and loads below the stack pointer
        self.trail = []  # the states before each instruction
        self.jumps = []  # (pc, kind)
        self.told = set()  # what has been checked already: states that forked share their past
        self.pc = None
        self.interrupted = True  # a signal may arrive after each instruction
        self.time = 0
        self.signals = {}  # region: (time, limit): what lay below the limit was forgotten then

    def copy(self):
        other = object.__new__(State)
        other.__dict__.update(self.__dict__)
        other.told = set()
        other.registers = Bytes(self.registers.content)
        other.memory = Bytes(self.memory.content)
        for each in ("regions", "signals", "path", "log", "unwritten", "below", "trail", "jumps"):
            setattr(other, each, type(getattr(self, each))(getattr(self, each)))
        return other

    # Registers by name or varnode.

    def get(self, register):
        where = self.processor.register(register)
        return self.registers.read("register", where.offset, where.size, self._fresh_register)

    def set(self, register, term):
        where = self.processor.register(register)
        self.registers.write("register", where.offset, term)

    def _fresh_register(self, place):
        name, where = self.processor.widest[place]
        symbol = z3.BitVec(f"{self.name}.{name}", 8 * where.size)
        for index in range(where.size):
            self.registers.content.setdefault(("register", where.offset + index), (symbol, index))

    # Memory.

    def knows(self, symbol):
        """A region of which it matters that another address may lie in it."""
        self.regions[symbol.get_id()] = symbol

    def _region(self, address, size):
        symbol, offset = split(address)
        if symbol is None:
            return None, offset
        if symbol.get_id() not in self.regions and self.path:
            # A branch may have found it to be equal to another.
            for known in list(self.regions.values()):
                if known.size() == symbol.size() and self.processor.implied(
                    self.path, symbol == known
                ):
                    symbol = known
                    break
        self.regions[symbol.get_id()] = symbol
        return symbol.get_id(), offset

    def load(self, address, size, logged=True):
        region, offset = self._region(address, size)
        if region is None:
            known = self.processor.image.constant(offset, size)
            if known is not None:
                return word(int.from_bytes(known, "little"), size)
        if logged:
            self.log.append((self.pc, "load", self.regions.get(region), offset, size))

        def fresh(place):
            if logged:
                self.unwritten.append((self.pc, self.regions.get(region)))
            # Memory that was not written holds one value until it is forgotten.
            start = place - place % 8
            since = max(
                (time for time, below in self.signals.get(region, ()) if place < below), default=0
            )
            where = f"{self.regions[region]}{start:+}" if region is not None else f"{start:#x}"
            symbol = z3.BitVec(f"{self.name}.[{where}]" + (f"@{since}" if since else ""), 64)
            self.memory.content[region, place] = (symbol, place - start)

        return self.memory.read(region, offset, size, fresh)

    def store(self, address, term, logged=True):
        region, offset = self._region(address, term.size() // 8)
        if logged:
            self.log.append((self.pc, "store", self.regions.get(region), offset, term.size() // 8))
        self.memory.write(region, offset, term)

    def forget_below(self, address):
        """A signal has come, or may have: all below the stack pointer may be anything."""
        region, offset = self._region(address, 1)
        self.time += 1
        self.signals[region] = (*self.signals.get(region, ()), (self.time, offset))
        for place in [it for it in self.memory.content if it[0] == region and it[1] < offset]:
            del self.memory.content[place]

    def keep_only(self, kept):
        """Others have run: registers and all memory may be anything, but for `kept(symbol,
        offset)`."""
        self.registers = Bytes()
        self.memory.content = {
            place: byte
            for place, byte in self.memory.content.items()
            if place[0] is not None and kept(self.regions[place[0]], place[1])
        }


@functools.cache
def sleigh(language, thumb):
    context = pypcode.Context(language)
    if thumb:
        context.setVariableDefault("TMode", 1)
    return context


class Processor:
    """Executes the instructions of one image."""

    def __init__(self, image, language, stack_pointer, thumb=False):
        self.image, self.thumb = image, thumb
        self.sleigh = sleigh(language, thumb)
        self.names = self.sleigh.registers
        self.stack_pointer = stack_pointer
        self.returns = lambda state: None  # a called function whose effect is known
        self.stops = ()  # addresses behind the code, as far as they are in the image
        self.instructions = {}
        self.answers = {}  # of `implied`
        # The widest register that contains each byte of the register space.
        self.widest = {}
        for name, where in sorted(self.names.items(), key=lambda it: (it[1].size, it[0])):
            for index in range(where.size):
                self.widest[where.offset + index] = (name, where)

    def register(self, name):
        return self.names[name] if isinstance(name, str) else name

    def instruction(self, pc):
        """Its length and p-code."""
        if pc not in self.instructions:
            for start, data, _ in self.image.segments:
                if start <= pc < start + len(data):
                    code = bytes(data[pc - start : pc - start + 16])
                    break
            else:
                raise Unknown(f"a jump to {pc:#x}, where nothing is")
            try:
                ops = self.sleigh.translate(code, pc, max_instructions=1).ops
            except (pypcode.BadDataError, pypcode.UnimplError) as error:
                raise Unknown(f"{pc:#x}: {error}") from error
            if not ops or ops[0].opcode.name != "IMARK":
                raise Unknown(f"{pc:#x}: no instruction")
            self.instructions[pc] = (sum(it.size for it in ops[0].inputs), ops[1:])
        return self.instructions[pc]

    def text(self, pc):
        """The instruction, for people."""
        for start, data, _ in self.image.segments:
            if start <= pc < start + len(data):
                code = bytes(data[pc - start : pc - start + 16])
                try:
                    it = self.sleigh.disassemble(code, pc, max_instructions=1).instructions[0]
                    return f"{it.mnem} {it.body}".lower()
                except Exception:
                    return code[:4].hex()
        return "?"

    def implied(self, path, claim):
        key = (*(it.get_id() for it in path), claim.get_id())
        if key not in self.answers:
            # The terms are kept, so that no others get their ids.
            self.answers[key] = not self.feasible([*path, z3.Not(claim)]), path, claim
        return self.answers[key][0]

    def run(self, state, limit=400):
        """All states in which the code reaches a jump to an address that is not known, or a call of
        one, or a stop. `target` says where it leads, and `jumps` how it left."""
        ends, todo = [], [state]
        while todo:
            state = todo.pop()
            state.target = None
            while state.target is None:
                if state.pc in self.stops and state.trail:
                    state.target = word(state.pc, self.names[self.stack_pointer].size)
                    break
                if len(state.trail) > limit:
                    raise Unknown(f"more than {limit} instructions")
                before = state.copy()
                before.trail = []
                state.trail.append(before)
                branches = self.step(state)
                if state.target is not None:
                    self.returns(state)
                for condition, other in branches:
                    other.path.append(condition)
                    if self.feasible(other.path):
                        todo.append(other)
                if branches:
                    state.path.append(z3.Not(z3.Or([it[0] for it in branches])))
                    if not self.feasible(state.path):
                        break
            if state.target is not None:
                ends.append(state)
        return ends

    def step(self, state):
        """One instruction. Returns other states, with the conditions under which it is they that
        go on."""
        length, ops = self.instruction(state.pc)
        state.came_with, state.logged = state.get(self.stack_pointer), len(state.log)
        following = word(state.pc + length, self.names["pc" if "pc" in self.names else "RIP"].size)
        branches, unique, index = [], Bytes(), 0

        def undefined(place):
            raise Unknown(f"{state.pc:#x}: a temporary is read before it is written")

        def value(node):
            if node.space.name == "const":
                return word(node.offset, node.size)
            if node.space.name == "unique":
                return unique.read("unique", node.offset, node.size, undefined)
            if node.space.name == "register":
                return state.get(node)
            return state.load(word(node.offset, following.size() // 8), node.size)

        def assign(node, term):
            if node.space.name == "unique":
                unique.write("unique", node.offset, term)
            elif node.space.name == "register":
                state.set(node, term)
            else:
                state.store(word(node.offset, following.size() // 8), term)

        target = None
        while target is None and index < len(ops):
            op = ops[index]
            index += 1
            kind, inputs = op.opcode.name, op.inputs
            if kind in ("BRANCH", "CBRANCH", "CALL"):
                where = inputs[0]
                relative = where.space.name == "const"
                if kind == "CBRANCH":
                    taken = z3.simplify(value(inputs[1]) != 0)
                    if z3.is_false(taken):
                        continue
                    if not z3.is_true(taken):
                        if relative:
                            raise Unknown(f"{state.pc:#x}: a condition inside an instruction")
                        other = state.copy()
                        other.pc = where.offset
                        other.jumps.append((state.pc, kind))
                        self.settle(other)
                        branches.append((taken, other))
                        continue
                if relative:
                    offset = where.offset
                    offset -= 1 << 8 * where.size if offset >> (8 * where.size - 1) else 0
                    index += offset - 1
                    continue
                target = word(where.offset, following.size() // 8)
                state.jumps.append((state.pc, kind))
            elif kind in ("BRANCHIND", "CALLIND", "RETURN"):
                target = value(inputs[0])
                state.jumps.append((state.pc, kind))
            elif kind == "LOAD":
                assign(op.output, state.load(value(inputs[1]), op.output.size))
            elif kind == "STORE":
                state.store(value(inputs[1]), value(inputs[2]))
            elif kind == "CALLOTHER":
                # Not needed here: hints, and changes of the instruction set.
                name = inputs[0].getUserDefinedOpName()
                if op.output is not None or name not in ("setISAMode", "Hint_BTI", "endbr64"):
                    raise Unknown(f"{state.pc:#x}: {name}")
            else:
                arguments = [value(it) for it in inputs]
                assign(op.output, operation(kind, arguments, op.output.size))
        if target is None:
            target = following
        target = z3.simplify(target)
        here = state.pc
        if z3.is_bv_value(target):
            state.pc = target.as_long()
        else:
            state.target = target
        state.left_from = here
        self.settle(state)
        return branches

    def settle(self, state):
        sp, depth = split(state.get(self.stack_pointer))
        before, depth_before = split(state.came_with)
        for pc, kind, symbol, offset, _ in state.log[state.logged :]:
            for base, limit in ((sp, depth), (before, depth_before)):
                if base is not None and symbol is not None and symbol.eq(base) and offset < limit:
                    if not (
                        sp is not None
                        and before is not None
                        and sp.eq(before)
                        and offset >= min(depth, depth_before)
                    ):
                        state.below.append((pc, offset - limit))
        if state.interrupted:
            state.forget_below(state.get(self.stack_pointer))


def operation(kind, arguments, size):
    """One p-code operation without an effect."""
    first = arguments[0]
    second = arguments[1] if len(arguments) > 1 else None
    bits = 8 * size
    if kind == "COPY":
        return first
    if kind == "INT_ADD":
        return first + second
    if kind == "INT_SUB":
        return first - second
    if kind == "INT_MULT":
        return first * second
    if kind == "INT_AND" or kind == "BOOL_AND":
        return first & second
    if kind == "INT_OR" or kind == "BOOL_OR":
        return first | second
    if kind == "INT_XOR" or kind == "BOOL_XOR":
        return first ^ second
    if kind == "INT_NEGATE":
        return ~first
    if kind == "INT_2COMP":
        return -first
    if kind == "BOOL_NEGATE":
        return first ^ 1
    if kind in ("INT_LEFT", "INT_RIGHT", "INT_SRIGHT"):
        width = first.size()
        amount = (
            z3.ZeroExt(width - second.size(), second)
            if second.size() < width
            else z3.Extract(width - 1, 0, second)
        )
        if kind == "INT_LEFT":
            return first << amount
        return z3.LShR(first, amount) if kind == "INT_RIGHT" else first >> amount
    if kind == "INT_EQUAL":
        return flag(first == second)
    if kind == "INT_NOTEQUAL":
        return flag(first != second)
    if kind == "INT_LESS":
        return flag(z3.ULT(first, second))
    if kind == "INT_LESSEQUAL":
        return flag(z3.ULE(first, second))
    if kind == "INT_SLESS":
        return flag(first < second)
    if kind == "INT_SLESSEQUAL":
        return flag(first <= second)
    if kind == "INT_CARRY":
        return flag(z3.Not(z3.BVAddNoOverflow(first, second, False)))
    if kind == "INT_SCARRY":
        no = z3.And(z3.BVAddNoOverflow(first, second, True), z3.BVAddNoUnderflow(first, second))
        return flag(z3.Not(no))
    if kind == "INT_SBORROW":
        no = z3.And(z3.BVSubNoOverflow(first, second), z3.BVSubNoUnderflow(first, second, True))
        return flag(z3.Not(no))
    if kind == "INT_ZEXT":
        return z3.ZeroExt(bits - first.size(), first)
    if kind == "INT_SEXT":
        return z3.SignExt(bits - first.size(), first)
    if kind == "SUBPIECE":
        low = 8 * second.as_long()
        return z3.Extract(min(low + bits, first.size()) - 1, low, first)
    if kind == "PIECE":
        return z3.Concat(first, second)
    if kind == "POPCOUNT":
        ones = [z3.ZeroExt(bits - 1, z3.Extract(i, i, first)) for i in range(first.size())]
        return sum(ones[1:], ones[0])
    raise Unknown(f"the p-code operation {kind}")
