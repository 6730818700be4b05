"""--export tcp: connections as TCP over IPv6, datagrams as UDP, for programs that know only these.

tcp_steps.py says what TCP would do, tcp_numbers.py gives each step its numbers; here it becomes
a packet between addresses.  What was cut in the capture stays cut.

Rules for editors: whole batches at a time.  Streams say where bytes stand and what is missing,
the tracker how a connection ended; nothing of that is worked out here again.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from vsockdump.batch import PACKET_DTYPE, Batch, Layout, Rows
from vsockdump.capture.interface import NANOSECOND, Interface
from vsockdump.capture.source import Origin
from vsockdump.columns import foreign, tracked
from vsockdump.export import ip
from vsockdump.export.ends import Ends
from vsockdump.export.export_file import Exported, Indices
from vsockdump.export.tcp_numbers import Numbers
from vsockdump.export.tcp_steps import Kind, steps_of
from vsockdump.output.tables import counted
from vsockdump.track.stream import Streams

_FLAGS: Final = np.zeros(len(Kind), np.uint8)
_FLAGS[Kind.SYN] = ip.SYN
_FLAGS[Kind.SYN_ACK] = ip.SYN | ip.ACK
_FLAGS[[Kind.ACK, Kind.DATA]] = ip.ACK
_FLAGS[Kind.FIN] = ip.FIN | ip.ACK
_FLAGS[Kind.RST] = ip.RST | ip.ACK
_SYN: Final = int(Kind.SYN)
_DATAGRAM: Final = int(Kind.DATAGRAM)

# Numbers begin elsewhere in each connection, so that one with the ends of another is a new one.
_MIX: Final = np.uint64(0x9E3779B1)
_MIX_SIDE: Final = np.uint64(0x85EBCA6B)
_LOW: Final = np.uint64(0xFFFFFFFF)
_ONE: Final = np.uint64(1)


class TcpExport:
    """The connections of `source` up to number `most`."""

    def __init__(self, source: Origin, most: int) -> None:
        self._most = most
        self._streams = Streams(most)
        self._numbers = Numbers()
        self._ends = Ends(source)
        self._packets = 0
        self._strays = 0
        self.interfaces = [Interface(ip.LINKTYPE_RAW, name="vsock-tcp", resolution=NANOSECOND)]

    def end(self) -> Exported | None:
        """Nothing is left."""
        return None

    def remarks(self) -> list[str]:
        """What is not in the export."""
        found = []
        if self._strays:
            who = "belongs" if self._strays == 1 else "belong"
            found.append(
                f"left out of the export: {counted(self._strays, 'packet')} that {who} to no"
                " connection."
            )
        packets, size = self._streams.left_out
        if packets:
            found.append(
                f"{packets} packets with {size} bytes of connections after the first"
                f" {self._most} were left out; see --max-connections."
            )
        return found

    def export(self, batch: Batch, chosen: Indices | None) -> Exported:
        """The rows `chosen` of a tracked batch as TCP and UDP packets."""
        conns = tracked(batch)["conn"]
        wanted = np.full(len(batch), chosen is None)
        if chosen is not None:
            wanted[chosen] = True
        self._strays += int(np.count_nonzero(wanted & (conns == 0) & ~foreign(batch)))
        known = (conns != 0) & (conns <= self._most)
        self._numbers.make_room(self._ends.meet(batch, np.flatnonzero(known)))
        steps = steps_of(batch, self._streams.add(batch), known)
        steps, numbers = self._numbers.of(steps, batch, wanted)
        return Exported(self._packed(steps, numbers, batch), steps["row"].astype(np.intp))

    def _packed(self, steps: Rows, numbers: Rows, batch: Batch) -> Batch:
        """The steps as packets."""
        payloads, sizes = _payloads(steps, numbers, batch)
        is_udp = steps["kind"] == _DATAGRAM
        tcp = _tcp_headers(steps[~is_udp], numbers[~is_udp])
        ends, conns = self._between(steps)
        packets = ip.packets(ends, conns, tcp, is_udp, payloads, sizes)
        rows = np.zeros(len(steps), PACKET_DTYPE)
        rows["number"] = np.arange(self._packets + 1, self._packets + 1 + len(rows))
        self._packets += len(rows)
        rows["time_ns"] = batch.rows["time_ns"][steps["row"]]
        rows["packet_at"], rows["caplen"] = packets.at, packets.caplen
        rows["wirelen"] = packets.wirelen
        return Batch(rows, packets.buffer, Layout(pcapng=True))

    def _between(self, steps: Rows) -> tuple[ip.Addresses, NDArray[np.uint64]]:
        """From where to where packets go, and the numbers of their connections."""
        conns = steps["flow"] >> _ONE
        side = (steps["flow"] & _ONE).astype(np.intp)
        ends, at = self._ends.of(conns), np.arange(len(steps))
        cid, port = ends["cid"], ends["port"]
        columns = cid[at, side], port[at, side], cid[at, 1 - side], port[at, 1 - side]
        return ip.Addresses(ends["place"], *columns), conns


def _payloads(
    steps: Rows, numbers: Rows, batch: Batch
) -> tuple[list[ip.Payload], NDArray[np.int64]]:
    """What stands behind the headers, as far as it was captured; and how much is to."""
    payloads: list[ip.Payload] = [b""] * len(steps)
    sizes = steps["len"].astype(np.int64)
    buffer = batch.buffer
    with_data = np.flatnonzero(steps["cap"])
    places = (with_data, steps["at"][with_data], steps["cap"][with_data])
    for index, at, cap in zip(*(column.tolist() for column in places), strict=True):
        payloads[index] = buffer[at : at + cap]
    for index in np.flatnonzero(_FLAGS[steps["kind"]] & ip.SYN).tolist():
        shift = int(numbers["shift"][index]) if numbers["scales"][index] else None
        payloads[index] = ip.syn_options(shift)
        sizes[index] = len(payloads[index])
    return payloads, sizes


def _tcp_headers(steps: Rows, numbers: Rows) -> Rows:
    """Numbers, flags and windows."""
    headers = np.zeros(len(steps), ip.TCP_DTYPE)
    side = steps["flow"] & _ONE
    first = (steps["flow"] >> _ONE) * _MIX
    headers["seq"] = first + side * _MIX_SIDE + numbers["seq"] & _LOW
    headers["ack"] = first + (_ONE - side) * _MIX_SIDE + numbers["ack"] & _LOW
    headers["ack"][steps["kind"] == _SYN] = 0
    headers["flags"] = _FLAGS[steps["kind"]] | np.where(steps["push"], ip.PSH, 0)
    headers["window"] = numbers["window"]
    return headers
