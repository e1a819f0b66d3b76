"""Commands of gdb for greenlets in a process or a core file, with or without debug information.

    greenlets [-l]              lists every greenlet and its frames; -l: without the frames
    greenlet NUMBER             prints all frames of a greenlet, then those of its parents
    greenlet NUMBER COMMAND     executes COMMAND in a greenlet's frames: up 3, info locals, ...

If several threads have greenlets, NUMBER is THREAD.NUMBER. A printer shows Greenlet, Current and
Block values as the greenlet that they refer to.

gdb loads this script from a program that has debug information, if its auto-load safe-path allows
that. Otherwise use `source`. Where the kernel makes guards (Linux 6.13), gdb's gcore leaves the
stacks of greenlets out: let the kernel write the core file.

The crate's src/diagnostics/debugger.rs says where the lists of greenlets are found.
"""

import gdb
import gdb.unwinder

# The context of a suspended greenlet, by architecture: the size of a register in bytes, and the
# offset of each by gdb's name. tests/audit.rs compares this with asm/.
CONTEXTS = {
    "x86_64": (8, {"rbp": 0, "rip": 8, "rsp": 16, "rbx": 24}),
    "aarch64": (8, {"x29": 0, "pc": 8, "sp": 16, "x19": 24}),
    "riscv64": (8, {"s0": 0, "pc": 8, "sp": 16, "s1": 24}),
    "riscv32": (4, {"s0": 0, "pc": 4, "sp": 8, "s1": 12}),
    "arm": (4, {"r11": 0, "pc": 4, "sp": 8, "r6": 12, "r7": 16, "r9": 20}),
}

# The states, as the crate numbers them. An active greenlet runs or is suspended.
PENDING, ACTIVE, BUSY, DEAD = range(4)

# Where a walk through a list ends: a longer one is corrupt.
MAX_LENGTH = 10_000_000


def architecture():
    """Returns the key of CONTEXTS for the selected inferior."""
    name = gdb.selected_inferior().architecture().name()
    for prefix, known in (("i386:x86-64", "x86_64"), ("aarch64", "aarch64"),
                          ("riscv:rv32", "riscv32"), ("riscv", "riscv64"), ("arm", "arm")):
        if name.startswith(prefix):
            return known
    raise gdb.GdbError("greenlet does not support the architecture " + name)


def read(address, size):
    return gdb.selected_inferior().read_memory(address, size).tobytes()


def number(address, size=None):
    """Reads an unsigned integer; without a size, one of a register's."""
    order = "big" if "big" in gdb.execute("show endian", to_string=True) else "little"
    return int.from_bytes(read(address, size or CONTEXTS[architecture()][0]), order)


class Anchor:
    """The crate's description of itself (src/diagnostics/debugger.rs): where the list of threads begins,
    and the offsets of fields in threads and blocks."""

    def __init__(self, address):
        def field(index):
            return number(address + 8 + index * CONTEXTS[architecture()][0])

        if field(0) != 3:
            raise gdb.GdbError("this greenlet-gdb.py is for another version of the crate")
        (self.size, self.first, self.parent, self.unscoped, self.member, self.root, self.state,
         self.waits_for, self.next, self.number, self.name, self.home) = map(field, range(1, 13))
        self.address = address

    @staticmethod
    def all():
        """Yields the anchor of each copy of the crate in the process, found by the name of its section."""
        seen = set()    # gdb lists the sections of a relocated program twice
        for line in gdb.execute("info files", to_string=True).splitlines():
            words = line.split()
            if len(words) < 5 or words[1] != "-" or words[3:5] != ["is", ".greenlet"]:
                continue
            at, end = int(words[0], 16), int(words[2], 16)
            try:
                while at < end and at not in seen and read(at, 8) == b"greenlet":
                    seen.add(at)
                    anchor = Anchor(at)
                    yield anchor
                    at += anchor.size
            except gdb.MemoryError:
                continue    # nothing is loaded yet

    def threads(self):
        word = CONTEXTS[architecture()][0]
        # Two words, then an integer of eight bytes, without padding between them.
        for place in chain(number(self.address + self.first), lambda place: number(place)):
            if number(place + word):
                yield Thread(self, number(place + word), number(place + 2 * word, 8),
                             number(place + 2 * word + 8))


def chain(first, following):
    """Yields the addresses of a linked list, of which `following` returns the next."""
    at, seen = first, 0
    while at and seen < MAX_LENGTH:
        yield at
        at, seen = following(at), seen + 1


class Thread:
    def __init__(self, anchor, address, system, running):
        self.anchor = anchor
        self.running = number(running) & ~1
        self.address = address
        threads = gdb.selected_inferior().threads()
        by_number = [thread for thread in threads if system and system in thread.ptid]
        # After a fork the number is still that of the parent's thread, and there is one thread.
        self.gdb = (by_number or (threads if len(threads) == 1 else [None]))[0]

    def greenlets(self):
        """Returns the thread's greenlets by number."""
        anchor = self.anchor

        def members(registry):
            return chain(number(registry + anchor.member), lambda at: number(at + anchor.next))

        blocks = list(members(self.address + anchor.unscoped))
        homes = [(block, number(block + anchor.home)) for block in blocks]
        for block, home in homes:
            if home and number(home + anchor.root) == block:
                blocks += members(home)
        return sorted((Greenlet(anchor, block, self) for block in blocks),
                      key=lambda block: block.number)


class Greenlet:
    def __init__(self, anchor, address, thread=None):
        self.anchor, self.address, self.thread = anchor, address, thread
        self.number = number(address + anchor.number, 8)
        self.state = number(address + anchor.state, 1)

    def another(self, address):
        return Greenlet(self.anchor, address, self.thread) if address else None

    @property
    def parent(self):
        return self.another(number(self.address + self.anchor.parent))

    @property
    def waits_for(self):
        return self.another(number(self.address + self.anchor.waits_for))

    def __str__(self):
        name = self.address + self.anchor.name
        text = "<greenlet "
        if number(name):
            length = number(name + CONTEXTS[architecture()][0])
            text += '"%s" ' % read(number(name), min(length, 200)).decode("utf-8", "replace")
        active = "current" if self.runs() else "suspended"
        text += "#%d %s" % (self.number, {PENDING: "pending", ACTIVE: active + " active started",
                                          BUSY: "busy active started", DEAD: "dead"}[self.state])
        return text + (" main>" if not self.parent and self.state != DEAD else ">")

    def runs(self):
        threads = [self.thread] if self.thread else self.anchor.threads()
        return any(thread.running == self.address for thread in threads)

    def top(self):
        """Returns the greenlet that has the innermost frame on this one's stack: itself, or a root."""
        top = self
        for _ in chain(self.address, lambda _: top.address):
            above = top.waits_for
            if not above or above.parent:
                break
            top = above
        return top

    def registers(self):
        """Returns the registers in its context, by gdb's name."""
        _, context = CONTEXTS[architecture()]
        registers = {name: number(self.address + offset) for name, offset in context.items()}
        if architecture() == "arm":
            registers["pc"] &= ~1
        return registers


class ContextUnwinder(gdb.unwinder.Unwinder):
    """While it has the registers of a context, it presents the frame in which that context is suspended
    as the caller of the innermost frame. The thread's own registers are not changed: they may be
    in a core file, and a process continues with them."""

    class Id:
        def __init__(self, pc):
            # Below all stacks: gdb rejects a caller whose stack ends below that of its callee.
            self.sp, self.pc = gdb.Value(0), pc

    def __init__(self):
        super().__init__("greenlet")
        self.registers = self.innermost = None

    def __call__(self, pending):
        if self.registers is None:
            return None
        at = [int(pending.read_register(name)) for name in ("sp", "pc")]
        if self.innermost is None:
            self.innermost = at
        if at != self.innermost:
            return None
        info = pending.create_unwind_info(self.Id(pending.read_register("pc")))
        for name, value in self.registers.items():
            info.add_saved_register(name, gdb.Value(value).cast(pending.read_register(name).type))
        return info

    def use(self, registers):
        """Presents these registers, or none, from now on."""
        self.registers, self.innermost = registers, None
        gdb.invalidate_cached_frames()


UNWINDER = ContextUnwinder()


class Selected:
    """Selects a greenlet's thread and stack in a `with` statement, whose value is its innermost frame."""

    def __init__(self, greenlet):
        self.top = greenlet.top()
        self.thread = greenlet.thread

    def __enter__(self):
        self.before = gdb.selected_thread()
        if self.top.runs():
            if not self.thread.gdb:
                raise gdb.GdbError("the greenlet runs on a thread that gdb does not know")
            self.thread.gdb.switch()
            return gdb.newest_frame()
        UNWINDER.use(self.top.registers())
        return gdb.newest_frame().older()

    def __exit__(self, *_):
        UNWINDER.use(None)
        if self.before and self.before.is_valid():
            self.before.switch()


def print_frames(greenlet, parents):
    """Prints the frames of a greenlet and, on request, those of its parents."""
    if greenlet.state in (PENDING, DEAD):
        return
    with Selected(greenlet) as frame:
        index = 0
        while frame is not None and frame.is_valid():
            name = frame.name()
            if name and name.startswith("greenlet_") and name.endswith(("_entry", "_entry_pc")):
                # The bottom of the greenlet's stack. Its caller is a frame of the parent.
                if not parents:
                    break
            line = frame.find_sal()
            where = ""
            if line.symtab:
                where = " at %s:%d" % (line.symtab.filename, line.line)
            print("    #%-3d 0x%016x in %s ()%s" % (index, frame.pc(), name or "??", where))
            try:
                frame = frame.older()
            except gdb.error as error:
                print("    (%s)" % error)
                break
            index += 1


def all_threads():
    return [thread for anchor in Anchor.all() for thread in anchor.threads()]


class ListCommand(gdb.Command):
    """Lists every greenlet: number, name, state, parent and frames. -l: without the frames."""

    def __init__(self):
        super().__init__("greenlets", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        self.dont_repeat()
        threads = all_threads()
        if not threads:
            print("No greenlets.")
        for thread in threads:
            print("Thread %s:" % (thread.gdb.num if thread.gdb else "unknown to gdb"))
            for greenlet in thread.greenlets():
                parent = greenlet.parent
                print("  %s%s" % (greenlet, ", parent #%d" % parent.number if parent else ""))
                if argument.strip() == "-l":
                    continue
                try:
                    print_frames(greenlet, False)
                except gdb.error as error:
                    print("    (%s)" % error)


class OneCommand(gdb.Command):
    """Prints the frames of a greenlet and its parents, or executes a command in its frames.

    greenlet [THREAD.]NUMBER [COMMAND]"""

    def __init__(self):
        super().__init__("greenlet", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        self.dont_repeat()
        wanted, _, command = argument.strip().partition(" ")
        thread_number, _, greenlet_number = wanted.rpartition(".")
        found = [greenlet for thread in all_threads()
                 if not thread_number or thread.gdb and str(thread.gdb.num) == thread_number
                 for greenlet in thread.greenlets() if str(greenlet.number) == greenlet_number]
        if len(found) != 1:
            raise gdb.GdbError("%d greenlets have this number; name one as [THREAD.]NUMBER" % len(found))
        print(found[0])
        if not command:
            print_frames(found[0], True)
        elif found[0].state in (PENDING, DEAD):
            raise gdb.GdbError("the greenlet has no frames")
        else:
            with Selected(found[0]) as frame:
                frame.select()
                gdb.execute(command)


class Printer:
    """Prints the greenlet at an address."""

    def __init__(self, address):
        self.address = address

    def to_string(self):
        try:
            return self.describe()
        except gdb.MemoryError:
            return hex(self.address)

    def describe(self):
        anchors = list(Anchor.all())
        for anchor in anchors if len(anchors) > 1 else []:
            for thread in anchor.threads():
                for greenlet in thread.greenlets():
                    if greenlet.address == self.address:
                        return str(greenlet)
        return str(Greenlet(anchors[0], self.address)) if anchors else hex(self.address)


def printer(value):
    """Returns a Printer for a Greenlet, WeakGreenlet, Current or Block, or a reference to one."""
    kind = value.type.strip_typedefs()
    pointer = kind.code in (gdb.TYPE_CODE_PTR, gdb.TYPE_CODE_REF)
    name = (kind.target().strip_typedefs() if pointer else kind).name or ""
    current = "greenlet::handles::current::Current<"
    if name.startswith(current) or name == "greenlet::tree::block::Block":
        address = value if pointer else value.address
        return Printer(int(address)) if address is not None else None
    handles = ("greenlet::handles::greenlet::Greenlet<", "greenlet::handles::weak::WeakGreenlet<")
    if name.startswith(handles):
        if pointer:
            value = value.dereference()
        # Unwraps the handle: at each level all fields but one have size zero.
        while value.type.strip_typedefs().code == gdb.TYPE_CODE_STRUCT:
            fields = [field for field in value.type.fields() if field.type.sizeof]
            if len(fields) != 1:
                return None
            value = value[fields[0]]
        try:
            return Printer(int(value))
        except gdb.MemoryError:
            return None
    return None


printer.name = "greenlet"
printer.enabled = True

ListCommand()
OneCommand()
gdb.unwinder.register_unwinder(None, UNWINDER, replace=True)
gdb.pretty_printers[:] = [printer] + [known for known in gdb.pretty_printers
                                      if getattr(known, "name", "") != "greenlet"]
