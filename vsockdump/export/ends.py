"""Who speaks: the two ends of each connection, as its first packet has them.

Packets of one connection need not agree: loopback by way of CID 2 is answered from CID 1.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from vsockdump.address import Endpoint
from vsockdump.batch import Batch, Rows
from vsockdump.capture.source import Origin
from vsockdump.columns import tracked

# Place of capture, and context ids and ports of initiator and acceptor.
ENDS_DTYPE: Final = np.dtype([("known", "?"), ("place", "u2"), ("cid", "u8", 2), ("port", "u4", 2)])


class Ends:
    """The ends of the connections of `source`, by number."""

    def __init__(self, source: Origin) -> None:
        self._source = source
        self._table = np.zeros(1024, ENDS_DTYPE)
        self._places: dict[int, int] = {}

    def of(self, conns: NDArray[np.uint64]) -> Rows:
        """Rows of ENDS_DTYPE for connections that were met."""
        rows: Rows = self._table[conns]
        return rows

    def pair(self, conn: int) -> tuple[Endpoint, Endpoint]:
        """Initiator and acceptor."""
        row = self._table[conn]
        first, second = zip(row["cid"].tolist(), row["port"].tolist(), strict=True)
        return Endpoint(*first), Endpoint(*second)

    def meet(self, batch: Batch, places: NDArray[np.intp]) -> int:
        """Take note of the connections of these rows; returns the largest number among them."""
        conns, first = np.unique(tracked(batch)["conn"][places], return_index=True)
        most = int(conns[-1]) if len(conns) else 0
        while most >= len(self._table):
            self._table = np.concatenate((self._table, np.zeros_like(self._table)))
        new = ~self._table["known"][conns]
        conns, places = conns[new], places[first[new]]
        rows, side = batch.rows[places], tracked(batch)["side"][places].astype(np.intp)
        ends = np.zeros(len(conns), ENDS_DTYPE)
        ends["known"] = True
        ends["place"] = self._places_of(rows)
        at = np.arange(len(conns))
        for name in ("cid", "port"):
            ends[name][at, side] = rows["virtio"][f"src_{name}"]
            ends[name][at, 1 - side] = rows["virtio"][f"dst_{name}"]
        self._table[conns] = ends
        return most

    def _places_of(self, rows: Rows) -> NDArray[np.uint64]:
        """Where packets were captured, counted from 0 in order of appearance."""
        used, of_rows = np.unique(rows["interface"], return_inverse=True)
        interfaces = self._source.interfaces
        taps = np.array([interfaces[index].tap for index in used.tolist()], np.uint64)
        keys = taps[of_rows] << np.uint64(32) | rows["ifindex"]
        unique, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        for key in unique[np.argsort(first)].tolist():
            self._places.setdefault(key, len(self._places))
        places = np.array([self._places[key] for key in unique.tolist()], np.uint64)
        numbers: NDArray[np.uint64] = places[inverse] & np.uint64(0xFFFF)
        return numbers
