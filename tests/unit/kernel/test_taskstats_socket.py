"""What is asked of taskstats at the start, with answers that are not the kernel's."""

import os
import socket
from collections.abc import Callable, Iterator

import builders
import pytest

from exporter.errors import MalformedMessage
from exporter.kernel.taskstats_socket import Taskstats

SEQ = 8


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], Taskstats]]:
    """A socket whose requests are answered: the family is 31, and this program's record is what was passed."""
    ours, kernels = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    taskstats = Taskstats(ours)

    def answering(own: bytes) -> Taskstats:
        answers = iter([builders.family_reply(31, seq=SEQ), own, builders.nlmsg_error(0, seq=SEQ)])
        monkeypatch.setattr(taskstats, "send", lambda _: kernels.send(next(answers)))
        return taskstats

    monkeypatch.setattr("exporter.kernel.taskstats_socket.secrets.randbelow", lambda _: SEQ - 1)
    yield answering
    taskstats.close()
    kernels.close()


@pytest.mark.parametrize("null_pad", [False, True], ids=["", "padded"])
def test_the_kernels_record_of_this_program_says_how_records_are_laid_out(
    answered: Callable[[bytes], Taskstats], null_pad: bool
) -> None:
    own = builders.taskstats_datagram(pid=os.getpid(), family_id=31, seq=SEQ, null_pad=null_pad, ac_flag=0)
    taskstats = answered(own)
    taskstats.register("0-1")
    assert (taskstats.family_id, taskstats.version) == (31, 16)
    assert taskstats.stats_offset == (40 if null_pad else 36)


def test_a_version_that_has_the_process_of_a_thread_elsewhere_is_refused(
    answered: Callable[[bytes], Taskstats],
) -> None:
    own = builders.taskstats_datagram(pid=os.getpid(), family_id=31, seq=SEQ, ac_tgid=0, ac_flag=0)
    with pytest.raises(MalformedMessage, match=r"ac_tgid of struct taskstats v16"):
        answered(own).register("0-1")
