"""Cycles of references through suspended greenlets, which CPython collects since 3.15.

Before that `tp_is_gc` exempts them from collection, as in the released greenlet.
"""

import gc
import sys
import unittest

import greenlet


class Holder:
    greenlet = None


@unittest.skipIf(sys.version_info < (3, 15), "this CPython exempts suspended greenlets")
class Cycle(unittest.TestCase):
    def is_killed(self, suspend):
        """Whether a greenlet that is suspended by this call, to which its own frame leads, is."""
        main = greenlet.getcurrent()
        killed = []

        def start():
            holder = Holder()

            def body():
                try:
                    suspend(main, holder)
                except greenlet.GreenletExit:
                    killed.append(True)

            holder.greenlet = greenlet.greenlet(body)
            try:
                holder.greenlet.switch()
            except KeyError:
                pass

        start()
        gc.collect()
        return bool(killed)

    def test_through_its_frame_is_collected(self):
        self.assertTrue(self.is_killed(lambda main, _: main.switch()))

    def test_through_what_its_switch_has_passed_on_is_collected(self):
        # The released greenlet has these on the C stack, where no collector finds them.
        self.assertTrue(self.is_killed(lambda main, holder: main.switch(holder)))
        self.assertTrue(self.is_killed(lambda main, holder: main.switch(1, holder)))
        self.assertTrue(self.is_killed(lambda main, holder: main.switch(holder=holder)))
        self.assertTrue(self.is_killed(lambda main, holder: main.throw(KeyError(holder))))

    def test_whose_greenlet_is_still_referenced_is_kept(self):
        main = greenlet.getcurrent()
        it = greenlet.greenlet(lambda it: main.switch(it) or "resumed")
        it.switch(it)
        gc.collect()
        self.assertFalse(it.dead)
        self.assertEqual(it.switch(()), "resumed")


if __name__ == "__main__":
    unittest.main()
