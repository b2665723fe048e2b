"""exporter/service/reloading.py: rules are read again, and end only because the user wants it."""

import asyncio
import logging
from pathlib import Path

import pytest
from serving import PATIENCE_SECONDS

from exporter.service.reloading import Reloading
from exporter.tallies.rules import RulesFile
from exporter.tallies.rules_file import RulesReader
from exporter.tallies.tallies import Tallies

PAUSE_SECONDS = 0.005
EXCLUDE = "exclude:\n  comm: ['secret.*', hidden]\n  uid: [1000-1999]\n"
RULES = (
    f"comm:\n- {{match: 'a.*', replace: a}}\n- {{match: gone, drop: true}}\ninclude:\n  uid: [0-5000]\n{EXCLUDE}"
)


class Reloaded:
    """Tallies with the rules of a file."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.path.write_text(text)
        self.reads = 0
        self.has_read = asyncio.Event()
        self._reader = RulesReader(str(path))
        self.tallies = Tallies(rules=self._reader.read().rules)
        self.reloading = Reloading(self.tallies, self._read, PAUSE_SECONDS)
        self.texts: list[str] = []

    def _read(self) -> RulesFile:
        self.reads += 1
        self.has_read.set()
        if self.texts:
            self.path.write_text(self.texts.pop(0))
        return self._reader.read()

    async def reload(self, *texts: str) -> str | None:
        """Reload, and meet these texts in one reading after the other."""
        self.texts = list(texts)
        return await self.reloading.reload()

    def counts(self, comm: bytes) -> bool:
        return self.tallies.rules.name(comm) is not None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rules.yml"


async def test_a_broken_file_leaves_the_old_rules_in_force_and_says_so(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    file = Reloaded(path, RULES)
    first = file.reloading.timestamp_seconds
    assert (
        await file.reload("comm: [\n")
        == f"--config.file: {path}:2: not YAML: expected the node content, but found '<stream end>'"
    )
    assert (file.reloading.successful, file.reloading.timestamp_seconds) == (False, first)
    assert not file.counts(b"hidden")
    assert await file.reload(RULES.replace("5000", "6000")) is None
    assert file.reloading.successful
    assert file.reloading.timestamp_seconds > first
    assert file.tallies.rules.counts(5500)
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]


@pytest.mark.parametrize("more", ["x: [", "  comm: [a]\n", "\0"])
async def test_what_is_wrong_stays_wrong_when_it_is_read_again(path: Path, more: str) -> None:
    file = Reloaded(path, RULES)
    problems = [await file.reload(RULES + more) for _ in range(2)]
    assert problems[0]
    assert problems[0] == problems[1]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty; to do without rules, write {}"),
        ("\n \n", "is empty; to do without rules, write {}"),
        (
            "# nothing\n",
            "comm, include, exclude is gone; to do without, write `comm: []`, `include: {}`, `exclude: {}`",
        ),
        (RULES.replace(EXCLUDE, ""), "exclude is gone; to do without, write `exclude: {}`"),
        (EXCLUDE, "comm, include is gone"),
        (RULES.partition("  comm: ['secret")[0], "a mapping is wanted here"),
    ],
    ids=["emptied", "blank", "a comment", "cut before a part", "cut at its begin", "cut after its name"],
)
async def test_a_part_that_is_gone_without_a_word_stays_in_force(path: Path, text: str, problem: str) -> None:
    file = Reloaded(path, RULES)
    told = await file.reload(text)
    assert told is not None
    assert problem in told
    assert not file.counts(b"hidden")
    assert not file.counts(b"gone")
    assert not file.tallies.rules.counts(6000)


async def test_a_file_that_is_cut_at_any_place_ends_no_rule_while_it_is_being_written(path: Path) -> None:
    whole = RULES
    file = Reloaded(path, whole)
    entries = file.tallies.rules.entries()
    for length in range(len(whole)):
        # By the next reading it is written.
        await file.reload(whole[:length], whole)
        assert set(entries) <= set(file.tallies.rules.entries()), whole[:length]
        file.path.write_text(whole)


@pytest.mark.parametrize(
    ("text", "comm"),
    [
        ("{}\n", b"hidden"),
        (RULES.replace(EXCLUDE, "exclude: {}\n"), b"hidden"),
        (RULES.replace("hidden", "hid"), b"hidden"),
        (RULES.replace("- {match: gone, drop: true}\n", ""), b"gone"),
        (RULES.replace("drop: true", "replace: a"), b"gone"),
    ],
    ids=["all", "a part", "one exclusion", "one rule", "one that drops"],
)
async def test_a_rule_ends_if_the_file_says_so_twice(
    path: Path, text: str, comm: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    file = Reloaded(path, RULES)
    asked = asyncio.ensure_future(file.reload(text, text))
    await asyncio.wait_for(file.has_read.wait(), PATIENCE_SECONDS)
    assert not file.counts(comm)
    assert await asked is None
    assert file.reads == 2
    assert file.counts(comm)
    assert comm.decode() in vars(caplog.records[-1])["ended"]


async def test_a_file_that_changes_while_it_is_read_is_not_believed(path: Path) -> None:
    file = Reloaded(path, RULES)
    texts = [RULES.replace("hidden", f"hidden{n}") for n in range(9)]
    assert await file.reload(*texts) == "--config.file: it changes while it is read"
    assert not file.counts(b"hidden")


async def test_the_log_names_some_of_many_rules_that_end(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    file = Reloaded(path, f"exclude: {{uid: {list(range(1000))}}}\n")
    assert await file.reload("{}", "{}") is None
    ended = vars(caplog.records[-1])["ended"]
    assert ended.startswith("exclude.uid 0-0, exclude.uid 1-1, ")
    assert ended.endswith(" and 990 more")


async def test_requests_that_come_together_read_the_file_once(path: Path) -> None:
    file = Reloaded(path, RULES)
    loop = asyncio.get_running_loop()
    began = loop.time()
    for asked in (1, 2, 3):
        for _ in range(100):
            file.reloading.soon()
        problems = await asyncio.gather(*(file.reloading.reload() for _ in range(100)))
        assert problems == [None] * 100
        assert file.reads == asked
    # However fast they come.
    assert loop.time() - began >= 2 * PAUSE_SECONDS


async def test_a_client_that_disconnects_keeps_no_other_from_its_answer(path: Path) -> None:
    file = Reloaded(path, RULES)
    impatient, patient = (asyncio.ensure_future(file.reloading.reload()) for _ in range(2))
    await asyncio.sleep(0)
    impatient.cancel()
    assert await patient is None
    assert file.reads == 1


@pytest.mark.parametrize(("text", "lines"), [("# nothing\n", 1), ("{}\n", 1), (RULES, 0)])
async def test_a_file_without_a_rule_is_warned_of_at_the_start(
    path: Path, text: str, lines: int, caplog: pytest.LogCaptureFixture
) -> None:
    Reloaded(path, text)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * lines
