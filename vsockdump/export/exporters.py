"""The exports there are, by name."""

from vsockdump.capture.source import Origin
from vsockdump.export.export_file import Exporter
from vsockdump.export.tcp import TcpExport


def exporter_of(name: str, source: Origin, most: int) -> Exporter:
    """The exporter of this name, for the connections of `source` up to number `most`."""
    assert name == "tcp"
    return TcpExport(source, most)
