"""One event or loss as a JSON object on a line."""

import json

from exporter.kernel.wait_status import exit_code, signal_name
from exporter.processes.observer import Loss, News
from exporter.stream.wall_clock import WallClock
from exporter.tallies.labels import known_group

_NS_PER_SECOND = 1_000_000_000


def json_line(news: News, clock: WallClock) -> str:
    """Return one JSON object, without a line end. A value that is not known is null."""
    if isinstance(news, Loss):
        loss: dict[str, object] = {
            "time": clock.utc(news.time_ns), "event": "lost", "socket": news.socket, "messages": news.messages,
        }  # fmt: skip
        return json.dumps(loss)
    status = news.status
    return json.dumps(
        {
            "time": clock.utc(news.time_ns),
            "event": news.event,
            "pid": news.pid,
            "tgid": news.tgid,
            "ppid": news.ppid,
            "uid": news.uid,
            "comm": news.comm,
            **known_group(news.group),
            "exit_code": None if status is None else exit_code(status),
            "signal": None if status is None else signal_name(status) or None,
            "core": news.core,
            "lifetime_seconds": None if news.lifetime_ns is None else news.lifetime_ns / _NS_PER_SECOND,
            "cpu_seconds": None if news.cpu_ns is None else news.cpu_ns / _NS_PER_SECOND,
            "max_rss_bytes": None if news.max_rss_kib is None else news.max_rss_kib << 10,
        },
        ensure_ascii=False,
    )
