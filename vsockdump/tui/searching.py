"""Searching in the pane of packets: in the list, the tree or the bytes, by where the focus is.

Rules for editors: what a search comes to in the packet that is shown is found at once; other
packets are looked through in a thread, and a new search ends the one before.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from vsockdump.tui.model.capture import Capture
from vsockdump.tui.model.passes import Listing, look
from vsockdump.tui.model.search import (
    AT_ONCE,
    Matching,
    SearchError,
    Sought,
    flat,
    in_bytes,
    in_details,
    in_list,
    next_bytes,
    next_node,
    sought,
)
from vsockdump.tui.prompt import Prompt

if TYPE_CHECKING:
    from vsockdump.tui.packets import PacketsPane


class Search:
    """What is searched for in a pane; `arrived` is called when the packet found is shown."""

    def __init__(self, pane: "PacketsPane") -> None:
        self._pane = pane
        self._wanted: Sought | None = None
        self._typed = ""
        self._inside: Callable[[], None] | None = None

    def ask(self) -> None:
        """Ask what to search for."""
        where = "bytes" if self._pane.hex.has_focus else "details" if self._details else "list"
        question = f"Find in the {where}: text, /regex/ or 0x48 65"
        self._pane.app.push_screen(Prompt(question, self._typed), self._begin)

    @property
    def _details(self) -> bool:
        return self._pane.fields.has_focus

    def _begin(self, typed: str | None) -> None:
        if not typed:
            return
        self._typed = typed
        try:
            self._wanted = sought(typed)
        except SearchError as error:
            self._pane.app.notify(str(error), severity="warning", markup=False)
        else:
            self.next(forward=True)

    def next(self, forward: bool) -> None:
        """The next place, or the one before."""
        if self._wanted is None:
            self.ask()
        elif self._details:
            self._in_details(self._wanted, forward)
        elif self._pane.hex.has_focus:
            self._in_bytes(self._wanted, forward)
        else:
            self._look(in_list(self._capture, self._pane.session.reader(), self._wanted), forward)

    @property
    def _capture(self) -> Capture:
        return self._pane.session.capture

    def arrived(self) -> None:
        """The packet is shown: to the place in it."""
        inside, self._inside = self._inside, None
        if inside is not None:
            inside()

    def _look(self, matching: Matching, forward: bool) -> None:
        place = self._pane.list.cursor

        def run(listing: Listing, going: Callable[[], bool]) -> int | None:
            return look(listing, matching, place, forward, going, AT_ONCE)

        self._pane.search(run)

    def _in_details(self, wanted: Sought, forward: bool, entered: bool = False) -> None:
        fields = self._pane.fields
        nodes = list(flat(fields.nodes))
        current = fields.cursor_node.data if fields.cursor_node is not None else None
        at = next((at for at, node in enumerate(nodes) if node is current), -1)
        if entered:
            at = -1 if forward else len(nodes)
        node = next_node(nodes, at, wanted, forward)
        if node is not None:
            fields.select(node)
        elif not entered:
            self._inside = lambda: self._in_details(wanted, forward, entered=True)
            self._look(in_details(self._capture, wanted), forward)

    def _in_bytes(self, wanted: Sought, forward: bool, entered: bool = False) -> None:
        view = self._pane.hex
        at = view.cursor if not entered else -1 if forward else len(view.data)
        found = next_bytes(view.data, at, wanted, forward)
        if found is not None:
            view.go(found)
        elif not entered:
            self._inside = lambda: self._in_bytes(wanted, forward, entered=True)
            self._look(in_bytes(self._capture, wanted), forward)
