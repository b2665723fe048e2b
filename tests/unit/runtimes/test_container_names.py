"""exporter/runtimes/container_names.py: which name a container has, and for how long."""

from exporter.runtimes.container_names import KEEP_SECONDS, ContainerNames
from exporter.runtimes.containers import Container, ContainerEvent

WEB, JOB = Container(64 * "a", "web"), Container(64 * "b", "job")


def named(container: Container) -> ContainerEvent:
    return ContainerEvent(container, has_ended=False)


def ended(container: Container) -> ContainerEvent:
    return ContainerEvent(container, has_ended=True)


def test_a_container_keeps_its_name_for_five_minutes_after_its_end() -> None:
    names = ContainerNames()
    names.take(named(WEB), 0)
    names.take(ended(WEB), 10)
    assert len(names) == 0
    names.expire(9 + KEEP_SECONDS)
    assert names.lookup(WEB.container_id) == "web"
    names.expire(10 + KEEP_SECONDS)
    assert names.lookup(WEB.container_id) is None


def test_a_container_that_is_started_again_stays() -> None:
    names = ContainerNames()
    names.take(ended(WEB), 0)
    names.take(named(WEB._replace(name="web-2")), 1)
    names.expire(2 * KEEP_SECONDS)
    assert names.lookup(WEB.container_id) == "web-2"


def test_an_end_alone_has_the_name_too() -> None:
    names = ContainerNames()
    names.take(ended(JOB), 0)
    assert names.lookup(JOB.container_id) == "job"


def test_what_a_list_does_not_have_has_ended() -> None:
    names = ContainerNames()
    names.take(named(WEB), 0)
    names.replace_all([JOB], 10)
    assert len(names) == 1
    assert names.lookup(WEB.container_id) == "web"
    names.expire(10 + KEEP_SECONDS)
    assert names.lookup(WEB.container_id) is None
    assert names.lookup(JOB.container_id) == "job"


def test_there_is_room_for_a_number_of_them_and_those_that_ended_give_way_first() -> None:
    names = ContainerNames(most=3)
    many = [Container(f"{i:064x}", f"c{i}") for i in range(6)]
    names.take(named(many[0]), 0)
    names.take(ended(many[1]), 0)
    names.take(named(many[2]), 0)
    names.take(named(many[3]), 0)
    assert [names.lookup(each.container_id) for each in many[:4]] == ["c0", None, "c2", "c3"]
    names.take(named(many[4]), 0)
    assert [names.lookup(each.container_id) for each in many[:5]] == [None, None, "c2", "c3", "c4"]
    names.replace_all(many, 0)
    assert len(names) == 3
