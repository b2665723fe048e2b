"""Lets atheris, which watches which code is reached, look for bytes that make the pipeline raise.

`PYTHONPATH=tests python -m fuzz.explore [libFuzzer options]`; `make fuzz` calls it with a time limit.
"""

import sys

import atheris  # type: ignore[import-not-found, import-untyped, unused-ignore]  # `make fuzz` installs it

with atheris.instrument_imports(include=["exporter"]):
    import builders
    from host import Host, Mode

_MODES = tuple(Mode)


def one_input(data: bytes) -> None:
    """Cut the bytes into datagrams of both sockets and drain them; nothing may be raised."""
    provider = atheris.FuzzedDataProvider(data)
    host = Host(_MODES[provider.ConsumeIntInRange(0, 2)], sideband=provider.ConsumeBool())
    host.lives(100, b"sh", 1000)
    for _ in range(provider.ConsumeIntInRange(1, 6)):
        template = bytearray(builders.exec_(tgid=100))
        body = provider.ConsumeBytes(40)
        template[36 : 36 + len(body)] = body
        raw = provider.ConsumeBytes(provider.ConsumeIntInRange(0, 80))
        record = bytearray(builders.taskstats_datagram(pid=100, version=provider.ConsumeIntInRange(7, 17)))
        for _ in range(provider.ConsumeIntInRange(0, 8)):
            record[provider.ConsumeIntInRange(0, len(record) - 1)] = provider.ConsumeIntInRange(0, 255)
        host.pipeline.take_events(builders.batch([bytes(template), raw], stride=120))
        host.pipeline.take_records(builders.batch([bytes(record), raw], builders.TASKSTATS_STRIDE))
        if host.sideband:
            ring = bytearray(
                builders.perf_comm(time_ns=host.now_ns, tgid=100, comm=b"make")
                + builders.perf_fork(time_ns=host.now_ns, tgid=101, forker_tgid=100)
            )
            for _ in range(provider.ConsumeIntInRange(0, 8)):
                ring[provider.ConsumeIntInRange(0, len(ring) - 1)] = provider.ConsumeIntInRange(0, 255)
            host.pipeline.take_sideband(bytes(ring) + raw)
        host.drain()


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
