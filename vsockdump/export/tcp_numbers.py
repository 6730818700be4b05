"""Sequence numbers, acknowledgements and windows for steps, in order.

A sequence number is the place in the stream, so that bytes that were not captured leave a
hole.  ACKs are for all that was seen by then, and the window is the free credit: together
they say what the credit allows, as they do in TCP.

Rules for editors: whole batches at a time.  Positions are sequence numbers that do not wrap,
0 at the SYN.  Data behind their sender's own FIN, which no TCP would send, stand where they
would without it: so every program finds them.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from vsockdump.batch import Batch, Known, Rows
from vsockdump.columns import Mask, tracked
from vsockdump.export.tcp_steps import Kind

NUMBER_DTYPE: Final = np.dtype(
    [
        ("seq", "u8"),  # positions
        ("ack", "u8"),
        ("window", "u4"),  # as it stands in the packet
        ("shift", "u1"),  # of the windows, in a SYN
        ("scales", "?"),
    ]
)

_FLOW_DTYPE: Final = np.dtype(
    [
        ("end", "u8"),  # behind data and gaps
        ("fin", "u8"),  # behind the FIN, 0: there was none
        ("ack", "u8"),  # of the last packet
        ("window", "u4"),
        ("credit", "u4"),  # bytes that the flow's sender grants
        ("shift", "u1"),
        ("begun", "?"),  # its SYN or SYN-ACK was seen
        ("scales", "?"),  # and written, with `shift`
    ]
)
_NEW: Final = np.array((1, 0, 0, 0, 0, 0, False, False), _FLOW_DTYPE)

_GAP: Final = int(Kind.GAP)
_SYN: Final = int(Kind.SYN)
_OPENING: Final = (_SYN, int(Kind.SYN_ACK))
_ACK: Final = int(Kind.ACK)
_DATA: Final = int(Kind.DATA)
_FIN: Final = int(Kind.FIN)
_GRANTED: Final = int(Known.GRANTED)

_MOST_SHIFT: Final = 14  # RFC 7323
_MOST_WINDOW: Final = 65535
_LARGEST: Final = np.array([_MOST_WINDOW << shift for shift in range(_MOST_SHIFT)], np.uint64)
_PEER: Final = np.uint64(1)

Flows = NDArray[np.uint64]
Positions = NDArray[np.uint64]


class Numbers:
    """The numbers of all flows so far."""

    def __init__(self) -> None:
        self._flows = np.full(2048, _NEW, _FLOW_DTYPE)

    def make_room(self, most: int) -> None:
        """Let connections up to this number have their flows."""
        while 2 * most + 1 >= len(self._flows):
            fresh = np.full(len(self._flows), _NEW, _FLOW_DTYPE)
            self._flows = np.concatenate((self._flows, fresh))

    def of(self, steps: Rows, batch: Batch, wanted: Mask) -> tuple[Rows, Rows]:
        """The steps that make a packet, of the batch's rows that are `wanted`; their numbers."""
        self._keep_first(steps, _OPENING, "begun")
        self._keep_first(steps, (_FIN,), "fin")
        numbers = np.zeros(len(steps), NUMBER_DTYPE)
        self._place(steps, numbers)
        credit = self._credit(steps, batch)
        kept = wanted[steps["row"]] & (steps["kind"] != _GAP)
        steps, numbers = steps[kept], numbers[kept]
        self._scale(steps, numbers, batch)
        self._fill_windows(steps, numbers, credit[kept])
        told = self._says_something(steps, numbers)
        return steps[told], numbers[told]

    def _keep_first(self, steps: Rows, kinds: tuple[int, ...], mark: str) -> None:
        """Only the first of some kinds is one in a flow; of the others an ACK is left."""
        at = np.flatnonzero(np.isin(steps["kind"], kinds))
        flows, first = np.unique(steps["flow"][at], return_index=True)
        later = np.ones(len(at), np.bool_)
        later[first[self._flows[mark][flows] == 0]] = False
        steps["kind"][at[later]] = _ACK

    def _place(self, steps: Rows, numbers: Rows) -> None:
        """Positions of the packets and of what they acknowledge."""
        flows, kinds = steps["flow"], steps["kind"]
        moving = np.flatnonzero((kinds == _DATA) | (kinds == _GAP))
        ends = steps["end"][moving] + np.uint64(1)
        own = self._latest("end", flows, moving, ends, flows)
        peer = self._latest("end", flows, moving, ends, flows ^ _PEER)
        finishing = np.flatnonzero(kinds == _FIN)
        fins = own[finishing] + np.uint64(1)
        own = np.maximum(own, self._latest("fin", flows, finishing, fins, flows))
        peer = np.maximum(peer, self._latest("fin", flows, finishing, fins, flows ^ _PEER))
        numbers["seq"] = np.where(kinds == _DATA, steps["offset"] + np.uint64(1), own)
        numbers["ack"] = peer
        opening = np.isin(kinds, _OPENING)
        numbers["seq"][opening] = 0
        numbers["ack"][kinds == _SYN] = 0
        self._flows["end"][flows[moving]] = ends  # of equal flows the last one counts
        self._flows["fin"][flows[finishing]] = fins
        self._flows["begun"][flows[opening]] = True

    def _credit(self, steps: Rows, batch: Batch) -> NDArray[np.uint64]:
        """The bytes that each step's sender grants: by its packet, or by its last one."""
        rows, after = batch.rows[steps["row"]], tracked(batch)[steps["row"]]
        told = after["known"] & _GRANTED != 0
        credit = np.where(told, after["granted"], rows["virtio"]["buf_alloc"]).astype(np.uint64)
        flows, own = steps["flow"], np.flatnonzero(steps["own"])
        last = self._latest("credit", flows, own, credit[own], flows)
        self._flows["credit"][flows[own]] = credit[own]
        return np.where(steps["own"], credit, last)

    def _latest(
        self, name: str, flows: Flows, at: NDArray[np.intp], values: Positions, asked: Flows
    ) -> Positions:
        """For each step the last value of the flow `asked` before it.

        `values` are those of the steps `at`, of their flows; what was before the batch has the
        name `name`.
        """
        before: Positions = self._flows[name][asked].astype(np.uint64)
        if not len(at):
            return before
        keys = flows[at] << np.uint64(32) | at.astype(np.uint64)
        order = np.argsort(keys)
        keys = keys[order]
        index = np.searchsorted(keys, asked << np.uint64(32) | np.arange(len(asked), dtype="u8"))
        found = keys[index - 1] >> np.uint64(32) == asked
        return np.where((index > 0) & found, values[order[index - 1]], before)

    def _scale(self, steps: Rows, numbers: Rows, batch: Batch) -> None:
        """What SYNs say of windows: both sides have to say it, so only a SYN-ACK to a SYN does."""
        kinds = steps["kind"]
        for kind in _OPENING:
            at = np.flatnonzero(kinds == kind)
            flows = steps["flow"][at]
            sizes = batch.rows["virtio"]["buf_alloc"][steps["row"][at]]
            scales = (kind == _SYN) | self._flows["scales"][flows ^ _PEER]
            numbers["shift"][at] = np.where(scales, np.searchsorted(_LARGEST, sizes), 0)
            numbers["scales"][at] = scales
            self._flows["shift"][flows] = numbers["shift"][at]
            self._flows["scales"][flows] = scales

    def _fill_windows(self, steps: Rows, numbers: Rows, credit: NDArray[np.uint64]) -> None:
        """The credit as windows, rounded up: an empty one means that there is none."""
        shift = self._flows["shift"][steps["flow"]].astype(np.uint64)
        shift[np.isin(steps["kind"], _OPENING)] = 0
        units = (credit + (np.uint64(1) << shift) - np.uint64(1)) >> shift
        numbers["window"] = np.minimum(units, _MOST_WINDOW)

    def _says_something(self, steps: Rows, numbers: Rows) -> Mask:
        """All but ACKs that repeat the packet before them."""
        flows = steps["flow"]
        order = np.argsort(flows, kind="stable")
        ack, window = numbers["ack"][order], numbers["window"][order]
        same = np.zeros(len(order), np.bool_)
        same[1:] = (flows[order[1:]] == flows[order[:-1]]) & (ack[1:] == ack[:-1])
        same[1:] &= window[1:] == window[:-1]
        first = np.ones(len(order), np.bool_)
        first[1:] = flows[order[1:]] != flows[order[:-1]]
        before = self._flows[flows[order]]
        same |= first & (ack == before["ack"]) & (window == before["window"])
        repeats = np.zeros(len(order), np.bool_)
        repeats[order] = same
        self._flows["ack"][flows] = numbers["ack"]
        self._flows["window"][flows] = numbers["window"]
        return (steps["kind"] != _ACK) | ~repeats
