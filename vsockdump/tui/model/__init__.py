"""What the terminal program shows, without a screen.

Rules for editors: nothing here imports Textual.  Threads that read or capture never wait for
the screen; what the screen gets is immutable, or a file that only grows.
"""
