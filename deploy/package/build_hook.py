"""Writes the commit of a checkout into what pip builds of it, which has no `.git` beside it any more."""

import runpy
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_MODULE = "exporter/revision.py"
_CHECKOUT = "deploy/package/checkout.py"
_OPEN = '_ARCHIVED = "$Format:%H$"'


class RevisionHook(BuildHookInterface[Any]):
    """Puts another `exporter/revision.py` into a wheel or a source archive; the checkout stays as it is."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the module with the commit in it, unless the source is an archive, which has its commit.

        Args:
            version: What is built: `standard`, or `editable`, which runs from the checkout itself.
            build_data: What hatchling is to do beside its configuration.
        """
        module = Path(self.root, _MODULE)
        text = module.read_text(encoding="utf-8")
        # Without git the commit is in git's own files; whether files differ from it is not known then.
        ask_git = runpy.run_path(str(Path(self.root, _CHECKOUT)))["checked_out_commit"]
        commit = ask_git(Path(self.root)) or runpy.run_path(str(module))["REVISION"]
        if version == "editable" or _OPEN not in text or commit == "unknown":
            return
        # Kept until the hook goes: the file is read after this.
        self._folder = tempfile.TemporaryDirectory()
        written = Path(self._folder.name, "revision.py")
        written.write_text(text.replace(_OPEN, f'_ARCHIVED = "{commit}"'), encoding="utf-8")
        build_data["force_include"][str(written)] = _MODULE
