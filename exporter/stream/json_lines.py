"""One event or loss as a JSON object on a line.

Lines are written by a template, as json.dumps takes four times as long; what repeats is written once.
"""

import json
from functools import lru_cache

from exporter.kernel.wait_status import exit_code, signal_name
from exporter.processes.observer import Loss, News
from exporter.stream.wall_clock import WallClock
from exporter.tallies.labels import GroupName, known_group

_NS_PER_SECOND = 1_000_000_000
_TRUTHS = {None: "null", False: "false", True: "true"}
# A hostile comm takes some 200 bytes, a group of the longest names some 2 KB.
_COMMS_REMEMBERED, _GROUPS_REMEMBERED = 1 << 12, 1 << 8


def json_line(news: News, clock: WallClock) -> str:
    """Return one JSON object, without a line end. A value that is not known is null."""
    if isinstance(news, Loss):
        loss: dict[str, object] = {
            "time": clock.utc(news.time_ns), "event": "lost", "socket": news.socket, "messages": news.messages,
        }  # fmt: skip
        return json.dumps(loss)
    (
        time_ns, event, pid, tgid, ppid, uid, comm, status, core, lifetime_ns, cpu_ns, max_rss_kib, group, oom,
    ) = news  # fmt: skip
    return (
        f'{{"time": "{clock.utc(time_ns)}", "event": "{event}", "pid": {pid}, "tgid": {tgid}, '
        f'"ppid": {"null" if ppid is None else ppid}, "uid": {"null" if uid is None else uid}, '
        f'"comm": {_text(comm)}, {_members(group)}{_end(status)}, '
        f'"core": {_TRUTHS[core]}, "oom": {_TRUTHS[oom]}, '
        f'"lifetime_seconds": {_seconds(lifetime_ns)}, "cpu_seconds": {_seconds(cpu_ns)}, '
        f'"max_rss_bytes": {"null" if max_rss_kib is None else max_rss_kib << 10}}}'
    )


def _seconds(ns: int | None) -> str:
    """Return ns in seconds, exactly: to find the shortest text of a float takes a microsecond."""
    return "null" if ns is None else f"{ns // _NS_PER_SECOND}.{ns % _NS_PER_SECOND:09}"


@lru_cache(_COMMS_REMEMBERED)
def _text(text: str | None) -> str:
    return json.dumps(text, ensure_ascii=False)


@lru_cache(_GROUPS_REMEMBERED)
def _members(group: GroupName) -> str:
    """Return the members of a group, with a comma after each."""
    return "".join(f"{_text(name)}: {_text(value)}, " for name, value in known_group(group).items())


@lru_cache(1 << 10)
def _end(status: int | None) -> str:
    if status is None:
        return '"exit_code": null, "signal": null'
    return f'"exit_code": {exit_code(status)}, "signal": {_text(signal_name(status) or None)}'
