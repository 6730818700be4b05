"""A virtual machine with the vsock modules, for the tests: boot it, run programs in it.

QEMU boots a Debian kernel (kernel.py) by plain software emulation.  The machine's root is
this machine's `/`, read-only, under an overlay in memory: every program and Python that is
here is there too, and what is written is gone with the machine, but for one shared folder,
at the same path on both sides.  An agent (agent.py) runs programs as root.

Rules for editors, each learnt from a failure:
- One processor. With two, the emulation sometimes loses a race with the kernel as it
  patches its own code ("Oops: int3").
- No AVX. QEMU 7.2 emulates it with mistakes: numpy.argsort gave wrong orders.
- No KVM: where this machine is virtual itself it may start a kernel and then hang.
- /proc comes first in init. Until then the root shows the host's /proc, and busybox finds
  itself there by /proc/self/exe, which is virtiofsd.
- The root is cached (cache=always), or each exec would read its file again. So the machine
  need not see what changes outside the shared folder; its own files must exist before.
- Everything started is ended by its process id. If this process is killed, the agent sees
  its port close and ends the machine; if that hangs too, `timeout` ends QEMU.
"""

import contextlib
import itertools
import json
import os
import queue
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from kernel import BUSYBOX, Kernel, LabError

MEMORY: Final = "1024M"
BOOT_LIMIT_S: Final = 120
RUN_LIMIT_S: Final = 120  # for one program
LIFE_LIMIT_S: Final = 900  # of a machine
END_LIMIT_S: Final = 20
POLL_S: Final = 0.1
QEMU: Final = "/usr/bin/qemu-system-x86_64"
VIRTIOFSD: Final = "/usr/lib/qemu/virtiofsd"
AGENT: Final = Path(__file__).with_name("agent.py")

_INIT: Final = """#!{busybox} sh
{busybox} mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /mnt
insmod {overlay}
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root
cd /mnt/root
mount -t proc proc proc
mount -t sysfs sys sys
mount -t devtmpfs dev dev
mkdir -p dev/shm
mount -t tmpfs shm dev/shm
mount -t tmpfs -o mode=755 run run
mount -t virtiofs share .{share}
mount --move . /
exec chroot . {busybox} sh {stage2}
"""
# The names of the ports are not fixed: they are looked up.
_STAGE2: Final = """
for module in {modules}; do insmod $module || echo "lab: $module is missing" >/dev/console; done
ip link set lo up
for port in /sys/class/virtio-ports/*; do
  read name <$port/name
  [ "$name" = agent ] && device=/dev/${{port##*/}}
done
{python} -I {agent} $device </dev/null >/dev/console 2>&1
poweroff -f
"""


class Result(NamedTuple):
    """What a program came to; a negative status is the signal that ended it."""

    status: int
    out: str
    err: str


class Program:
    """A program that runs in the machine."""

    def __init__(self, machine: "Machine", number: int, command: Sequence[str]) -> None:
        self.command = command
        self.pid: int | None = None
        self.status: int | None = None
        self._machine = machine
        self._number = number
        self._streams = {"stdout": bytearray(), "stderr": bytearray()}

    def hear(self, message: dict[str, Any]) -> None:
        """Take what the agent says of the program."""
        if "data" in message:
            self._streams[message["stream"]] += b64decode(message["data"])
        self.pid = message.get("pid", self.pid)
        self.status = message.get("status", self.status)

    @property
    def out(self) -> str:
        """Its stdout so far."""
        return self._streams["stdout"].decode(errors="replace")

    @property
    def err(self) -> str:
        """Its stderr so far."""
        return self._streams["stderr"].decode(errors="replace")

    def says(self, text: str, limit_s: float = RUN_LIMIT_S) -> None:
        """Wait until it has written the text to stderr; it must not end before."""
        self._machine.wait(
            lambda: text in self.err or self.status is not None, limit_s, f"{text!r} from {self}"
        )
        assert text in self.err, f"{self} ended without saying {text!r}: {self.err}"

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, once it runs."""
        self._machine.wait(lambda: self.pid is not None, RUN_LIMIT_S, f"{self} to start")
        self._machine.tell(id=self._number, signal=int(number))

    def wait(self, limit_s: float = RUN_LIMIT_S) -> Result:
        """What it came to in the end."""
        self._machine.wait(lambda: self.status is not None, limit_s, f"the end of {self}")
        assert self.status is not None
        return Result(self.status, self.out, self.err)

    def __str__(self) -> str:
        return shlex.join(self.command)


class Machine:
    """A machine that runs; made by `boot`."""

    def __init__(self, kernel: Kernel, agent: socket.socket, share: Path, console: Path) -> None:
        self.kernel = kernel
        self.share = share
        self.release = ""
        self._console = console
        self._agent = agent
        self._programs: dict[int, Program] = {}
        self._numbers = itertools.count(1)
        self._heard: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._dead = False
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()
        self.wait(lambda: bool(self.release), BOOT_LIMIT_S, "the machine to boot")

    def start(self, *command: str | Path | int, **environment: str) -> Program:
        """Start a program as root."""
        number = next(self._numbers)
        program = Program(self, number, [str(word) for word in command])
        self._programs[number] = program
        self.tell(id=number, run=program.command, environment=environment)
        return program

    def run(self, *command: str | Path | int, limit_s: float = RUN_LIMIT_S) -> Result:
        """Run a program to its end."""
        return self.start(*command).wait(limit_s)

    def check(self, *command: str | Path | int) -> str:
        """Stdout of a program that must succeed."""
        result = self.run(*command)
        assert 0 == result.status, f"{command}: {result.err}"
        return result.out

    def tell(self, **message: Any) -> None:
        """Send the agent a request."""
        self._agent.sendall(json.dumps(message).encode() + b"\n")

    def wait(self, done: Callable[[], bool], limit_s: float, what: str) -> None:
        """Wait until `done`, judging anew when the agent says something, and now and then."""
        deadline = time.monotonic() + limit_s
        while not done():
            left = deadline - time.monotonic()
            if left <= 0 or self._dead:
                why = "it ended" if self._dead else f"none in {limit_s} s"
                raise LabError(f"waited for {what}: {why}\n{self._last_words()}")
            with contextlib.suppress(queue.Empty):
                self._take(self._heard.get(timeout=min(left, POLL_S)))

    def wait_for_file(self, path: Path, content: bytes, limit_s: float = RUN_LIMIT_S) -> None:
        """Wait until a program has written the bytes to the end of a shared file."""

        def written() -> bool:
            return path.exists() and content in path.read_bytes()[-65536:]

        self.wait(written, limit_s, f"the last packet in {path}")

    def close(self) -> None:
        """End the agent, and with it the machine."""
        with contextlib.suppress(OSError):
            self._agent.shutdown(socket.SHUT_RDWR)
        self._agent.close()
        self._reader.join()

    def _listen(self) -> None:
        with contextlib.suppress(OSError), self._agent.makefile("rb") as lines:
            for line in lines:
                self._heard.put(json.loads(line))
        self._heard.put(None)

    def _take(self, message: dict[str, Any] | None) -> None:
        if message is None:
            self._dead = True
        elif "ready" in message:
            self.release = message["ready"]
        else:
            self._programs[message["id"]].hear(message)

    def _last_words(self) -> str:
        lines = self._console.read_text(errors="replace").splitlines()
        programs = [f"{each}: {each.err}" for each in self._programs.values() if each.err]
        return "\n".join([*lines[-20:], *programs[-3:]])


@contextlib.contextmanager
def boot(kernel: Kernel, share: Path) -> Iterator[Machine]:
    """A machine with this kernel, and `share` as its shared folder, until the block ends."""
    if os.geteuid():
        raise LabError("the lab boots from this machine's /, for which it must be root")
    for program in (VIRTIOFSD, QEMU, BUSYBOX):
        if not os.path.exists(program):
            raise LabError(f"{program} is missing: tests/run installs what the lab needs")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vsockdump-lab.")))
        _write_init(kernel, folder, share)
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(folder / "agent"))
        listener.listen(1)
        listener.settimeout(BOOT_LIMIT_S)
        shares = {"root": (Path("/"), "always"), "share": (share, "auto")}
        for tag, (path, cache) in shares.items():
            stack.enter_context(_file_server(folder, tag, path, cache))
        stack.enter_context(_running(_qemu(kernel, folder, list(shares)), folder / "qemu.log"))
        try:
            agent, _ = listener.accept()
        except TimeoutError:
            raise LabError(f"QEMU did not start: {(folder / 'qemu.log').read_text()}") from None
        machine = Machine(kernel, agent, share, folder / "console.log")
        try:
            yield machine
        finally:
            machine.close()


def _write_init(kernel: Kernel, folder: Path, share: Path) -> None:
    """Init and its second half, which runs in the overlay, with words quoted for the shell."""
    overlay, *others = (shlex.quote(str(module)) for module in kernel.modules)
    words = {"busybox": BUSYBOX, "overlay": overlay, "share": shlex.quote(str(share))}
    words["modules"] = " ".join(others)
    words["stage2"] = shlex.quote(str(folder / "stage2"))
    words["python"] = shlex.quote(str(Path(sys.executable).resolve()))
    words["agent"] = shlex.quote(str(AGENT.resolve()))
    (folder / "stage2").write_text(_STAGE2.format(**words))
    (folder / "init").write_text(_INIT.format(**words))
    (folder / "init").chmod(0o755)


def _qemu(kernel: Kernel, folder: Path, tags: Sequence[str]) -> list[str]:
    """The command line of QEMU."""
    init = f"init={folder}/init lab.init={folder}/init"
    command = ["timeout", "--kill-after=5", str(LIFE_LIMIT_S), QEMU]
    command += shlex.split("-accel tcg -M q35 -smp 1 -no-reboot -nodefaults")
    command += ["-cpu", "max,avx=off,avx2=off,fma=off,f16c=off"]
    command += shlex.split("-no-user-config -display none -vga none -net none -monitor none")
    command += ["-m", MEMORY, "-machine", "memory-backend=memory"]
    command += ["-object", f"memory-backend-memfd,id=memory,size={MEMORY},share=on"]
    command += ["-chardev", f"file,id=console,path={folder}/console.log", "-serial"]
    command += ["chardev:console", "-device", "virtio-rng-pci", "-device", "virtio-serial-pci"]
    command += ["-chardev", f"socket,id=agent,path={folder}/agent"]
    command += ["-device", "virtserialport,chardev=agent,name=agent"]
    for tag in tags:
        command += ["-chardev", f"socket,id={tag},path={folder}/{tag}.socket"]
        command += ["-device", f"vhost-user-fs-pci,chardev={tag},tag={tag}"]
    if kernel.initramfs:
        command += ["-initrd", str(kernel.initramfs)]
    root = f"rootfstype=virtiofs root=root ro {init}"
    return [*command, "-kernel", str(kernel.image), "-append", f"console=ttyS0 panic=-1 {root}"]


@contextlib.contextmanager
def _file_server(folder: Path, tag: str, path: Path, cache: str) -> Iterator[None]:
    """A virtiofsd for the path, ready to be connected to.  It ends with its only client."""
    where = folder / f"{tag}.socket"
    options = [f"source={path}", f"cache={cache}", "sandbox=chroot", "xattr"]
    command = [VIRTIOFSD, f"--socket-path={where}", *(f"-o{option}" for option in options)]
    log = folder / f"{tag}.log"
    with _running(command, log) as process:
        deadline = time.monotonic() + BOOT_LIMIT_S
        while not where.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise LabError(f"virtiofsd did not start: {log.read_text()}")
            time.sleep(POLL_S)
        yield


@contextlib.contextmanager
def _running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The program, which has time to end by itself at the end of the block and is then ended."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    for stop in (lambda: None, process.terminate, process.kill):
        stop()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_LIMIT_S)
            return
    raise LabError(f"process {process.pid} does not end")
