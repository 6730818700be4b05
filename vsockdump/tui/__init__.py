"""The terminal program: a pure model of a growing capture, and panes that draw it."""
