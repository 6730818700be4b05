"""Views: what the user sees of tracked packets.  They never decode and never track."""
