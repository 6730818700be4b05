"""The program: tabs, filter bar, panes, status line, footer; who tells whom.

Rules for editors: panes draw, the model knows, here it is only wired.  Nothing here waits: what
takes time runs in a thread of the model's.
"""

from asyncio import Lock
from collections.abc import Callable, Iterable
from functools import partial
from typing import ClassVar, Final

from textual import work
from textual.app import App, ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.events import Event, Key
from textual.screen import Screen
from textual.widgets import ContentSwitcher, Input, Static

from vsockdump.capture.errors import CaptureError
from vsockdump.tui.filter_bar import FilterBar
from vsockdump.tui.help import Help
from vsockdump.tui.key_line import KeyLine
from vsockdump.tui.keys import bind
from vsockdump.tui.looks import HIGH_CONTRAST, style_sheet
from vsockdump.tui.model.completion import check
from vsockdump.tui.model.settings import Settings
from vsockdump.tui.packets import PacketsPane
from vsockdump.tui.pane import FilterBy, GoTo, OpenPane, Pane, Picked
from vsockdump.tui.panes import PANES
from vsockdump.tui.prompt import Prompt
from vsockdump.tui.saving import ask_to_export, ask_to_save, copy
from vsockdump.tui.session import Session
from vsockdump.tui.status import Status

_TICK_S: Final = 0.1  # from snapshot to snapshot
_FIRST_S: Final = 0.02
_KEY_S: Final = 0.03  # what a key takes to be seen


class Tabs(Static):
    """The panes by number, the one in use marked; each can be clicked."""

    DEFAULT_CSS = """
    Tabs { height: 1; background: $panel; link-style: none; link-color: $foreground;
        link-background: transparent; }
    """

    def show(self, current: str) -> None:
        """Mark this one."""
        parts = []
        for number, (name, pane) in enumerate(PANES.items(), 1):
            style = "bold reverse" if name == current else ""
            part = Content.styled(f" {number} {pane.title} ", style)
            parts.append(part.stylize(f"@click=app.pane('{name}')"))
        self.update(Content.assemble(*parts))


class MainScreen(Screen[None]):
    """All there is but questions and help."""

    def __init__(self, session: Session, filter_text: str) -> None:
        super().__init__()
        self.session = session
        self._filter_text = filter_text
        self._making = Lock()

    def compose(self) -> ComposeResult:
        """From top to bottom."""
        self.tabs = Tabs(markup=False)
        self.bar = FilterBar(self._filter_text, self.session.history)
        self.status = Status(self.session)
        yield self.tabs
        yield self.bar
        first = next(iter(PANES))
        with ContentSwitcher(initial=first):
            yield PANES[first](self.session, first)
        yield self.status
        yield KeyLine()

    def on_mount(self) -> None:
        """Begin to draw."""
        self._show(next(iter(PANES)))
        self.set_interval(_TICK_S, self._tick)
        if not self.session.snapshot.live:
            self._impatient = self.set_interval(_FIRST_S, self._look_for_first)
        if self._filter_text:
            self._choose(self._filter_text)

    @property
    def pane(self) -> Pane:
        """The pane in use."""
        switcher = self.query_one(ContentSwitcher)
        return switcher.get_child_by_id(str(switcher.current), Pane)

    async def show(self, name: str) -> None:
        """Show this pane, which is made when it is wanted first: the program starts sooner."""
        async with self._making:
            switcher = self.query_one(ContentSwitcher)
            if not switcher.query_children(f"#{name}"):
                await switcher.add_content(PANES[name](self.session, name))
        self._show(name)

    def _show(self, name: str) -> None:
        self.query_one(ContentSwitcher).current = name
        self.tabs.show(name)
        self.pane.draw()
        self.focus_pane()

    def focus_pane(self) -> None:
        """The keys are the pane's."""
        widget = next((child for child in self.pane.query("*") if child.can_focus), None)
        self.set_focus(widget)

    def _look_for_first(self) -> None:
        """Do not wait for a file's first packets longer than they take."""
        if self.session.current or self.session.snapshot.ended:
            self._impatient.stop()
            self.call_after_refresh(self.session.capture.give_way, 0)
        elif len(self.session.capture.index) or self.session.capture.ended:
            self._tick()

    def _tick(self) -> None:
        self.session.refresh()
        if not self.session.paused:
            self.pane.draw()
        self.status.draw()

    # --- the filter --------------------------------------------------------------------------

    def _choose(self, text: str) -> None:
        """List what a text chooses; one that is no filter stays in the bar to be mended."""
        checked = check(text)
        if checked.error is not None:
            self.bar.entry.value = text
            self.bar.entry.focus()
            return
        self.bar.put(text)
        self.session.choose(checked.filter)
        self._relisted()

    def _relisted(self) -> None:
        for pane in self.query(Pane):
            pane.relisted()
        self.status.draw()

    def on_filter_bar_entered(self, message: FilterBar.Entered) -> None:
        """The user typed one."""
        self.session.choose(message.filter)
        self._relisted()

    def on_filter_bar_left(self) -> None:
        """The user is done with it."""
        self.focus_pane()

    def action_filter(self) -> None:
        """Type a filter; at once, for the keys that follow are meant for it."""
        self.set_focus(self.bar.entry)

    def action_complete_filter(self) -> None:
        """Complete the word."""
        self.bar.complete()

    def action_filter_before(self, by: int) -> None:
        """The filter before, or after."""
        self.bar.older(by)

    def action_save(self, marked: bool) -> None:
        """Save packets."""
        ask_to_save(self.app, self.session, marked)

    def action_export(self) -> None:
        """Write what the pane shows."""
        ask_to_export(self.app, self.pane)

    def action_copy(self, as_filter: bool) -> None:
        """Copy what the cursor is on."""
        copy(self.app, self.pane.copied(as_filter))

    def action_leave_filter(self) -> None:
        """Leave the filter as it was."""
        self.bar.leave()

    # --- what panes ask for ------------------------------------------------------------------

    def on_filter_by(self, message: FilterBy) -> None:
        """A pane wants a filter."""
        text = message.text
        if message.narrow and self.session.filter is not None:
            text = f"({self.session.filter}) and ({text})"
        self._choose(text)

    async def on_go_to(self, message: GoTo) -> None:
        """A pane wants a packet to be shown."""
        await self.show("packets")
        self.query_one(PacketsPane).go_to(message.number)

    async def on_open_pane(self, message: OpenPane) -> None:
        """A pane wants another to be shown."""
        if message.pane in PANES:
            await self.show(message.pane)

    def on_picked(self, message: Picked) -> None:
        """The cursor is on another packet."""
        for pane in self.query(Pane):
            pane.chosen(message.number)
        self.status.draw()


class VsockApp(App[None]):
    """Textual's application."""

    TITLE = "vsockdump"
    CSS = """
    ContentSwitcher { height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        # With priority, so that the keys typed behind it go to the bar: see check_action.
        bind("slash", "main('filter')", "Filter", display="/", priority=True),
        bind("p", "pause", "Pause", show=True),
        bind("R", "restart", "Start the capture anew", show=False),
        bind("I", "switch", "Capture another interface", show=False),
        bind("S", "stop", "Stop the capture", show=False),
        bind("w", "screen.save(False)", "Save what is shown", show=False),
        bind("W", "screen.save(True)", "Save what is marked", show=False),
        bind("e", "pane('story')", "Explain the connection", show=False),
        bind("E", "screen.export", "Write the pane to a file", show=False),
        bind("y", "screen.copy(False)", "Copy", show=False),
        bind("Y", "screen.copy(True)", "Copy as a filter", show=False),
        bind("question_mark", "help", "Help", display="?"),
        bind("q", "quit", "Quit"),
        Binding("ctrl+c", "quit", "Quit", show=False, priority=True),
        bind("colon", "command_palette", "Commands", show=False, display=":"),
        *(
            bind(str(number), f"pane('{name}')", pane.title, show=False)
            for number, (name, pane) in enumerate(PANES.items(), 1)
        ),
    ]

    def __init__(
        self,
        session: Session,
        filter_text: str = "",
        greeting: str = "",
        settings: Settings | None = None,
        anew: Callable[[str | None], Session] | None = None,
    ) -> None:
        super().__init__()
        settings = settings or Settings()
        self.register_theme(HIGH_CONTRAST)
        self.theme = settings.theme or self.theme
        self.stylesheet.add_source(style_sheet(settings.colours), ("settings", "colours"))
        self.set_keymap(dict(settings.keys))
        self.main = MainScreen(session, filter_text)
        self.session = session
        self._greeting = greeting
        self._anew = anew

    def on_mount(self) -> None:
        """The screen, and what is to be said at the beginning."""
        self.push_screen(self.main)
        if self._greeting:
            self.notify(self._greeting, markup=False)

    async def on_event(self, event: Event) -> None:
        """A key comes before the reading of a file."""
        if isinstance(event, Key):
            self.session.capture.give_way(_KEY_S)
        await super().on_event(event)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Where text is typed, over the main screen, or in some panes, a slash is a slash."""
        if action == "main":
            typing = isinstance(self.focused, Input)
            return self.screen is self.main and not typing and not self.main.pane.takes_slash
        return super().check_action(action, parameters)

    def action_main(self, action: str) -> None:
        """An action of the main screen."""
        getattr(self.main, f"action_{action}")()

    async def action_pane(self, name: str) -> None:
        """Show a pane."""
        await self.main.show(name)

    def action_pause(self) -> None:
        """Hold the screen; the capture goes on."""
        self.session.paused = not self.session.paused
        self.main.status.draw()

    def action_stop(self) -> None:
        """End the capture; its packets stay."""
        self.session.capture.stop()

    def action_restart(self) -> None:
        """Begin anew: the packets so far are gone."""
        if self._anew is None:
            self.notify("What comes over stdin comes once.", severity="warning")
        else:
            self._restart(None)

    def action_switch(self) -> None:
        """Ask for another interface to capture."""
        if self._anew is None or self.session.capture.source.format:
            self.notify("Only a live capture can go to another interface.", severity="warning")
        else:
            self.push_screen(Prompt("Capture the interface"), self._switch)

    def _switch(self, name: str | None) -> None:
        if name and name.strip():
            self._restart(name.strip())

    @work(thread=True, exclusive=True, group="restart")
    def _restart(self, interface: str | None) -> None:
        """In a thread: the old capture must come to its end, and the new one be opened."""
        assert self._anew is not None
        try:
            session = self._anew(interface)
        except CaptureError as error:
            self.call_from_thread(self.notify, str(error), severity="error", markup=False)
            return
        # mypy cannot tell what the coroutine gives from the union that is asked for.
        before: Session = self.call_from_thread(self._take, session)  # type: ignore[arg-type]
        before.close()
        before.capture.source.close()

    async def _take(self, session: Session) -> Session:
        """Look at another session as at the one before; this one, that nobody looks at then."""
        before, self.session = self.session, session
        session.columns, session.times = before.columns, before.times
        session.numeric = before.numeric
        self.main = MainScreen(session, str(before.filter or ""))
        await self.switch_screen(self.main)
        return before

    def action_help(self) -> None:
        """The keys that work here."""
        bindings = [active for active in self.screen.active_bindings.values() if active.enabled]
        self.push_screen(Help(bindings, f"Keys: {self.main.pane.title}"))

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Textual's own, the panes, and what the pane in use offers."""
        yield from super().get_system_commands(screen)
        for name, pane in PANES.items():
            yield SystemCommand(pane.title, "show this pane", partial(self.main.show, name))
        for title, meaning, run in (
            ("Start the capture anew", "the packets so far are gone", self.action_restart),
            ("Capture another interface", "in place of this one", self.action_switch),
            ("Save what is shown", "as pcapng or pcap", partial(self.main.action_save, False)),
            ("Save what is marked", "as pcapng or pcap", partial(self.main.action_save, True)),
            ("Write the pane to a file", "as text or JSON", self.main.action_export),
            ("Copy", "what the cursor is on", partial(self.main.action_copy, False)),
            ("Copy as a filter", "what the cursor is on", partial(self.main.action_copy, True)),
        ):
            yield SystemCommand(title, meaning, run)
        for command in self.main.pane.commands():
            yield SystemCommand(*command)
