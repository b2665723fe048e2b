"""exporter/kernel/kernel_log_readers.py: what is read of the log, without a kernel that writes one."""

import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.kernel.test_kernel_log import MEMCG, kmsg, syslog

from exporter.errors import SetupError
from exporter.kernel import kernel_log_readers
from exporter.kernel.kernel_log_readers import Kmsg, NewKills, Syslog

OVERWRITTEN = BrokenPipeError(errno.EPIPE, "overwritten")


class Device:
    """What reads of /dev/kmsg return, one record or error each; then nothing is new."""

    def __init__(self) -> None:
        self.records: list[bytes | OSError] = []

    def read(self, _: int, size: int) -> bytes:
        if not self.records:
            raise BlockingIOError
        record = self.records.pop(0)
        if isinstance(record, OSError):
            raise record
        return record[:size]


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    device = Device()
    monkeypatch.setattr(os, "read", device.read)
    return device


@pytest.fixture
def log(tmp_path: Path, device: Device) -> Iterator[Kmsg]:
    path = tmp_path / "kmsg"
    path.touch()
    log = Kmsg(str(path))
    yield log
    log.close()


def test_each_record_is_read_once(log: Kmsg, device: Device) -> None:
    device.records = [kmsg(b"usb 1-1: new device"), kmsg(MEMCG), kmsg(MEMCG.replace(b"4711", b"4712"))]
    assert log.read() == NewKills([4711, 4712], is_whole=True)
    assert log.read() == NewKills([], is_whole=True)


def test_records_that_were_overwritten_make_a_hole(log: Kmsg, device: Device) -> None:
    device.records = [kmsg(b"x"), OVERWRITTEN, kmsg(MEMCG)]
    assert log.read() == NewKills([4711], is_whole=False)
    assert log.read() == NewKills([], is_whole=True)


def test_a_record_that_is_too_long_is_a_hole(log: Kmsg, device: Device) -> None:
    device.records = [kmsg(MEMCG), OSError(errno.EINVAL, "too long")]
    assert log.read() == NewKills([4711], is_whole=False)


def test_a_log_that_is_long_is_read_in_parts(log: Kmsg, device: Device) -> None:
    device.records = [*[kmsg(b"spam")] * 2000, kmsg(MEMCG)]
    assert log.read() == NewKills([], is_whole=True, is_all=False)
    assert log.read() == NewKills([4711], is_whole=True)


def test_a_device_that_cannot_be_opened_is_said(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"cannot open .*none .No such file.*CAP_SYSLOG"):
        Kmsg(str(tmp_path / "none"))


class Ring:
    """A kernel log for syslog(2): the newest bytes of it."""

    def __init__(self) -> None:
        self.text = b""
        self.is_permitted = True

    def klogctl(self, kind: int, buffer: "ctypes.Array[ctypes.c_char] | None", size: int) -> int:
        if not self.is_permitted:
            return -1
        if buffer is None:
            return 4096
        assert kind == 3
        newest = self.text[-size:]
        ctypes.memmove(buffer, newest, len(newest))
        return len(newest)


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> Ring:
    ring = Ring()

    def answer(kind: int, buffer: "ctypes.Array[ctypes.c_char] | None", size: int) -> int:
        return ring.klogctl(kind, buffer, size)

    monkeypatch.setattr(kernel_log_readers, "_syslog", answer)
    return ring


def written(*pids: int) -> bytes:
    lines = [syslog(MEMCG.replace(b"4711", b"%d" % pid), time=b"%5d.000000" % pid) for pid in pids]
    return b"".join(lines)


def test_of_syslog_only_what_is_new_is_returned(ring: Ring) -> None:
    ring.text = written(1)
    log = Syslog()
    assert log.read() == NewKills([1], is_whole=True)
    ring.text += written(2, 3)
    assert log.read() == NewKills([2, 3], is_whole=True)
    assert log.read() == NewKills([], is_whole=True)
    log.close()


def test_if_nothing_is_left_of_what_was_there_something_can_be_lost(ring: Ring) -> None:
    ring.text = written(1)
    log = Syslog()
    log.read()
    ring.text = written(3)
    assert log.read() == NewKills([3], is_whole=False)


def test_if_it_is_not_permitted_any_more_that_is_a_hole(ring: Ring) -> None:
    log = Syslog()
    ring.is_permitted = False
    assert log.read() == NewKills([], is_whole=False)


def test_if_it_is_not_permitted_that_is_said(ring: Ring) -> None:
    ring.is_permitted = False
    with pytest.raises(SetupError, match=r"not permitted to read the kernel log .syslog.: it needs CAP_SYSLOG"):
        Syslog()
