"""The settings of the exporter, in the sections of --help. Each flag is a row in one module of `settings/`."""

from dataclasses import dataclass

from exporter.errors import ConfigError
from exporter.flags import flags_of, section
from exporter.settings.capture import Capture
from exporter.settings.events import Events
from exporter.settings.failures import FAILURES_PATH, Failures
from exporter.settings.groups import Containers, Groups, Kubernetes
from exporter.settings.limits import Limits
from exporter.settings.names import Names
from exporter.settings.service import Logging, Privileges
from exporter.settings.stream import Stream
from exporter.settings.web import Web

_NOT_OF_A_REPLAY = ("--replay",)


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that a user can set."""

    web: Web = section("web", Web)
    names: Names = section("names", Names)
    events: Events = section("events", Events, no_effect_with=_NOT_OF_A_REPLAY)
    privileges: Privileges = section("privileges", Privileges)
    failures: Failures = section("failures", Failures)
    stream: Stream = section("stream", Stream, needs="--stream.socket")
    capture: Capture = section("capture and replay", Capture)
    limits: Limits = section("limits", Limits)
    groups: Groups = section("groups", Groups, needs="--group.by")
    kubernetes: Kubernetes = section("kubernetes", Kubernetes, needs="--group.by", no_effect_with=_NOT_OF_A_REPLAY)
    containers: Containers = section("containers", Containers, needs="--group.by", no_effect_with=_NOT_OF_A_REPLAY)
    logging: Logging = section("logging", Logging)

    def __post_init__(self) -> None:
        """Check what flags of different sections mean together.

        Raises:
            ConfigError: Two pages would have the same path.
        """
        if self.failures.keep and self.web.telemetry_path == FAILURES_PATH:
            raise ConfigError(
                f"--web.telemetry-path must not be {FAILURES_PATH}, which is the page of the failures; "
                "--failures.keep=0 leaves that out"
            )


ROWS = flags_of(Config)
"""The flags by section and field: `web.max_requests`."""

FLAGS = tuple(ROWS.values())
