"""The capture that --demo plays: real packets, installed with the package."""

from pathlib import Path
from typing import Final

PATH: Final = Path(__file__).with_name("demo.pcap.gz")
