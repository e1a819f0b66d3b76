"""Mutants: cores with one fault, which the prover must refuse. A fault that it does not notice shows
a property that it does not prove.

They are made from the preprocessed source, so that each can be read. `equivalent.txt` lists those
that are equivalent to the core, with the reason; any other that is proved is a failure."""

import os
import re

NUMBERED = {
    "x86_64": [
        "r8 r9 r10 r11 r12 r13 r14 r15",
        "rax rcx rdx rbx rsp rbp rsi rdi",
        "r8d r9d",
        "r8w r9w",
    ],
    "aarch64": [
        " ".join(f"x{it}" for it in range(31)),
        " ".join(f"d{it}" for it in range(32)),
        "sp x9",
    ],
    "riscv": [
        "s0 s1 s2 s3 s4 s5 s6 s7 s8 s9 s10 s11",
        "a0 a1 a2 a3 a4",
        "ra t0 t1 t2",
        "fs0 fs1 fs2 fs3 fs4 fs5 fs6 fs7 fs8 fs9 fs10 fs11",
        "sp s0",
    ],
    "arm": [
        "r0 r1 r2 r3 r4 r5 r6 r7 r8 r9 r10 r11 r12",
        "sp r12",
        "d8 d9 d10 d11 d12 d13 d14 d15",
    ],
}
OTHERS = {  # pattern: replacements
    "x86_64": {
        r"jmp rax": ["call rax", "push rax; ret", "jmp rdx"],
        r"notrack jmp": ["jmp"],
        r"\bje\b": ["jne", "jmp"],
        r"\bjne\b": ["je", "jmp"],
        r"\bjnz\b": ["jz"],
        r"\bldmxcsr\b": ["stmxcsr"],
        r"\bstmxcsr\b": ["ldmxcsr"],
        r"\bfnstcw\b": ["fldcw"],
        r"\bfldcw\b": ["fnstcw"],
        r", rsp$": [", esp"],
        r"word ptr": ["byte ptr"],
        r"\bcmp r9w\b": ["cmp r9b"],
        r"-64|0xffffffc0": ["0xffc0", "0xffffff00"],
    },
    "aarch64": {
        r"\bbr x9": ["ret x9", "blr x9", "br x2"],
        r"\b([ls])tp x": [r"\1tp w"],
        r"\bldp x(\d+), x(\d+)": [r"ldp w\1, w\2"],
        r"\bstp x(\d+), x(\d+)": [r"stp w\1, w\2"],
        r"hint #36": ["hint #34", "nop"],
        r"\bldr x": ["ldr w"],
    },
    "riscv": {
        r"\bsd\b": ["sw"],
        r"\bld\b": ["lw"],
        r"\bsw\b": ["sh"],
        r"\blw\b": ["lh"],
        r"\bjr t2": ["jr ra", "jalr t2", "jr t1"],
    },
    "arm": {
        r"\bbx r4": ["blx r4", "mov pc, r4", "bx lr"],
        r"\bblx r4": ["bx r4", "blx r5"],
        r"\bldr\b": ["ldrh"],
        r"\bstr\b": ["strh"],
    },
}
# Forbidden effects: a store below the stack pointer or to memory that the switch does not own, or a
# change of a register of the thread.
ANYWHERE = {
    "x86_64": [
        "mov [rsp - 8], rax",
        "mov [rsp + 200], rax",
        "mov [rsi - 8], rax",
        "std",
        "mov rax, [rsp - 8]",
        "wrfsbase rdx",
    ],
    "aarch64": [
        "str x9, [sp, #-8]",
        "str x9, [sp, #400]",
        "str x9, [x1, #-8]",
        "mov x18, x2",
        "ldr x9, [sp, #-8]",
    ],
    "riscv": [
        "sw t0, -8(sp)",
        "sw t0, 400(sp)",
        "sw t0, -8(a1)",
        "mv tp, a2",
        "mv gp, a2",
        "lw t0, -8(sp)",
    ],
    "arm": ["str r3, [sp, #-4]", "str r3, [sp, #400]", "push {r3}"],
}
# Instructions that destroy the message.
MESSAGE = {
    "x86_64": ["xor edx, 1", "lea rcx, [rcx + 1]"],
    "aarch64": ["mov w2, w2", "mov w3, w3"],
    "riscv": ["slli a2, a2, 1", "addi a3, a3, 1"],
    "arm": ["adds r2, #1", "adds r3, #1"],
}
# Instructions that destroy a callee-saved register, before it is saved or after it was restored.
AT_THE_ENDS = {
    "x86_64": ["inc rbx", "lea rbp, [rbp + 8]"],
    "aarch64": ["add x19, x19, #1", "mov w29, w29"],
    "riscv": ["addi s1, s1, 1", "mv s0, a0"],
    "arm": ["mov r9, r2", "mov r6, r2", "mov r7, r2", "mov r11, r2"],
}
LAST = re.compile(r"(notrack )?(jmp rax|br x9|jr t2|bx r4)")
MOVES_SP = re.compile(r"\b(push|pop|vpush|vpop)\b|^(sub|add|addi|mov|mv) (rsp|sp)\b|ld(r)? sp")


class Mutant:
    def __init__(self, kind, name, text):
        self.kind, self.name, self.text = kind, name, text


def used(lines, in_line):
    """Returns the macros that are part of the inlined text or of a routine."""
    bodies, outside, body = {}, [], None
    for line in map(str.strip, lines):
        begin = re.match(r"\.macro ([A-Z_0-9]+)$", line)
        if begin:
            body = bodies.setdefault(begin[1], [])
        elif line == ".endm":
            body = None
        else:
            (outside if body is None else body).append(line)
    found, pending = set(), [in_line, *outside]
    while pending:
        name = pending.pop()
        if name in bodies and name not in found:
            found.add(name)
            pending += bodies[name]
    return found


def mutants(text, abi, in_line):
    """in_line: the inlined macro. Macros that it does not use are not changed."""
    architecture, lines, routine = abi.name, text.splitlines(), None
    wanted = used(lines, in_line)
    for number, line in enumerate(lines):
        code = line.strip()
        begin = re.match(
            r"(?:FUNCTION|LABEL) greenlet_\w*?_([a-z]+(?:_pc)?)\b|\.macro ([A-Z_0-9]+)$", code
        )
        if begin:
            routine = begin[1] or begin[2]
            if begin[2] and begin[2] not in wanted:
                routine = None
        if code == ".endm" or code.startswith("END_FUNCTION") or routine in ("site", "odd"):
            routine = None
        if (
            begin
            or not routine
            or not code
            or not line.startswith((" ", "\t"))
            or code.startswith(
                (
                    "LABEL",
                    ".macro",
                    ".if",
                    ".else",
                    ".endif",
                    ".type",
                    ".cfi_startproc",
                    ".cfi_endproc",
                    ".fnstart",
                    ".fnend",
                    ".section",
                    ".p2align",
                )
            )
        ):
            continue

        def mutant(kind, *new):
            after = [*lines[:number], *("    " + it for it in new), *lines[number + 1 :]]
            shown = " / ".join(new) or "(nothing)"
            return Mutant(kind, f"{routine}: {code} -> {shown}", "\n".join(after) + "\n")

        table = "table " if code.startswith(".") else ""
        yield mutant(table + "delete")
        for row in NUMBERED[architecture]:
            row = row.split()
            for found in re.finditer(r"\b[a-z]+\d*[dw]?\b", code):
                if found[0] in row and not found[0].startswith("cfi"):
                    other = row[(row.index(found[0]) + 1) % len(row)]
                    yield mutant(
                        table + "register", code[: found.start()] + other + code[found.end() :]
                    )
        # In a table, only a number that is a whole operand: of a sum, the assembler drops bits.
        numbers = (
            r"(?<=[ ,])(\d+|0x[0-9a-f]+)(?=,|$)" if table else r"(?<![\w.])#?(\d+|0x[0-9a-f]+)\b"
        )
        for found in re.finditer(numbers, code):
            value = int(found[1], 0)
            if code.startswith(".unwind_raw") and found.start() < 14:
                continue  # the distance of sp, which makes no difference here
            for step in (abi.word, -abi.word) if not code.startswith(".unwind") else (1, 0x10):
                if found[1] != code.split()[0] and (value + step >= 0 or not table):
                    new = found[0].replace(found[1], str(value + step))
                    yield mutant(
                        table + "offset", code[: found.start()] + new + code[found.end() :]
                    )
        if not table:
            for pattern, replacements in OTHERS[architecture].items():
                for replacement in replacements:
                    if re.search(pattern, code):
                        yield mutant("jump or width", re.sub(pattern, replacement, code, count=1))
            inserted = list(ANYWHERE[architecture])
            if not routine.startswith("entry"):
                inserted += MESSAGE[architecture]
            first = lines[number - 1].strip() == ".macro SAVE"
            if first or LAST.fullmatch(code):
                inserted += AT_THE_ENDS[architecture]
            for it in inserted:
                yield mutant("inserted", it, code)
            following = next(
                (
                    it
                    for it in range(number + 1, len(lines))
                    if lines[it].startswith(" ") and not lines[it].strip().startswith(".")
                ),
                None,
            )
            if following is not None:
                other = lines[following].strip()
                both = (bool(MOVES_SP.search(code)), bool(MOVES_SP.search(other)))
                plain = other if both[0] else code  # it matters only to what uses memory or sp
                if both[0] != both[1] and re.search(r"\bsp\b|rsp|\[|\(", plain):
                    swapped = list(lines)
                    swapped[number], swapped[following] = lines[following], lines[number]
                    yield Mutant(
                        "order", f"{routine}: {code} <-> {other}", "\n".join(swapped) + "\n"
                    )


def equivalents():
    """(pattern of the variants, pattern of the mutants, reason)"""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "equivalent.txt")
    rows = []
    with open(path) as file:
        for line in file:
            line = line.rstrip("\n")
            if line and not line.startswith("#"):
                variants, pattern, reason = line.split(" | ")
                rows.append((re.compile(variants), re.compile(pattern), reason))
    return rows
