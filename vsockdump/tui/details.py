"""The tree of a packet's layers and fields."""

from typing import ClassVar, Final

from rich.text import Text
from textual.binding import BindingType
from textual.message import Message
from textual.widgets import Tree
from textual.widgets.tree import TreeNode

from vsockdump.tui.keys import bind
from vsockdump.tui.model.details import Node, node_at

# Branches that are open until the user closes them.
_OPEN: Final = ("Virtio", "Payload", "Message", "Connection", "Wireshark", "Wireshark:")


class DetailsTree(Tree[Node]):
    """Shows nodes; posts Field when another becomes the current one."""

    DEFAULT_CSS = """
    DetailsTree { width: 1fr; height: 1fr; padding: 0; background: $background;
        scrollbar-size: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        bind("j", "cursor_down", "Down", show=False),
        bind("k", "cursor_up", "Up", show=False),
        bind("l,right", "open", "Open the branch", show=False),
        bind("h,left", "shut", "Close the branch", show=False),
        bind("g", "scroll_home", "First line", show=False),
        bind("G", "scroll_end", "Last line", show=False),
    ]

    class Field(Message):
        """The current node."""

        def __init__(self, node: Node) -> None:
            super().__init__()
            self.node = node

    def __init__(self) -> None:
        super().__init__(Text("packet"))  # no markup, and none is looked for
        self.show_root = False
        self.guide_depth = 2
        self._shown_nodes: tuple[Node, ...] = ()
        self._open: dict[str, bool] = {}

    def show(self, nodes: tuple[Node, ...]) -> None:
        """Another packet; branches are open as they were in the one before."""
        line = self.cursor_line
        self._shown_nodes = nodes
        self.root.remove_children()
        self._add(self.root, nodes)
        self.cursor_line = min(line, self.last_line)

    def _add(self, parent: TreeNode[Node], nodes: tuple[Node, ...]) -> None:
        for node in nodes:
            if node.children:
                kind = node.label.partition(" ")[0]
                branch = parent.add(_label(node), node, expand=self._open.get(kind, kind in _OPEN))
                self._add(branch, node.children)
            else:
                parent.add_leaf(_label(node), node)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """What is shown."""
        return self._shown_nodes

    def select(self, wanted: Node, at_top: bool = False) -> None:
        """Go to a node, its branch being opened; `at_top`: with as much below it as there is."""
        branches = [self.root]
        while branches:
            branch = branches.pop()
            if branch.data is wanted:
                parent = branch.parent
                while parent is not None:
                    parent.expand()
                    parent = parent.parent
                self.call_after_refresh(self._go_to, branch, at_top)
                return
            branches += branch.children

    def _go_to(self, branch: TreeNode[Node], at_top: bool) -> None:
        self.move_cursor(branch)
        if at_top:
            self.scroll_to(y=branch.line, animate=False)

    def select_byte(self, at: int) -> Node | None:
        """Go to the innermost node of a byte, without a message; the node."""
        path = node_at(self._shown_nodes, at)
        branch = self.root
        for node in path:
            branch.expand()
            branch = next(child for child in branch.children if child.data is node)
        if not path:
            return None
        with self.prevent(Tree.NodeHighlighted):
            self.move_cursor(branch)
        return path[-1]

    def on_tree_node_highlighted(self, event: Tree.NodeHighlighted[Node]) -> None:
        """Tell which node it is."""
        if event.node.data is not None:
            self.post_message(self.Field(event.node.data))

    def on_tree_node_expanded(self, event: Tree.NodeExpanded[Node]) -> None:
        """Keep it open in the next packet."""
        self._remember(event.node, True)

    def on_tree_node_collapsed(self, event: Tree.NodeCollapsed[Node]) -> None:
        """Keep it closed in the next packet."""
        self._remember(event.node, False)

    def _remember(self, branch: TreeNode[Node], is_open: bool) -> None:
        if branch.data is not None:
            self._open[branch.data.label.partition(" ")[0]] = is_open

    def action_open(self) -> None:
        """Open the branch."""
        if self.cursor_node is not None:
            self.cursor_node.expand()

    def action_shut(self) -> None:
        """Close the branch that the line is in."""
        node = self.cursor_node
        if node is None:
            return
        if not node.is_expanded and node.parent is not None and node.parent is not self.root:
            node = node.parent
            self.move_cursor(node)
        node.collapse()


def _label(node: Node) -> Text:
    text = Text(node.label)
    if node.value:
        text.append(f": {node.value}" if not node.children else f", {node.value}", "bold")
    if node.meaning:
        text.append(f"  {node.meaning}", "dim")
    return text
