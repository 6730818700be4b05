"""Records what real programs say, as captures of vsock connections: `python record.py [NAME…]`.

A proxy stands between a client and a server on sockets of this machine and notes who sent
what; the talk becomes a capture (talking.py), so that tests need none of the programs.
Needs Debian's nbdkit, libnbd-bin, qemu-utils, diod, qemu-guest-agent, iperf3, systemd, curl,
nghttp2-client, nghttp2-proxy and nghttp2-server, and PyPI's grpcio.
"""

import contextlib
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from talking import END, Turn, talk_capture  # noqa: E402

from vsockdump.wire import SocketType  # noqa: E402

MOST = 20 << 10  # bytes of a talk that are kept
PORT = 6000  # of this machine; the proxy's is the next


class Proxy:
    """Listens on `near`, connects to `far`; paths are unix sockets, numbers TCP ports."""

    def __init__(self, near: str | int, far: str | int) -> None:
        self._far = far
        self._listener = _socket(near)
        self._listener.bind(_address(near))
        self._listener.listen()
        self.talks: list[list[Turn]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            near, _ = self._listener.accept()
            far = _socket(self._far)
            far.connect(_address(self._far))
            talk: list[Turn] = []
            self.talks.append(talk)
            threading.Thread(target=_relay, args=((near, far), talk), daemon=True).start()


def _socket(place: str | int) -> socket.socket:
    family = socket.AF_INET if isinstance(place, int) else socket.AF_UNIX
    made = socket.socket(family)
    if isinstance(place, int):
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return made


def _address(place: str | int) -> str | tuple[str, int]:
    return ("127.0.0.1", place) if isinstance(place, int) else place


def _relay(ends: tuple[socket.socket, socket.socket], talk: list[Turn]) -> None:
    selector = selectors.DefaultSelector()
    for side, end in enumerate(ends):
        selector.register(end, selectors.EVENT_READ, side)
    kept = 0
    while selector.get_map():
        for key, _events in selector.select():
            side = key.data
            data = ends[side].recv(4 << 10)
            kept += len(data)
            if not data:
                selector.unregister(ends[side])
                talk.append((side, END))
                with contextlib.suppress(OSError):
                    ends[1 - side].shutdown(socket.SHUT_WR)
                continue
            if kept <= MOST:
                talk.append((side, data))
            with contextlib.suppress(BrokenPipeError):
                ends[1 - side].sendall(data)


@contextlib.contextmanager
def running(*command: str) -> Iterator[None]:
    """A server, for as long as it is needed."""
    with subprocess.Popen(command) as process:
        time.sleep(1)
        yield
        process.terminate()


def run(*command: str) -> None:
    """A client; its exit status is not looked at, as some are to fail."""
    subprocess.run(command, check=False, timeout=60)
    time.sleep(0.5)


def nbdkit(folder: str) -> dict[str, list[Turn]]:
    """Structured replies, an option that fails, a read that fails."""
    server, near = f"{folder}/nbdkit", f"{folder}/near"
    proxy = Proxy(near, server)
    arguments = ("-f", "-U", server, "--filter=error", "memory", "1M", "error-pread-rate=100%")
    with running("nbdkit", *arguments, f"error-file={folder}/fail"):
        uri = f"nbd+unix:///?socket={near}"
        run("nbdinfo", uri)
        for order in ("write -P 7 0 4k", "read 0 4k"):
            run("qemu-io", "-f", "raw", "-c", order, uri)
        Path(f"{folder}/fail").touch()
        run("qemu-io", "-f", "raw", "-c", "read 512 1k", uri)
    return {f"nbdkit-{number}": talk for number, talk in enumerate(proxy.talks, 1)}


def qemu_nbd(folder: str) -> dict[str, list[Turn]]:
    """An unknown export; reads, writes, trims and block status of a known one."""
    server, near, image = f"{folder}/qemu", f"{folder}/near2", f"{folder}/image"
    with open(image, "wb") as file:
        file.truncate(1 << 20)
    proxy = Proxy(near, server)
    with running("qemu-nbd", "-t", "-e", "4", "-f", "raw", "-x", "disk", "-k", server, image):
        run("nbdinfo", f"nbd+unix:///unknown?socket={near}")
        run("nbdinfo", "--map", f"nbd+unix:///disk?socket={near}")
        orders = ("write -P 1 4096 512", "read 4096 512", "discard 0 4k", "write -z 8k 4k", "flush")
        chosen = [part for order in orders for part in ("-c", order)]
        run("qemu-io", "-f", "raw", *chosen, f"nbd+unix:///disk?socket={near}")
    return {f"qemu-nbd-{number}": talk for number, talk in enumerate(proxy.talks, 1)}


def diod(folder: str) -> dict[str, list[Turn]]:
    """A directory is listed, a file read, a missing one asked for."""
    Path(f"{folder}/tree").mkdir()
    Path(f"{folder}/tree/hello").write_text("hello\n" * 300)
    proxy = Proxy(PORT + 1, PORT)
    options = ("-f", "-n", "-N", "-l", f"127.0.0.1:{PORT}", "-e", f"{folder}/tree")
    with running("diod", *options):
        server = ("-s", f"127.0.0.1:{PORT + 1}", "-a", f"{folder}/tree")
        run("diodls", *server, "-l", "/")
        run("diodcat", *server, "hello")
        run("diodcat", *server, "missing")
    return {f"diod-{number}": talk for number, talk in enumerate(proxy.talks, 1)}


def qga(folder: str) -> dict[str, list[Turn]]:
    """Commands, one that fails, and the delimited synchronisation."""
    server, near = f"{folder}/qga", f"{folder}/near3"
    proxy = Proxy(near, server)
    with running("qemu-ga", "-m", "unix-listen", "-p", server, "-t", folder):
        client = _socket(near)
        client.connect(near)
        for line in (
            b'\xff{"execute":"guest-sync-delimited","arguments":{"id":4711}}\n',
            b'{"execute":"guest-ping"}\n',
            b'{"execute":"guest-get-time"}\n',
            b'{"execute":"guest-file-open","arguments":{"path":"/no/such/file"}}\n',
            b'{"execute":"guest-nonsense"}\n',
        ):
            client.sendall(line)
            client.recv(65536)
        client.close()
        time.sleep(0.5)
    return {"qga": proxy.talks[0]}


def iperf3(_folder: str) -> dict[str, list[Turn]]:
    """A test of 200 kB with one stream: the control connection, then the data."""
    proxy = Proxy(PORT + 3, PORT + 2)
    with running("iperf3", "-s", "-p", str(PORT + 2)):
        run("iperf3", "-c", "127.0.0.1", "-p", str(PORT + 3), "-n", "200k")
    return {"iperf3-control": proxy.talks[0], "iperf3-data": proxy.talks[1]}


def notify(folder: str) -> dict[str, list[Turn]]:
    """What systemd-notify sends, a datagram each."""
    place = f"{folder}/notify"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(place)
    environment = {**os.environ, "NOTIFY_SOCKET": place}
    talk: list[Turn] = []
    for arguments in (("--ready", "--status=up and running"), ("WATCHDOG=1",), ("STOPPING=1",)):
        subprocess.run(["systemd-notify", "--no-block", *arguments], env=environment, check=True)
        talk.append((0, listener.recv(65536)))
    return {"notify": talk}


def grpc(_folder: str) -> dict[str, list[Turn]]:
    """Every kind of call, failures and compression."""
    from grpc_peers import call_all, server

    proxy = Proxy(PORT + 5, PORT + 4)
    serving = server(f"127.0.0.1:{PORT + 4}")
    call_all(f"127.0.0.1:{PORT + 5}")
    serving.stop(0).wait()
    time.sleep(0.5)
    return {"grpc": proxy.talks[0]}


def http2(folder: str) -> dict[str, list[Turn]]:
    """A page and what is pushed with it, one that is missing; a form that is posted, padding."""
    Path(f"{folder}/index.html").write_text("<html>hello</html>")
    Path(f"{folder}/style.css").write_text("p { color: red }")
    proxy = Proxy(PORT + 7, PORT + 6)
    server = ("nghttpd", "--no-tls", "-d", folder, "-p/=/style.css", "-b", "9", "--echo-upload")
    near = f"http://127.0.0.1:{PORT + 7}"
    with running(*server, str(PORT + 6)):
        run("nghttp", "-n", "-b", "7", f"{near}/", f"{near}/missing?a=b")
        run("curl", "-s", "--http2-prior-knowledge", "-d", "a=1&b=2", f"{near}/form")
    return {f"http2-{number}": talk for number, talk in enumerate(proxy.talks, 1)}


def h2c(folder: str) -> dict[str, list[Turn]]:
    """An upgrade from HTTP/1, which nghttpx does before nghttpd."""
    Path(f"{folder}/style.css").write_text("p { color: red }")
    proxy = Proxy(PORT + 9, PORT + 8)
    server = ("nghttpd", "--no-tls", "-d", folder, str(PORT + 6))
    front = ("nghttpx", f"-f127.0.0.1,{PORT + 8};no-tls", f"-b127.0.0.1,{PORT + 6};;proto=h2")
    with running(*server), running(*front):
        run("nghttp", "-n", "-u", f"http://127.0.0.1:{PORT + 9}/style.css")
    return {"h2c": proxy.talks[0]}


SCENES: dict[str, Callable[[str], dict[str, list[Turn]]]] = {
    "nbdkit": nbdkit,
    "qemu-nbd": qemu_nbd,
    "diod": diod,
    "qga": qga,
    "iperf3": iperf3,
    "notify": notify,
    "grpc": grpc,
    "http2": http2,
    "h2c": h2c,
}


def main() -> None:
    """Record the scenes that were named, or all."""
    for scene in sys.argv[1:] or SCENES:
        with tempfile.TemporaryDirectory() as folder:
            talks = SCENES[scene](folder)
        kind = SocketType.DGRAM if scene == "notify" else SocketType.STREAM
        for name, talk in talks.items():
            target = HERE / "recorded" / f"{name}.pcap"
            target.write_bytes(talk_capture(talk, port=PORT, kind=kind))
            print(f"{target.name}: {len(talk)} turns, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
