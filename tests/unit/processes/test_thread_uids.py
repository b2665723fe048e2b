"""exporter/processes/thread_uids.py: the uids of threads that are not their leader's."""

from exporter.processes.thread_uids import ThreadUids


def test_uids_are_found_by_thread_and_threads_by_uid() -> None:
    uids = ThreadUids()
    assert not uids
    uids.set(11, 1000)
    uids.set(12, 1000)
    uids.set(13, 2000)
    assert [uids.get(pid) for pid in (11, 12, 13, 14)] == [1000, 1000, 2000, None]
    uids.set(11, 2000)
    assert uids.has(1000)
    assert uids.forget(12)
    assert not uids.forget(12)
    assert not uids.has(1000)
    assert len(uids) == 2
    uids.forget_all_with(None)
    uids.forget_all_with(3000)
    assert uids.has(2000)
    uids.forget_all_with(2000)
    assert not uids
    assert not uids.has(2000)
