"""One run: a source, the tracker, the views.

Rules for editors: this file wires and decides nothing that a stage could decide.  Data goes
to stdout, everything else to stderr, one sentence a line.
"""

import signal
import sys
from collections.abc import Iterator
from contextlib import closing
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from vsockdump.batch import Batch
from vsockdump.capture.errors import CaptureError
from vsockdump.capture.reader import FileReader
from vsockdump.columns import Mask, foreign
from vsockdump.config import Config
from vsockdump.output.capture_file import CaptureFile
from vsockdump.output.errors import cannot_write
from vsockdump.output.fields_text import field_lines, json_lines
from vsockdump.output.progress import Progress
from vsockdump.output.statistics import Selection, Statistic, make
from vsockdump.output.text import TextView
from vsockdump.track.tracker import Tracker

if TYPE_CHECKING:
    from vsockdump.filters.filter import Filter

EXIT_OK = 0
EXIT_INPUT = 1


def run(config: Config) -> int:
    """Carry out a run; returns the exit status.

    Raises StatisticError, FieldError or FilterError before anything is read, CaptureError
    if nothing could be read, OutputError if the output failed.
    """
    tracker = Tracker(config.max_connections)
    wanted = _filter(config)
    selection = None if wanted is None else Selection(str(wanted))
    statistics = [make(text, tracker, selection) for text in config.statistics]
    view = _view(config)
    with closing(FileReader(config.read)) as reader, Interrupt() as interrupt:
        return _Run(config, reader, tracker, statistics, view, interrupt, wanted, selection).run()


def _filter(config: Config) -> "Filter | None":
    """The filter, if there is one; without one its parser is not loaded."""
    if not config.filter.strip():
        return None
    from vsockdump.filters.filter import Filter

    return Filter(config.filter)


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
        interrupt: "Interrupt",
        wanted: "Filter | None",
        selection: Selection | None,
    ) -> None:
        self._config = config
        self._reader = reader
        self._tracker = tracker
        self._statistics = statistics
        self._view = view
        self._filter = wanted
        self._selection = selection
        self._track = bool(statistics) or view is not None
        self._scout: Tracker | None = None
        if wanted is not None and wanted.needs_tracking:
            self._track = True
            self._scout = Tracker(config.max_connections) if config.limit else None
        self._flush = config.line_buffered or reader.stream.growing
        self._vsock = self._foreign = 0
        self._interrupt = interrupt
        self._out = _Stdout()

    def run(self) -> int:
        """Read to the end, to -c, to damage or to ^C; then finish what was begun."""
        config = self._config
        if config.write is None:
            status = self._read(None)
        else:
            flush = config.packet_buffered or self._reader.stream.growing
            with closing(CaptureFile(config.write, self._reader, flush)) as writer:
                status = self._read(writer)
        self._print_statistics()
        self._out.flush()
        if self._interrupt.caught:
            complain(f"stopped after {self._vsock + self._foreign} packets.")
        return status or self._summary()

    def _read(self, writer: CaptureFile | None) -> int:
        """Take all batches; the exit status so far."""
        config = self._config
        if config.header and config.output == "fields" and self._view is not None:
            self._out.write("\t".join(config.fields).encode() + b"\n")
        try:
            for batch, mask in self._batches():
                self._take(batch, mask, writer)
        except CaptureError as error:
            self._out.flush()
            complain(str(error))
            return EXIT_INPUT
        return EXIT_OK

    def _batches(self) -> Iterator[tuple[Batch, Mask | None]]:
        """The source's batches, tracked, with what the filter chooses, up to -c such packets."""
        left = self._config.limit
        with Progress(self._reader.stream, self._view is not None) as progress:
            for batch in self._interrupt.until(self._reader.batches()):
                progress.update(self._reader.packets)
                if not left:
                    yield self._filtered(batch)
                    continue
                batch, mask = self._filtered(self._cut(batch, left))
                yield batch, mask
                left -= len(batch) if mask is None else int(mask.sum())
                if not left:
                    return

    def _filtered(self, batch: Batch) -> tuple[Batch, Mask | None]:
        if self._track:
            self._track_by(self._tracker, batch)
        return batch, None if self._filter is None else self._filter.mask(batch)

    def _track_by(self, tracker: Tracker, batch: Batch) -> None:
        tracker.set_taps([place.tap for place in self._reader.interfaces])
        tracker.track(batch)

    def _cut(self, batch: Batch, left: int) -> Batch:
        """The batch up to the last packet that -c allows.

        Where the filter asks what only tracking tells, a tracker of its own runs ahead, so
        that the other one never sees the packets behind the last.
        """
        if self._filter is None:
            return batch.head(left)
        if self._scout is not None:
            self._track_by(self._scout, batch)
        found = np.flatnonzero(self._filter.mask(batch))
        return batch if len(found) < left else batch.head(int(found[left - 1]) + 1)

    def _take(self, batch: Batch, mask: Mask | None, writer: CaptureFile | None) -> None:
        self._foreign += batch.foreign
        self._vsock += len(batch) - batch.foreign
        if writer is not None:
            writer.write(batch, None if mask is None else np.flatnonzero(mask))
        if self._selection is not None and self._statistics:
            self._selection.add(batch, mask)
        for statistic in self._statistics:
            statistic.add(batch, mask)
        if self._view is not None and len(batch) > batch.foreign:
            self._print(batch, mask)

    def _print(self, batch: Batch, mask: Mask | None) -> None:
        """Print the vsock packets that are chosen."""
        if batch.foreign:
            mask = ~foreign(batch) if mask is None else mask & ~foreign(batch)
        chosen = None if mask is None else np.flatnonzero(mask)
        if chosen is not None and not len(chosen):
            return
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


class _Stdout:
    """Stdout in bytes; OutputError where it cannot be written."""

    def __init__(self) -> None:
        self._file = sys.stdout.buffer

    def write(self, data: bytes | memoryview) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise cannot_write("to stdout", error) from None

    def flush(self) -> None:
        try:
            self._file.flush()
        except OSError as error:
            raise cannot_write("to stdout", error) from None


class Interrupt:
    """^C and SIGTERM end the reading and nothing else: what was begun is finished.

    A context manager; in it, the second signal kills.  `caught` says whether one came.
    """

    _SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.caught = False
        self._waiting = False

    def __enter__(self) -> "Interrupt":
        self._before = [signal.signal(number, self._catch) for number in self._SIGNALS]
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in zip(self._SIGNALS, self._before, strict=True):
            signal.signal(number, handler)

    def _catch(self, number: int, _frame: FrameType | None) -> None:
        self.caught = True
        signal.signal(number, signal.SIG_DFL)
        if self._waiting:
            raise KeyboardInterrupt

    def until(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches that come before the signal."""
        while not self.caught:
            try:
                self._waiting = True
                batch = next(batches, None)
                self._waiting = False
            except KeyboardInterrupt:
                return
            if batch is None:
                return
            yield batch


def complain(sentence: str) -> None:
    """One line on stderr."""
    print(f"vsockdump: {sentence}", file=sys.stderr, flush=True)
