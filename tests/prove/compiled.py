"""The core as rustc compiles it, for the targets of the guide and their processors: compiles
pressure/, checks the registers that the compiler keeps over a switch (clobbers.py), and proves the
core in the object code (program.py)."""

import json
import os
import re
import subprocess
import tempfile
import time

import clobbers
import program
from image import Image
from machine import Failure, Unknown
from variants import VARIANTS

PRESSURE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "pressure")

# Target, processor or features, the variant whose properties must hold, and compilers for build.rs.
# The processors are those with the most registers for the target, also with registers that its
# ABI does not mention.
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
    ("riscv64gc-unknown-none-elf", "-Ctarget-cpu=generic-rv64", "riscv64-lp64d", {}),
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
    (
        "thumbv7neon-unknown-linux-gnueabihf",
        "-Ctarget-cpu=cortex-a9",
        "arm-thumb2-hf",
        {"CC": "arm-linux-gnueabihf-gcc"},
    ),
    ("thumbv6m-none-eabi", "-Ctarget-cpu=cortex-m0", "arm-cortex-m0", {}),
    ("thumbv6m-none-eabi", "-Ctarget-cpu=cortex-m4", "arm-cortex-m0", {}),
    ("thumbv7em-none-eabihf", "-Ctarget-cpu=cortex-m7", "arm-cortex-m4f", {}),
]


def build(target, flags, compilers, fp_control):
    """Returns LLVM's dump of the functions, and the archives. There are no archives if the crate
    cannot be built; the dump is then the reason."""
    environment = {**os.environ, "RUSTFLAGS": flags}
    for key, value in compilers.items():
        environment[f"{key}_{target.replace('-', '_')}"] = value
    command = [
        "cargo",
        "rustc",
        "--quiet",
        "--release",
        "--locked",
        "--message-format=json-render-diagnostics",
        f"--target={target}",
        "--target-dir",
        os.path.join(os.environ["GREENLET_PROVE_TARGET"], "pressure"),
        "--manifest-path",
        os.path.join(PRESSURE, "Cargo.toml"),
        *(["--features=fp-control"] if fp_control else []),
        "--",
        "-Cllvm-args=-print-after=virtregrewriter",
        "-Ccodegen-units=1",
        # A different one each time forces a compilation, because the dump is not kept.
        f"-Cmetadata={os.getpid()}-{time.time_ns()}",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        return done.stderr, []
    artifacts = [json.loads(line) for line in done.stdout.splitlines()]
    names = [name for it in artifacts for name in it.get("filenames", [])]
    return done.stderr, [it for it in names if it.endswith(".rlib") and target in it]


def check(row):
    """Checks a row of the table. Returns whether it is proved, and what to print."""
    target, flags, name, compilers = row
    variant = next(it for it in VARIANTS if it.name == name)
    head = f"asm! for {target}, {flags.split('=')[-1]}"
    text, archives = build(target, flags, compilers, "fp-control" in name)
    if not archives:
        refusal = re.search(r"greenlet cannot be built with .*", text)
        if refusal:
            return True, f"{head}: not built, {refusal[0]}"
        return False, f"{head}: it cannot be compiled\n  " + "\n  ".join(text.splitlines()[-15:])
    passed, line = clobbers.check(text, variant)
    if not passed:
        return False, f"{head}: {line}"
    with tempfile.TemporaryDirectory() as work:
        linked = os.path.join(work, "linked")
        link = [*variant.linker(), "--undefined=prepare", "--entry=prepare", "-o", linked]
        link += ["--unresolved-symbols=ignore-all", "--start-group", *archives, "--end-group"]
        done = subprocess.run(link, capture_output=True, text=True)
        if done.returncode:
            return False, f"{head}: {done.stderr}"
        try:
            proved = program.prove(linked, [name])
            with open(linked, "rb") as file:
                program.prove_prepare(Image(file.read()), variant)
        except (Failure, Unknown, LookupError, ValueError) as failure:
            return False, f"{head}: NOT PROVED\n  {failure}"
    return True, f"{head}: {line}; {proved}"
