"""Where the user's own files are: settings and state, by the XDG base directory specification."""

import os
from pathlib import Path
from typing import Final

_FOLDER: Final = "vsockdump"


def config_file() -> Path:
    """The settings."""
    return _base("XDG_CONFIG_HOME", ".config") / _FOLDER / "tui.toml"


def history_file() -> Path:
    """The filters that were used."""
    return _base("XDG_STATE_HOME", ".local/state") / _FOLDER / "filters"


def _base(variable: str, default: str) -> Path:
    """The folder that the variable names; one that is not absolute is to be ignored."""
    path = os.environ.get(variable, "")
    return Path(path) if os.path.isabs(path) else Path(os.path.expanduser("~")) / default
