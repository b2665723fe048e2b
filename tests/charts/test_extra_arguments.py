"""An item of extraArgs that is no argument of the exporter is refused, with a line that says what to write."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from charts.rendering import CHART, lint, render
from helm_python import HelmRenderError, HelmValuesError

from exporter.command_line import parse_args
from exporter.config import FLAGS
from exporter.errors import ConfigError
from exporter.flags import Flag


@pytest.fixture(scope="module")
def arguments_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart without what takes longest to load."""
    chart = tmp_path_factory.mktemp("chart") / CHART.name
    shutil.copytree(CHART, chart, ignore=shutil.ignore_patterns("dashboards", "ci"))
    return chart


def complaint(items: Sequence[str], chart: Path = CHART) -> str | None:
    """Return why the chart refuses extraArgs, None if it takes them."""
    try:
        render({"extraArgs": items}, chart=chart)
    except HelmRenderError as error:
        [line] = str(error).splitlines()
        return line.partition(": ")[2]
    return None


def is_an_argument(item: str) -> bool:
    """Tell whether an item alone is an argument of the exporter, whatever its value: by a pattern of all flags."""
    switches = "|".join(re.escape(flag.name.removeprefix("--")) for flag in FLAGS if flag.is_switch)
    names = "|".join(re.escape(flag.name.removeprefix("--")) for flag in FLAGS if not flag.is_switch)
    form = rf"--((no-)?({switches})|({switches})=(true|false)|({names})=.*)"
    return re.fullmatch(form, item) is not None


def forms(flag: Flag) -> list[str]:
    """Return items that have to do with a flag, right and wrong ones."""
    name = flag.name.removeprefix("--")
    values = [
        "",
        "=",
        "=true",
        "=false",
        "=yes",
        "=1",
        "=$(TEXT)",
        "=$(TEXT)\n",
        "=a\nb",
        " 1",
        " =1",
        "x=1",
        "==1",
    ]
    return [f"{start}{name}{value}" for start in ("--", "--no-") for value in values] + [
        f"{start}{name}{value}" for start in ("", "-", " --", "---", "no-") for value in ("", "=1", "=true")
    ]


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_an_item_that_is_no_argument_is_refused_and_no_other(flag: Flag, arguments_only: Path) -> None:
    said = {item: complaint([item], arguments_only) or "" for item in forms(flag)}
    elsewhere = "would ask elsewhere"
    taken = [item for item, line in said.items() if not line.startswith("extraArgs: ") or elsewhere in line]
    assert taken == [item for item in said if is_an_argument(item)]
    assert 0 < len(taken) < len(said)


@pytest.mark.parametrize(
    ("argument", "known"),
    [
        ("--filter=bpf", True),
        ("--limit.idle=12h", True),
        ("--no-web.disable-exporter-metrics", True),
        ("--web.disable-exporter-metrics=true", True),
        ("--filtre=bpf", False),
        ("--filter", False),
        ("--no-filter", False),
        ("--web.disable-exporter-metrics=yes", False),
        ("filter=bpf", False),
    ],
)
def test_an_argument_is_refused_where_the_exporter_would_refuse_it(argument: str, known: bool) -> None:
    assert (complaint([argument]) is None) == known
    assert exporter_takes(argument) == known


def exporter_takes(argument: str) -> bool:
    try:
        parse_args([argument], {})
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize(
    ("items", "line"),
    [
        (["--web.config=1"], "unknown flag --web.config; did you mean --web.config.file?"),
        (["--log.level=info", "--web.config=1"], "unknown flag --web.config; did you mean --web.config.file?"),
        (["--web.confg.file=/x"], "unknown flag --web.confg.file; did you mean --web.config.file?"),
        (["--lmit.idle=12h"], "unknown flag --lmit.idle; did you mean --limit.idle?"),
        (["--filtre=bpf"], "unknown flag --filtre; did you mean --filter?"),
        (["--WEB_MAX_REQUESTS=1"], "unknown flag --WEB_MAX_REQUESTS; did you mean --web.max-requests?"),
        (["--exemplars"], "unknown flag --exemplars; did you mean --web.exemplars?"),
        (["--no-exemplars"], "unknown flag --no-exemplars; did you mean --no-web.exemplars?"),
        (["--version"], "unknown flag --version"),
        (["--collector.netdev=1"], "unknown flag --collector.netdev"),
        (["-h"], "unknown flag -h"),
        (["--"], "unknown flag --"),
        (["--=1"], "unknown flag --"),
        ([f"--{'limit' * 100}=1"], f"unknown flag --{'limit' * 100}"),
        (["--limit.series", "2000"], "write --limit.series=2000 as one item"),
        (["--limit.series 2000"], "write --limit.series=2000"),
        (["--limit.series = 2000"], "write --limit.series=2000"),
        (["--limit.series"], "--limit.series needs a value: write --limit.series=VALUE as one item"),
        (
            ["--limit.series", "--web.exemplars"],
            "--limit.series needs a value: write --limit.series=VALUE as one item",
        ),
        (
            ["--no-limit.idle"],
            "unknown flag --no-limit.idle: --limit.idle needs a value: write --limit.idle=VALUE as one item",
        ),
        (
            ["--no-web.exemplars=true"],
            "--no-web.exemplars takes no value: write --no-web.exemplars, or --web.exemplars=false",
        ),
        (["--web.exemplars=$(ON)"], "--web.exemplars must be one of true, false, got '$(ON)'"),
        (["2000"], "'2000' is no flag: write --FLAG=VALUE as one item"),
        (["=1"], "'=1' is no flag: write --FLAG=VALUE as one item"),
        (["filter=bpf"], "'filter=bpf' is no flag: write --FLAG=VALUE as one item; did you mean --filter?"),
        (["--config.file=/a\n/b"], '"--config.file=/a\\n/b" has several lines'),
    ],
    ids=str,
)
def test_a_line_says_what_to_write(items: list[str], line: str) -> None:
    assert complaint(items) == f"extraArgs: {line}"


@pytest.mark.parametrize("item", ["", 1, True, None, ["--web.exemplars"]], ids=repr)
def test_an_item_that_is_no_text_is_refused(item: object) -> None:
    with pytest.raises(HelmValuesError, match="extraArgs"):
        render({"extraArgs": [item]})


def test_helm_lint_refuses_them_too() -> None:
    """It ignores `fail`."""
    line = "extraArgs: unknown flag --web.config; did you mean --web.config.file?"
    assert any(line in message for message in lint({"extraArgs": ["--web.config=1"]}, "1.30"))
    assert lint({"extraArgs": ["--web.config.file=/x"]}, "1.30") == []
