"""One run: a source, the tracker, the views.

Rules for editors: this file wires and decides nothing that a stage could decide.  Data goes
to stdout, everything else to stderr, one sentence a line.
"""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from vsockdump.batch import Batch
from vsockdump.capture.errors import CaptureError
from vsockdump.capture.reader import FileReader
from vsockdump.columns import foreign
from vsockdump.config import Config
from vsockdump.output.capture_file import CaptureFile
from vsockdump.output.fields_text import field_lines, json_lines
from vsockdump.output.progress import Progress
from vsockdump.output.statistics import Statistic, make
from vsockdump.output.text import TextView
from vsockdump.track.tracker import Tracker

EXIT_OK = 0
EXIT_INPUT = 1


def run(config: Config) -> int:
    """Carry out a run; returns the exit status.

    Raises CaptureError if nothing could be read or the output failed; StatisticError and
    KeyError (an unknown field) before anything is read.
    """
    tracker = Tracker(config.max_connections)
    statistics = [make(text, tracker) for text in config.statistics]
    view = _view(config)
    reader = FileReader(config.read)
    try:
        return _Run(config, reader, tracker, statistics, view).run()
    finally:
        reader.close()


def _view(config: Config) -> Any:
    if not config.print_packets:
        return None
    if config.output == "json":
        return json_lines(config.data)
    if config.output == "fields":
        return field_lines(list(config.fields))
    return TextView(config.text)


class _Run:
    def __init__(
        self,
        config: Config,
        reader: FileReader,
        tracker: Tracker,
        statistics: list[Statistic],
        view: Any,
    ) -> None:
        self._config = config
        self._reader = reader
        self._tracker = tracker
        self._statistics = statistics
        self._view = view
        self._track = bool(statistics) or view is not None
        self._flush = config.line_buffered or reader.stream.growing
        self._vsock = self._foreign = 0
        self._out = sys.stdout.buffer

    def run(self) -> int:
        """Read to the end, to -c, to damage or to ^C; then finish what was begun."""
        config = self._config
        writer = None
        if config.write is not None:
            flush = config.packet_buffered or self._reader.stream.growing
            writer = CaptureFile(config.write, self._reader, flush)
        if config.header and config.output == "fields" and self._view is not None:
            self._out.write("\t".join(config.fields).encode() + b"\n")
        status = EXIT_OK
        try:
            for batch in self._batches():
                self._take(batch, writer)
        except CaptureError as error:
            self._out.flush()
            complain(str(error))
            status = EXIT_INPUT
        except KeyboardInterrupt:
            pass
        if writer is not None:
            writer.close()
        self._print_statistics()
        self._out.flush()
        return status or self._summary()

    def _batches(self) -> Iterator[Batch]:
        """The source's batches, tracked, up to -c packets."""
        left = self._config.limit or None
        with Progress(self._reader.stream, self._view is not None) as progress:
            for batch in self._reader.batches():
                progress.update(self._reader.packets)
                if left is not None and len(batch) >= left:
                    yield self._tracked(batch.head(left))
                    return
                yield self._tracked(batch)
                if left is not None:
                    left -= len(batch)

    def _tracked(self, batch: Batch) -> Batch:
        if self._track:
            self._tracker.set_taps([place.tap for place in self._reader.interfaces])
            self._tracker.track(batch)
        return batch

    def _take(self, batch: Batch, writer: CaptureFile | None) -> None:
        others = foreign(batch)
        count = int(np.count_nonzero(others))
        self._foreign += count
        self._vsock += len(batch) - count
        if writer is not None:
            writer.write(batch)
        for statistic in self._statistics:
            statistic.add(batch)
        if self._view is not None and len(batch) > count:
            chosen = np.flatnonzero(~others) if count else None
            for piece in self._view.write(batch, chosen):
                self._out.write(piece)
            if self._flush:
                self._out.flush()

    def _print_statistics(self) -> None:
        self._tracker.finish()
        config = self._config
        for index, statistic in enumerate(self._statistics):
            if config.output == "json":
                lines = statistic.json_lines()
            else:
                lines = statistic.lines(config.text.numeric, config.colour)
                if index or self._view is not None:
                    self._out.write(b"\n")
            for line in lines:
                self._out.write(line.encode() + b"\n")

    def _summary(self) -> int:
        """Say what was left out; a capture without any vsock is not what was meant."""
        if not self._foreign:
            return EXIT_OK
        types = sorted({place.linktype for place in self._reader.interfaces if not place.kind})
        kinds = " of link type " + ", ".join(map(str, types)) if types else ""
        name = self._reader.stream.name
        if not self._vsock:
            complain(f"{name} holds no vsock packets: all {self._foreign} are others{kinds}.")
            return EXIT_INPUT
        complain(f"{self._foreign} packets of {name} are not vsock{kinds} and were left out.")
        return EXIT_OK


def complain(sentence: str) -> None:
    """One line on stderr."""
    print(f"vsockdump: {sentence}", file=sys.stderr, flush=True)
