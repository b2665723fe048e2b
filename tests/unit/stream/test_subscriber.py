"""The queue of one client."""

from exporter.stream.subscriber import Subscriber


async def test_a_subscriber_takes_what_fits() -> None:
    subscriber = Subscriber("", buffer_bytes=10)

    def offer(text: bytes, events: int) -> int:
        return subscriber.offer(text, events, lambda lost: b"lost %d" % lost)

    assert offer(b"12345", 1) == 0
    assert offer(b"123456", 2) == 2
    assert offer(b"1234567", 3) == 3
    assert await subscriber.next() == b"12345"
    assert offer(b"x", 1) == 0
    subscriber.close()
    assert [await subscriber.next() for _ in range(3)] == [b"lost 5", b"x", None]
