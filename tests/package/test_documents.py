"""deploy/package/documents.py: what shells and man make of the flags."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.package import documents
from deploy.package.environment import ROOT
from exporter import __main__ as program
from exporter.config import FLAGS
from exporter.watch.flags import ROWS as WATCH_ROWS

NAME = documents.NAME


def need(tool: str, package: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"no {tool} here (Debian: apt-get install {package})")


def complete(*words: str) -> list[str]:
    """Return what bash offers for the last of the words."""
    quoted = " ".join(f"'{word}'" for word in (NAME, *words))
    script = f"{documents.bash_completion()}COMP_WORDS=({quoted}); COMP_CWORD={len(words)}\n"
    script += '_proc_connector_exporter; printf "%s\\n" "${COMPREPLY[@]}"\n'
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert result.stderr == ""
    return result.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["--web.con"], ["--web.config.file"]),
        (["wa"], ["watch"]),
        (["--log.level", "de"], ["debug"]),
        (["--log.level", "=", "w"], ["warn"]),
        (["--log.level", "="], ["debug", "info", "warn", "error"]),
        (["--web.listen-address", ""], []),
        (["watch", "--to"], ["--top"]),
        (["--no-web.enable"], ["--no-web.enable-lifecycle"]),
        (["watch", "--no-to"], ["--no-top"]),
        (["watch", "--output", ""], ["text", "json"]),
        (["watch", "--web"], []),
        (["dashboards", "--o"], ["--output"]),
        (["--config.file", "/etc/passw"], ["/etc/passwd"]),
    ],
)
def test_bash_offers_flags_and_their_values(words: list[str], offered: list[str]) -> None:
    found = complete(*words)
    assert [word for word in found if word in offered] == offered
    assert set(found) - set(offered) <= {"/etc/passwd-"}


@pytest.mark.parametrize("words", [[], ["watch"], ["dashboards"]], ids=["exporter", "watch", "dashboards"])
def test_bash_offers_the_flags_that_the_program_shows_and_no_others(words: list[str]) -> None:
    command = [sys.executable, "-m", "exporter", *words, "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    flags = set(re.findall(r"(?m)^  (?:-h, )?(--[a-z][\w.-]*)", shown))
    assert len(flags) > 1
    offered = set(complete(*words, "--"))
    assert {name for name in offered if not name.startswith("--no-")} == flags
    assert {name.replace("--no-", "--", 1) for name in offered if name.startswith("--no-")} < flags


@pytest.mark.parametrize(
    ("shell", "text"),
    [("zsh", documents.zsh_completion()), ("fish", documents.fish_completion())],
    ids=["zsh", "fish"],
)
def test_other_shells_can_read_theirs(shell: str, text: str, tmp_path: Path) -> None:
    need(shell, shell)
    script = tmp_path / "completion"
    script.write_text(text)
    result = subprocess.run([shell, "-n", script], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_fish_offers_flags_with_their_values(tmp_path: Path) -> None:
    need("fish", "fish")
    script = tmp_path / "completion.fish"
    script.write_text(documents.fish_completion())
    asked = f"source {script}; complete --do-complete '{NAME} --log.level '"
    result = subprocess.run(
        ["fish", "--no-config", "-c", asked],
        capture_output=True,
        text=True,
        check=True,
        env={"HOME": str(tmp_path)},
    )
    assert {line.split("\t")[0] for line in result.stdout.splitlines()} == {"debug", "info", "warn", "error"}


def test_the_man_page_has_every_flag_and_groff_has_nothing_to_say() -> None:
    need("groff", "groff-base")
    command = ["groff", "-man", "-Tascii", "-ww", "-rLL=200n", "-P-c", "-P-b", "-P-u"]
    result = subprocess.run(command, input=documents.man_page(), capture_output=True, text=True, check=True)
    assert result.stderr == ""
    shown = re.sub(".\b", "", result.stdout)
    names = {flag.name for flag in (*FLAGS, *WATCH_ROWS.values())}
    assert {name for name in names if name not in shown} == set()
    assert "PROC_CONNECTOR_EXPORTER_WEB_LISTEN_ADDRESS" in shown


def test_the_exit_codes_are_those_of_the_documentation_and_of_the_program() -> None:
    [section] = re.findall(r"(?s)\.SH EXIT STATUS\n(.*?)\.SH ", documents.man_page())
    of_man = dict(re.findall(r"(?m)^\.B (\d+)\n(.*)$", section.replace("\\-", "-")))
    page = (ROOT / "docs" / "flags.md").read_text(encoding="utf-8")
    [table] = re.findall(r"(?s)\n## Exit codes\n(.*?)\n## ", page)
    # Without the links, which a man page has not.
    of_page = dict(re.findall(r"(?m)^\| (\d+) \| (.*?)(?:: \[.*)? \|$", table.replace("`", "")))
    of_program = re.findall(r"\b(\d+)\s(?:after|if)\b", str(program.__doc__))
    assert list(of_man) == list(of_page) == of_program
    assert {code for code, text in of_page.items() if not of_man[code].startswith(text)} == set()


def test_documents_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        documents.write_documents(tmp_path / name)
    a, b = (
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }
        for name in ("a", "b")
    )
    assert a == b
    assert len(a) == 4
