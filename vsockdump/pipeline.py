"""One run: a source, the tracker, the views.

Rules for editors: this file wires and decides nothing that a stage could decide.  Data goes
to stdout, everything else to stderr, one sentence a line.
"""

import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from importlib import import_module
from itertools import islice
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vsockdump.apps.registry import TROUBLE, DecodeError
from vsockdump.batch import Batch
from vsockdump.capture.errors import CaptureError
from vsockdump.capture.read_ahead import ahead
from vsockdump.capture.reader import FileReader
from vsockdump.capture.source import Source
from vsockdump.columns import Mask, foreign
from vsockdump.config import Config
from vsockdump.events import Events
from vsockdump.fields import lookup
from vsockdump.findings.rule import Severity
from vsockdump.output.errors import OutputError, cannot_write
from vsockdump.output.fields_text import field_lines, json_lines
from vsockdump.output.progress import LiveProgress, Progress
from vsockdump.output.screen import drawn
from vsockdump.output.selection import Selection
from vsockdump.output.tables import counted
from vsockdump.output.text import TextView
from vsockdump.track.tracker import Tracker

if TYPE_CHECKING:
    from vsockdump.apps.dialogues import Dialogues
    from vsockdump.capture.packet_socket import Settings
    from vsockdump.filters.bpf import Program
    from vsockdump.filters.filter import Filter
    from vsockdump.findings.hindsight import Hindsight
    from vsockdump.output.capture_file import Writer
    from vsockdump.output.extract import Extract
    from vsockdump.output.findings import Findings, Overdue
    from vsockdump.output.follow import Follow
    from vsockdump.output.postrotate import PostRotate
    from vsockdump.output.secrets import Secrets
    from vsockdump.output.statistics import Statistic, Wish

_LINES_AT_ONCE = 1000  # of statistics, in one write: stdout may be unbuffered
_RESTARTS = 16  # sockets that the terminal program keeps for a capture that is started anew
_OVERDUE_S = 1.0  # how often a live capture looks for what only time tells

EXIT_OK = 0
EXIT_INPUT = 1
EXIT_FOUND = 3


def run(config: Config) -> int:
    """Carry out a run; returns the exit status.

    Raises StatisticError, FieldError, FilterError, DecodeError or SecretsError before anything
    is read, CaptureError if nothing could be read, OutputError if the output failed, ScreenError
    where there is no terminal for the terminal program.
    """
    if config.tui is not None:
        return _run_tui(config)
    wanted = _wanted(config)
    view = _view(config)
    wishes = _wishes(config)
    asked = any(map(partial(_asks_apps, config), wishes)) or _shows_apps(config)
    state = _State.new(config, wanted.filter, asked)
    statistics = _statistics(wishes, state, wanted.selection, config.width)
    with ExitStack() as held:
        written = _Written(_postrotate(config, held), _secrets(config))
        if config.read is None:
            start = _listen(config, wanted, held)
        else:
            joined = config.write is None and not config.reorder
            start = _read(config.read, config.user, held, joined, config.reorder)
        events = held.enter_context(Events(start.source.stop))
        one = _Run(config, start, wanted, state, statistics, view, events, written)
        if start.source.live:
            one.set_timers([wish.refresh_s for wish in wishes])
        try:
            return one.run()
        except OutputError as error:
            if not (error.denied and start.user):
                raise
            raise OutputError(
                f"{str(error)[:-1]} for user {start.user}; -Z root keeps root's rights."
            ) from None


def _run_tui(config: Config) -> int:
    """The terminal program; its filter only chooses what is listed, so the kernel gets none."""
    from vsockdump.tui.run import require_terminal, show, take_keyboard

    require_terminal()
    if config.read is None or config.user:  # it will become another user; see _import_all
        import_module("vsockdump.tui.app")
    with ExitStack() as held:
        if config.tui is not None and config.tui.demo:
            start = _play(held)
        elif config.read is None:
            start = _listen(config, _Wanted(), held)
        else:
            start = _read(config.read, config.user, held)
        take_keyboard()
        show(config, start.source, start.greeting, start.reopen)
    return EXIT_OK


class _Wanted(NamedTuple):
    """The filter's halves: a program for the kernel, the rest, what they choose."""

    program: "Program | None" = None
    in_kernel: str = ""
    filter: "Filter | None" = None
    selection: Selection | None = None


def _wanted(config: Config) -> _Wanted:
    """What the filter asks for; without one its parser is not loaded.

    Live, the kernel decides all it can; where packets are tracked, it lets the connections
    that may be asked for through as a whole, so that their state and credit stay true.
    """
    if not config.filter.strip():
        return _Wanted()
    from vsockdump.filters.filter import Filter
    from vsockdump.filters.printer import text

    whole = Filter.of(config.filter)
    if config.read is not None:
        return _Wanted(filter=whole, selection=Selection(str(whole)))
    halves = whole.split(_tracks(config, whole))
    in_kernel = text(halves.pushed) if halves.pushed is not None else ""
    rest = Filter(halves.rest) if halves.rest is not None else None
    selection = Selection(str(rest) if rest is not None else "", in_kernel)
    return _Wanted(halves.program, in_kernel, rest, selection)


def _tracks(config: Config, wanted: "Filter | None") -> bool:
    """Whether anything of the run needs connections."""
    asked = wanted is not None and wanted.needs_tracking
    judged = config.annotate or bool(config.export) or config.fail_on is not None
    streams = config.follow is not None or config.extract is not None
    return asked or judged or streams or config.print_packets or bool(config.statistics)


class _State(NamedTuple):
    """What is known of the traffic so far; `dialogues` None: nobody asks what is said."""

    tracker: Tracker
    dialogues: "Dialogues | None"

    @classmethod
    def new(cls, config: Config, wanted: "Filter | None", asked: bool = False) -> "_State":
        """Nothing yet; of the application layer too, where the filter or `asked` needs it."""
        tracker = Tracker(config.max_connections)
        if not (asked or (wanted is not None and wanted.needs_apps)):
            return cls(tracker, None)
        if config.apps is None:
            raise DecodeError(
                "--decode none leaves out the application protocols that this run asks for."
            )
        from vsockdump.apps.dialogues import Dialogues

        return cls(tracker, Dialogues(config.apps, config.max_connections))


def _wishes(config: Config) -> "list[Wish]":
    """What -z asks for."""
    if not config.statistics:
        return []
    from vsockdump.output.statistics import wish

    return [wish(text) for text in config.statistics]


def _statistics(
    wishes: "list[Wish]", state: _State, selection: Selection | None, width: int
) -> "list[Statistic]":
    if not wishes:
        return []
    from vsockdump.output.statistics import make

    return [make(wish.text, *state, selection, width) for wish in wishes]


def _asks_apps(config: Config, wish: "Wish") -> bool:
    """Whether a -z needs what is said, or tells it where it is decoded."""
    return wish.of_apps or (wish.of_apps_if_any and config.apps is not None)


def _secrets(config: Config) -> "Secrets | None":
    if config.key_log is None:
        return None
    from vsockdump.output.secrets import Secrets

    return Secrets(config.key_log, config.read is None)


def _shows_apps(config: Config) -> bool:
    """Whether what is printed of packets says what is said."""
    if not config.print_packets:
        return False
    if config.output == "fields":
        return any(lookup(name).apps for name in config.fields)
    return config.text.apps if config.output == "text" else config.apps is not None


class _Written(NamedTuple):
    """What goes with the files of -w: who takes finished ones, and secrets that they hold."""

    finished: "PostRotate | None"
    secrets: "Secrets | None"


Reopen = Callable[[str | None], Source]


class _Start(NamedTuple):
    """A source that is open, whom the run became, what to say, and who knows why it is silent.

    `reopen` begins the same anew, or captures another interface; None where that cannot be.
    """

    source: Source
    user: str | None = None
    greeting: str = ""
    why_silent: Callable[[], str] = str
    reopen: Reopen | None = None


def _reader(path: str, reorder: bool) -> FileReader:
    """A capture file, as it is or in order of time."""
    if not reorder:
        return FileReader(path)
    from vsockdump.capture.reorder import OrderedReader

    return OrderedReader(path)


def _read(
    path: str, user: str | None, held: ExitStack, joined: bool = False, reorder: bool = False
) -> _Start:
    """A capture file, opened before the rights to do so are given up; `held` closes it.

    `joined`: see FileReader.join.
    """
    source = held.enter_context(closing(_reader(path, reorder)))
    if joined:
        source.join()
    if user is not None:
        from vsockdump.capture import privileges

        _import_all()
        privileges.drop(privileges.user_named(user))
    return _Start(source, user, reopen=None if path == "-" else lambda _: FileReader(path))


def _play(held: ExitStack) -> _Start:
    """The capture that is shipped, played as if it were live; `held` closes it."""
    from vsockdump import demo
    from vsockdump.capture.playback import Playback

    def play(_name: str | None = None) -> Source:
        return Playback(str(demo.PATH), "demo")

    greeting = "Real packets, captured earlier, played as if they came now."
    return _Start(held.enter_context(closing(play())), greeting=greeting, reopen=play)


def _import_all() -> None:
    """Import what is otherwise imported when it is needed.

    Whom the run becomes need not have access to where Python's packages are.
    """
    from vsockdump import apps, export, output
    from vsockdump.apps.registry import LIBRARIES, protocols

    for package in (output, export, apps):
        for module in iter_modules(package.__path__, f"{package.__name__}."):
            import_module(module.name)
    for library in LIBRARIES:
        import_module(library)
    protocols()


def _listen(config: Config, wanted: _Wanted, held: ExitStack) -> _Start:
    """A live capture, with the device that it needs; `held` closes both.

    All is imported and opened before privileges are dropped: another user need not have
    access to where Python's packages are.
    """
    from vsockdump.capture import machine, privileges, vsockmon
    from vsockdump.capture.packet_socket import PacketSocket, Settings

    options = config.live
    user = privileges.user_named(config.user) if config.user else privileges.invoking_user()
    name, made = options.interface or vsockmon.existing(), ""
    if name is None:
        device = held.enter_context(closing(vsockmon.make()))
        name, made = device.name, ", made for this capture"
    chosen = {
        name: value
        for name in ("snaplen", "ring_kib", "block_timeout_ms")
        if (value := getattr(options, name)) is not None
    }
    settings = Settings(**chosen, program=wanted.program)
    source = held.enter_context(closing(PacketSocket(name, settings)))
    reopen = _reopener(name, settings, held) if config.tui is not None else None
    if user is not None:
        _import_all()
    privileges.drop(user)
    who = user.name if user else None
    whose = f", as user {who}" if who else ""
    passing = f"; the kernel passes only {wanted.in_kernel}" if wanted.in_kernel else ""
    greeting = f"listening on {name}{made}{whose}{passing}."
    return _Start(source, who, greeting, lambda: machine.why_silent(machine.gather()), reopen)


def _reopener(name: str, settings: "Settings", held: ExitStack) -> Reopen:
    """Captures anew when the rights to open sockets are given up: with some opened before."""
    from vsockdump.capture.packet_socket import PacketSocket, packet_socket, usable_link

    spares = [held.enter_context(closing(packet_socket())) for _ in range(_RESTARTS)]

    def reopen(other: str | None) -> Source:
        if not spares:
            raise CaptureError(
                f"A capture can be started anew {_RESTARTS} times; leave vsockdump and start it."
            )
        wanted = other or name
        usable_link(wanted)  # before a spare is used up
        return PacketSocket(wanted, settings, spares.pop())

    return reopen


def _postrotate(config: Config, held: ExitStack) -> "PostRotate | None":
    """The command for finished files; `held` waits for it when all else has been given back."""
    if config.postrotate is None:
        return None
    from vsockdump.output.postrotate import PostRotate

    command = PostRotate(config.postrotate, complain)
    held.callback(command.wait)
    return command


def _view(config: Config) -> Any:
    if not config.print_packets:
        return None
    if config.output == "json":
        return json_lines(config.data, config.apps is not None)
    if config.output == "fields":
        return field_lines(list(config.fields))
    return TextView(config.text)


def _follow(config: Config) -> "Follow | None":
    if config.follow is None:
        return None
    from vsockdump.output.follow import Follow, form_of

    return Follow(config.follow, form_of(config.follow, config.text.numeric, config.colour))


_Chosen = tuple[Batch, Mask | None]  # a batch, and which of its packets are wanted (None: all)


def _count(batch: Batch, mask: Mask | None) -> int:
    """How many packets of a batch are chosen."""
    return len(batch) if mask is None else int(np.count_nonzero(mask))


class _Run:
    def __init__(
        self,
        config: Config,
        start: _Start,
        wanted: _Wanted,
        state: _State,
        statistics: "list[Statistic]",
        view: Any,
        events: Events,
        written: _Written,
    ) -> None:
        self._config = config
        self._start = start
        self._source = source = start.source
        self._state = state
        self._tracker = state.tracker
        self._statistics = statistics
        self._selection = wanted.selection
        self._judge = self._judge_of(config)
        self._view = view
        self._follow = _follow(config)
        self._extract: Extract | None = None  # its directory is made by the run's user
        self._filter = wanted.filter
        self._track = _tracks(config, wanted.filter)
        scouting = config.limit and self._filter is not None and self._filter.needs_tracking
        self._scout = _State.new(config, wanted.filter) if scouting else None
        self._flush = config.line_buffered or source.live
        self._hindsight = self._look_ahead()
        self._vsock = self._foreign = self._chosen = 0
        self._events = events
        self._written = written
        self._overdue: Overdue | None = None
        self._out = _Stdout()
        self._progress = LiveProgress(source)
        self._shown = 0  # how often statistics were shown
        # Packets that scroll by, and programs that read, get one table after the other.
        self._printing = view is not None or self._follow is not None
        self._in_place = not self._printing and config.output != "json" and sys.stdout.isatty()

    def _look_ahead(self) -> "Hindsight | None":
        """What the end of a file tells, where its filter asks for that: it is read once before.

        What comes only once, and what -c cuts off, is judged as it stands.
        """
        config, chosen = self._config, self._filter
        if chosen is None or not chosen.asks_the_end or config.read is None or config.limit:
            return None
        if not os.path.isfile(config.read):
            return None
        from vsockdump.findings.hindsight import look_ahead

        tracker = Tracker(config.max_connections)
        with closing(_reader(config.read, config.reorder)) as reader:
            try:
                hindsight = look_ahead(_tapped(reader, tracker), tracker)
            except CaptureError:
                return None  # it is said when it is read for good
        self._tracker.learn(hindsight.uncapped)
        return hindsight

    def set_timers(self, refreshes: list[float]) -> None:
        """What a live run does by the clock; `refreshes` are those of the statistics, 0: none."""
        config, events = self._config, self._events
        events.report = self._say_counts
        if config.live.duration:
            events.after(config.live.duration, self._source.stop)
        if config.live.control:
            events.obey(sys.stdin.fileno())
        for index, refresh in enumerate(refreshes):
            if refresh:
                events.every(refresh, partial(self._refresh, index))
        drawing = self._in_place and any(refreshes)
        if isinstance(self._view, TextView) and self._source.now_ns() is not None:
            from vsockdump.output.findings import Overdue

            self._overdue = Overdue(self._tracker, self._selection)
            events.every(_OVERDUE_S, self._tell_overdue)
        to_files = config.write is not None or config.extract is not None
        silent = to_files and not self._printing and not drawing
        if silent and self._progress.wanted:
            events.every(LiveProgress.EVERY_S, self._progress.update)

    def run(self) -> int:
        """Read to the end, to -c, to damage or to ^C; then finish what was begun."""
        config = self._config
        self._extract = self._extraction()
        if config.write is None:
            status = self._read(None)
        else:
            with closing(self._writer(config.write)) as writer:
                status = self._read(writer)
            for sentence in writer.remarks():
                complain(sentence)
        self._progress.clear()
        for sentence in TROUBLE:
            complain(sentence)
        status = self._end_follow() or status
        self._end_extraction()
        status = self._print_statistics() or status
        self._out.flush()
        if self._source.counts() is not None:
            self._say_counts()
        elif self._events.caught:
            complain(f"stopped after {self._vsock + self._foreign} packets.")
        return status or self._summary() or self._judgement()

    def _judge_of(self, config: Config) -> "Findings | None":
        """Who looks out for what --fail-on asks about."""
        if config.fail_on is None:
            return None
        from vsockdump.output.findings import Findings

        return Findings(self._tracker, self._selection)

    def _judgement(self) -> int:
        """Whether something was found that --fail-on asks about."""
        if self._judge is None:
            return EXIT_OK
        limit = Severity[str(self._config.fail_on).upper()]
        worst = self._judge.worst()
        return EXIT_FOUND if worst is not None and worst >= limit else EXIT_OK

    def _takers(self) -> "list[Statistic]":
        """All that take batches for what is said at the end."""
        return self._statistics if self._judge is None else [*self._statistics, self._judge]

    def _writer(self, path: str) -> "Writer":
        config = self._config
        ways = config.rotation.of(path) if config.rotation else None
        to = path, self._source, ways, self._written.finished
        writer: Writer
        if config.export:
            from vsockdump.export.export_file import ExportFile
            from vsockdump.export.exporters import exporter_of

            limit = config.max_connections
            exporter = exporter_of(config.export, self._source, limit, config.apps)
            writer = ExportFile(*to, exporter, config.annotate, self._written.secrets)
        else:
            from vsockdump.output.annotations import Annotations
            from vsockdump.output.capture_file import CaptureFile

            notes = Annotations() if config.annotate else None
            writer = CaptureFile(*to, comments=notes, secrets=self._written.secrets)
        if self._source.live and writer.tick_s is not None:
            self._events.every(writer.tick_s, writer.tick)
        return writer

    def _say_counts(self) -> None:
        """How much was captured and lost, as tcpdump says it."""
        self._progress.clear()
        counts = self._source.counts()
        say(f"{counted(self._chosen, 'packet')} captured")
        if counts is not None:
            say(f"{counted(counts.received, 'packet')} received by filter")
            say(f"{counted(counts.dropped, 'packet')} dropped by kernel")
            if counts.dropped:
                complain(
                    f"the ring was full {counted(counts.freezes, 'time')}; give it more room with"
                    " -B KIB, or keep less of each packet with -s N."
                )
        if self._state.dialogues is not None and self._state.dialogues.passed_over:
            complain(self._state.dialogues.remark())

    def _read(self, writer: "Writer | None") -> int:
        """Take all batches; the exit status so far."""
        config = self._config
        if self._start.greeting:
            complain(self._start.greeting)
        if config.header and config.output == "fields" and self._view is not None:
            self._out.write("\t".join(config.fields).encode() + b"\n")
        try:
            with closing(self._batches()) as batches:
                for batch, mask in batches:
                    self._take(batch, mask, writer)
                    if writer is not None and writer.full:
                        complain(f"stopped after {counted(writer.files, 'file')}, as -W asks.")
                        break
        except CaptureError as error:
            self._out.flush()
            complain(str(error))
            return EXIT_INPUT
        return EXIT_OK

    def _batches(self) -> Generator[_Chosen]:
        """The source's batches, tracked, with what the filter chooses.

        Those of a large file are tracked in a thread, beside what is made of them here.
        """
        batches, kept = self._chosen_batches(), self._source.kept
        if kept > 1 and (self._track or self._filter):
            batches = ahead(batches, kept)
        with closing(batches), Progress(self._source, self._printing) as progress:
            for chosen in self._events.until_stopped(batches):
                progress.update(self._source.packets)
                yield chosen

    def _chosen_batches(self) -> Generator[_Chosen]:
        """The same, up to -c packets that are chosen."""
        left = self._config.limit
        for batch in self._source.batches():
            if not left:
                yield self._filtered(batch)
                continue
            batch, mask = self._filtered(self._cut(batch, left))
            yield batch, mask
            left -= _count(batch, mask)
            if not left:
                return

    def _filtered(self, batch: Batch) -> _Chosen:
        if self._track:
            self._track_by(self._state, batch)
        return batch, None if self._filter is None else self._mask(batch)

    def _mask(self, batch: Batch) -> Mask:
        assert self._filter is not None
        return self._filter.mask(self._hindsight.of(batch) if self._hindsight else batch)

    def _track_by(self, state: _State, batch: Batch) -> None:
        state.tracker.learn_interfaces(self._source.interfaces)
        state.tracker.track(batch)
        if state.dialogues is not None:
            state.dialogues.add(batch, self._source.is_behind)

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

    def _take(self, batch: Batch, mask: Mask | None, writer: "Writer | None") -> None:
        if writer is not None:
            taken = writer.write(batch, None if mask is None else np.flatnonzero(mask))
            if taken < len(batch):
                batch, mask = batch.head(taken), None if mask is None else mask[:taken]
        self._foreign += batch.foreign
        self._vsock += len(batch) - batch.foreign
        self._chosen += _count(batch, mask)
        takers = self._takers()
        wanted = takers or self._overdue is not None or self._extract is not None
        if self._selection is not None and wanted:
            self._selection.add(batch, mask)
        if self._extract is not None:
            self._extract.add(batch)
        for statistic in takers:
            statistic.add(batch, mask)
        if self._follow is not None:
            self._print_all(self._follow.add(batch, mask))
        if self._view is not None and len(batch) > batch.foreign:
            self._print_packets(batch, mask)

    def _print_packets(self, batch: Batch, mask: Mask | None) -> None:
        """Print the vsock packets that are chosen."""
        if batch.foreign:
            mask = ~foreign(batch) if mask is None else mask & ~foreign(batch)
        chosen = None if mask is None else np.flatnonzero(mask)
        if chosen is not None and not len(chosen):
            return
        self._print_all(self._view.write(batch, chosen))

    def _print_all(self, pieces: Iterable[bytes | memoryview]) -> None:
        for piece in pieces:
            self._out.write(piece)
        if self._flush:
            self._out.flush()

    def _extraction(self) -> "Extract | None":
        """The files of streams; without a filter to wait for, of all connections seen."""
        config = self._config
        if config.extract is None:
            return None
        from vsockdump.output.extract import Extract

        selection = None if self._filter is None else self._selection
        return Extract(config.extract, self._source, config.max_connections, selection)

    def _end_extraction(self) -> None:
        """Write what is left of the streams, and say what they lack."""
        if self._extract is not None:
            self._extract.close()
            for sentence in self._extract.remarks():
                complain(sentence)

    def _end_follow(self) -> int:
        """The end of the dialogue; its exit status."""
        if self._follow is None:
            return EXIT_OK
        self._print_all(self._follow.end())
        self._out.flush()
        for sentence in self._follow.remarks(self._source.name, self._tracker.connections):
            complain(sentence)
        return EXIT_OK if self._follow.chosen else EXIT_INPUT

    def _print_statistics(self) -> int:
        """The result, at the end; its exit status."""
        self._tracker.finish(self._source.now_ns())
        if self._state.dialogues is not None:
            self._state.dialogues.finish()
        self._tell_of_drops()
        if self._in_place and self._shown:
            self._out.write(drawn(()).encode())
            self._shown = 0
        status = EXIT_OK
        for statistic in self._statistics:
            sentence = statistic.complaint(self._source.name)
            if sentence:
                status = EXIT_INPUT
                complain(sentence)
            else:
                self._print(statistic)
        return status

    def _tell_of_drops(self) -> None:
        """What the kernel dropped is a finding that no packet shows."""
        takers, dropped = self._takers(), self._source.dropped or 0
        if not takers:
            return
        from vsockdump.output.findings import Findings

        for taker in takers:
            if isinstance(taker, Findings):
                taker.collector.dropped(dropped, self._source.packets + dropped)

    def _tell_overdue(self) -> None:
        """Between the packet lines of a live capture: what only time tells."""
        assert self._overdue is not None
        with self._tracker.as_of(self._source.now_ns()):
            for line in self._overdue.lines(self._config.text.numeric):
                self._out.write(line.encode() + b"\n")
        self._out.flush()

    def _refresh(self, index: int) -> None:
        """Show a statistic as it is now; on a terminal all of them, since they share it."""
        self._tell_of_drops()
        with self._tracker.as_of(self._source.now_ns()):
            if self._in_place:
                self._out.write(drawn(self._all_lines()).encode())
                self._shown += 1
            else:
                self._print(self._statistics[index])
        self._out.flush()

    def _all_lines(self) -> Iterator[str]:
        for index, statistic in enumerate(self._statistics):
            if index:
                yield ""
            yield from self._lines_of(statistic)

    def _print(self, statistic: "Statistic") -> None:
        """A statistic below what was printed before, with an empty line between."""
        if self._config.output == "json":
            if not self._shown and self._selection is not None:
                self._out.write(self._selection.json_line().encode() + b"\n")
        elif self._shown or self._printing:
            self._out.write(b"\n")
        self._shown += 1
        lines = self._lines_of(statistic)
        while some := list(islice(lines, _LINES_AT_ONCE)):
            self._out.write("\n".join([*some, ""]).encode())

    def _lines_of(self, statistic: "Statistic") -> Iterator[str]:
        config = self._config
        if config.output == "json":
            return statistic.json_lines()
        return statistic.lines(config.text.numeric, config.colour)

    def _summary(self) -> int:
        """Say what was left out; a capture without any vsock is not what was meant."""
        late = getattr(self._source, "too_late", 0)
        if late:
            complain(
                f"--reorder left {counted(late, 'packet')} out of order, too far back in the file;"
                " reordercap sorts a file as a whole."
            )
        counts = self._source.counts()
        if counts is not None and not counts.received:
            complain(self._start.why_silent())
        nameless = {place.tap for place in self._source.interfaces if not place.name and place.kind}
        if self._track and len(nameless) > 1:
            complain(
                f"{self._source.name} has {len(nameless)} interfaces without names: each is taken"
                " for a monitor of its own, and no connection goes on from one to another."
            )
        if not self._foreign:
            return EXIT_OK
        types = sorted({place.linktype for place in self._source.interfaces if not place.kind})
        kinds = " of link type " + ", ".join(map(str, types)) if types else ""
        name = self._source.name
        if not self._vsock:
            complain(f"{name} holds no vsock packets: all {self._foreign} are others{kinds}.")
            return EXIT_INPUT
        complain(f"{self._foreign} packets of {name} are not vsock{kinds} and were left out.")
        return EXIT_OK


def _tapped(source: Source, tracker: Tracker) -> Iterator[Batch]:
    """A source's batches, of which the tracker knows the taps."""
    for batch in source.batches():
        tracker.set_taps([place.tap for place in source.interfaces])
        yield batch


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


def complain(sentence: str) -> None:
    """One sentence on stderr."""
    say(f"vsockdump: {sentence}")


def say(line: str) -> None:
    """One line on stderr."""
    print(line, file=sys.stderr, flush=True)
