"""Addresses: names of context ids, and the Endpoint.

Rules for editors: pure values, no I/O; the names themselves are in wire.py.
"""

from typing import NamedTuple

from vsockdump.wire import CID_NAMES


def cid_name(cid: int) -> str:
    """`host`, `local`, `hypervisor`, `any`, or `guest N` for a 64-bit context id."""
    return CID_NAMES.get(cid) or f"guest {cid}"


class Endpoint(NamedTuple):
    """One end of a connection: a context id (u64) and a port (u32)."""

    cid: int
    port: int

    def __str__(self) -> str:
        return f"{cid_name(self.cid)}:{self.port}"

    def numeric(self) -> str:
        """`cid:port` in digits, as -n prints it."""
        return f"{self.cid}:{self.port}"
