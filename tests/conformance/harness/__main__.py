"""Runs the suites that were named, each in a process of its own world, and sums up what they compared and how long it took."""

import importlib
import pathlib
import pkgutil
import sys
import tempfile
import threading
import time
import traceback

import suites
from harness.report import Report

# What all suites together may take of CI's two cores. A clock fails no test: more than this is said, loudly.
MINUTES = 15


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


def summed(reports: list[Report]) -> int:
    """The last lines, and the exit."""
    agreed = sum(report.agreed for report in reports)
    failed = sum(len(report.failures) for report in reports)
    skipped = sum(len(report.skips) for report in reports)
    seconds = sum(report.seconds for report in reports)
    if len(reports) > 1:
        print("times: " + ", ".join(f"{report.suite} {report.seconds:.0f} s" for report in reports))
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
    unknown = [name for name in arguments if name not in names]
    if unknown:
        print(f"no suite {', '.join(unknown)}; there are: {', '.join(names)}", file=sys.stderr)
        return 2
    return summed([play(name) for name in arguments or names])


sys.exit(main(sys.argv[1:]))
