"""Makes the capture that --demo plays, of captures of ours, one after the other.

    python tests/make_demo.py

Packets are as they were captured.  Their times are shifted so that a capture begins a second
after the one before has ended.
"""

import gzip
from pathlib import Path
from typing import Final

from vsockdump.capture.reader import FileReader
from vsockdump.demo import PATH
from vsockdump.output.encoding import pcap_header
from vsockdump.wire import LINKTYPE_VSOCK

CAPTURES: Final = Path(__file__).parents[1] / "captures"
PARTS: Final = (
    "k612_refused.pcap",
    "prog_http.pcapng",
    "k612_shutdowns.pcap",
    "prog_ssh.pcapng",
    "k612_bulk_snap96.pcap",
    "prog_ncat.pcapng",
    "k612_small_buf.pcap",
    "k612_fakeguest.pcap",
)
SECOND: Final = 10**9


def records(path: Path, begin_ns: int) -> tuple[list[bytes], int]:
    """The packets of a capture as pcap records whose times begin there; when the last one was."""
    reader, found, shift, last = FileReader(str(path)), [], None, begin_ns
    for batch in reader.batches():
        for row in batch.rows:
            if shift is None:
                shift = begin_ns - int(row["time_ns"])
            last = int(row["time_ns"]) + shift
            start, caplen = int(row["packet_at"]), int(row["caplen"])
            head = (*divmod(last, SECOND), caplen, int(row["wirelen"]))
            data = b"".join(number.to_bytes(4, "little") for number in head)
            found.append(data + bytes(batch.buffer[start : start + caplen]))
    reader.close()
    return found, last


def demo() -> bytes:
    """The whole file, uncompressed."""
    begin, pieces = 0, [pcap_header(LINKTYPE_VSOCK)]
    for name in PARTS:
        if not begin:
            reader = FileReader(str(CAPTURES / name))
            begin = int(next(iter(reader.batches())).rows["time_ns"][0])
            reader.close()
        found, last = records(CAPTURES / name, begin)
        pieces += found
        begin = last + SECOND
    return b"".join(pieces)


if __name__ == "__main__":
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_bytes(gzip.compress(demo(), 9, mtime=0))
