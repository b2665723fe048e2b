"""exporter/bundle.py: the files that it writes are those of the repository."""

from pathlib import Path

import pytest

from exporter.bundle import write_dashboards
from exporter.errors import ConfigError

DASHBOARDS = Path(__file__).parents[2] / "dashboards"


def test_the_files_are_those_of_the_repository(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "new" / "folder"
    assert write_dashboards(["--output", str(folder)]) == 0
    written = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    names = [*DASHBOARDS.glob("*.json"), *DASHBOARDS.glob("rules/*.yaml")]
    assert len(names) > 5
    assert written == {path.relative_to(DASHBOARDS): path.read_bytes() for path in names}
    assert capsys.readouterr().out.splitlines() == sorted(str(folder / path) for path in written)


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        ([], "--output is missing"),
        (["--output="], "--output is missing"),
        (["--outptu=x"], "unknown flag --outptu; did you mean --output?"),
        (["--output=/proc/no"], "--output: cannot write /proc/no/"),
        ([f"--output={__file__}"], f"--output: {__file__} is a file, not a folder"),
        ([f"--output={__file__}/d"], f"--output: cannot write {__file__}/d/.*: Not a directory"),
    ],
)
def test_what_cannot_be_written_is_one_line(argv: list[str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=f"^{complaint}"):
        write_dashboards(argv)
