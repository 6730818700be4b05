"""Makes the pictures of the terminal program in captures/pictures, of the demo's capture.

    python tests/make_screenshots.py

SVG: text, so that they are small and can be compared.
"""

import asyncio
import os
import re
from pathlib import Path
from typing import Final

from vsockdump.capture.reader import FileReader
from vsockdump.demo import PATH
from vsockdump.tui.app import VsockApp
from vsockdump.tui.model.capture import Capture
from vsockdump.tui.panes import PANES
from vsockdump.tui.session import Session

FOLDER: Final = Path(__file__).parents[1] / "captures" / "pictures"
SIZE: Final = (120, 30)
# What a picture is of: its name, the pane, and the keys that are pressed in it.
PICTURES: Final = {
    "packets": ("packets", "right_square_bracket right_square_bracket"),
    "findings": ("findings", "j space j"),
    "story": ("connections", f"{'j ' * 19}e j j j"),
}
_FONTS: Final = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)  # they would be fetched
_UNIQUE: Final = re.compile(r"terminal-\d+")


async def picture(pane: str, keys: str) -> str:
    """The program, after the keys, as SVG."""
    os.chdir(PATH.parent)  # the status line names the file as it was given
    source = FileReader(PATH.name)
    capture = Capture(source)
    capture.start()
    while capture.wait(len(capture.index), lambda: True):
        pass
    session = Session(capture)
    app = VsockApp(session)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press(str(list(PANES).index(pane) + 1))
        await pilot.pause(1)
        for key in keys.split():
            await pilot.press(key)
            await pilot.pause(0.3)
        await pilot.pause(1)
        svg = app.export_screenshot(title="vsockdump --tui -r demo.pcap.gz")
    session.close()
    source.close()
    return _UNIQUE.sub("vsockdump", _FONTS.sub("", svg))


def main() -> None:
    """All of them."""
    FOLDER.mkdir(exist_ok=True)
    for name, (pane, keys) in PICTURES.items():
        (FOLDER / f"{name}.svg").write_text(asyncio.run(picture(pane, keys)))


if __name__ == "__main__":
    main()
