"""A listener without a kernel."""

from pathlib import Path

import pytest
from fake_proc import add_process
from live_rig import Rig


@pytest.fixture
async def rig(tmp_path: Path) -> Rig:
    """A host where process 1 has lived for long."""
    add_process(tmp_path, 1, b"init")
    rig = Rig(tmp_path)
    await rig.listener.resubscribe()
    rig.applied.clear()
    return rig
