"""What the sources lost."""

from live_rig import Rig


async def test_losses_are_counted_on_when_the_kernels_count_of_32_bits_begins_anew(rig: Rig) -> None:
    for drops in (0xFFFFFFF0, 0xFFFFFFF0, 5, 5):
        rig.connector.drops = drops
        rig.listener.count_losses()
    assert rig.pipeline.lost["connector"] == (1 << 32) + 5


async def test_the_fullest_source_says_how_long_a_pause_may_be(rig: Rig) -> None:
    limit_bytes = rig.connector.meminfo().limit_bytes
    rig.connector.datagrams = [b""] * 10
    rig.taskstats.datagrams = [b""] * 20
    assert rig.listener.look_at_buffers() == 20 * 832 / limit_bytes
    assert {name: fill.used_bytes for name, fill in rig.listener.buffers().items()} == {
        "connector": 10 * 832,
        "taskstats": 20 * 832,
    }
