"""--verify: what does Wireshark's own engine say of the same capture?

Rules for editors: the engine is asked through pyshark, which is slow and loaded here alone.
What is known to differ, and why, stands in deviations.py; nothing else is excused.
"""
