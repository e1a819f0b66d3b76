"""Unwind tables: DWARF call frame information (DWARF 5, section 6.4; for .eh_frame the Linux Standard
Base, chapter 10.6) and, on 32-bit ARM, the tables of the EHABI ("Exception Handling ABI for the
Arm Architecture", sections 6 and 10.3).

Parses the bytes of the tables and evaluates them on a symbolic machine. Both kinds give a dict
from register number to value, and from "cfa" to the frame's address. A register that is not in it
is undefined.
"""

from machine import Unknown, word


class Reader:
    def __init__(self, data, at=0):
        self.data, self.at = data, at

    def number(self, size, signed=False):
        value = int.from_bytes(self.data[self.at : self.at + size], "little", signed=signed)
        self.at += size
        return value

    def leb(self, signed=False):
        value = shift = 0
        while True:
            byte = self.number(1)
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value - (1 << shift) if signed and byte & 0x40 else value

    def block(self):
        length = self.leb()
        self.at += length
        return bytes(self.data[self.at - length : self.at])

    def string(self):
        end = self.data.index(0, self.at)
        text = bytes(self.data[self.at : end]).decode()
        self.at = end + 1
        return text


class Tables:
    """The rows of .eh_frame or, if there is none, of .debug_frame."""

    def __init__(self, image, size):
        self.size, self.entries = size, []  # (first pc, last pc + 1, cie, program)
        for name in (".eh_frame", ".debug_frame"):
            section = image.elf.get_section_by_name(name)
            if section is not None:
                self._read(section.data(), section["sh_addr"], name == ".eh_frame")

    def _read(self, data, address, eh):
        common, reader = {}, Reader(data)
        while reader.at + 4 <= len(data):
            start = reader.at
            length = reader.number(4)
            if length == 0:
                break
            end, here = reader.at + length, reader.at
            identity = reader.number(4)
            if identity == (0 if eh else 0xFFFFFFFF):
                common[start] = self._common(reader, end)
            else:
                cie = common[here - identity if eh else identity]
                first = self._pointer(reader, cie["encoding"], address)
                count = self._pointer(reader, cie["encoding"] & 0x0F, address)
                if cie["augmented"]:
                    reader.block()
                self.entries.append((first, first + count, cie, data[reader.at : end]))
            reader.at = end

    def _common(self, reader, end):
        version, augmentation = reader.number(1), reader.string()
        if version == 4:
            reader.at += 2
        cie = {"code": reader.leb(), "data": reader.leb(signed=True)}
        cie["ra"] = reader.number(1) if version == 1 else reader.leb()
        cie["encoding"], cie["augmented"] = 0, augmentation.startswith("z")
        cie["signal"] = "S" in augmentation
        if cie["augmented"]:
            extra = Reader(reader.block())
            for letter in augmentation[1:]:
                if letter == "R":
                    cie["encoding"] = extra.number(1)
                elif letter == "P":
                    extra.at += self._bytes(extra.number(1))
                elif letter == "L":
                    extra.number(1)
                elif letter != "S":
                    raise Unknown(f"the augmentation {augmentation}")
        cie["program"] = reader.data[reader.at : end]
        return cie

    def _bytes(self, encoding):
        """Of a pointer: DW_EH_PE_absptr, udata2 to udata8, sdata2 to sdata8."""
        return {0: self.size, 2: 2, 3: 4, 4: 8, 0xA: 2, 0xB: 4, 0xC: 8}[encoding & 0x0F]

    def _pointer(self, reader, encoding, address):
        place = address + reader.at
        value = reader.number(self._bytes(encoding), signed=bool(encoding & 8))
        return value + place if encoding & 0x70 == 0x10 else value

    def entry(self, pc):
        found = [it for it in self.entries if it[0] <= pc < it[1]]
        if len(found) != 1:
            raise Unknown(f"{pc:#x}: {len(found)} entries of the unwind tables")
        return found[0]

    def row(self, pc):
        """The CFA's rule and those of the registers at `pc`, and the number of the return
        address's register."""
        first, _, cie, program = self.entry(pc)
        rules, saved = {}, []
        self._advance(cie["program"], None, cie, rules, {}, saved)
        initial = dict(rules)
        self._advance(program, (first, pc), cie, rules, initial, saved)
        return rules, cie["ra"]

    def _advance(self, program, until, cie, rules, initial, saved):
        reader = Reader(program)
        at, pc = until or (0, 0)
        while reader.at < len(program):
            code = reader.number(1)
            high, low = code & 0xC0, code & 0x3F
            if high == 0x40 or code in (2, 3, 4):
                step = low if high else reader.number(1 << (code - 2))
                at += step * cie["code"]
                if until and at > pc:
                    return
            elif high == 0x80:
                rules[low] = ("offset", reader.leb() * cie["data"])
            elif high == 0xC0 or code == 6:
                register = low if high else reader.leb()
                rules.pop(register, None)
                if register in initial:
                    rules[register] = initial[register]
            elif code == 0:
                pass
            elif code in (5, 0x11):
                register = reader.leb()
                rules[register] = ("offset", reader.leb(signed=code == 0x11) * cie["data"])
            elif code == 7:
                rules[reader.leb()] = ("undefined",)
            elif code == 8:
                rules[reader.leb()] = ("same",)
            elif code == 9:
                register = reader.leb()
                rules[register] = ("register", reader.leb())
            elif code == 0x0A:
                saved.append(dict(rules))
            elif code == 0x0B:
                rules.clear()
                rules.update(saved.pop())
            elif code == 0x0C:
                register = reader.leb()
                rules["cfa"] = ("register+", register, reader.leb())
            elif code == 0x0D:
                # The CIE of binutils for riscv begins with this, without an offset.
                old = rules.get("cfa", ("register+", None, None))
                rules["cfa"] = ("register+", reader.leb(), old[2])
            elif code == 0x0E:
                rules["cfa"] = ("register+", rules["cfa"][1], reader.leb())
            elif code == 0x0F:
                rules["cfa"] = ("expression", reader.block())
            elif code in (0x10, 0x16):
                register = reader.leb()
                kind = "expression" if code == 0x10 else "value"
                rules[register] = (kind, reader.block())
            else:
                raise Unknown(f"the call frame instruction {code:#x}")

    def unwind(self, state, registers):
        """The caller's registers, by number. `registers`: number to name. What has no rule keeps
        its value; undefined registers are left out."""
        rules, ra = self.row(state.pc)
        look = state.copy()
        if "cfa" not in rules:
            raise Unknown(f"{state.pc:#x}: no CFA")
        cfa_rule = rules["cfa"]
        if cfa_rule[0] == "register+":
            if cfa_rule[2] is None:
                raise Unknown(f"{state.pc:#x}: the CFA has a register and no offset")
            cfa = look.get(registers[cfa_rule[1]]) + cfa_rule[2]
        else:
            cfa = evaluate(cfa_rule[1], look, registers, [], self.size)
        found = {"cfa": cfa}
        for number, name in registers.items():
            rule = rules.get(number, ("same",))
            width = look.processor.register(name).size
            if rule[0] == "same":
                found[number] = look.get(name)
            elif rule[0] == "register":
                found[number] = look.get(registers[rule[1]])
            elif rule[0] == "offset":
                found[number] = look.load(cfa + rule[1], width, logged=False)
            elif rule[0] == "expression":
                place = evaluate(rule[1], look, registers, [cfa], self.size)
                found[number] = look.load(place, width, logged=False)
            elif rule[0] == "value":
                found[number] = evaluate(rule[1], look, registers, [cfa], self.size)
        return found, ra


def evaluate(expression, state, registers, stack, size):
    """Returns the value of a DWARF expression (DWARF 5, section 2.5)."""
    reader = Reader(expression)
    while reader.at < len(expression):
        code = reader.number(1)
        if code == 0x06:
            stack.append(state.load(stack.pop(), size, logged=False))
        elif 0x70 <= code <= 0x8F:
            stack.append(state.get(registers[code - 0x70]) + reader.leb(signed=True))
        elif code == 0x92:
            register = reader.leb()
            stack.append(state.get(registers[register]) + reader.leb(signed=True))
        elif code == 0x23:
            stack.append(stack.pop() + reader.leb())
        elif code in (0x08, 0x09, 0x0A, 0x0B):
            stack.append(word(reader.number(1 << ((code - 8) // 2), signed=bool(code & 1)), size))
        elif 0x30 <= code <= 0x4F:
            stack.append(word(code - 0x30, size))
        elif code == 0x12:
            stack.append(stack[-1])
        elif code == 0x22:
            stack.append(stack.pop() + stack.pop())
        elif code == 0x1C:
            second = stack.pop()
            stack.append(stack.pop() - second)
        else:
            raise Unknown(f"the DWARF operation {code:#x}")
    return stack.pop()


class Ehabi:
    """The instructions of .ARM.exidx and .ARM.extab, by function."""

    def __init__(self, image):
        self.functions = []  # (address, instructions or None)
        section = image.elf.get_section_by_name(".ARM.exidx")
        if section is None:
            return
        index = section.data()
        for at in range(0, len(index), 8):
            address = self._prel31(index, at, section["sh_addr"])
            second = int.from_bytes(index[at + 4 : at + 8], "little")
            if second == 1:  # EXIDX_CANTUNWIND
                self.functions.append((address, None))
            elif second >> 31:
                self.functions.append((address, second.to_bytes(4, "big")[1:]))
            else:
                place = self._prel31(index, at + 4, section["sh_addr"])
                head = int.from_bytes(image.constant(place, 4), "little")
                if head >> 24 not in (0x80, 0x81, 0x82):
                    self.functions.append((address, None))  # not the core's
                    continue
                more = (head >> 16 & 0xFF) if head >> 24 != 0x80 else 0
                code = head.to_bytes(4, "big")[1 if head >> 24 == 0x80 else 2 :]
                for number in range(1, more + 1):
                    value = int.from_bytes(image.constant(place + 4 * number, 4), "little")
                    code += value.to_bytes(4, "big")
                self.functions.append((address, code))
        self.functions.sort(key=lambda it: it[0])

    @staticmethod
    def _prel31(data, at, address):
        value = int.from_bytes(data[at : at + 4], "little") & 0x7FFFFFFF
        return address + at + value - (value >> 30 << 31)

    def instructions(self, pc):
        before = [it for it in self.functions if it[0] <= pc]
        return before[-1][1] if before else None

    def unwind(self, state):
        """The caller's r0-r15 and d0-d15 (numbers 256 up)."""
        code = self.instructions(state.pc)
        if code is None:
            raise Unknown(f"{state.pc:#x}: no EHABI instructions")
        look, reader = state.copy(), Reader(code)
        found = {number: look.get(f"r{number}") for number in range(13)}
        doubles = [it for it in range(16) if f"d{it}" in look.processor.names]
        found.update({256 + number: look.get(f"d{number}") for number in doubles})
        found[14] = look.get("lr")
        vsp, pc = look.get("sp"), None

        def pop(registers):
            nonlocal vsp, pc
            at, vsp_popped = vsp, None
            for number in registers:
                width = 8 if number >= 256 else 4
                value = look.load(at, width, logged=False)
                at = at + width
                if number == 13:
                    vsp_popped = value
                elif number == 15:
                    pc = value
                else:
                    found[number] = value
            vsp = vsp_popped if vsp_popped is not None else at

        while reader.at < len(code):
            it = reader.number(1)
            if it < 0x40:
                vsp = vsp + 4 * it + 4
            elif it < 0x80:
                vsp = vsp - 4 * (it & 0x3F) - 4
            elif it < 0x90:
                mask = (it & 0x0F) << 8 | reader.number(1)
                pop([4 + bit for bit in range(12) if mask >> bit & 1])
            elif it < 0xA0:
                vsp = found[it & 0x0F]
            elif it < 0xB0:
                pop([*range(4, 5 + (it & 7))] + ([14] if it & 8 else []))
            elif it == 0xB0:
                break
            elif it == 0xB1:
                mask = reader.number(1)
                pop([bit for bit in range(4) if mask >> bit & 1])
            elif it == 0xB2:
                vsp = vsp + 0x204 + (reader.leb() << 2)
            elif it == 0xC9:
                both = reader.number(1)
                first, count = both >> 4, (both & 0x0F) + 1
                pop([256 + first + number for number in range(count)])
            elif 0xD0 <= it < 0xD8:
                pop([256 + 8 + number for number in range((it & 7) + 1)])
            else:
                raise Unknown(f"the EHABI instruction {it:#x}")
        found["cfa"] = vsp
        found[14] = pc if pc is not None else found[14]
        return found
