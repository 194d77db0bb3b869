"""Runs the suites that were named, each in a world of its own, and sums up what they compared and how long it took.

Several go side by side, each in a process of its own: most wait more than they work, on clusters, elections, and clocks.
"""

import concurrent.futures
import importlib
import json
import os
import pathlib
import pkgutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback

import suites
from harness.report import Report

# What all suites together may take of CI's two cores. A clock fails no test: more than this is said, loudly.
MINUTES = 15
# How many go side by side; what takes longest goes first.
LANES = int(os.environ.get("PLATFLOW_CONFORMANCE_LANES", "2"))
LONGEST = ("aws_faults", "deploy", "vault_steps", "ansible")


def described(name: str) -> str:
    return (importlib.import_module(f"suites.{name}").__doc__ or "").strip().splitlines()[0]


def play(name: str) -> Report:
    """One suite. Whatever it does not catch itself, in a thread of its own too, is a failure of it and ends no other suite."""
    started = time.monotonic()
    report = Report(name)

    def unheard(failed: threading.ExceptHookArgs) -> None:
        said = "".join(traceback.format_exception_only(failed.exc_type, failed.exc_value)).strip()
        report.fail(f"a thread of {name}", said)

    threading.excepthook = unheard
    try:
        with tempfile.TemporaryDirectory(prefix=f"platflow-{name}-") as folder:
            importlib.import_module(f"suites.{name}").run(report, pathlib.Path(folder))
    except Exception:  # noqa: BLE001 - counted like any other failure
        report.fail(f"{name} outside of its cases", traceback.format_exc(limit=6))
    if report.agreed == 0 and not report.skips:
        report.fail(name, "compared nothing, which is a failure")
    report.seconds = time.monotonic() - started
    report.tell()
    sys.stdout.flush()
    return report


def elsewhere(name: str) -> dict:
    """One suite in a process of its own: what it said is told when it has ended, and its counts are answered."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="platflow-counts-") as folder:
        counts = pathlib.Path(folder) / "counts.json"
        command = [sys.executable, "-m", "harness", "--counts", str(counts), name]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False)
        print(done.stdout, end="", flush=True)
        if counts.exists():
            return json.loads(counts.read_text())
    # It was ended from outside, or broke before it could count.
    print(f"== {name}: ended with {done.returncode} and counted nothing, which is a failure", flush=True)
    return {"suite": name, "agreed": 0, "failed": 1, "skipped": 0, "seconds": time.monotonic() - started}


def counted(report: Report) -> dict:
    return {
        "suite": report.suite,
        "agreed": report.agreed,
        "failed": len(report.failures),
        "skipped": len(report.skips),
        "seconds": report.seconds,
    }


def summed(suites_: list[dict], seconds: float) -> int:
    """The last lines, and the exit."""
    agreed, failed, skipped = (sum(one[name] for one in suites_) for name in ("agreed", "failed", "skipped"))
    if len(suites_) > 1:
        print("times: " + ", ".join(f"{one['suite']} {one['seconds']:.0f} s" for one in suites_))
    print(f"conformance: {agreed} passed, {failed} failed, {skipped} skipped, {seconds / 60:.1f} minutes")
    if seconds > MINUTES * 60:
        print(f"WARNING: that is more than the {MINUTES} minutes that all suites may take together")
    return 1 if failed else 0


def main(arguments: list[str]) -> int:
    names = sorted(module.name for module in pkgutil.iter_modules(suites.__path__))
    if arguments == ["--list"]:
        for name in names:
            print(f"{name:24} {described(name)}")
        return 0
    counts = None
    if arguments[:1] == ["--counts"]:
        counts, arguments = pathlib.Path(arguments[1]), arguments[2:]
    unknown = [name for name in arguments if name not in names]
    if unknown:
        print(f"no suite {', '.join(unknown)}; there are: {', '.join(names)}", file=sys.stderr)
        return 2
    wanted, started = arguments or names, time.monotonic()
    if counts is not None:
        [report] = [play(name) for name in wanted]
        counts.write_text(json.dumps(counted(report)))
        return 1 if report.failures else 0
    if len(wanted) == 1:
        return summed([counted(play(wanted[0]))], time.monotonic() - started)
    wanted = sorted(wanted, key=lambda name: LONGEST.index(name) if name in LONGEST else len(LONGEST))
    with concurrent.futures.ThreadPoolExecutor(LANES) as pool:
        return summed(list(pool.map(elsewhere, wanted)), time.monotonic() - started)


sys.exit(main(sys.argv[1:]))
