"""The contents of a linked ELF file: bytes, symbols and unwind tables at their addresses."""

import io

from elftools.elf.elffile import ELFFile


class Image:
    def __init__(self, content):
        """`content`: the file's bytes."""
        elf = ELFFile(io.BytesIO(content))
        self.elf = elf
        self.machine = elf["e_machine"]
        self.segments = []  # address, bytes as loaded, whether it is writable
        for segment in elf.iter_segments():
            if segment["p_type"] == "PT_LOAD":
                data = segment.data().ljust(segment["p_memsz"], b"\0")
                writable = bool(segment["p_flags"] & 2)
                self.segments.append([segment["p_vaddr"], bytearray(data), writable])
        table = elf.get_section_by_name(".symtab")
        if table is None:
            raise ValueError("the program has no symbols (it is stripped)")
        self.symbols = {it.name: it["st_value"] for it in table.iter_symbols() if it.name}
        self.sizes = {it.name: it["st_size"] for it in table.iter_symbols() if it.name}

    def symbol(self, name):
        """Returns the address of the core's symbol, with any version in its prefix."""
        found = [
            address
            for symbol, address in self.symbols.items()
            if symbol.startswith("greenlet_") and symbol.endswith("_" + name)
        ]
        if len(found) != 1:
            raise ValueError(f"{len(found)} symbols greenlet_…_{name}")
        return found[0]

    def code(self, name):
        """Returns the address of a routine. On arm, bit 0 of the symbol says that it is Thumb code."""
        return self.symbol(name) & (~1 if self.machine == "EM_ARM" else ~0)

    def has(self, name):
        return any(it.startswith("greenlet_") and it.endswith("_" + name) for it in self.symbols)

    def size(self, name):
        symbols = [
            it for it in self.sizes if it.startswith("greenlet_") and it.endswith("_" + name)
        ]
        return self.sizes[symbols[0]]

    def thread_local(self, name):
        """Returns the offset of a thread-local symbol from the thread pointer ("ELF Handling For
        Thread-Local Storage", variant II)."""
        segment = next(it for it in self.elf.iter_segments() if it["p_type"] == "PT_TLS")
        size, align = segment["p_memsz"], segment["p_align"]
        return self.symbol(name) - (size + align - 1) // align * align

    def constant(self, address, size):
        """Returns bytes that do not change while the program runs, or None."""
        for start, data, writable in self.segments:
            if start <= address and address + size <= start + len(data) and not writable:
                return bytes(data[address - start : address - start + size])
        return None
