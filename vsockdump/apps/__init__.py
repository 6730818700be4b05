"""Application protocols: what is said in the streams.  See protocol.py for adding one."""
