"""--export: what vsockdump knows of a capture as packets that other programs understand."""
