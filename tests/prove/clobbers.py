"""The `asm!` blocks: what the compiler keeps in registers over a switch is saved by the core.

The core gives back what a variant's `kept` says, which is proved. All other registers that the
compiler may keep a value in must be declared clobbered by the `asm!`. Which these are, for a target and
a processor, rustc says itself: pressure/src/lib.rs is compiled, and LLVM's dump of the functions after
register allocation shows what lives in which register over the block.
"""

import os
import re
import subprocess
import time

from variants import VARIANTS

PRESSURE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "pressure")

# Target, processor or features, the variant whose promises hold, and compilers for build.rs. The
# processors are those with the most registers that the target allows, above all those with registers
# that its ABI does not know.
ROWS = [
    ("x86_64-unknown-linux-gnu", "-Ctarget-cpu=x86-64", "x86_64", {}),
    ("x86_64-unknown-linux-gnu", "-Ctarget-cpu=sapphirerapids", "x86_64-fp-control", {}),
    ("x86_64-unknown-linux-gnu", "-Ctarget-cpu=diamondrapids", "x86_64", {}),
    (
        "aarch64-unknown-linux-gnu",
        "-Ctarget-cpu=generic",
        "aarch64",
        {"CC": "aarch64-linux-gnu-gcc"},
    ),
    (
        "aarch64-unknown-linux-gnu",
        "-Ctarget-cpu=neoverse-v2",
        "aarch64",
        {"CC": "aarch64-linux-gnu-gcc"},
    ),
    (
        "riscv64gc-unknown-linux-gnu",
        "-Ctarget-cpu=generic-rv64",
        "riscv64-lp64d",
        {"CC": "riscv64-linux-gnu-gcc"},
    ),
    (
        "riscv64gc-unknown-linux-gnu",
        "-Ctarget-cpu=sifive-x280",
        "riscv64-lp64d",
        {"CC": "riscv64-linux-gnu-gcc"},
    ),
    ("riscv64imac-unknown-none-elf", "-Ctarget-cpu=generic-rv64", "riscv64-lp64", {}),
    ("riscv64imac-unknown-none-elf", "-Ctarget-cpu=sifive-u74", "riscv64-lp64", {}),
    ("riscv32imac-unknown-none-elf", "-Ctarget-cpu=generic-rv32", "riscv32-ilp32", {}),
    ("riscv32imac-unknown-none-elf", "-Ctarget-cpu=sifive-e76", "riscv32-ilp32", {}),
    (
        "armv7-unknown-linux-gnueabihf",
        "-Ctarget-cpu=cortex-a5",
        "arm-v7-hf",
        {"CC": "arm-linux-gnueabihf-gcc"},
    ),
    (
        "armv7-unknown-linux-gnueabihf",
        "-Ctarget-cpu=cortex-a72",
        "arm-v7-hf",
        {"CC": "arm-linux-gnueabihf-gcc"},
    ),
    ("thumbv6m-none-eabi", "-Ctarget-cpu=cortex-m0", "arm-cortex-m0", {}),
    ("thumbv6m-none-eabi", "-Ctarget-cpu=cortex-m4", "arm-cortex-m0", {}),
    ("thumbv7em-none-eabihf", "-Ctarget-cpu=cortex-m7", "arm-cortex-m4f", {}),
]


def dump(target, flags, compilers, fp_control):
    """LLVM's text of the functions, or None and the reason if the crate is not to be had there."""
    name = target.replace("-", "_")
    environment = {
        **os.environ,
        "RUSTFLAGS": flags,
        **{f"{key}_{name}": value for key, value in compilers.items()},
    }
    work = os.path.join(os.environ["GREENLET_PROVE_TARGET"], "pressure")
    command = [
        "cargo",
        "rustc",
        "--quiet",
        "--release",
        "--locked",
        "--target",
        target,
        "--target-dir",
        work,
        "--manifest-path",
        os.path.join(PRESSURE, "Cargo.toml"),
        *(["--features=fp-control"] if fp_control else []),
        # Another name each time, so that it is compiled each time: the dump is not kept.
        "--",
        "-Cllvm-args=-print-after=virtregrewriter",
        "-Ccodegen-units=1",
        f"-Cmetadata={os.getpid()}-{time.time_ns()}",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return done.returncode, done.stderr


def unit(register, architecture):
    """LLVM's name of a register as (what it is a part of, bits)."""
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
    """For each function with an `asm!` block: what is live over the block, and what it clobbers."""
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
    """What the core gives back, as in `unit`."""
    abi = variant.abi
    found = {}
    for register in variant.places.kept:
        name, bits = register.lower(), 64
        if abi.name == "riscv":
            number = {value: key for key, value in abi.dwarf.items()}[register]
            name, bits = (f"x{number}", 64) if number < 32 else (f"f{number - 32}", 8 * abi.floats)
        elif abi.name == "aarch64" and name.startswith("d"):
            name = "v" + name[1:]
        found[name] = bits
    return found


def check(row):
    """One row of the table: whether all is saved or clobbered, and what to print."""
    target, flags, name, compilers = row
    variant = next(it for it in VARIANTS if it.name == name)
    head = f"asm! for {target}, {flags.split('=')[-1]}"
    code, text = dump(target, flags, compilers, "fp-control" in name)
    if code:
        refusal = re.search(r"greenlet cannot be built with .*", text)
        if refusal:
            return True, f"{head}: not built, {refusal[0]}"
        return False, f"{head}: it cannot be compiled\n  " + "\n  ".join(text.splitlines()[-15:])
    functions = around(text, variant.abi.name)
    kept = {it: functions[it][0] for it in functions if it.startswith("keep_")}
    switched = {it: functions[it] for it in functions if it.startswith("switch_")}
    if len(kept) < 3 or len(switched) < 3:
        return False, f"{head}: {len(kept)} and {len(switched)} functions in the compiler's dump"
    may = set().union(*kept.values())
    clobbered = {it[0] for it in set.intersection(*(it[1] for it in switched.values()))}
    live = set().union(*(it[0] for it in switched.values()))
    back = saved(variant)
    special = (
        {"rsp", "rip", "sp", "x2", "zero", "x0", "pc", "cpsr", "itstate", "xzr"}
        if variant.abi.name != "aarch64"
        else {"sp", "xzr"}
    )
    wrong = {
        register
        for register, bits in may
        if register not in special and register not in clobbered and back.get(register, 0) < bits
    } | {
        register
        for register, bits in live
        if register not in special and back.get(register, 0) < bits
    }
    sizes = f"{len({it[0] for it in may})} registers hold values, {len(live)} over a switch, {len(clobbered)} clobbered"
    if wrong:
        return (
            False,
            f"{head}: NOT SAVED and not clobbered: {' '.join(sorted(wrong, key=order))} ({sizes})",
        )
    return True, f"{head}: {sizes}; saved {' '.join(sorted(back, key=order))}"


def order(register):
    return re.sub(r"\d+", lambda it: it[0].zfill(3), register)
