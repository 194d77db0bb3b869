"""All of deploy-aws-dev by the real command, AWS being moto and the API server the sandbox's: killed twice, run again, taken down.

The account ends with a network and a key: what is left of a destroy waits for five minutes, which `tests/conformance/e2e`
does; that also runs the same journey on kind.
"""

import pathlib

from harness.e2e import simulated_repository, travel
from harness.report import Report


def run(report: Report, folder: pathlib.Path) -> None:
    travel(report, folder, "sandbox", whole=False, more=simulated_repository(folder))
