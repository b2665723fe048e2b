"""The man page, and completions for bash, zsh and fish, from the flags of the program."""

import gzip
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from exporter import __version__
from exporter.command_line import SUBCOMMANDS
from exporter.config import FLAGS
from exporter.flags import Flag
from exporter.watch.flags import ROWS as WATCH_ROWS
from exporter.watch.flags import WATCH_FILTERS

NAME = "proc-connector-exporter"
ZSH_FOLDER = "site-functions"
"""Where zsh looks for completions below share/zsh, also of /usr/local. Packages of Debian have another folder."""

_EXIT_CODES = {
    "0": "stopped by SIGTERM or SIGINT, or at the end of what was asked for",
    "1": "this host does not let the exporter run as it was asked to, or lacks an address to listen on",
    "2": "a setting is wrong, or a broken --config.file or --web.config.file",
    "3": "an address is in use, wrong or not permitted, or systemd passed no socket",
    "4": "a capture cannot be read or written",
    "5": "the kernel sends no process events to the exporter",
    "70": "a bug",
}
_FILES = {
    f"/etc/default/{NAME}": "The variables of the service.",
    f"/etc/{NAME}/": "Its rules, web configuration and certificates.",
    f"/run/{NAME}/": "The folder of the service for --stream.socket.",
    f"/var/lib/{NAME}/": "The folder of the service for --capture.",
}


class Option(NamedTuple):
    """A flag as the shells complete it."""

    name: str
    help: str
    metavar: str | None
    """None if it needs no value."""
    choices: tuple[str, ...]

    @property
    def takes_file(self) -> bool:
        """Whether its value is a path."""
        return self.metavar in {"FILE", "DIR", "PATH"} and self.name != "--web.telemetry-path"


def _options(rows: Iterable[Flag]) -> Iterator[Option]:
    for row in rows:
        if row.is_switch:
            yield Option(row.name, row.help, None, ())
            yield Option(f"--no-{row.name.removeprefix('--')}", f"Turn off {row.name}.", None, ())
        else:
            yield Option(row.name, row.help, row.metavar, row.choices or ())


HELP = Option("--help", "Show the flags.", None, ())
OPTIONS: Mapping[str, tuple[Option, ...]] = {
    "": (*_options(FLAGS), HELP, Option("--version", "Show the version.", None, ())),
    "watch": (
        *(Option(f"--{spec.name.replace('_', '-')}", spec.help, spec.metavar, ()) for spec in WATCH_FILTERS),
        *_options(WATCH_ROWS.values()),
        HELP,
    ),
    "dashboards": (Option("--output", "The folder to write dashboards and rules to.", "DIR", ()), HELP),
}
"""The flags of each subcommand; of the program itself under an empty name."""


def write_documents(share: Path, zsh: str = ZSH_FOLDER) -> None:
    """Write everything below a prefix's share/.

    Args:
        share: That folder.
        zsh: Where zsh of this system looks for completions, below share/zsh.
    """
    documents = {
        f"bash-completion/completions/{NAME}": bash_completion(),
        f"zsh/{zsh}/_{NAME}": zsh_completion(),
        f"fish/vendor_completions.d/{NAME}.fish": fish_completion(),
    }
    for name, text in documents.items():
        path = share / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    page = share / "man" / "man1" / f"{NAME}.1.gz"
    page.parent.mkdir(parents=True, exist_ok=True)
    # Without a time of now, so that the same flags give the same bytes.
    page.write_bytes(gzip.compress(man_page().encode(), mtime=0))


def man_page() -> str:
    """Return the man page, in the language of man(7)."""
    return "\n".join(_man_lines()) + "\n"


def _man_lines() -> Iterator[str]:
    yield f'.TH PROC\\-CONNECTOR\\-EXPORTER 1 "" "{NAME} {__version__}" "User Commands"'
    yield from (".SH NAME", _roff(f"{NAME} - Prometheus exporter of process life"))
    yield from (".SH SYNOPSIS", f".B {_roff(NAME)}", "[FLAG ...]", ".br", f".B {_roff(NAME)} watch", "[FLAG ...]")
    yield from (".br", f".B {_roff(NAME)} dashboards \\-\\-output", ".I DIR")
    yield ".SH DESCRIPTION"
    yield _roff(
        "Counts every fork, exec, exit and non-zero exit of this host, from the kernel's process connector, and "
        "serves the counts as Prometheus metrics. watch prints the events as they happen. dashboards writes "
        "the dashboards and rules that came with the program to a folder."
    )
    yield ".SH OPTIONS"
    yield _roff("--no-NAME turns off a flag that needs no value. A value stands behind = or a space.")
    yield from _roff_options(FLAGS)
    yield ".SH OPTIONS OF WATCH"
    for option in OPTIONS["watch"][: len(WATCH_FILTERS)]:
        yield from (".TP", f"\\fB{_roff(option.name)}\\fR \\fI{option.metavar}\\fR", _roff(option.help))
    yield from _roff_options(tuple(WATCH_ROWS.values()))
    yield ".SH ENVIRONMENT"
    yield _roff(
        "Each flag of the exporter, not of watch, can be set by a variable: "
        f"{FLAGS[0].name} is {FLAGS[0].variable}. The flag wins. "
        "Durations are 15s, 2m, 1h30m, 1d or plain seconds; sizes 64MiB, 64M, 1G or plain bytes."
    )
    yield ".SH SIGNALS"
    yield _roff("SIGTERM and SIGINT stop the exporter. SIGHUP reads the rules of --config.file anew.")
    yield ".SH EXIT STATUS"
    yield from _roff_table(_EXIT_CODES)
    yield ".SH FILES"
    yield from _roff_table(_FILES)
    yield from (".SH SEE ALSO", ".BR systemctl (1),", ".BR netlink (7)")


def _roff_options(rows: Sequence[Flag]) -> Iterator[str]:
    for heading in dict.fromkeys(row.group for row in rows):
        yield f".SS {heading.capitalize()}"
        for row in (row for row in rows if row.group == heading):
            value = "" if row.is_switch else f" \\fI{row.metavar}\\fR"
            choices = f" One of {', '.join(row.choices)}." if row.choices and not row.is_switch else ""
            default = f" The default is {row.default}." if row.default not in {None, "", "false"} else ""
            yield from (".TP", f"\\fB{_roff(row.name)}\\fR{value}", _roff(row.help + choices + default))


def _roff_table(rows: Mapping[str, str]) -> Iterator[str]:
    for name, text in rows.items():
        yield from (".TP", f".B {_roff(name)}", _roff(text))


def _roff(text: str) -> str:
    """Escape a text. A line that begins with a dot or a quote would be a request."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped[:1] in {".", "'"} else escaped


def bash_completion() -> str:
    """Return completions for bash."""
    lines = [f"# bash completion of {NAME}", "_proc_connector_exporter() {"]
    lines += ["    local current previous flags values files=", "    COMPREPLY=()"]
    # The word of bash ends at "=" too: both ways to give a value are one.
    lines += [
        '    current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}"',
        '    [[ "$current" == "=" ]] && current=',
        '    [[ "$previous" == "=" ]] && previous="${COMP_WORDS[COMP_CWORD-2]}"',
        '    case "${COMP_WORDS[1]}" in',
    ]
    for subcommand, options in sorted(OPTIONS.items(), reverse=True):
        words = " ".join(option.name for option in options)
        cases = [f"{option.name}) values='{' '.join(option.choices)}'" for option in options if option.choices]
        cases += [f"{option.name}) files=1" for option in options if option.takes_file]
        cases += [
            f"{option.name}) return"
            for option in options
            if option.metavar and not option.choices and not option.takes_file
        ]
        lines += [f"    {subcommand or '*'})", f"        flags='{words}'", '        case "$previous" in']
        lines += [*(f"            {case} ;;" for case in cases), "        esac", "        ;;"]
    lines += [
        "    esac",
        '    if [[ -n "$files" ]]; then',
        '        COMPREPLY=($(compgen -f -- "$current"))',
        '    elif [[ -n "$values" ]]; then',
        '        COMPREPLY=($(compgen -W "$values" -- "$current"))',
        '    elif [[ "$COMP_CWORD" == 1 && "$current" != -* ]]; then',
        f'        COMPREPLY=($(compgen -W "{" ".join(SUBCOMMANDS)} $flags" -- "$current"))',
        "    else",
        '        COMPREPLY=($(compgen -W "$flags" -- "$current"))',
        "    fi",
        "}",
        f"complete -o filenames -F _proc_connector_exporter {NAME}",
    ]
    return "\n".join(lines) + "\n"


def zsh_completion() -> str:
    """Return completions for zsh."""
    lines = [f"#compdef {NAME}", "", 'case "$words[2]" in']
    for subcommand, options in sorted(OPTIONS.items(), reverse=True):
        lines.append(f"{subcommand or '*'})")
        lines.append("    _arguments \\")
        if subcommand:
            lines.append(f"        '1:subcommand:({subcommand})' \\")
        lines += [f"        {_zsh_option(option)} \\" for option in options]
        lines += [
            "        && return" if subcommand else f"        '1:subcommand:({' '.join(SUBCOMMANDS)})'",
            "    ;;",
        ]
    return "\n".join([*lines, "esac"]) + "\n"


def _zsh_option(option: Option) -> str:
    text = option.help.replace("'", "'\\''").replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")
    if option.metavar is None:
        return f"'{option.name}[{text}]'"
    action = f"({' '.join(option.choices)})" if option.choices else "_files" if option.takes_file else ""
    return f"'{option.name}=[{text}]:{option.metavar}:{action}'"


def fish_completion() -> str:
    """Return completions for fish."""
    no_subcommand = f"not __fish_seen_subcommand_from {' '.join(SUBCOMMANDS)}"
    lines = [f"complete -c {NAME} -f"]
    lines += [f"complete -c {NAME} -n __fish_use_subcommand -a {name}" for name in SUBCOMMANDS]
    for subcommand, options in OPTIONS.items():
        condition = f"__fish_seen_subcommand_from {subcommand}" if subcommand else no_subcommand
        for option in options:
            text = option.help.replace("\\", "\\\\").replace("'", "\\'")
            value = "" if option.metavar is None else " -r -F" if option.takes_file else " -x"
            value += f" -a '{' '.join(option.choices)}'" if option.choices else ""
            lines.append(
                f"complete -c {NAME} -n '{condition}' -l {option.name.removeprefix('--')}{value} -d '{text}'"
            )
    return "\n".join(lines) + "\n"
