"""An export being written: batches become packets of another kind, and these go to a file.

An exporter turns a batch into one whose packets it has made; output/capture_file.py writes
that as it writes a live capture, so that several files, full disks and pipes need nothing of
their own here.

Rules for editors: nothing of a packet's contents here, that is the exporters'.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vsockdump.batch import Batch, Rows
from vsockdump.capture.interface import Interface
from vsockdump.capture.source import Counts, Origin
from vsockdump.output.annotations import Annotations
from vsockdump.output.capture_file import CaptureFile, Finished
from vsockdump.output.rotation import Rotation
from vsockdump.output.secrets import Secrets, secrets_in

Indices = NDArray[np.intp]


class Exported(NamedTuple):
    """A batch of made packets.

    `origins` are the rows of the tracked batch that they were made from, in order, none of
    those that are made at the end; `texts` what is to be said of some of them, by index.
    """

    batch: Batch
    origins: Indices
    texts: Mapping[int, list[str]] = MappingProxyType({})


class Exporter(Protocol):
    """Makes packets of packets."""

    @property
    def interfaces(self) -> list[Interface]:
        """The interfaces of the packets that it makes, those known so far."""

    def export(self, batch: Batch, chosen: Indices | None) -> Exported:
        """What becomes of the rows `chosen` (None: all) of a tracked batch.

        Called for every batch, since what is not chosen counts for what is.
        """

    def end(self) -> Exported | None:
        """What is known only when no batch is to follow."""

    def remarks(self) -> list[str]:
        """What has to be said of the export at the end, in sentences."""


class ExportFile:
    """The packets of an exporter, written to `path`; as CaptureFile otherwise.

    The first packet of each connection has its name as a comment; with `annotate` findings are
    comments as well.  Secrets that the source has are kept.
    """

    def __init__(
        self,
        path: str,
        source: Origin,
        rotation: Rotation | None,
        finished: Finished | None,
        exporter: Exporter,
        annotate: bool = False,
        secrets: Secrets | None = None,
    ) -> None:
        self._exporter = exporter
        self._secrets = secrets or Secrets()
        self._comments = _Comments(annotate)
        self._file = CaptureFile(
            path,
            _Made(source, exporter),
            rotation,
            finished,
            comments=self._comments,
            secrets=self._secrets,
        )

    @property
    def full(self) -> bool:
        """Whether no file is to follow."""
        return self._file.full

    @property
    def files(self) -> int:
        """How many there are."""
        return self._file.files

    @property
    def tick_s(self) -> float | None:
        """How often a live capture is to call `tick`; None: it need not."""
        return self._file.tick_s

    def tick(self) -> None:
        """Go to the next file if it is time to."""
        self._file.tick()

    def write(self, batch: Batch, chosen: Indices | None = None) -> int:
        """Write what becomes of a tracked batch; returns how many rows were dealt with."""
        if self.full:
            return 0
        for secret in secrets_in(batch):
            self._secrets.add(secret)
        made = self._exporter.export(batch, chosen)
        self._comments.take(batch, made)
        taken = self._file.write(made.batch)
        return len(batch) if taken == len(made.batch) else int(made.origins[taken])

    def close(self) -> None:
        """Finish the file."""
        made = None if self.full else self._exporter.end()
        if made is not None:
            self._comments.take(None, made)
            self._file.write(made.batch)
        self._file.close()

    def remarks(self) -> list[str]:
        """What has to be said of the export, in sentences."""
        return [*self._exporter.remarks(), *self._file.remarks()]


class _Made:
    """Where made packets come from: as their source, but for their format and interfaces."""

    format = ""
    header = b""

    def __init__(self, source: Origin, exporter: Exporter) -> None:
        self._source = source
        self._exporter = exporter
        self.name = source.name

    @property
    def interfaces(self) -> list[Interface]:
        return self._exporter.interfaces

    def counts(self) -> Counts | None:
        return self._source.counts()

    def now_ns(self) -> int | None:
        return self._source.now_ns()


class _Comments:
    """What is known of the packets that others were made from."""

    def __init__(self, annotate: bool) -> None:
        self._annotations = Annotations(findings=annotate)
        self._batch: Batch | None = None
        self._made: Exported | None = None

    def take(self, batch: Batch | None, made: Exported) -> None:
        """What was made of a batch, or (None) at the end, is written next."""
        self._batch, self._made = batch, made

    def begin(self) -> None:
        self._annotations.begin()

    def of(self, batch: Batch, rows: Rows) -> dict[int, list[str]]:
        assert self._made is not None
        places, _there = batch.rows_of(rows["number"])
        texts: dict[int, list[str]] = {}
        if self._batch is not None:
            texts = self._annotations.texts(self._batch, self._made.origins[places])
        for index in np.flatnonzero(np.isin(places, list(self._made.texts))).tolist():
            texts.setdefault(index, []).extend(self._made.texts[int(places[index])])
        return dict(sorted(texts.items()))
