"""All exceptions that this program raises on purpose.

ExporterError
 +-- ConfigError        a flag, variable or file of the user's is wrong           exit code 2
 +-- SetupError         the place does not allow it: what is missing, what to do  exit code 1
 |    +-- AddressError   an address is in use, wrong or not permitted              exit code 3
 |    +-- ConnectorError the kernel sends no process events to the exporter here   exit code 5
 +-- CaptureError       a capture cannot be read or written, or is damaged        exit code 4
 +-- ShortageError      descriptors or memory are short for a moment             asked again later
 +-- ApiFailure         the Kubernetes API cannot be asked, or answers otherwise  counted, asked again later
 +-- MalformedMessage   bytes that are not what their header promises             counted, dropped
"""


class ExporterError(Exception):
    """The root of the tree: anything else that escapes is a bug."""


class ConfigError(ExporterError):
    """A setting is wrong; the text names it."""


class SetupError(ExporterError):
    """The exporter cannot start here; the text is one line with the cause and the remedy."""


class AddressError(SetupError):
    """An address cannot be listened on; the text is one line with the cause and the remedy."""


class ConnectorError(SetupError):
    """The process connector cannot be listened to here; the text is one line with the cause and the remedy."""


class CaptureError(ExporterError):
    """A capture cannot be replayed here or written; the text is one line that says why."""


class ShortageError(ExporterError):
    """No descriptor or no memory was free: what was asked is not known now, and can be asked again."""


class ApiFailure(ExporterError):
    """An API (of Kubernetes, Docker, Podman) did not answer as it was asked.

    Attributes:
        reason: A word for it: `unreachable`, `tls`, `timeout`, `torn`, `refused` (401, 403, or a socket that may
            not be opened), `expired` (410), `status` (any other), `malformed`, `credentials` (a file of the
            exporter's own).
        retry_after_seconds: How long the API asks to be left alone.
    """

    def __init__(self, reason: str, text: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(text)
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds


class MalformedMessage(ExporterError):
    """A message is cut short or contradicts itself.

    Attributes:
        struct_name: The kernel structure that was being read.
        need: Bytes (or value) that were required.
        got: What was there.
    """

    def __init__(self, struct_name: str, need: int, got: int) -> None:
        super().__init__(f"{struct_name}: need {need}, got {got}")
        self.struct_name = struct_name
        self.need = need
        self.got = got
