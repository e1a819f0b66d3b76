"""Runs tests of unittest and writes what became of each, a line as soon as it is known.

    python record.py FILE MODULE…      FILE receives lines of JSON: [test, outcome]

A process that crashes has then told of all tests but one: the one with the outcome "began".
A MODULE that is a package stands for all of its test_*.py.
"""

import json
import sys
import unittest


class Recorder(unittest.TextTestResult):
    file = None

    def tell(self, test, outcome):
        self.file.write(json.dumps([test.id(), outcome]) + "\n")
        self.file.flush()

    def startTest(self, test):
        super().startTest(test)
        self.tell(test, "began")

    def addSuccess(self, test):
        super().addSuccess(test)
        self.tell(test, "passed")

    def addError(self, test, err):
        super().addError(test, err)
        self.tell(test, "failed")

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.tell(test, "failed")

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.tell(test, "failed")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.tell(test, "skipped")

    def addExpectedFailure(self, test, err):
        super().addExpectedFailure(test, err)
        self.tell(test, "passed")

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.tell(test, "failed")


def main():
    path, *modules = sys.argv[1:]
    loader = unittest.TestLoader()
    suite = unittest.TestSuite()
    for name in modules:
        module = __import__(name, fromlist=["__path__"])
        if hasattr(module, "__path__"):
            suite.addTests(loader.discover(name))
        else:
            suite.addTests(loader.loadTestsFromModule(module))
    with open(path, "w") as Recorder.file:
        unittest.TextTestRunner(resultclass=Recorder, verbosity=2).run(suite)


if __name__ == "__main__":
    main()
