"""exporter/web/descriptors.py: what is shared out is less than what there is."""

import resource

import pytest

from exporter.web.descriptors import share_descriptors


@pytest.mark.parametrize(
    ("files", "wanted", "shares"),
    [(1024, [256, 128], [256, 128]), (1024, [256, 0], [256, 0]), (256, [256, 128], [128, 64])],
)
def test_a_part_is_kept_for_the_exporter(
    monkeypatch: pytest.MonkeyPatch, files: int, wanted: list[int], shares: list[int]
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    assert share_descriptors(wanted) == shares


@pytest.mark.parametrize("files", range(32, 2000, 50))
def test_the_shares_add_up_to_less_than_there_is(monkeypatch: pytest.MonkeyPatch, files: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    assert sum(share_descriptors([256, 100_000])) < files
