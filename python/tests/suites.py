"""Runs other projects' test suites on this greenlet and on the released one.

    python suites.py --work DIR --wheel WHEEL [--quick] PYTHON [SUITE…]

PYTHON is an interpreter, SUITE one of `own`, `greenlet`, `gevent`, `eventlet`, `sqlalchemy`; without
any, all. A test fails here if it fails on this greenlet and passes on the released one: with --quick,
if it fails at all, as the other is not run then. Ends with a line for each suite.

The suites come from the package index, at the versions below.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import xml.etree.ElementTree
from pathlib import Path

HERE = Path(__file__).resolve().parent

GREENLET = "3.5.6"
GEVENT = "26.9.0"
EVENTLET = "0.41.3"
SQLALCHEMY = "2.1.9"
# The last that supports it.
SQLALCHEMY_ON_3_10 = "2.0.58"

# Tests of the released greenlet that say of it "expected to leak". That they find no leak is no
# fault: suspended greenlets lie on stacks of their own, which can be freed.
LEAKS_NO_MORE = {
    "test_throw_to_dead_thread_doesnt_crash",
    "test_issue251_issue252_explicit_reference_not_collectable",
    "test_issue251_issue252_need_to_collect_in_background",
    "test_issue251_issue252_need_to_collect_in_background_cleanup_disabled",
}
EXPECTED_TO_LEAK = "to leak but it did not"

# Of gevent's: those that want a network, another process's time, or the interpreter's own tests.
GEVENT_LEFT_OUT = re.compile(
    r"test__(_monkey_patching|socket_dns|socket_ssl|socket_ex|ssl|resolver_dnspython|example_|subprocess|issue600"
    r"|memleak|doctests|execmodules|all__|backdoor|getaddrinfo_import|core_timer|threading\.py"
    r"|threading_2|threading_fork|monkey_fork)|test_threading"
)
GEVENT_QUICK = """
test__greenlet test__greenletset test__hub test__hub_join test__event test__queue test__pool
test__timeout test__semaphore test__local test__greenness test__exc_info test__core_callback
test__lock test__sleep0 test__select test__socketpair test__contextvars test__tracer test__util
""".split()


def run(*command, check=True, **options):
    done = subprocess.run([str(word) for word in command], **options)
    if check and done.returncode:
        raise SystemExit(f"{command[0]}: ended with {done.returncode}: {' '.join(map(str, command))}")
    return done


class Setting:
    """A virtual environment with one of the two greenlets, and a folder for what tests leave."""

    def __init__(self, name, work, interpreter, requirement):
        self.name = name
        self.folder = work / name
        self.python = self.folder / "bin" / "python"
        self.logs = work / f"logs-{name}"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.requirement = requirement
        if not self.python.exists():
            run(interpreter, "-m", "venv", self.folder)
        self.install("--force-reinstall", "--no-deps", requirement)

    def install(self, *requirements):
        run(self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
            *requirements)

    def ask(self, expression):
        code = f"import sysconfig, importlib.util; print({expression})"
        done = run(self.python, "-c", code, capture_output=True, text=True)
        return done.stdout.strip()

    @property
    def packages(self):
        return Path(self.ask("sysconfig.get_path('purelib')"))

    def log(self, name):
        return (self.logs / f"{name}.log").open("w")


def source(work, project, version):
    """The unpacked source distribution."""
    folder = work.parent / "sources"
    folder.mkdir(parents=True, exist_ok=True)
    found = list(folder.glob(f"{project}-{version}/"))
    if not found:
        run(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
            "--no-deps", "--no-binary", project, "--dest", folder,
            f"{project}=={version}")
        archive, = folder.glob(f"{project}-{version}.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(folder)
        found = list(folder.glob(f"{project}-{version}/"))
    return found[0]


def recorded(path):
    """What `record.py` has written: {test: outcome}."""
    outcomes = {}
    if not path.exists():
        return {"(nothing was run)": "failed"}
    for line in path.read_text().splitlines():
        test, outcome = json.loads(line)
        if outcomes.get(test) != "failed":
            outcomes[test] = outcome
    return {test: "failed" if outcome == "began" else outcome
            for test, outcome in outcomes.items()} or {"(nothing was run)": "failed"}


def of_junit(path):
    if not path.exists():
        return {"(nothing was run)": "failed"}
    outcomes = {}
    for case in xml.etree.ElementTree.parse(path).iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        kinds = {child.tag for child in case}
        outcome = ("failed" if kinds & {"failure", "error"} else
                   "skipped" if "skipped" in kinds else "passed")
        outcomes[name] = outcome
    return outcomes or {"(nothing was run)": "failed"}


def greenlet(setting, work, quick):
    """Greenlet's own suite, with its two test extensions built against the installed header."""
    setting.install("objgraph", "psutil")
    root = source(work, "greenlet", GREENLET) / "src" / "greenlet"
    installed = setting.packages / "greenlet"
    tests = installed / "tests"
    shutil.rmtree(tests, ignore_errors=True)
    shutil.copytree(root / "tests", tests)
    # Macros for compilers; nothing of the library.
    shutil.copy(root / "greenlet_compiler_compat.hpp", installed)
    include = setting.ask("sysconfig.get_path('include')")
    suffix = setting.ask("sysconfig.get_config_var('EXT_SUFFIX')")
    for compiler, name in ("cc", "_test_extension.c"), ("c++", "_test_extension_cpp.cpp"):
        run(compiler, "-shared", "-fPIC", "-O1", f"-I{include}", tests / name,
            "-o", tests / (name.split(".")[0] + suffix))
    record = setting.logs / "greenlet.json"
    record.unlink(missing_ok=True)
    with setting.log("greenlet") as log:
        run(setting.python, "-X", "faulthandler", HERE / "record.py", record, "greenlet.tests",
            check=False, stdout=log, stderr=log, cwd=setting.logs, timeout=1500)
    outcomes = recorded(record)
    # Only those that are named, and only if that is why.
    text = (setting.logs / "greenlet.log").read_text(errors="replace")
    for test, outcome in outcomes.items():
        name = test.rsplit(".", 1)[-1]
        if (outcome == "failed" and name in LEAKS_NO_MORE
                and re.search(rf"Expected .*{name} .*{EXPECTED_TO_LEAK}", text)):
            outcomes[test] = "passed"
    return outcomes


def own(setting, work, quick):
    """The tests beside this file."""
    record = setting.logs / "own.json"
    record.unlink(missing_ok=True)
    modules = sorted(path.stem for path in HERE.glob("test_*.py"))
    with setting.log("own") as log:
        run(setting.python, "-X", "faulthandler", HERE / "record.py", record, *modules,
            check=False, stdout=log, stderr=log, cwd=HERE, timeout=900)
    return recorded(record)


def gevent_file(setting, name):
    """A file of gevent's suite, in a process of its own, as gevent's own runner starts it."""
    folder = setting.packages / "gevent" / "tests"
    environment = dict(os.environ, GEVENTTEST_USE_RESOURCES="-network,-largefile,-subprocess",
                       PYTHONFAULTHANDLER="1")
    try:
        done = run(setting.python, "-m", f"gevent.tests.{name}", check=False,
                   capture_output=True, env=environment, cwd=folder, timeout=300)
        text, code = (done.stdout + done.stderr).decode(errors="replace"), done.returncode
    except subprocess.TimeoutExpired as late:
        text, code = (late.stderr or b"").decode(errors="replace"), "a time limit"
    (setting.logs / f"{name}.log").write_text(text)
    ran = re.search(r"^Ran (\d+) tests?", text, re.M)
    failed = set(re.findall(r"^(?:FAIL|ERROR|UNEXPECTED SUCCESS): (\S+ ?\S*)", text, re.M))
    outcomes = {f"{name}: {test}": "failed" for test in failed}
    if ran is None:
        # Some are scripts.
        return {name: "failed" if code else "passed"}
    # Since CPython 3.12 a run of nothing ends with 5.
    if code and not failed and (code, int(ran[1])) != (5, 0):
        outcomes[f"{name}: ended with {code}"] = "failed"
    skipped = sum(map(int, re.findall(r"skipped=(\d+)", text)[-1:]))
    for number in range(int(ran[1]) - len(failed)):
        outcomes[f"{name}: {number}"] = "skipped" if number < skipped else "passed"
    return outcomes


def gevent(setting, work, quick):
    """The part of gevent's suite that wants no network."""
    setting.install(f"gevent=={GEVENT}" if quick else f"gevent[test]=={GEVENT}",
                    setting.requirement)
    folder = setting.packages / "gevent" / "tests"
    files = [path.stem for path in sorted(folder.glob("test__*.py"))
             if not GEVENT_LEFT_OUT.match(path.name)]
    if quick:
        files = [name for name in GEVENT_QUICK if (folder / f"{name}.py").exists()]
    outcomes = {}
    for name in files:
        for _ in range(3):
            of_file = gevent_file(setting, name)
            log = (setting.logs / f"{name}.log").read_text()
            # So gevent calls what depends on how busy the machine is.
            if "failed" not in of_file.values() or "gevent.testing.flaky.Flaky" not in log:
                break
        outcomes.update(of_file)
    return outcomes


def repeat_gevent(setting, test):
    """Whether a test that has passed fails when it is repeated: some do now and then."""
    name = test.split(":")[0]
    return any(gevent_file(setting, name).get(test) == "failed" for _ in range(10))


def by_pytest(setting, name, folder, *arguments, **environment):
    report = setting.logs / f"{name}.xml"
    report.unlink(missing_ok=True)
    with setting.log(name) as log:
        run(setting.python, "-X", "faulthandler", "-m", "pytest", "-q", "-p", "no:cacheprovider",
            f"--junitxml={report}", *arguments, check=False, stdout=log, stderr=log, cwd=folder,
            env=dict(os.environ, **environment), timeout=1500)
    return of_junit(report)


def eventlet(setting, work, quick):
    """Eventlet's unit tests, but for those that want a network."""
    setting.install("pytest", f"eventlet=={EVENTLET}", setting.requirement)
    folder = source(work, "eventlet", EVENTLET)
    return by_pytest(setting, "eventlet", folder, "tests", "--ignore=tests/isolated",
                     "--ignore=tests/greendns_test.py", "--ignore=tests/mysqldb_test.py",
                     "-k", "not dns and not network and not zmq")


def sqlalchemy(setting, work, quick):
    """What SQLAlchemy has of asyncio, on SQLite; not what fails where a machine is slow."""
    old = setting.ask("sysconfig.get_python_version()") == "3.10"
    version = SQLALCHEMY_ON_3_10 if old else SQLALCHEMY
    setting.install("pytest", "aiosqlite", f"sqlalchemy=={version}", setting.requirement)
    folder = source(work, "sqlalchemy", version)
    # Its name differs between versions.
    concurrency, = folder.glob("test/base/test_concurrency*.py")
    return by_pytest(setting, "sqlalchemy", folder, "test/ext/asyncio", concurrency,
                     "test/engine/test_pool.py", "--db", "aiosqlite", "-p", "no:xdist",
                     "-m", "not timing_intensive")


SUITES = {"own": own, "greenlet": greenlet, "gevent": gevent, "eventlet": eventlet,
          "sqlalchemy": sqlalchemy}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--wheel", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("python")
    parser.add_argument("suites", nargs="*")
    given = parser.parse_args()
    # A shell has what it starts by `&` ignore SIGINT, and a test of gevent's sends it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    work = given.work.resolve()
    ours = Setting("ours", work, given.python, given.wheel.resolve())
    theirs = None if given.quick else Setting("theirs", work, given.python, f"greenlet=={GREENLET}")
    closing, bad = [], False
    for name in given.suites or SUITES:
        suite = SUITES[name]
        here = suite(ours, work, given.quick)
        there = suite(theirs, work, given.quick) if theirs and name != "own" else {}
        counts = dict.fromkeys(("passed", "failed", "skipped"), 0)
        for test, outcome in here.items():
            if outcome == "failed" and there.get(test) == "failed":
                print(f"{name}: fails on both: {test}")
                outcome = "skipped"
            elif outcome == "failed" and there and name == "gevent" and repeat_gevent(theirs, test):
                print(f"{name}: fails now and then on both: {test}")
                outcome = "skipped"
            elif outcome == "failed":
                print(f"{name}: FAILS: {test}; see {ours.logs}")
            counts[outcome] += 1
        if there:
            more = sum(outcome == "skipped" for outcome in there.values())
            print(f"{name}: on the released greenlet {len(there)} tests, {more} of them skipped")
        closing.append((name, counts))
        bad = bad or counts["failed"] > 0 or counts["passed"] == 0
    version = ours.ask("sysconfig.get_python_version()")
    print(f"\nCPython {version}")
    for name, counts in closing:
        print(f"{name}: {counts['passed']} passed, {counts['failed']} failed,"
              f" {counts['skipped']} skipped")
    sys.exit(bad)


if __name__ == "__main__":
    main()
