"""What a run is to do: the command line as one frozen value."""

from typing import NamedTuple

from vsockdump.output.text import TextOptions


class Config(NamedTuple):
    """One run.  `read` and `write` are paths, "-" for stdin and stdout.

    `output` is text, json or fields; `fields` the names for the last; `statistics` the
    arguments of -z.  `limit` stops after so many packets, 0 means all; `filter` is the text
    of a filter, "" lets all packets through.
    """

    read: str
    write: str | None = None
    output: str = "text"
    fields: tuple[str, ...] = ()
    header: bool = False
    statistics: tuple[str, ...] = ()
    print_packets: bool = True
    limit: int = 0
    filter: str = ""
    text: TextOptions = TextOptions()
    data: bool = False
    line_buffered: bool = False
    packet_buffered: bool = False
    max_connections: int = 1_000_000
    colour: bool = False
