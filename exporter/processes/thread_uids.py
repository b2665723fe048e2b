"""The real uids of a process's threads, where they are others than the leader's.

A process can have as many threads as the host has pids, each with a uid of its own, and change them as fast as it
can: so nothing here looks at all of them for one event.
"""


class ThreadUids:
    """Uids by thread."""

    def __init__(self) -> None:
        self._uid_of: dict[int, int] = {}
        self._threads_with: dict[int, set[int]] = {}

    def __len__(self) -> int:
        return len(self._uid_of)

    def get(self, pid: int) -> int | None:
        """Return the uid of a thread; None if it is the leader's, or not known."""
        return self._uid_of.get(pid)

    def has(self, uid: int) -> bool:
        """Return whether some thread has a uid."""
        return uid in self._threads_with

    def set(self, pid: int, uid: int) -> None:
        """Note the uid of a thread."""
        self.forget(pid)
        self._uid_of[pid] = uid
        self._threads_with.setdefault(uid, set()).add(pid)

    def forget(self, pid: int) -> bool:
        """Forget a thread, if its uid is known; returns whether it was."""
        uid = self._uid_of.pop(pid, None)
        if uid is None:
            return False
        threads = self._threads_with[uid]
        threads.remove(pid)
        if not threads:
            del self._threads_with[uid]
        return True

    def forget_all_with(self, uid: int | None) -> None:
        """Forget the threads with a uid: it is the leader's now."""
        for pid in () if uid is None else self._threads_with.pop(uid, ()):
            del self._uid_of[pid]
