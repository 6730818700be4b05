"""Which protocols there are, and which of them a connection speaks.

What users set comes first, then what the bytes say, then what the port promises; the
evidence is told with the protocol.

Rules for editors: this module is imported by the table of fields and must stay light; the
protocols' own modules are imported by `protocols`.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from vsockdump.apps.protocol import CERTAIN, OPENING, POSSIBLE, Opening, Prior, Protocol
from vsockdump.errors import UsageError

_MODULES: Final[tuple[str, ...]] = (  # of vsockdump.apps, by how often they are met
    "ttrpc",
    "http2",
    "ethernet",  # before HTTP, as one that begins with a request of it is surer to be a tunnel
    "http",
    "websocket",
    "tls",
    "ssh",
    "adb",
    "framed",
    "iperf3",
    "nbd",
    "ninep",
    "tsi",
)
# What parsers import when they need it; see pipeline, which cannot always wait for that.
LIBRARIES: Final = (
    "cryptography.x509",
    "google.protobuf.descriptor_pb2",
    "google.protobuf.descriptor_pool",
    "google.protobuf.message",
    "google.protobuf.message_factory",
    "google.protobuf.unknown_fields",
    "hashlib",
    "hyperframe.exceptions",
    "hyperframe.frame",
    "scapy.layers.dhcp",
    "scapy.layers.dns",
    "scapy.layers.inet",
    "scapy.layers.inet6",
    "scapy.layers.l2",
    "scapy.layers.tls.basefields",
    "scapy.layers.tls.crypto.groups",
    "scapy.layers.tls.crypto.suites",
    "scapy.layers.tls.extensions",
    "scapy.layers.tls.keyexchange",
    "scapy.layers.tls.record",
    "zstandard",
)
_GROUP: Final = "vsockdump.protocols"
_MOST: Final = 255  # protocols; a column of the batch holds their codes

PRIOR: Final = 20  # what a port adds to what the bytes say
NEEDED: Final = POSSIBLE + PRIOR  # the bytes must be likely, or be possible at a known port

RAW: Final = "raw"


TROUBLE: Final[list[str]] = []  # sentences on protocols of other packages


class DecodeError(UsageError):
    """A --decode or --proto that cannot be; one sentence."""


class Choice(NamedTuple):
    """The protocol of a connection (None: none is known) and what speaks for it."""

    protocol: Protocol | None
    evidence: str  # user, content, port, or "" for no protocol
    software: str = ""  # who is known to use the port, where that speaks for it too
    remarks: tuple[str, ...] = ()  # of recognisers that failed


@cache
def protocols() -> tuple[Protocol, ...]:
    """All protocols: ours, then those of other packages, by name.

    Of two of one name the first holds.  What cannot be loaded is left out; `TROUBLE` says so.
    """
    found: dict[str, Protocol] = {}
    for module in _MODULES:
        for protocol in import_module(f"vsockdump.apps.{module}").PROTOCOLS:
            found[protocol.name] = protocol
    for protocol in _of_others():
        found.setdefault(protocol.name, protocol)
    return tuple(found.values())[:_MOST]


def _of_others() -> Iterator[Protocol]:
    """Those that other packages name as entry points."""
    if not any(map(_may_name_some, sys.path)):
        return
    from importlib.metadata import entry_points

    for point in sorted(entry_points(group=_GROUP), key=lambda point: point.name):
        try:
            loaded = point.load()
        except Exception as error:  # whatever a foreign package does
            TROUBLE.append(f"the protocol {point.name} cannot be loaded: {failure(error)}.")
            continue
        if isinstance(loaded, Protocol):
            yield loaded
        else:
            TROUBLE.append(
                f"the protocol {point.name} is left out: it is no vsockdump.apps.protocol.Protocol."
            )


def _may_name_some(folder: str) -> bool:
    """Whether a package in a folder of sys.path has our group in its entry points.

    importlib.metadata, which knows, takes a tenth of the time that printing ten packets does.
    """
    try:
        names = os.listdir(folder or ".")
    except NotADirectoryError:  # packages in an archive
        return True
    except OSError:
        return False
    about = [name for name in names if name.endswith((".dist-info", ".egg-info"))]
    return any(_GROUP in _entry_points(Path(folder, name)) for name in about)


def _entry_points(package: Path) -> str:
    try:
        return (package / "entry_points.txt").read_text(encoding="utf-8", errors="replace")
    except OSError:  # most packages have none
        return ""


def failure(error: Exception) -> str:
    """What went wrong in code of others: the exception's type and the first line of its text."""
    text = str(error).splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


@cache
def codes() -> Mapping[str, int]:
    """The number of each protocol by its name, from 1."""
    return MappingProxyType({one.name: code for code, one in enumerate(protocols(), 1)})


def name_of(code: int) -> str:
    """The protocol's name; `raw` for 0."""
    return protocols()[code - 1].name if code else RAW


def named(name: str) -> Protocol:
    """The protocol of that name; DecodeError with a hint where there is none."""
    for protocol in protocols():
        if protocol.name == name:
            return protocol
    near = get_close_matches(name, codes(), 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(codes()))}."
    raise DecodeError(f"There is no protocol {name}; {hint}")


def decode_map(wishes: tuple[str, ...]) -> Mapping[int, str]:
    """The protocols that `--decode PORT=NAME` asks for, by port; raises DecodeError."""
    ports: dict[int, str] = {}
    for wish in wishes:
        port, equals, name = wish.partition("=")
        if not (equals and port.isascii() and port.isdigit() and int(port) < 2**32):
            raise DecodeError(
                f"--decode takes PORT=PROTOCOL, as in --decode 9000=ttrpc, not {wish}."
            )
        if name != RAW:
            named(name)
        ports[int(port)] = name
    return ports


class Recognition:
    """Finding out what a connection speaks, as more of its beginning is known.

    Protocols that its bytes have ruled out are not asked again.
    """

    def __init__(self) -> None:
        self._left: Sequence[Protocol] = protocols()

    def choose(self, opening: Opening, ports: Mapping[int, str]) -> Choice | None:
        """What it speaks; None where more bytes could tell.  `ports` is a `decode_map`."""
        for end in (opening.ends[1], opening.ends[0]):
            if end.port in ports:
                wanted = ports[end.port]
                return Choice(None if wanted == RAW else named(wanted), "user")
        more = not opening.ended and any(len(data) < OPENING for data in opening.data)
        return self._by_content(opening, more)

    def _by_content(self, opening: Opening, more: bool) -> Choice | None:
        """The surest protocol; a port adds to what bytes say, and holds where they are silent."""
        best, choice = 0, Choice(None, "")
        expected: Choice | None = None
        could = 0  # how sure those may get who need more bytes
        priors, left, remarks = _priors_of(opening), [], []
        for protocol in self._left:
            prior = priors.get(protocol.name)
            try:
                score = protocol.recognise(opening) if protocol.recognise else None
            except Exception as error:  # a foreign protocol's mistake is not the capture's
                remarks.append(f"the recogniser of {protocol.name} failed: {failure(error)}")
                left.append(protocol)
                continue
            if score is None:
                if protocol.recognise is not None:
                    could = max(could, protocol.most + PRIOR * bool(prior))
                if prior and expected is None:
                    expected = Choice(protocol, "port", prior.software)
            elif score and score + PRIOR * bool(prior) > best:
                best = score + PRIOR * bool(prior)
                choice = Choice(protocol, "content", prior.software if prior else "")
            if score != 0:
                left.append(protocol)
        self._left = left
        if best < NEEDED:
            choice = Choice(None, "")
        if more and best < min(could, CERTAIN):
            return None
        if choice.protocol is None and expected is not None:
            choice = expected
        return choice._replace(remarks=tuple(remarks))


def _priors_of(opening: Opening) -> Mapping[str, Prior]:
    """The prior of each protocol that has one for the port of this connection."""
    found: dict[str, Prior] = {}
    for protocol, prior in _by_port().get(opening.acceptor.port, ()):
        if prior.fits(opening):
            found.setdefault(protocol.name, prior)
    return found


@cache
def _by_port() -> Mapping[int, Sequence[tuple[Protocol, Prior]]]:
    found: dict[int, list[tuple[Protocol, Prior]]] = {}
    for protocol, prior in priors():
        found.setdefault(prior.port, []).append((protocol, prior))
    return found


def priors() -> Iterator[tuple[Protocol, Prior]]:
    """Every port that is known, with its protocol."""
    for protocol in protocols():
        for prior in protocol.priors:
            yield protocol, prior
