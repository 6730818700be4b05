"""The words of the filter language: what each looks like and means.

The parser makes its keywords from this table and --filter-help prints it, so that neither
can know a word that the other does not.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from vsockdump.fields import BY_NAME
from vsockdump.filters.sources import CIDS, FLAGS, SHORT, SOURCES
from vsockdump.findings.registry import names_to_type


class Word(NamedTuple):
    """A word: its keywords, how it is written, what it means, an example."""

    keywords: tuple[str, ...]
    usage: str
    meaning: str
    example: str


WORDS: Final = (
    Word(("port",), "port N", "a port, of either end", "port 1024"),
    Word(("portrange",), "portrange N-M", "a port in a range", "portrange 1024-2047"),
    Word(("cid",), "cid N", "a context id, of either end", "cid 3"),
    Word(
        tuple(CIDS),
        "host, local, hypervisor, any, guest, guest N",
        "a context id by name; guest alone is every guest",
        "guest 3",
    ),
    Word((), "CID:PORT", "context id and port of one end", "3:1024"),
    Word(
        ("src", "dst"),
        "src ..., dst ...",
        "before one of the words above: only of the source, the destination;"
        " also `src or dst` and `src and dst`",
        "src host and dst port 5000",
    ),
    Word(("type",), "type NAME", "stream, seqpacket or dgram", "type seqpacket"),
    Word(("op",), "op NAME", "the virtio operation: request, rw, credit-update, ...", "op rst"),
    Word(("flag",), "flag NAME", f"a flag: {', '.join(FLAGS)}", "flag eom"),
    Word(("conn",), "conn N", "the connection's number", "conn in {1, 7..9}"),
    Word(("state",), "state NAME", "the connection's state after the packet", "state refused"),
    Word(("side",), "side NAME", "sent by the initiator or the acceptor", "side initiator"),
    Word(("midstream",), "midstream", "its connection began before the capture", "midstream"),
    Word(
        ("stalled",),
        "stalled",
        "after it, an end of a living connection has no free credit left",
        "stalled",
    ),
    Word(
        ("free", "granted", "inflight", "tx_cnt", "fwd_cnt", "buf_alloc", "payload_len"),
        "free < N, ...",
        "fields by their short names: free, granted, inflight, tx_cnt, fwd_cnt, buf_alloc,"
        " payload_len",
        "free < 4096",
    ),
    Word(
        ("finding",),
        "finding NAME",
        "what was noticed about the packet; error, warn, note and chat are the kinds, wrong is"
        " error or warn",
        "finding credit.overrun",
    ),
    Word(
        ("payload", "contains", "matches"),
        'payload contains "TEXT", payload matches /REGEX/',
        "the stream's bytes in the packet; escapes are those of Python, /REGEX/i ignores case",
        'payload contains "GET /"',
    ),
    Word(
        ("proto",),
        "proto NAME",
        "the application protocol, from the packet on that settles it; what messages say is in"
        " vsock.app.summary, .method and .error, how long an answer took in .time",
        'proto http and vsock.app.method contains "GET"',
    ),
    Word(
        ("in",),
        "FIELD == N, FIELD in {N, N..M}, FIELD & BITS",
        "any field of --list-fields with ==, !=, <, <=, >, >= or in; & asks for bits, and"
        " may be compared; a field alone: the packet has it",
        "frame.len in {76, 100..200} and vsock.virtio.flags & 0x3 == 0x1",
    ),
    Word(("less", "greater"), "less N, greater N", "packets up to N, from N bytes", "less 128"),
    Word(
        ("len", "link", "ether"),
        "link[OFFSET:SIZE] = N, len > N",
        "libpcap's raw forms; SIZE is 1, 2 or 4 bytes, big-endian; arithmetic of 32 bits with"
        " + - * / % & | ^ << >>; ether is another word for link",
        "link[24:2] = 0x0400",
    ),
    Word(("and", "or", "not"), "and &&, or ||, not !, ( )", "", "port 1024 and not op rw"),
)

KEYWORDS: Final = tuple(keyword for word in WORDS for keyword in word.keywords)

_NOTES: Final = """\
`and` and `or` have the same precedence and are read from left to right, as tcpdump does:
`a or b and c` is `(a or b) and c`.  `not` comes first.  A value without a word takes the
one before it: `port 1024 or 5000`, `op rw or rst`, `src 3:1024 or 3:1025`.  Several values
may also stand in braces or parentheses: `port {1024, 5000..5009}`.

Context id and port are those of the virtio header or, in a packet without one, of the
monitor header.  A comparison does not hold where the packet lacks the field, `!=` neither;
use `not` for that.  Numbers are decimal, hexadecimal (0x) or, with a leading 0, octal.  A
packet that is too short for a raw form matches nothing, not even under `not`.\
"""


def help_lines() -> Iterator[str]:
    """What --filter-help prints."""
    yield "A filter is made of these words, joined by and, or and not:"
    yield ""
    for word in WORDS:
        yield f"  {word.usage}"
        if word.meaning:
            yield f"      {word.meaning}"
        yield f"      {word.example}"
    yield ""
    yield from _NOTES.splitlines()
    yield ""
    yield from _listing("Operations", SOURCES[SHORT["op"]].codes)
    yield from _listing("States", SOURCES[SHORT["state"]].codes)
    yield from _listing("Findings", names_to_type())
    yield from _listing("Protocols", sorted(SOURCES[SHORT["proto"]].codes))


def _listing(title: str, names: Iterable[str]) -> Iterator[str]:
    yield f"{title}: {', '.join(names)}."


def all_words() -> list[str]:
    """Every word that can begin a term, for hints."""
    return [*KEYWORDS, *BY_NAME]
