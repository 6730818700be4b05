"""The status line: what is read or captured, how much, how fast, what was lost."""

import time

from rich.text import Text
from textual.widgets import Static

from vsockdump.output.escaped import on_line
from vsockdump.tui.session import Session


class Status(Static):
    """One line, of the session's snapshot."""

    DEFAULT_CSS = """
    Status { height: 1; padding: 0 1; background: $panel; color: $foreground; }
    """

    def __init__(self, session: Session) -> None:
        super().__init__(markup=False)
        self.session = session
        self._shown = ""
        self._before = (time.monotonic(), session.snapshot.packets)
        self._rate = 0.0

    def draw(self) -> None:
        """Show how things stand."""
        text = self._text()
        if text.plain != self._shown:
            self._shown = text.plain
            self.update(text, layout=False)

    def _text(self) -> Text:
        session, snapshot = self.session, self.session.snapshot
        listed = len(session.listing)
        number = f"{session.current}/" if session.current else ""
        parts = [f"{number}{snapshot.packets} packets"]
        if session.filter is not None:
            passed = "" if session.listing.done >= snapshot.packets else " so far"
            parts.append(f"{listed} match{passed}")
        if session.marked:
            parts.append(f"{len(session.marked)} marked")
        if snapshot.live and not snapshot.ended:
            parts.append(f"{self._per_second():,.0f}/s")
        if snapshot.dropped is not None:
            parts.append(f"{snapshot.dropped} dropped")
        if snapshot.copied:
            parts.append(f"{_size(snapshot.copied)} copied to a temporary file")
        text = Text(no_wrap=True, overflow="ellipsis")
        for word, style in self._words():
            text.append(f"{word}  ", style)
        text.append("  ".join(parts))
        trouble = snapshot.trouble or session.listing.trouble
        text.append(f"  {on_line(trouble or snapshot.name)}", "bold" if trouble else "dim")
        return text

    def _words(self) -> list[tuple[str, str]]:
        """What state it is in."""
        snapshot = self.session.snapshot
        words = []
        if self.session.paused:
            words.append(("PAUSED", "reverse"))
        if snapshot.live:
            words.append(("ended", "") if snapshot.ended else ("live", "bold"))
        elif not snapshot.ended:
            progress = snapshot.progress
            words.append(("reading" if progress is None else _bar(progress), "bold"))
        return words

    def _per_second(self) -> float:
        """The rate of the last second or so."""
        now, packets = time.monotonic(), self.session.snapshot.packets
        since = now - self._before[0]
        if since >= 1:
            self._rate = (packets - self._before[1]) / since
            self._before = (now, packets)
        return self._rate


def _bar(part: float, width: int = 10) -> str:
    """A progress bar."""
    full = int(part * width)
    return f"reading {'█' * full}{'░' * (width - full)} {part:.0%}"


def _size(count: int) -> str:
    """Bytes in KiB, of many in MiB."""
    return f"{count >> 20} MiB" if count >= 10 << 20 else f"{count >> 10} KiB"
