"""How tests press keys and look at the screen."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from looking import running, until

from vsockdump.tui.app import VsockApp

Pressed = Callable[[VsockApp, Any], Awaitable[None]]


def drive(name: str, test: Pressed, **options: Any) -> None:
    """Run the program on a capture, and the test on it."""

    async def run() -> None:
        async with running(name, **options) as (app, pilot):
            await until(pilot, lambda: app.session.current)
            await test(app, pilot)

    asyncio.run(run())


def drawn(app: VsockApp) -> str:
    """What the screen shows."""
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in strips)
