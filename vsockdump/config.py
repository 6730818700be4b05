"""What a run is to do: the command line as one frozen value."""

from typing import TYPE_CHECKING, NamedTuple

from vsockdump.output.text import TextOptions

if TYPE_CHECKING:
    from vsockdump.apps.dialogues import DialogueOptions
    from vsockdump.output.extract import ExtractOptions
    from vsockdump.output.follow import FollowOptions
    from vsockdump.output.rotation import RingBuffer, Savefiles


class LiveOptions(NamedTuple):
    """A live capture.  `interface` None: a vsockmon device that is up, or else a new one.

    `snaplen` and the numbers of the ring are None for the defaults of packet_socket.py;
    `duration` in seconds, 0 is without end.  `control`: stdin asks for counts and ends it.
    """

    interface: str | None = None
    snaplen: int | None = None
    ring_kib: int | None = None
    block_timeout_ms: int | None = None
    duration: float = 0
    control: bool = False


class TuiOptions(NamedTuple):
    """The terminal program: `max_copy` is the most bytes of the copy of a capture.

    `demo`: it plays the capture that is shipped for it.
    """

    max_copy: int = 4 << 30
    demo: bool = False


class Config(NamedTuple):
    """One run.  `read` and `write` are paths, "-" for stdin and stdout.

    Without `read` an interface is captured, `live` says how.  `user` is whom to become (-Z).
    `output` is text, json or fields; `fields` the names for the last; `statistics` the
    arguments of -z.  `limit` stops after so many packets, 0 means all; `filter` is the text
    of a filter, "" lets all packets through.  `rotation` makes several files of what is
    written, each of which the command `postrotate` gets; `annotate` writes names of connections
    and findings into it as comments, `key_log` the TLS secrets of a file.  `fail_on` is the least
    severity of a finding with which the run fails.  `follow` shows the dialogue of a connection,
    `extract` writes streams to files; `export` names what packets become when they are written,
    "" leaves them as they are.  `apps` says how application protocols are decoded, None: not at
    all.  `width` is that of the lines of text that is wrapped.  `tui` asks for the terminal
    program, for which `filter` is the first one of many.  `reorder` puts what is read in order of
    time.
    """

    read: str | None
    reorder: bool = False
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
    rotation: "Savefiles | RingBuffer | None" = None
    postrotate: str | None = None
    annotate: bool = False
    key_log: str | None = None
    fail_on: str | None = None
    follow: "FollowOptions | None" = None
    extract: "ExtractOptions | None" = None
    export: str = ""
    apps: "DialogueOptions | None" = None
    max_connections: int = 1_000_000
    colour: bool = False
    width: int = 100
    live: LiveOptions = LiveOptions()
    user: str | None = None
    tui: TuiOptions | None = None
