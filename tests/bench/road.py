"""Time the road in process: packets per second of scan, scan with track, and a filter.

    road.py FILE [--repeat 3] [--json]

What the command line adds to it, start-up and output, is left out on purpose: when a
benchmark of the command misses its target, this tells on which side of the road to look.
The best of the repeats counts, because other programs can only make a run slower.
"""

import argparse
import json
import time
from collections.abc import Callable

from vsockdump.capture.reader import FileReader
from vsockdump.filters.filter import Filter
from vsockdump.track.tracker import Tracker

FILTER = "port 1024 and op rw"


def scan(path: str) -> int:
    """Read the file into batches; the number of its packets."""
    reader = FileReader(path)
    for _ in reader.batches():
        pass
    reader.close()
    return reader.packets


def scan_and_track(path: str) -> int:
    """The same, with every batch tracked."""
    reader, tracker = FileReader(path), Tracker()
    for batch in reader.batches():
        tracker.learn_interfaces(reader.interfaces)
        tracker.track(batch)
    tracker.finish()
    reader.close()
    return reader.packets


class FilterTime:
    """What a filter adds to a scan: the time spent in it alone."""

    def __init__(self, text: str) -> None:
        self._filter = Filter.of(text)

    def best(self, path: str, repeat: int) -> float:
        """Packets per second, the best of some runs."""
        return max(self._run(path) for _ in range(repeat))

    def _run(self, path: str) -> float:
        reader, spent = FileReader(path), 0.0
        for batch in reader.batches():
            began = time.perf_counter()
            self._filter.mask(batch)
            spent += time.perf_counter() - began
        reader.close()
        return reader.packets / spent


def packets_per_second(run: Callable[[str], int], path: str, repeat: int) -> float:
    best = 0.0
    for _ in range(repeat):
        began = time.perf_counter()
        packets = run(path)
        best = max(best, packets / (time.perf_counter() - began))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description="Time scan and track in process.")
    parser.add_argument("file")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    chosen = parser.parse_args()
    rates = {
        "scan": packets_per_second(scan, chosen.file, chosen.repeat),
        FILTER: FilterTime(FILTER).best(chosen.file, chosen.repeat),
        "scan and track": packets_per_second(scan_and_track, chosen.file, chosen.repeat),
    }
    if chosen.json:
        print(json.dumps(rates))
        return
    for name, rate in rates.items():
        print(f"{name:20} {rate / 1e6:7.2f} million packets/s")


if __name__ == "__main__":
    main()
