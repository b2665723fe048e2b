"""exporter/arguments.py: what is given, and what is said of what is wrong."""

from dataclasses import dataclass

import pytest

from exporter.arguments import Parser, parse_rows, unknown_variables
from exporter.errors import ConfigError
from exporter.flag_parsers import CountBetween
from exporter.flags import flag, flags_of, switch


@dataclass(frozen=True, slots=True)
class Settings:
    """Some flags."""

    addresses: str = flag("--web.listen-address", "ADDRESS", ":1", "Where.", repeatable=True, group="web")
    file: str = flag("--web.config.file", "FILE", "", "What.", group="web")
    quiet: bool = switch("--quiet", "Say less.", group="words", no_effect_with=("--loud",))
    loud: bool = switch("--loud", "Say more.", group="words")
    color: str = flag("--color", "COLOR", "red", "Which.", choices=("red", "green"), group="words")
    depth: int = flag("--depth", "N", "1", "How 100% deep.", CountBetween(0, 9), needs="--web.config.file")


ROWS = flags_of(Settings)
PREFIX = "PROC_CONNECTOR_EXPORTER_"


def make_parser() -> Parser:
    parser = Parser(prog="program", words=("watch",))
    for field, row in ROWS.items():
        parser.add(row, field)
    return parser


def read(argv: list[str], environment: dict[str, str] | None = None) -> Settings:
    return Settings(**parse_rows(ROWS, make_parser().read(argv), environment or {}))


@pytest.mark.parametrize(
    ("argv", "environment", "settings"),
    [
        ([], {}, Settings()),
        (["--web.listen-address=a", "--web.listen-address", "b,c"], {}, Settings(addresses="a,b,c")),
        (["--quiet"], {}, Settings(quiet=True)),
        (["--quiet=true", "--no-quiet"], {}, Settings()),
        (["--no-quiet"], {PREFIX + "QUIET": "true"}, Settings()),
        (["--no-quiet", "--quiet"], {}, Settings(quiet=True)),
        (["--loud", "--no-quiet"], {PREFIX + "QUIET": "false"}, Settings(loud=True)),
        ([], {PREFIX + "COLOR": "green", "COLOR": "red"}, Settings(color="green")),
        (["--depth=2"], {PREFIX + "WEB_CONFIG_FILE": "f"}, Settings(file="f", depth=2)),
        (["--web.config.file="], {}, Settings()),
    ],
)
def test_settings_are_what_arguments_and_variables_say(
    argv: list[str], environment: dict[str, str], settings: Settings
) -> None:
    assert read(argv, environment) == settings


@pytest.mark.parametrize(
    ("argv", "environment", "complaint"),
    [
        (["--web.config=f"], {}, "unknown flag --web.config; did you mean --web.config.file?"),
        (["--listen-address=:1"], {}, "unknown flag --listen-address; did you mean --web.listen-address?"),
        (["--web.listen_addres", "f"], {}, "unknown flag --web.listen_addres; did you mean --web.listen-address?"),
        (["-quite"], {}, "unknown flag -quite; did you mean --quiet?"),
        (["--nothing.like-it"], {}, "unknown flag --nothing.like-it"),
        (["wach"], {}, "unexpected argument 'wach'; did you mean watch?"),
        (["word"], {}, "unexpected argument 'word'"),
        (["watch"], {}, "unexpected argument 'watch'; it comes first: program watch [FLAG ...]"),
        (["--web"], {}, "unknown flag --web; did you mean --web.config.file or --web.listen-address?"),
        (["--no"], {}, "unknown flag --no"),
        (["-V"], {}, "unknown flag -V"),
        (["--color"], {}, "--color wants a value; write --color=VALUE"),
        (["--color", "-red"], {}, "--color wants a value; write --color=VALUE"),
        (["--no-quiet=true"], {}, "--no-quiet takes no value, got 'true'"),
        (["--color=gren"], {}, "--color must be one of red, green, got 'gren'; did you mean green?"),
        (["--quiet=yes"], {}, "--quiet must be one of true, false, got 'yes'"),
        (
            [],
            {PREFIX + "COLOR": "GREEN"},
            f"{PREFIX}COLOR must be one of red, green, got 'GREEN'; did you mean green?",
        ),
        (["--web.config.file=f", "--depth=10"], {}, "--depth must be a number from 0 to 9, got '10'"),
        (["--depth=1"], {}, "--depth has no effect without --web.config.file"),
        (["--depth=1", "--web.config.file="], {}, "--depth has no effect without --web.config.file"),
        (
            [],
            {PREFIX + "DEPTH": "1"},
            f"{PREFIX}DEPTH has no effect without --web.config.file ({PREFIX}WEB_CONFIG_FILE)",
        ),
        (["--quiet", "--loud"], {}, "--quiet has no effect with --loud"),
        (["--quiet"], {PREFIX + "LOUD": "true"}, f"--quiet has no effect with {PREFIX}LOUD"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_under_the_name_that_was_written(
    argv: list[str], environment: dict[str, str], complaint: str
) -> None:
    with pytest.raises(ConfigError) as refusal:
        read(argv, environment)
    assert str(refusal.value) == complaint


def test_a_variable_that_no_flag_has_is_told_with_the_likely_one() -> None:
    environment = {
        PREFIX + "COLOUR": "red",
        PREFIX + "NOTHING_LIKE_IT_AT_ALL": "1",
        PREFIX + "DEPTH": "1",
        "COLOUR": "red",
        # What Kubernetes adds for a service proc-connector-exporter.
        PREFIX + "SERVICE_HOST": "10.0.0.1",
        PREFIX + "SERVICE_PORT_METRICS": "10061",
        PREFIX + "PORT": "tcp://10.0.0.1:10061",
        PREFIX + "PORT_10061_TCP_ADDR": "10.0.0.1",
    }
    assert unknown_variables(ROWS, environment) == [
        f"{PREFIX}COLOUR; did you mean {PREFIX}COLOR?",
        f"{PREFIX}NOTHING_LIKE_IT_AT_ALL",
    ]


def test_help_has_the_flags_under_their_headings_with_what_they_take(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        make_parser().read(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    web, words = text.index("\nweb:"), text.index("\nwords:")
    assert web < text.index("--web.config.file FILE", web) < words < text.index("--color COLOR", words)
    assert "Which. One of red, green. [default red]" in " ".join(text.split())
    assert "100% deep" in text
    assert "--no-quiet" not in text
