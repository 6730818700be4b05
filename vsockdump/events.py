"""What reaches a run from outside while it waits for packets: signals and timers.

Rules for editors: a handler acts at once only while the run waits for the next batch; then
nothing is half done.  At any other moment it leaves a note, and the action is carried out
before the next wait.  Python retries the system call that a handler interrupted, so that
sources need not know of any of this; `stop` is all they are told.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final, TypeVar

Action = Callable[[], None]

_LINES_AT_ONCE: Final = 4096  # bytes
Item = TypeVar("Item")


class _Timer:
    def __init__(self, seconds: float, action: Action, again: bool) -> None:
        self.seconds = seconds
        self.action = action
        self.again = again
        self.due = time.monotonic() + seconds


class Events:
    """A context manager in which signals and timers act on a run.

    ^C and SIGTERM call `stop`, which is to end the batches, and set `caught`; the second
    one kills.  SIGUSR1 calls `report`.
    """

    _ENDS: Final = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, stop: Action) -> None:
        self.caught = False
        self.report: Action | None = None
        self._stop = stop
        self._timers: list[_Timer] = []
        self._waiting = False
        self._acting = False
        self._noted: set[int] = set()
        self._inside = False

    def __enter__(self) -> "Events":
        handlers = dict.fromkeys(self._ENDS, self._end)
        handlers |= dict.fromkeys((signal.SIGUSR1, signal.SIGALRM), self._note)
        self._before = {number: signal.signal(number, handlers[number]) for number in handlers}
        self._inside = True
        return self

    def __exit__(self, *_error: object) -> None:
        self._inside = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def after(self, seconds: float, action: Action) -> None:
        """Call `action` once, when so many seconds have passed."""
        self._add(_Timer(seconds, action, False))

    def every(self, seconds: float, action: Action) -> None:
        """Call `action` again and again, so many seconds apart."""
        self._add(_Timer(seconds, action, True))

    def _add(self, timer: _Timer) -> None:
        self._timers.append(timer)
        self._set_alarm()

    def obey(self, fd: int) -> None:
        """Let a line read from `fd` act as SIGUSR1 does, and its end as SIGTERM.

        For a program that started us and may not send us signals: another user's, or one at
        the other end of a connection.  The signals go to the main thread, since only that
        wakes it.
        """
        main = threading.main_thread().ident
        assert main is not None

        def read() -> None:
            while data := os.read(fd, _LINES_AT_ONCE):
                if b"\n" in data and self._inside:
                    signal.pthread_kill(main, signal.SIGUSR1)
            if self._inside and not self.caught:  # the second one would kill
                signal.pthread_kill(main, signal.SIGTERM)

        threading.Thread(target=read, daemon=True).start()

    def until_stopped(self, batches: Iterator[Item]) -> Iterator[Item]:
        """The batches; signals and timers act while the next one is waited for."""
        while True:
            self._waiting = True
            self._act()
            batch = next(batches, None)
            self._waiting = False
            if batch is None:
                return
            yield batch

    def _end(self, number: int, _frame: FrameType | None) -> None:
        self.caught = True
        signal.signal(number, signal.SIG_DFL)
        self._stop()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._noted.add(number)
        if self._waiting and not self._acting:
            self._act()

    def _act(self) -> None:
        """Do what was noted; what is noted meanwhile too."""
        while self._noted:
            self._acting = True
            try:
                if self._noted.pop() == signal.SIGALRM:
                    self._run_timers()
                elif self.report is not None:
                    self.report()
            finally:
                self._acting = False

    def _run_timers(self) -> None:
        now = time.monotonic()
        for timer in [timer for timer in self._timers if timer.due <= now]:
            if timer.again:
                timer.due = max(timer.due + timer.seconds, now)
            else:
                self._timers.remove(timer)
            timer.action()
        self._set_alarm()

    def _set_alarm(self) -> None:
        if self._timers:
            left = min(timer.due for timer in self._timers) - time.monotonic()
            signal.setitimer(signal.ITIMER_REAL, max(left, 0.001))
