"""Findings: what an expert would notice in a capture, in words and with numbers."""
