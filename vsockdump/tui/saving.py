"""Asking for a file, and writing to it in a thread while the program goes on.

A file that exists is only written over when the user has said so.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import Final

from textual.app import App
from textual.worker import Worker, get_current_worker

from vsockdump.amounts import counted
from vsockdump.capture.errors import CaptureError
from vsockdump.output.errors import OutputError
from vsockdump.tui.model.saving import save, write_text
from vsockdump.tui.pane import Pane
from vsockdump.tui.prompt import Prompt
from vsockdump.tui.session import Session

_JSON: Final = (".json", ".jsonl", ".ndjson")
MOST_COPIED: Final = 100_000  # characters: terminals take no more of an OSC 52

Going = Callable[[], bool]
Write = Callable[[str, Going], str]  # to a path; gives what is said of it


def ask_to_save(app: App[None], session: Session, marked: bool) -> None:
    """Ask where to save the packets that are shown, or marked, as a capture file."""
    count = len(session.marked) if marked else len(session.listing)
    if not count:
        app.notify(f"No packets are {'marked' if marked else 'listed'}.", severity="warning")
        return
    which = "marked" if marked else "shown"
    question = f"Save the {counted(count, 'packet')} {which} to (.pcapng, .pcap)"
    _ask(app, question, f"{which}.pcapng", partial(_save, session, marked))


def ask_to_export(app: App[None], pane: Pane) -> None:
    """Ask where to write what a pane shows."""
    if not pane.exports:
        app.notify(f"{pane.title} has nothing to write.", severity="warning", timeout=2)
        return
    question = f"Write {pane.title} as text, or to a name with .json as JSON, to"
    _ask(app, question, f"{pane.title.lower()}.txt", partial(_export, pane))


def _save(session: Session, marked: bool, path: str, going: Going) -> str:
    comments = dict(session.comments)
    packets = save(session.capture, path, session.parts(marked), comments, going)
    return f"{counted(packets, 'packet')} saved to {path}."


def _export(pane: Pane, path: str, going: Going) -> str:
    as_json = path.lower().endswith(_JSON)
    written = write_text(path, pane.export(as_json, going))
    return f"{pane.title} written to {path}, {counted(written, 'byte')}."


def _ask(app: App[None], question: str, default: str, write: Write) -> None:
    def answered(path: str | None) -> None:
        if not path or not path.strip():
            return
        full = os.path.expanduser(path.strip())
        if os.path.exists(full):
            app.push_screen(Prompt(f"{full} exists; y writes over it"), partial(sure, full))
        else:
            run(full)

    def sure(path: str, answer: str | None) -> None:
        if answer is not None and answer.strip().lower() in ("y", "yes"):
            run(path)

    def run(path: str) -> None:
        app.run_worker(partial(_write, app, write, path), thread=True, group="saving")

    app.push_screen(Prompt(question, default), answered)


def _write(app: App[None], write: Write, path: str) -> None:
    worker: Worker[None] = get_current_worker()
    try:
        said = write(path, lambda: not worker.is_cancelled)
    except (OutputError, CaptureError) as error:
        tell = partial(app.notify, str(error), severity="error", markup=False)
    else:
        tell = partial(app.notify, said, markup=False)
    if not worker.is_cancelled:
        app.call_from_thread(tell)


def copy(app: App[None], text: str) -> None:
    """Into the clipboard, by the terminal (OSC 52)."""
    if not text:
        app.notify("There is nothing to copy here.", severity="warning", timeout=2)
        return
    app.copy_to_clipboard(text[:MOST_COPIED])
    cut = len(text) - MOST_COPIED
    more = f", {cut} more characters left out" if cut > 0 else ""
    app.notify(f"Copied: {text[:60]}{'…' if len(text) > 60 else ''}{more}", markup=False, timeout=3)
