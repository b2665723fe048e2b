"""What an observer gets of each kind of event, field by field."""

import re
from collections.abc import Callable

import builders
import pytest
from host import MS, START_NS, Host, Mode, Thread

from exporter.processes.observer import Happening, Loss, News
from exporter.tallies.rules import Rule, Rules
from exporter.tallies.tallies import LEAST_LIMIT, Tallies


class Told:
    """A host, and what an observer got of it."""

    def __init__(self, mode: Mode = Mode.EXACT, tallies: Tallies | None = None, oom_source: str = "") -> None:
        self.news: list[News] = []
        self.host = Host(mode, tallies=tallies, oom_source=oom_source)
        self.host.lives(100, b"sh", 1000)
        self.host.pipeline.observe(self.news.extend)

    def of(self, tgid: int) -> list[tuple[object, ...]]:
        """(event, pid, ppid, uid, comm) of a process's, in their order."""
        return [
            (n.event, n.pid, n.ppid, n.uid, n.comm)
            for n in self.news
            if isinstance(n, Happening) and n.tgid == tgid
        ]

    @property
    def last(self) -> Happening:
        news = self.news[-1]
        assert isinstance(news, Happening)
        return news


def test_a_short_life_is_observed_in_its_order_with_all_that_is_known() -> None:
    told = Told()
    host = told.host
    host.fork(100, 400)
    forked_ns = host.now_ns
    host.exec(400)
    host.record(Thread(400, b"make", 1000), status=0x200, cpu_ms=3, rss_kib=2048)
    host.exit(400, 0x200, parent=100)
    ended_ns = host.now_ns
    host.drain()
    assert told.of(400) == [
        ("fork", 400, 100, 1000, "sh"),
        ("exec", 400, None, 1000, "make"),
        ("exit", 400, 100, 1000, "make"),
    ]
    assert told.last == Happening(
        ended_ns, "exit", 400, 400, 100, 1000, "make", 0x200, False, ended_ns - forked_ns, 3 * MS, 2048, oom=False
    )


def test_what_happens_under_a_name_that_is_looked_up_waits_for_it() -> None:
    told = Told()
    host = told.host
    host.fork(100, 400)
    host.exec(400, b"server")
    host.fork(400, 401)
    host.drain()
    assert told.of(400) == [("fork", 400, 100, 1000, "sh")]
    assert told.of(401) == []
    host.settle()
    assert told.of(400)[1:] == [("exec", 400, None, 1000, "server")]
    assert told.of(401) == [("fork", 401, 400, 1000, "server")]


def test_a_name_that_will_never_be_known_is_observed_as_unknown() -> None:
    told = Told(Mode.PROCFS)
    told.host.fork(100, 400)
    told.host.exec(400)
    told.host.exit(400, 9)
    told.host.drain()
    assert [row[-1] for row in told.of(400)] == ["sh", None, None]
    assert (told.last.status, told.last.cpu_ns, told.last.max_rss_kib) == (9, None, None)


@pytest.mark.parametrize(
    ("event", "fields", "row"),
    [
        (builders.uid, {"tgid": 100, "ruid": 33}, ("uid", 100, None, 33, "sh")),
        (builders.gid, {"tgid": 100, "rgid": 33}, ("gid", 100, None, 1000, "sh")),
        (builders.sid, {"tgid": 100}, ("sid", 100, None, 1000, "sh")),
        (builders.ptrace, {"tgid": 100, "tracer_tgid": 7}, ("ptrace", 100, None, 1000, "sh")),
        (builders.comm, {"tgid": 100, "comm": b"\x1b[2J"}, ("comm", 100, None, 1000, "\\x1b[2J")),
        (builders.comm, {"tgid": 100, "pid": 101, "comm": b"worker"}, ("comm", 101, None, 1000, "worker")),
        (builders.coredump, {"tgid": 100, "pid": 101, "parent_tgid": 7}, ("coredump", 101, 7, 1000, "sh")),
        (
            builders.fork,
            {"parent_tgid": 1, "child_tgid": 100, "child_pid": 101},
            ("thread_fork", 101, None, 1000, "sh"),
        ),
        (builders.exit_, {"tgid": 100, "pid": 101, "exit_code": 0x300}, ("thread_exit", 101, None, 1000, "sh")),
    ],
    ids=["uid", "gid", "sid", "ptrace", "comm", "thread's comm", "coredump", "thread_fork", "thread_exit"],
)  # fmt: skip
def test_every_other_event_is_observed(
    event: Callable[..., bytes], fields: dict[str, object], row: tuple[object, ...]
) -> None:
    told = Told()
    told.host.event(event, **fields)
    told.host.drain()
    assert told.of(100) == [row]


def test_that_a_process_is_not_traced_any_more_is_not_observed() -> None:
    told = Told()
    told.host.event(builders.ptrace, tgid=100, tracer_tgid=0)
    told.host.drain()
    assert told.news == []


def test_the_core_bit_is_found_on_whichever_thread_has_it() -> None:
    told = Told()
    host = told.host
    host.thread(100, 101)
    host.event(builders.exit_, tgid=100, pid=101, exit_code=0x8B)
    host.record(Thread(100, b"sh", 1000), status=0x0B)
    host.exit(100, 0x0B)
    host.drain()
    assert (told.last.event, told.last.status, told.last.core) == ("exit", 0x0B, True)


def test_a_process_that_was_not_known_is_observed_with_what_its_record_says() -> None:
    told = Told()
    told.host.record(Thread(400, b"stranger", 65534), status=0x100, ms=7)
    told.host.exit(400, 0x100)
    told.host.drain()
    assert told.of(400) == [("exit", 400, None, 65534, "stranger")]
    assert told.last.lifetime_ns == 7 * MS


def test_a_canary_is_not_observed() -> None:
    told = Told()
    told.host.pipeline.expect_canary(500)
    told.host.fork(4000, 500)
    told.host.end(500, b"canary", 0, 0x2A00)
    told.host.drain()
    assert told.news == []


def test_a_loss_is_observed_with_its_number() -> None:
    told = Told()
    told.host.pipeline.lose("connector", 12, START_NS)
    told.host.drain()
    assert told.news == [Loss(START_NS, "connector", 12)]


def test_the_rules_say_what_is_observed_and_under_which_name() -> None:
    rules = Rules([Rule(re.compile("secret.*"), None), Rule(re.compile("make-.*"), ("make",))])
    told = Told(tallies=Tallies(rules=rules))
    for child, comm in ((400, b"secret-1"), (401, b"make-17"), (402, b"other")):
        told.host.fork(100, child)
        told.host.exec(child)
        told.host.end(child, comm, 1000)
    told.host.drain()
    assert [row[-1] for row in told.of(400)] == ["sh"]
    assert [row[-1] for row in told.of(401)] == ["sh", "make", "make"]
    assert [row[-1] for row in told.of(402)] == ["sh", "other", "other"]


def test_what_has_no_series_of_its_own_is_observed_under_its_name() -> None:
    tallies = Tallies(LEAST_LIMIT)
    told = Told(tallies=tallies)
    for number in range(LEAST_LIMIT):
        told.host.record(Thread(1000 + number, b"name%d" % number, 1000))
        told.host.exit(1000 + number)
    told.host.drain()
    assert tallies.full
    assert {n.comm for n in told.news if isinstance(n, Happening)} == {f"name{n}" for n in range(LEAST_LIMIT)}


def test_a_core_dump_is_not_shown_of_the_next_process_with_that_pid() -> None:
    told = Told()
    host = told.host
    host.fork(100, 400)
    host.thread(400, 401)
    host.end(400, b"sh", 1000, 0x8B, thread=401, last=False)
    host.drain()
    host.pipeline.forget(host.pipeline.missing([100]), host.now_ns)
    host.fork(100, 400)
    host.end(400, b"next", 1000, 0)
    host.drain()
    assert (told.last.comm, told.last.core) == ("next", False)


def test_a_rename_to_a_comm_that_the_rules_exclude_is_not_shown() -> None:
    told = Told(tallies=Tallies(rules=Rules((Rule(re.compile("secret"), None),))))
    told.host.rename(100, b"secret")
    told.host.rename(100, b"shown")
    told.host.drain()
    assert [news.comm for news in told.news if isinstance(news, Happening) and news.event == "comm"] == ["shown"]


# -- OOM kills --------------------------------------------------------------------------------------------------


def _kill(told: Told, *tgids: int) -> None:
    for tgid in tgids:
        told.host.fork(100, tgid)
        told.host.record(Thread(tgid, b"eater", 1000), status=9)
        told.host.exit(tgid, 9, parent=100)
    told.host.drain()


def _ooms(told: Told) -> list[tuple[int, bool | None]]:
    return [(n.tgid, n.oom) for n in told.news if isinstance(n, Happening) and n.event == "exit"]


def test_an_end_by_sigkill_is_published_when_the_kernel_log_says_what_it_was() -> None:
    told = Told(oom_source="kmsg")
    _kill(told, 400, 401)
    assert _ooms(told) == []
    told.host.read_log(401)
    assert _ooms(told) == [(400, False), (401, True)]


def test_by_number_it_is_published_at_once_if_there_was_no_kill() -> None:
    told = Told(oom_source="vmstat")
    told.host.read_total(7)
    _kill(told, 400)
    told.host.read_total(7)
    assert _ooms(told) == [(400, False)]


def test_by_number_it_waits_for_all_that_were_chosen() -> None:
    told = Told(oom_source="vmstat")
    told.host.read_total(7)
    _kill(told, 400, 401)
    told.host.read_total(8)
    assert _ooms(told) == []
    told.host.pipeline.oom_victims_ended(told.host.now_ns)
    assert _ooms(told) == [(400, None), (401, None)], "which of the two is not known"


def test_after_a_loss_it_does_not_wait_any_longer() -> None:
    told = Told(oom_source="vmstat")
    told.host.read_total(7)
    _kill(told, 400)
    told.host.read_total(8)
    told.host.pipeline.lose_track()
    assert _ooms(told) == [(400, None)]


def test_where_oom_kills_are_not_known_it_does_not_wait() -> None:
    told = Told()
    _kill(told, 400)
    assert _ooms(told) == [(400, None)]
