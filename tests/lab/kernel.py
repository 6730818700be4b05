"""The kernels the lab boots: fetched by name from Debian, unpacked once, kept in a cache.

A kernel is asked for by its metapackage, since the package with the version in its name
vanishes from the archive at the next update.  Nothing is installed: the package is
unpacked, and its image and the few modules that the lab needs are kept, about 13 MB.

Rules for editors: a cached kernel is used without asking apt for anything, so that the lab
runs offline.  A kernel appears in the cache by one rename, complete or not at all.

`python tests/lab/kernel.py` fetches what is missing.
"""

import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

KERNELS: Final = {"6.12": "linux-image-6.12-cloud-amd64", "6.1": "linux-image-cloud-amd64"}
# In an order in which they can be loaded. The early ones mount the root: Linux 6.12 has them
# built in, 6.1 takes them from an initramfs.
EARLY_MODULES: Final = (
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_console",
    "fuse",
    "virtiofs",
)
MODULES: Final = (
    "overlay",
    "vsock",
    "vmw_vsock_virtio_transport_common",
    "vsock_loopback",
    "vhost_iotlb",
    "vhost",
    "vhost_vsock",
    "vsockmon",
)
TIME_LIMIT_S: Final = 300  # for one run of apt or dpkg
BUSYBOX: Final = "/bin/busybox"


class LabError(Exception):
    """The lab cannot run; the text says what to do."""


class Kernel(NamedTuple):
    """A kernel ready to boot.  `initramfs` is None where it mounts its root by itself."""

    name: str
    image: Path
    modules: tuple[Path, ...]
    initramfs: Path | None


def kernel(name: str) -> Kernel:
    """The kernel of this name of KERNELS, from the cache or from Debian."""
    place = _cache() / name
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as folder:
            ready = Path(folder) / "ready"
            _unpack(_download(KERNELS[name], Path(folder)), Path(folder) / "package", ready)
            _rename(ready, place)
    initramfs = place / "initramfs"
    return Kernel(
        name,
        place / "vmlinuz",
        tuple(place / f"{module}.ko" for module in MODULES),
        initramfs if initramfs.exists() else None,
    )


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "vsockdump-lab"


def _rename(ready: Path, place: Path) -> None:
    try:
        ready.rename(place)
    except OSError:
        if not place.exists():  # else another run was faster, with the same kernel
            raise


# --- the package -----------------------------------------------------------------------


def _download(metapackage: str, folder: Path) -> Path:
    """The package that the metapackage stands for today, in `folder`."""
    for attempt in ("as apt is", "after an update"):
        if attempt == "after an update":
            _tool("apt-get", "-q", "update")
        package = _dependency(metapackage)
        if package and _download_package(package, folder):
            return next(folder.glob("*.deb"))
    raise LabError(f"apt finds no kernel for {metapackage}: the lab needs Debian's main archive")


def _dependency(metapackage: str) -> str | None:
    done = _run("apt-cache", "depends", metapackage)
    for line in done.stdout.splitlines():
        relation, _, package = line.strip().partition(": ")
        if relation == "Depends" and package.startswith("linux-image-"):
            return package
    return None


def _download_package(package: str, folder: Path) -> bool:
    """Whether apt had it.  As root apt would go and fetch as a user who may not write here."""
    sandbox = "APT::Sandbox::User=root"
    return _run("apt-get", "-q", "-o", sandbox, "download", package, cwd=folder).returncode == 0


def _unpack(package: Path, folder: Path, ready: Path) -> None:
    """Unpack into `folder`; put what the lab needs into `ready`."""
    _tool("dpkg", "-x", str(package), str(folder))
    ready.mkdir()
    shutil.copy(next(folder.glob("boot/vmlinuz-*")), ready / "vmlinuz")
    found = {path.name.partition(".ko")[0]: path for path in folder.rglob("*.ko*")}
    for module in MODULES:
        (ready / f"{module}.ko").write_bytes(_module(found[module]))
    early = {name: _module(found[name]) for name in EARLY_MODULES if name in found}
    if early:
        (ready / "initramfs").write_bytes(_initramfs(early))


def _module(path: Path) -> bytes:
    if path.suffix == ".xz":
        return subprocess.run(
            ["xz", "-dc", path], capture_output=True, check=True, timeout=TIME_LIMIT_S
        ).stdout
    return path.read_bytes()


def _tool(*command: str) -> None:
    done = _run(*command)
    if done.returncode:
        raise LabError(f"{' '.join(command)} failed: {done.stderr.strip()}")


def _run(*command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, timeout=TIME_LIMIT_S, check=False
    )


# --- the initramfs ---------------------------------------------------------------------

# The root's init is named on the kernel's command line. An initramfs without /dev/console
# would hide every message.
_EARLY_INIT: Final = """#!/busybox sh
/busybox mount -t proc proc /proc
for module in {modules}; do /busybox insmod /$module.ko; done
/busybox mount -t virtiofs -o ro root /root
read line < /proc/cmdline
init=${{line##*lab.init=}}
/busybox umount /proc
exec /busybox switch_root /root ${{init%% *}}
"""


def _initramfs(modules: dict[str, bytes]) -> bytes:
    """A cpio archive (newc) of busybox, the modules and an init that mounts the root."""
    init = _EARLY_INIT.format(modules=" ".join(modules))
    entries = [(name, 0o40755, b"", (0, 0)) for name in ("proc", "root", "dev")]
    entries.append(("dev/console", 0o20600, b"", (5, 1)))
    entries.append(("busybox", 0o100755, Path(BUSYBOX).read_bytes(), (0, 0)))
    entries.append(("init", 0o100755, init.encode(), (0, 0)))
    entries += [(f"{name}.ko", 0o100644, data, (0, 0)) for name, data in modules.items()]
    return b"".join(_cpio(entries))


def _cpio(entries: Iterable[tuple[str, int, bytes, tuple[int, int]]]) -> Iterator[bytes]:
    for number, (name, mode, data, device) in enumerate([*entries, ("TRAILER!!!", 0, b"", (0, 0))]):
        path = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(path), 0)
        yield _padded(b"070701" + b"".join(b"%08X" % field for field in fields) + path)
        yield _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % struct.calcsize("I"))


if __name__ == "__main__":
    for each in KERNELS:
        print(kernel(each).image)
