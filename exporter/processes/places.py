"""Which group a placement is: a container, a pod's container, a unit, or none of these.

A pod's name and its container's come from Kubernetes, other containers' from Docker or Podman, and can come later
than the container's first process. Until then its group is open: what is counted in it waits. When the name comes,
or does not come, it is settled for good.
"""

from typing import NamedTuple

from exporter.groups.cgroup_path import Placement, has_long_id, shown_container
from exporter.tallies.cells import Group
from exporter.tallies.labels import UNKNOWN, printable
from exporter.tallies.tallies import Tallies

# Hostile paths must not fill the memory.
_MOST_PLACES = 1 << 12
# So many containers wait for their names at a time. Further ones are shown without.
_MOST_NAMELESS = 1 << 10


class PodContainer(NamedTuple):
    """A container, as its cgroup path has it."""

    pod_uid: str
    """Of Kubernetes; "" if it is in no such pod."""
    container_id: str


class PodName(NamedTuple):
    """What a container is called, and its pod."""

    namespace: str
    pod: str
    container: str


class HeldGroup(Group):
    """The group of a container whose name is not known yet."""

    __slots__ = ()
    is_open = True


class Places:
    """The groups of placements.

    Args:
        tallies: Have the groups.
        by: What groups are made of: pod, unit or both.
        names_pods: Names of pods come; otherwise they cannot be known.
        names_containers: Names of containers in no pod come; otherwise their short ids are their names.

    Attributes:
        nameless: The containers whose name is waited for, and their groups so far.
        names: Those that were given, of groups that there are.
        unnamed: How many groups were settled without a name.
    """

    def __init__(
        self, tallies: Tallies, by: frozenset[str], *, names_pods: bool, names_containers: bool = False
    ) -> None:
        self._tallies = tallies
        self._by = by
        self._names_pods = names_pods
        self._names_containers = names_containers
        self._groups: dict[tuple[str, ...], Group] = {}
        self._rules = tallies.rules
        self.nameless: dict[PodContainer, dict[str, HeldGroup]] = {}
        self.names: dict[PodContainer, PodName | None] = {}
        self.unnamed = 0

    def group_of(self, placement: Placement) -> Group:
        """Return the group of a placement; one that is open if its name is waited for."""
        if self._rules is not self._tallies.rules:
            # Other rules can make other groups of the same placements.
            self._rules = self._tallies.rules
            self._groups = {key: group for key, group in self._groups.items() if group.is_open}
        key = (
            *((placement.pod_uid, placement.container_id) if "pod" in self._by else ("", "")),
            placement.unit if "unit" in self._by else "",
        )
        group = self._groups.get(key)
        if group is None:
            if len(self._groups) >= _MOST_PLACES:
                self._groups = {key: group for key, group in self._groups.items() if group.is_open}
                self.names.clear()
            group = self._groups[key] = self._new_group(PodContainer(*key[:2]), key[2])
        return group

    def _new_group(self, container: PodContainer, unit: str) -> Group:
        shown = shown_container(container.container_id)
        if shown == UNKNOWN:
            # A user who may make cgroups can call a machine so.
            shown = printable(shown)
        if not container.pod_uid and not (self._names_containers and has_long_id(container.container_id)):
            return self._claim(PodName("", "", shown), unit)
        if container.pod_uid and not self._names_pods:
            return self._claim(PodName(UNKNOWN, UNKNOWN, shown), unit)
        if container in self.names:
            return self._claim(self.names[container] or PodName(UNKNOWN, UNKNOWN, UNKNOWN), unit)
        if len(self.nameless) >= _MOST_NAMELESS and container not in self.nameless:
            self.unnamed += 1
            return self._claim(PodName(*3 * (UNKNOWN,)) if container.pod_uid else PodName("", "", shown), unit)
        held = HeldGroup()
        self._tallies.groups.open[held] = None
        self.nameless.setdefault(container, {})[unit] = held
        return held

    def _claim(self, name: PodName, unit: str) -> Group:
        values = (*(name if "pod" in self._by else ()), *((unit,) if "unit" in self._by else ()))
        return self._tallies.claim_group(values)

    def name(self, container: PodContainer, name: PodName | None) -> list[Group]:
        """Give a container its name, once.

        Args:
            container: One of nameless.
            name: Its name; None if it is not waited for any longer.

        Returns:
            Its groups so far, which have a successor now.
        """
        held = self.nameless.pop(container, {})
        if held:
            self.names[container] = name
        for unit, group in held.items():
            self.unnamed += name is None or name.container == UNKNOWN
            known = self._claim(name or PodName(UNKNOWN, UNKNOWN, UNKNOWN), unit)
            self._tallies.settle(group, known)
            if self._groups.get((*container, unit)) is group:
                self._groups[*container, unit] = known
        return list(held.values())

    def forget(self, group: Group) -> None:
        """Forget the placements of a group that is dropped."""
        for key in [key for key, each in self._groups.items() if each is group]:
            del self._groups[key]
            self.names.pop(PodContainer(*key[:2]), None)

    def placements(self) -> dict[Group, Placement]:
        """Return a placement of each group that has one."""
        return {group: Placement(key[0], key[1], key[2], "") for key, group in self._groups.items()}

    def has_container(self, group: Group) -> bool:
        """Return whether a group is that of a container that was found."""
        return any(each.last is group and key[1] for key, each in self._groups.items())

    def is_container(self, group: Group) -> bool:
        """Return whether a group is that of a container or a pod, which do not come again."""
        return "pod" in self._by and any(group.values[: len(PodName._fields)])
