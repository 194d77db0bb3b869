"""boto3 against any endpoint, with every raw answer kept beside what the client made of it."""

import dataclasses
from typing import Any

import boto3
from botocore import xform_name
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from harness.operations import Operation
from harness.wire import Raw

REGION = "us-west-2"


@dataclasses.dataclass
class Outcome:
    """What one call came to."""

    operation: Operation
    code: str  # empty: it succeeded
    message: str
    answer: dict[str, Any]
    raw: Raw

    @property
    def ok(self) -> bool:
        return not self.code


class Aws:
    """One account at one endpoint. Nothing is retried, and nothing ambient is read."""

    def __init__(self, endpoint: str, validate_input: bool = True):
        self.endpoint = endpoint
        self.access_key = "AKIACONFORMANCE00000"
        self.validate_input = validate_input
        self.outcomes: list[Outcome] = []
        self._clients: dict[str, Any] = {}
        self._latest: Raw | None = None
        self._session = boto3.Session(
            aws_access_key_id=self.access_key, aws_secret_access_key="secret", region_name=REGION
        )

    def client(self, service: str) -> Any:
        if service not in self._clients:
            client = self._session.client(
                service,
                endpoint_url=self.endpoint,
                config=Config(
                    retries={"total_max_attempts": 1}, parameter_validation=self.validate_input, read_timeout=30
                ),
            )
            protocol = client.meta.service_model.resolved_protocol

            def keep(operation_model: Any, response_dict: dict[str, Any], **_: Any) -> None:
                self._latest = Raw(operation_model, protocol, dict(response_dict))

            client.meta.events.register("before-parse.*.*", keep)
            self._clients[service] = client
        return self._clients[service]

    def call(self, service: str, operation: str, /, **parameters: Any) -> Outcome:
        """One call; a refusal is an outcome like any other."""
        client = self.client(service)
        self._latest = None
        code, message, answer = "", "", {}
        try:
            answer = getattr(client, xform_name(operation))(**parameters)
        except ClientError as error:
            code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
        except ResponseParserError as error:
            # An answer in no protocol of AWS, as a web server's own error page.
            code, message = f"unreadable {self._latest.status if self._latest else ''}".strip(), str(error)
        if self._latest is None:
            raise RuntimeError(f"{service} {operation} was never answered")
        outcome = Outcome((service, operation), code, message, answer, self._latest)
        self.outcomes.append(outcome)
        return outcome

    def must(self, service: str, operation: str, /, **parameters: Any) -> dict[str, Any]:
        """A call that has to succeed."""
        outcome = self.call(service, operation, **parameters)
        if not outcome.ok:
            raise AssertionError(f"{service} {operation} was refused: {outcome.code}: {outcome.message}")
        return outcome.answer
