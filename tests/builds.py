"""The source of a compiled module, run as ordinary Python beside the installed build."""

import importlib.util
from functools import cache
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import vsockdump


@cache
def uncompiled(name: str) -> ModuleType:
    """The module vsockdump.NAME as Python runs its source."""
    path = Path(vsockdump.__file__ or "").parent.joinpath(*name.split(".")).with_suffix(".py")
    loader = SourceFileLoader("uncompiled_" + name.replace(".", "_"), str(path))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module
