"""Decides whether a property holds, by the solver if terms are not identical, and prints a failure."""

import z3

from machine import Failure


class Questions:
    def __init__(self, image, processor):
        self.image, self.processor = image, processor
        processor.feasible = self.feasible
        self.solver = z3.Solver()
        self.solver.set("timeout", 60_000)
        self.checks = self.asked = 0  # conditions, and calls of the solver

    def feasible(self, path):
        self.asked += 1
        return self.solver.check(path) != z3.unsat

    def require(self, condition, what, pc):
        self.checks += 1
        if not condition:
            raise Failure(f"{self.place(pc)}: {what}")

    def equal(self, what, pc, left, right, path, mask=None):
        """Checks that `left` is `right` for all values of the symbols that satisfy `path`."""
        self.checks += 1
        if left is right:
            return
        if mask is not None:
            left, right = left & mask, right & mask
        left, right = z3.simplify(left), z3.simplify(right)
        if left.eq(right):
            return
        self.asked += 1
        answer = self.solver.check([*path, left != right])
        if answer == z3.unsat:
            return
        lines = [
            f"{self.place(pc)}: {what}",
            f"    is         {shorten(left)}",
            f"    should be  {shorten(right)}",
        ]
        if answer == z3.sat:
            model = self.solver.model()
            values = [
                f"{it.name()} = {model[it].as_long():#x}"
                for it in model.decls()
                if z3.is_bv_value(model[it])
            ]
            lines.append("    when       " + (", ".join(sorted(values)[:12]) or "always"))
        else:
            lines.append("    (the solver does not know)")
        raise Failure("\n".join(lines))

    def place(self, pc):
        """Returns the routine, the offset and the instruction as text."""
        for name in ("site", "odd", "resume", "entry"):
            if self.image.has(name):
                start = self.image.code(name)
                if start <= pc < start + self.image.size(name):
                    shown = {"site": "SWITCH", "odd": "SWITCH"}.get(name, name)
                    return f"{shown}+{pc - start:#x}: {self.processor.text(pc)}"
        return f"{pc:#x}: {self.processor.text(pc)}"


def shorten(term):
    if z3.is_bv_value(term):
        return hex(term.as_long())
    text = " ".join(str(term).split())
    return text if len(text) < 160 else text[:157] + "..."
