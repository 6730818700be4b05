"""The exports there are, by name."""

from collections.abc import Callable
from typing import Final

from vsockdump.apps.dialogues import DialogueOptions
from vsockdump.capture.source import Origin
from vsockdump.export.ethernet import Frames
from vsockdump.export.export_file import Exporter
from vsockdump.export.layered import Layer, LayeredExport
from vsockdump.export.pdu import Pdus
from vsockdump.export.tcp import TcpExport

_LAYERS: Final[dict[str, Callable[[DialogueOptions], Layer]]] = {"mixed": Pdus, "ethernet": Frames}


def exporter_of(name: str, source: Origin, most: int, apps: DialogueOptions | None) -> Exporter:
    """The exporter of this name, for the connections of `source` up to number `most`.

    `apps` says how protocols are decoded, which "mixed" and "ethernet" need.
    """
    if name == "tcp":
        return TcpExport(source, most)
    assert apps is not None
    return LayeredExport(source, most, _LAYERS[name](apps))
