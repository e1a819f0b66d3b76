"""A second model of the instructions: QEMU's translator (unicorn) executes each instruction of a core
on random states, and the result is compared with that of the prover's model."""

import random

import unicorn
import z3

from machine import State, Unknown

ARENA, SIZE = 0x4000_0000, 0x4000  # where addresses point


def emulator(abi, thumb):
    from unicorn import arm64_const, arm_const, riscv_const, x86_const

    if abi.name == "x86_64":
        it, const, prefix = (
            unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64),
            x86_const,
            "UC_X86_REG_",
        )
    elif abi.name == "aarch64":
        it, const, prefix = (
            unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM),
            arm64_const,
            "UC_ARM64_REG_",
        )
        it.reg_write(arm64_const.UC_ARM64_REG_CPACR_EL1, 3 << 20)
    elif abi.name == "riscv":
        mode = unicorn.UC_MODE_RISCV64 if abi.word == 8 else unicorn.UC_MODE_RISCV32
        it, const, prefix = (
            unicorn.Uc(unicorn.UC_ARCH_RISCV, mode),
            riscv_const,
            "UC_RISCV_REG_",
        )
        it.reg_write(riscv_const.UC_RISCV_REG_MSTATUS, 0x6000)
    else:
        mode = unicorn.UC_MODE_THUMB if thumb else unicorn.UC_MODE_ARM
        it, const, prefix = unicorn.Uc(unicorn.UC_ARCH_ARM, mode), arm_const, "UC_ARM_REG_"
        # A processor with all instructions.
        it.ctl_set_cpu_model(arm_const.UC_CPU_ARM_MAX)
        it.reg_write(arm_const.UC_ARM_REG_C1_C0_2, 0xF << 20)
        it.reg_write(arm_const.UC_ARM_REG_FPEXC, 0x4000_0000)
    special = {"FPUControlWord": "FPCW", "FS_OFFSET": "FS_BASE"}

    def number(register):
        return getattr(const, prefix + special.get(register, register.upper()), None)

    return it, number


def compare(prover, states, seed=1):
    """Returns how many instructions agreed, each on several states. Raises Unknown if one did not."""
    chance = random.Random(seed)
    abi, processor = prover.abi, prover.processor
    machine, number = emulator(abi, processor.thumb)
    for start, data, _ in prover.image.segments:
        first, last = start & ~0xFFF, (start + len(data) + 0xFFF) & ~0xFFF
        try:
            machine.mem_map(first, last - first)
        except unicorn.UcError:
            pass  # a page that two segments share
        machine.mem_write(start, bytes(data))
    machine.mem_map(ARENA, SIZE)
    registers = [
        it
        for it in {*abi.kept, *abi.kept_bits, *abi.changed, *abi.dwarf.values(), "FS_OFFSET"}
        if it in processor.names and number(it) is not None
    ]
    for pc in sorted(prover.covered):
        for _ in range(states):
            one(prover, machine, number, registers, pc, chance)
    return len(prover.covered)


def one(prover, machine, number, registers, pc, chance):
    abi, processor = prover.abi, prover.processor
    state = State(processor, "U")
    state.pc, state.target, state.interrupted = pc, None, False
    branches = processor.step(state)
    values = {}  # the values of the prover's symbols
    before = {}
    for register in registers:
        size = processor.register(register).size
        if size == abi.word:
            value = ARENA + 0x1000 + 16 * chance.randrange((SIZE - 0x2000) // 16)
        else:
            value = chance.getrandbits(8 * size)
        if register == "FS_OFFSET":
            value = 16 * chance.randrange(64)  # it is added to another address
        if register == "MXCSR":
            value &= 0xFFFF
        if size == 1:
            continue  # flags, through the condition below
        before[register] = value
        machine.reg_write(number(register), value)
    memory = chance.randbytes(SIZE)
    machine.mem_write(ARENA, memory)
    for start, data, writable in prover.image.segments:
        if writable:
            machine.mem_write(start, bytes(data))

    def concrete(term):
        """Returns the value of a term in this state."""
        todo, seen, known = [term], set(), []
        while todo:
            it = todo.pop()
            if it.get_id() in seen:
                continue
            seen.add(it.get_id())
            if it.num_args() == 0 and it.decl().kind() == z3.Z3_OP_UNINTERPRETED:
                known.append((it, z3.BitVecVal(symbol(it), it.size())))
            todo.extend(it.children())
        result = z3.simplify(z3.substitute(term, *known)) if known else z3.simplify(term)
        return result.as_long()

    def symbol(it):
        name = it.decl().name()
        if name in values:
            return values[name]
        if name.startswith("U.["):
            place = places[name]
            value = int.from_bytes(read(place, 8), "little")
        else:
            register = name.split(".", 1)[1]
            value = widest(register)
        values[name] = value
        return value

    def widest(register):
        where = processor.register(register)
        value = 0
        for inner, content in before.items():
            at = processor.register(inner)
            if where.offset <= at.offset and at.offset + at.size <= where.offset + where.size:
                value |= content << 8 * (at.offset - where.offset)
        if where.size == 1:
            value = flags().get(register, 0)
        return value

    def flags():
        if abi.name != "x86_64":
            return {}
        bits = machine.reg_read(number("EFLAGS"))
        return {
            "CF": bits & 1,
            "PF": bits >> 2 & 1,
            "AF": bits >> 4 & 1,
            "ZF": bits >> 6 & 1,
            "SF": bits >> 7 & 1,
            "OF": bits >> 11 & 1,
        }

    def read(place, size):
        if ARENA <= place < ARENA + SIZE:
            return memory[place - ARENA : place - ARENA + size]
        for start, data, _ in prover.image.segments:
            if start <= place < start + len(data):
                return bytes(data[place - start : place - start + size]).ljust(size, b"\0")
        raise Unknown(f"{prover.place(pc)}: it reads at {place:#x}")

    if abi.name == "x86_64":
        machine.reg_write(number("EFLAGS"), 2 | chance.choice([0, 0x40, 0x1, 0x80, 0x800]))
    # The address of each symbol of memory.
    places = {}
    for region, at in [(it[0], it[1]) for it in state.memory.content]:
        term, index = state.memory.content[region, at]
        if (
            term.num_args() == 0
            and not z3.is_bv_value(term)
            and term.decl().name().startswith("U.[")
        ):
            base = concrete(state.regions[region]) if region is not None else 0
            places[term.decl().name()] = base + at - index
    expected = {}
    for register in before:
        expected[register] = concrete(state.get(register))
    stored = []
    for _, kind, region, offset, size in state.log:
        if kind == "store":
            base = concrete(region) if region is not None else 0
            space = region.get_id() if region is not None else None
            content = [state.memory.content[space, place] for place in range(offset, offset + size)]
            stored.append(
                (
                    base + offset,
                    bytes(concrete(term) >> 8 * index & 0xFF for term, index in content),
                )
            )
    going = state.pc if state.target is None else concrete(state.target)
    for condition, other in branches:
        if z3.is_true(
            z3.simplify(
                z3.BoolVal(concrete(z3.If(condition, z3.BitVecVal(1, 8), z3.BitVecVal(0, 8))) == 1)
            )
        ):
            going = other.pc

    # One instruction.
    try:
        machine.emu_start(pc | processor.thumb, 0, count=1)
    except unicorn.UcError as error:
        if error.errno not in (
            unicorn.UC_ERR_FETCH_UNMAPPED,
            unicorn.UC_ERR_FETCH_PROT,
            unicorn.UC_ERR_EXCEPTION,
        ):
            raise Unknown(f"{prover.place(pc)}: unicorn says {error}") from error
    reached = machine.reg_read(number(abi.pc))
    low = 1 if abi.name in ("arm", "riscv") else 0
    differences = []
    if reached & ~low != going & ~low:
        differences.append(f"pc {reached:#x} {going:#x}")
    for register, value in expected.items():
        found = machine.reg_read(number(register))
        # SLEIGH does not change the upper half, which flw fills with ones.
        mask = (1 << prover.bits_kept(register)) - 1
        if found & mask != value & mask:
            differences.append(f"{register} {found:#x} {value:#x}")
    after = bytearray(memory)
    for place, content in stored:
        after[place - ARENA : place - ARENA + len(content)] = content
    found = bytes(machine.mem_read(ARENA, SIZE))
    if found != bytes(after):
        at = next(it for it in range(SIZE) if found[it] != after[it])
        differences.append(f"memory at {ARENA + at:#x}")
    if differences:
        raise Unknown(f"{prover.place(pc)}: unicorn differs: {', '.join(differences[:4])}")
