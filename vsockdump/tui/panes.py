"""The panes, in the order of their number keys.

Rules for editors: a pane is a class in a file of its own (see pane.py), and one line here.
"""

from typing import Final

from vsockdump.tui.connections import ConnectionsPane
from vsockdump.tui.credit import CreditPane
from vsockdump.tui.findings import FindingsPane
from vsockdump.tui.follow import FollowPane
from vsockdump.tui.packets import PacketsPane
from vsockdump.tui.pane import Pane
from vsockdump.tui.statistics import StatisticsPane
from vsockdump.tui.story import StoryPane

PANES: Final[dict[str, type[Pane]]] = {
    "packets": PacketsPane,
    "connections": ConnectionsPane,
    "credit": CreditPane,
    "follow": FollowPane,
    "findings": FindingsPane,
    "statistics": StatisticsPane,
    "story": StoryPane,
}
