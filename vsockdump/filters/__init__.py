"""The filter language: parsed once, then evaluated on columns, on a packet, or in the kernel."""
