"""exporter/kernel/kernel_log.py: what of the kernel log says that a process was chosen, and what must not."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.kernel.kernel_log import SyslogKill, iter_syslog, new_kills, parse_kmsg

OLD_REST = b" total-vm:33012kB, anon-rss:23168kB, file-rss:6608kB, shmem-rss:0kB"
REST = b" total-vm:33012kB, anon-rss:23168kB, file-rss:6608kB, shmem-rss:0kB, UID:0 pgtables:108kB oom_score_adj:0"
MEMCG = b"Memory cgroup out of memory: Killed process 4711 (java)" + REST
MESSAGES = {
    "memory cgroup": MEMCG,
    "host": b"Out of memory: Killed process 4711 (java)" + REST,
    "the task that allocates": b"Out of memory (oom_kill_allocating_task): Killed process 4711 (java)" + REST,
    "before Linux 5.3": b"Killed process 4711 (java)" + OLD_REST,
    "RHEL 7": b"Killed process 4711 (java), UID 0," + OLD_REST,
    "empty comm": MEMCG.replace(b"java", b""),
    "comm like the rest": MEMCG.replace(b"java", b"x) total-vm:1kB"),
    "comm like the begin": MEMCG.replace(b"java", b"process 1 (init"),
}
OTHERS = {
    "announced": b"Memory cgroup out of memory: Kill process 4711 (java) score 1 or sacrifice child",
    "the other line": b"oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),task=java,pid=4711,uid=0",
    "reaped": b"oom_reaper: reaped process 4711 (java), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB",
    "quoted": b"tmpfs: Unknown parameter 'x " + MEMCG + b"'",
    "quoted, with a newline": b"tmpfs: Unknown parameter '\\x0a" + MEMCG + b"'",
    "begins with a comm": b"Killed process[4711]: segfault at 0 ip 0 sp 0 error 4",
    "no process": MEMCG.replace(b"4711", b"0"),
    "no pid": MEMCG.replace(b"4711", b"99999999"),
    "other case": MEMCG.lower(),
    "cut": MEMCG.partition(b"total-vm")[0],
    "nothing": b"",
}


def kmsg(message: bytes, *, priority: bytes = b"3", flag: bytes = b"-") -> bytes:
    """A record of /dev/kmsg, as the kernel writes it."""
    escaped = re.sub(rb"[^ -~]", lambda byte: b"\\x%02x" % byte[0][0], message)
    return priority + b",422,637831299," + flag + b";" + escaped + b"\n SUBSYSTEM=cpu\n DEVICE=+cpu:0\n"


def syslog(message: bytes, *, time: bytes = b"  637.831299", level: bytes = b"3") -> bytes:
    """A record as syslog(2) writes it: what stands before it is repeated in each of its lines."""
    start = b"<" + level + b">[" + time + b"] "
    return start + message.replace(b"\n", b"\n" + start) + b"\n"


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_a_record_of_a_kill_has_the_pid(message: bytes) -> None:
    assert parse_kmsg(kmsg(message)) == 4711
    assert [kill.pid for kill in iter_syslog(syslog(message))] == [4711]


@pytest.mark.parametrize("message", OTHERS.values(), ids=OTHERS)
def test_other_records_have_none(message: bytes) -> None:
    assert parse_kmsg(kmsg(message)) is None
    assert list(iter_syslog(syslog(message))) == []


def test_a_caller_and_fields_to_come_are_skipped() -> None:
    assert parse_kmsg(b"3,422,637831299,-,caller=T1234;" + MEMCG + b"\n") == 4711
    assert [k.pid for k in iter_syslog(b"<3>[  637.831299][ T1234] " + MEMCG + b"\n")] == [4711]


@pytest.mark.parametrize("priority", [b"12", b"11", b"999999999"])
def test_what_a_program_wrote_is_not_the_kernels(priority: bytes) -> None:
    """User space cannot write facility 0: what it writes has at least 1, times 8."""
    assert parse_kmsg(kmsg(MEMCG, priority=priority)) is None
    assert list(iter_syslog(syslog(MEMCG, level=priority))) == []


def test_a_fragment_is_no_record() -> None:
    assert parse_kmsg(kmsg(MEMCG, flag=b"c")) is None
    assert parse_kmsg(kmsg(MEMCG, flag=b"+")) is None


def test_keys_behind_a_record_are_not_looked_at() -> None:
    assert parse_kmsg(b"6,1,2,-;usb 1-1: new device\n " + MEMCG + b"\n") is None


def test_lines_that_begin_alike_are_one_record() -> None:
    """A record that quotes a newline looks like two."""
    text = syslog(b"tmpfs: Unknown parameter 'x\n" + MEMCG + b"'")
    assert list(iter_syslog(text)) == []
    assert len(list(iter_syslog(syslog(b"harmless") + syslog(MEMCG, time=b"  637.831300")))) == 1


def test_a_prefix_in_a_record_begins_no_line_of_its_own() -> None:
    text = syslog(b"tmpfs: Unknown parameter 'x\n<3>[  700.000000] " + MEMCG + b"'")
    assert list(iter_syslog(text)) == []


def test_without_times_no_line_is_believed() -> None:
    assert list(iter_syslog(b"<3>" + MEMCG + b"\n")) == []


def test_of_a_log_that_was_read_before_only_what_is_new_is_returned() -> None:
    old = syslog(MEMCG)
    new = old + syslog(MEMCG, time=b"  640.000000") + syslog(MEMCG.replace(b"4711", b"4712"), time=b"  641.000000")
    assert new_kills(new, list(iter_syslog(old))) == [
        SyslogKill(b"<3>[  640.000000] ", 4711),
        SyslogKill(b"<3>[  641.000000] ", 4712),
    ]


# -- what strangers can put into a record ------------------------------------------------------------------------

BITS = st.sampled_from(
    [
        b"\n", b")", b"(", b" ", b"a", b"1", b";", b",", b"\\x0a", b"<3>[    1.000000] ", b"3,1,1,-;",
        b"Killed process 1 (", b"Out of memory: ", MEMCG, REST, b"total-vm:1kB, ",
    ]
)  # fmt: skip
TEXT = st.lists(BITS, max_size=8).map(b"".join)


@given(st.lists(BITS, max_size=8).map(b"".join).map(lambda text: text[:15]))
def test_whatever_the_comm_is_the_pid_is_the_kernels(comm: bytes) -> None:
    message = b"Memory cgroup out of memory: Killed process 4711 (" + comm + b")" + REST
    assert parse_kmsg(kmsg(message)) == 4711
    assert [kill.pid for kill in iter_syslog(syslog(message))] == [4711]


@given(TEXT)
def test_whatever_a_record_quotes_it_is_no_kill(text: bytes) -> None:
    message = b"tmpfs: Unknown parameter '" + text + b"'"
    assert parse_kmsg(kmsg(message)) is None
    assert list(iter_syslog(syslog(b"before", time=b"  600.000000") + syslog(message))) == []


@given(st.binary(max_size=300) | TEXT)
def test_no_bytes_raise(data: bytes) -> None:
    parse_kmsg(data)
    list(iter_syslog(data))
