# What packet_records.py needs of C and Python has not: used by the compiled build only.
from libc.string cimport memcpy
