"""Runs the suites that were named, each in a process of its own world, and sums up what they compared."""

import importlib
import pathlib
import pkgutil
import sys
import tempfile
import time

import suites
from harness.report import Report


def described(name: str) -> str:
    return (importlib.import_module(f"suites.{name}").__doc__ or "").strip().splitlines()[0]


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
    compared = failed = skipped = 0
    for name in arguments or names:
        started = time.monotonic()
        report = Report(name)
        with tempfile.TemporaryDirectory(prefix=f"platflow-{name}-") as folder:
            importlib.import_module(f"suites.{name}").run(report, pathlib.Path(folder))
        report.tell(time.monotonic() - started)
        compared, failed, skipped = compared + report.agreed, failed + len(report.failures), skipped + len(report.skips)
        if report.agreed == 0 and not report.skips:
            print(f"{name}: compared nothing, which is a failure")
            failed += 1
    print(f"conformance: {compared} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


sys.exit(main(sys.argv[1:]))
