"""python -m vsockdump.extcap: what Wireshark's extcap script runs."""

from vsockdump.extcap.calls import main

if __name__ == "__main__":
    raise SystemExit(main())
