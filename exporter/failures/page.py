"""The failures as a page that a person reads, on a phone or a desk, without a script.

Comms come from strangers: everything that is not of this file is escaped. The browser is told to load and run
nothing.
"""

import html
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple
from urllib.parse import urlencode

from exporter.failures.rows import shown_duration, shown_end, shown_kib
from exporter.kernel.wait_status import exit_code, signal_name
from exporter.processes.bad_ends import Failure
from exporter.stream.wall_clock import WallClock
from exporter.tallies.labels import short_group, uid_label

_ROWS_IN_A_PIECE = 50
_NS_PER_SECOND = 1_000_000_000
_FIELDS = {
    "comm": ("program", "comm or glob"),
    "uid": ("uid", "0,1000"),
    "exit_code": ("exit code", "1,137"),
    "signal": ("signal", "SIGKILL"),
    "oom": ("out of memory", "true or false"),
    "since": ("since", "15m, 2h, 1d"),
}


class Shown(NamedTuple):
    """What the page shows, at one moment."""

    failures: Sequence[Failure]
    """Those that match, the newest first."""
    kept: int
    left_out: int
    """How many there were beside those that are kept."""
    now_ns: int
    """CLOCK_MONOTONIC."""
    clock: WallClock
    query: Sequence[tuple[str, str]]
    """The filters as the client wrote them: names and values."""
    labels: Sequence[str] = ()
    """The labels of groups, each of which is a filter."""


def render_page(shown: Shown) -> Iterator[str]:
    """Write the page, in pieces that take a few milliseconds each."""
    given = dict(reversed(shown.query))
    fields = "\n".join(
        f'<label>{title} <input name="{name}" value="{_escaped(given.get(name, ""))}" '
        f'placeholder="{hint}" size="{max(8, len(hint))}"></label>'
        for name, (title, hint) in (_FIELDS | {name: (name, "name or glob") for name in shown.labels}).items()
    )
    as_json = urlencode([*shown.query, ("format", "json")])
    left_out = ""
    if shown.left_out:
        where = " in one place" if shown.labels else ""
        left_out = (
            f"{shown.left_out:,} more were left out: of one program and end{where} more than 20, and older ones. "
        )
    yield _HEAD.format(
        style=_STYLE,
        fields=fields,
        count=f"{len(shown.failures):,}",
        kept=f"{shown.kept:,}",
        left_out=left_out,
        json=_escaped(as_json),
    )
    if shown.failures:
        yield _TABLE.format(where="<th>where" if shown.labels else "")
        rows = (_row(failure, shown) for failure in shown.failures)
        while piece := "".join(islice(rows, _ROWS_IN_A_PIECE)):
            yield piece
        yield "</tbody></table>\n"
    else:
        yield "<p>None.</p>\n"
    yield "</main></body></html>\n"


def _row(failure: Failure, shown: Shown) -> str:
    time = shown.clock.utc(failure.time_ns)
    age_ns = shown.now_ns - failure.time_ns
    age = f"{shown_duration(age_ns - age_ns % _NS_PER_SECOND)} ago" if age_ns >= _NS_PER_SECOND else "now"
    how = "killed" if signal_name(failure.status) else "failed"
    parent = ""
    if failure.ppid is not None:
        parent = f"{_escaped(failure.parent_comm or '?')} <span>({failure.ppid})</span>"
    more = urlencode({"comm": failure.comm, "exit_code": exit_code(failure.status)})
    chain = " → ".join((*failure.execs, failure.comm)) if failure.execs else ""
    cells: tuple[str, ...] = (
        f'<time datetime="{time}">{time[:10]} {time[11:19]}</time> <small>{age}</small>',
        f'<a href="?{_escaped(more)}">{_escaped(failure.comm)}</a>',
        f'<b class="{how}">{shown_end(failure)}</b>',
        _escaped(uid_label(failure.uid)),
        str(failure.pid),
        parent,
        shown_duration(failure.lifetime_ns),
        shown_duration(failure.cpu_ns),
        shown_kib(failure.max_rss_kib),
        _escaped(chain),
    )
    if shown.labels:
        cells += (_place(failure),)
    # A phone leaves out what is empty.
    return "<tr>" + "".join(f"<td>{cell}" if cell else "<td hidden>" for cell in cells) + "\n"


def _place(failure: Failure) -> str:
    text = short_group(failure.group)
    more = urlencode([(name, value) for name, value in failure.group if value])
    return f'<a href="?{_escaped(more)}">{_escaped(text)}</a>' if text else ""


def _escaped(text: str) -> str:
    return html.escape(text, quote=True)


_STYLE = """
:root{color-scheme:light dark;--line:#8884;--dim:#666;--bad:#b00020;--kill:#8a3ffc}
@media(prefers-color-scheme:dark){:root{--dim:#aaa;--bad:#ff8a80;--kill:#c9a7ff}}
body{font:15px/1.4 system-ui,sans-serif;margin:0 auto;padding:12px;max-width:1400px}
h1{font-size:1.3em;margin:.2em 0}
form{display:flex;flex-wrap:wrap;gap:8px 14px;align-items:end;margin:.8em 0}
label{font-size:.85em;color:var(--dim);display:flex;flex-direction:column}
input,button{font:inherit;padding:4px 6px}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:4px 10px 4px 0;border-bottom:1px solid var(--line);vertical-align:top}
th{font-size:.85em;color:var(--dim);font-weight:600}
td:nth-child(2),td:nth-child(6),td:nth-child(10),td:nth-child(11){overflow-wrap:anywhere}
td:nth-child(4),td:nth-child(5),td:nth-child(7),td:nth-child(8),td:nth-child(9){white-space:nowrap}
td span{white-space:nowrap}
form a{padding:5px 0}
td[hidden]{display:table-cell}
td:nth-child(1){white-space:nowrap}
small,.note{color:var(--dim)}
.failed{color:var(--bad)}
.killed{color:var(--kill)}
@media(min-width:761px){
td small{display:block}
td:nth-child(3){min-width:7.5em}
}
@media(min-width:1000px){
td:nth-child(6){min-width:8em}
td:nth-child(11){min-width:12em}
}
@media(max-width:760px){
thead,td[hidden]{display:none}
table,tbody,tr,td{display:block}
tr{border-bottom:1px solid var(--line);padding:8px 0;display:flex;flex-wrap:wrap;gap:1px 12px}
td{border:0;padding:0}
td:nth-child(1){order:2;flex-basis:100%}
td:nth-child(2){order:1;font-weight:600}
td:nth-child(3){order:1}
td:nth-child(n+4){order:3;font-size:.9em}
td:nth-child(n+4)::before{color:var(--dim)}
td:nth-child(4)::before{content:"uid "}
td:nth-child(5)::before{content:"pid "}
td:nth-child(6)::before{content:"parent "}
td:nth-child(7)::before{content:"lived "}
td:nth-child(8)::before{content:"CPU "}
td:nth-child(9)::before{content:"memory "}
td:nth-child(10)::before{content:"was "}
td:nth-child(11)::before{content:"in "}
label{flex:1 1 40%}
input{width:100%;box-sizing:border-box}
}
""".strip()

_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; \
img-src 'self'; form-action 'self'; base-uri 'none'">
<meta name="referrer" content="no-referrer">
<meta name="viewport" content="width=device-width">
<title>Failures - proc-connector-exporter</title>
<link rel="icon" href="/favicon.ico" type="image/svg+xml">
<style>
{style}
</style>
</head>
<body><main>
<h1>Processes that ended badly</h1>
<form>
{fields}
<button>Filter</button>
<a href="?">all</a>
</form>
<p>{count} of {kept} that are kept, the newest first; times are UTC. \
<span class="note">{left_out}</span>\
<a href="?{json}">JSON</a></p>
"""

_TABLE = """<table>
<thead><tr><th>time<th>program<th>end<th>uid<th>pid<th>parent<th>lived<th>CPU<th>memory<th>execs{where}</thead>
<tbody>
"""
