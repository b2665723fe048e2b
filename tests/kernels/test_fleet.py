"""Guests take turns; here a script plays QEMU: it runs until a file says that its guest turns itself off."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kernels import guests, image
from kernels.guests import Fleet, Plan, booted
from kernels.machines import AMD64, Kernel

QEMU = r"""#!/bin/sh
for word; do case $word in
    *guest=*) guest=${word##*guest=} ;;
    file,id=results,path=*) results=${word##*path=} ;;
esac; done
folder=${results%/*}
touch "$folder/$guest.on"
until [ -e "$folder/$guest.off" ]; do sleep 0.02; done
echo "end 0 1" >>"$results"
"""


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    qemu = tmp_path / "qemu"
    qemu.write_text(QEMU, encoding="utf-8")
    qemu.chmod(0o755)
    monkeypatch.setattr(image, "vmlinuz", lambda kernel: tmp_path / "vmlinuz")
    monkeypatch.setattr(image, "initramfs", lambda machine, commands: tmp_path / "initramfs")
    monkeypatch.setattr(guests, "_GUESTS_AT_ONCE", 2)
    return Plan(Kernel(AMD64._replace(qemu=str(qemu)), "played", ""), ())


@pytest.fixture
def fleet(plan: Plan, tmp_path: Path) -> Iterator[Fleet]:
    with booted({"first": plan, "second": plan, "third": plan}, tmp_path) as fleet:
        yield fleet


def wait_until(holds: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def on(folder: Path) -> set[str]:
    return {file.stem for file in folder.glob("*.on")}


def test_a_guest_begins_when_another_one_has_ended(fleet: Fleet, tmp_path: Path) -> None:
    wait_until(lambda: on(tmp_path) == {"first", "second"})
    (tmp_path / "third.off").touch()
    (tmp_path / "second.off").touch()
    assert list(fleet.guest("second").lines()) == ["end 0 1"]
    assert list(fleet.guest("third").lines()) == ["end 0 1"]
    assert on(tmp_path) == {"first", "second", "third"}


def test_at_the_end_all_are_off_and_none_begins(plan: Plan, tmp_path: Path) -> None:
    with booted({"first": plan, "second": plan, "third": plan}, tmp_path) as fleet:
        wait_until(lambda: on(tmp_path) == {"first", "second"})
        running = [fleet.guest(name) for name in ("first", "second")]
    for guest in running:
        guest.wait()
    assert on(tmp_path) == {"first", "second"}


def test_why_one_could_not_be_made_is_told_where_it_is_asked_for(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(machine: object, commands: object) -> Path:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(image, "initramfs", fails)
    with booted({"first": plan}, tmp_path) as fleet, pytest.raises(RuntimeError, match="no compiler"):
        fleet.guest("first")
