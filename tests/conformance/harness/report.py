"""What a suite compared, what differed, and which differences are known, each with its reason."""

import traceback
from collections.abc import Callable

from bootstrap import is_ci


class Report:
    """Counts comparisons; a difference is a failure unless the suite names it with a reason."""

    def __init__(self, suite: str):
        self.suite = suite
        self.agreed = 0
        self.failures: list[str] = []
        self.known: list[str] = []
        self.skips: list[str] = []
        self.coverage: list[str] = []
        self.seconds = 0.0

    def check(self, what: str, wanted: object, found: object) -> bool:
        """Both are the same."""
        if wanted == found:
            self.agreed += 1
            return True
        self.fail(what, f"wanted {wanted!r}, found {found!r}")
        return False

    def true(self, what: str, holds: object, evidence: object = "") -> bool:
        """It holds."""
        if holds:
            self.agreed += 1
            return True
        self.fail(what, f"does not hold; {evidence!r}")
        return False

    def fail(self, what: str, why: str) -> None:
        self.failures.append(f"{what}: {why}")

    def differs(self, what: str, who_is_right: str, why: str) -> None:
        """A difference between sandbox and peer that is understood: who is right, and by which source."""
        self.agreed += 1
        self.known.append(f"{what}: {who_is_right} is right; {why}")

    def skip(self, what: str, why: str) -> None:
        """Something that is not here: a failure in CI, a loud line elsewhere."""
        if is_ci():
            self.fail(what, f"is not here, and CI must not pass without it: {why}")
        else:
            self.skips.append(f"{what}: {why}")

    def case(self, what: str, body: Callable[[], None]) -> None:
        """Runs one case; an exception is its failure and ends only it."""
        try:
            body()
        except Exception:  # noqa: BLE001 - a broken case must not hide the others
            self.fail(what, traceback.format_exc(limit=4))

    def cover(self, what: str, covered: int, of: int) -> None:
        share = 100 if of == 0 else 100 * covered / of
        self.coverage.append(f"{what}: {covered} of {of} ({share:.0f} %)")

    def tell(self) -> None:
        print(f"== {self.suite}: {self.agreed} comparisons in {self.seconds:.1f} s")
        for line in self.coverage:
            print(f"   coverage  {line}")
        for line in self.known:
            print(f"   known     {line}")
        for line in self.skips:
            print(f"   SKIPPED   {line}")
        for line in self.failures:
            print(f"   FAILED    {line}")
