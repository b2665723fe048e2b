"""The flags that say where names come from, and how they are shown."""

from dataclasses import dataclass

from exporter.flag_parsers import MayBeEmpty, parse_text
from exporter.flags import flag

ATTRIBUTIONS = ("auto", "taskstats", "procfs")
EXEC_NAMES = ("auto", "sideband", "events")
OOM_KILLS = ("auto", "kmsg", "syslog", "vmstat", "off")


@dataclass(frozen=True, slots=True)
class Names:
    """Where comm and uid come from, and the rules for them."""

    attribution: str = flag(
        "--attribution",
        "MODE",
        "auto",
        "Where comm and uid come from: taskstats (exact, needs CAP_NET_ADMIN), procfs, or auto: the best allowed.",
        choices=ATTRIBUTIONS,
        no_effect_with=("--replay",),
    )
    exec_names: str = flag(
        "--exec-names",
        "SOURCE",
        "auto",
        "Where the comm of an exec and the forker of a process come from: sideband (perf records, exact, needs "
        "CAP_PERFMON or a low perf_event_paranoid), events (exit records and /proc), or auto: the best allowed.",
        choices=EXEC_NAMES,
        no_effect_with=("--replay",),
    )
    oom_kills: str = flag(
        "--oom-kills",
        "SOURCE",
        "auto",
        "What says which processes the OOM killer chose: kmsg (/dev/kmsg, exact, opened before --user), syslog "
        "(the same where CAP_SYSLOG stays), vmstat (their number), off, or auto: the best allowed.",
        choices=OOM_KILLS,
        no_effect_with=("--replay",),
    )
    rules_path: str | None = flag(
        "--config.file",
        "FILE",
        "",
        "Rules that rename, fold and exclude programs and users; SIGHUP reads them again.",
        MayBeEmpty(parse_text),
    )
    procfs_path: str = flag(
        "--path.procfs",
        "DIR",
        "/proc",
        "The host's proc file system.",
        no_effect_with=("--replay",),
    )
