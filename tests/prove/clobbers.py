"""The clobbers of the `asm!` blocks: the core preserves every register in which the compiler keeps a
value over a switch.

The core preserves the registers `kept` of its variant, which is proved. Every other register that
the compiler may use for a value must be declared clobbered by the `asm!`. LLVM tells which
registers these are for a target and a processor: its dump of the functions of pressure/src/lib.rs
after register allocation shows the registers that are live over the block."""

import re

# Registers without a value, or in which the compiler keeps none.
SPECIAL = {
    "x86_64": {"rsp", "rip"},
    "aarch64": {"sp", "xzr"},
    "riscv": {"x2", "x0"},
    "arm": {"sp", "pc", "cpsr", "itstate"},
}


def unit(register, architecture):
    """Returns the register of which LLVM's name is a part, and the number of bits."""
    if architecture == "x86_64":
        found = re.fullmatch(r"([xyz])mm(\d+)", register)
        if found:
            return f"zmm{found[2]}", {"x": 128, "y": 256, "z": 512}[found[1]]
        found = re.fullmatch(r"(r\d+)([dwb]?)", register)
        return (found[1] if found else register), 64
    if architecture == "aarch64":
        found = re.fullmatch(r"([bhsdqz])(\d+)", register)
        if found:
            return f"v{found[2]}", dict(b=8, h=16, s=32, d=64, q=128, z=256)[found[1]]
        found = re.fullmatch(r"w(\d+)", register)
        return {"fp": "x29", "lr": "x30"}.get(register, f"x{found[1]}" if found else register), 64
    if architecture == "riscv":
        found = re.fullmatch(r"f(\d+)_([hfd])", register)
        if found:
            return f"f{found[1]}", {"h": 16, "f": 32, "d": 64}[found[2]]
        return re.sub(r"_[wh]$", "", register), 64
    found = re.fullmatch(r"([sq])(\d+)", register)
    if found:
        return f"d{int(found[2]) // 2 if found[1] == 's' else int(found[2]) * 2}", 64
    return register, 32


def units(register, architecture):
    found = re.fullmatch(r"q(\d+)", register)
    if architecture == "arm" and found:
        return {(f"d{2 * int(found[1]) + half}", 64) for half in (0, 1)}
    return {unit(register, architecture)}


def around(text, architecture):
    """Returns, for each function with an `asm!` block, the registers that are live over it and its
    clobbers."""
    functions = {}
    for body in re.split(r"# Machine code for function ", text)[1:]:
        name = body.split(":", 1)[0]
        lines = [it for it in body.splitlines() if re.match(r"\d+B\t", it)]
        at = [number for number, it in enumerate(lines) if " INLINEASM " in it]
        if len(at) != 1:
            continue
        block = lines[at[0]]
        clobbered = set()
        for register in re.findall(
            r"(?:implicit-def|def)(?: dead)?(?: early-clobber)?(?: renamable)? \$(\w+)", block
        ):
            clobbered |= units(register, architecture)
        live, defined = set(), set()
        for line in lines[at[0] + 1 :]:
            line = line.split(" :: ")[0].split("\t", 1)[1]
            left, _, right = line.partition(" = ") if " = " in line else ("", "", line)
            defines = set(re.findall(r"\$(\w+)", left)) | set(
                re.findall(r"implicit-def(?: dead)? \$(\w+)", right)
            )
            reads = set(re.findall(r"(?<!def )(?<!dead )\$(\w+)", right)) - {"noreg"}
            for register in reads:
                live |= {it for it in units(register, architecture) if it[0] not in defined}
            for register in defines:
                defined |= {it[0] for it in units(register, architecture)}
        names = {it[0] for it in clobbered}
        functions[name] = ({it for it in live if it[0] not in names}, clobbered)
    return functions


def saved(variant):
    """Returns the registers that the core preserves, as `unit` does."""
    abi = variant.abi
    found = {}
    for register in variant.core.kept:
        name, bits = register.lower(), 64
        if abi.name == "riscv":
            number = {value: key for key, value in abi.dwarf.items()}[register]
            name, bits = (f"x{number}", 64) if number < 32 else (f"f{number - 32}", 8 * abi.floats)
        elif abi.name == "aarch64" and name.startswith("d"):
            name = "v" + name[1:]
        found[name] = bits
    return found


def check(text, variant):
    """text: LLVM's dump. Returns whether all live registers are preserved, and what to print."""
    architecture = variant.abi.name
    functions = around(text, architecture)
    kept = {it: functions[it][0] for it in functions if it.startswith("keep_")}
    switched = {it: functions[it] for it in functions if it.startswith("switch_")}
    if len(kept) < 3 or len(switched) < 3:
        return False, f"{len(kept)} and {len(switched)} functions in the compiler's dump"
    may = set().union(*kept.values())
    clobbered = {it[0] for it in set.intersection(*(it[1] for it in switched.values()))}
    live = set().union(*(it[0] for it in switched.values()))
    back = saved(variant)
    not_clobbered = {it for it in may if it[0] not in clobbered} | live
    wrong = {
        register
        for register, bits in not_clobbered
        if register not in SPECIAL[architecture] and back.get(register, 0) < bits
    }
    sizes = f"{len({it[0] for it in may})} registers hold values, {len(live)} over a switch"
    sizes += f", {len(clobbered)} clobbered"
    if wrong:
        names = " ".join(sorted(wrong, key=order))
        return False, f"NOT SAVED and not clobbered: {names} ({sizes})"
    return True, f"{sizes}, saved {' '.join(sorted(back, key=order))}"


def order(register):
    return re.sub(r"\d+", lambda it: it[0].zfill(3), register)
