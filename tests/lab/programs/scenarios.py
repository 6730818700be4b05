"""Debian's programs and others talk over AF_VSOCK: `scenarios.py LOG SHARE [NAME...]`.

Each scenario has a port of its own and real programs at both ends; LOG becomes a JSON
object with a record of each: what the programs themselves logged, put into a form that
what vsockdump hears can be compared with (tests/recorded.py).  SHARE is the folder of what
was built outside.

Rules for editors: what a record says comes from the log of a program, never from what the
scenario asked it to do.  Little data: the captures are kept in the repository.  Loopback;
ports that no protocol is known for, so that the bytes have to tell; the folders are on a
tmpfs, since diod does not trust an overlay.
"""

import json
import os
import re
import socket
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from stage import LOOPBACK, Stage, log_lines

HERE: Final = Path(__file__).parent
FIRST_PORT: Final = 7101
TCP_PORTS: Final = (7999, 7998)  # of the server, and before it
LOCAL: Final = "127.0.0.1"
Record = dict[str, Any]


def http(stage: Stage) -> Record:
    """Python's http.server on AF_VSOCK, asked by curl through socat."""
    body = stage.path("body")
    body.write_bytes(b"0123456789" * 500)
    (stage.folder / "hello.txt").write_text("hello\n")
    server = stage.service("http_server", stage.port, stage.folder)
    curl = ("curl", "-sS", "--unix-socket", stage.to_vsock(), "-o", "/dev/null")
    said = ("-w", "%{method} %{http_code}\\n")
    asked = stage.run(*curl, *said, "http://vm/hello.txt", "http://vm/no?a=1", "-o", "/dev/null")
    asked += stage.run(*curl, *said, "-I", "http://vm/hello.txt")
    post = ("-H", "Expect: 100-continue", "--data-binary", f"@{body}")
    asked += stage.run(*curl, *said, *post, "http://vm/echo")
    asked += stage.run(*curl, *said, "--http1.0", "-X", "DELETE", "http://vm/hello.txt")
    answered = log_lines(server.text)[1:]
    same([f"{line['method']} {line['status']}" for line in answered], asked.splitlines())
    connections = defaultdict(list)
    for line in answered:
        connections[line["peer"]].append([f"{line['method']} {line['path']}", line["status"]])
    return {"connections": list(connections.values())}


def websocket(stage: Stage) -> Record:
    """The library websockets at both ends, with compression and without."""
    path = stage.path("socket")
    server = stage.service("websocket_server", path)
    stage.from_vsock(f"UNIX-CONNECT:{path}")
    way = stage.to_vsock()
    logs = [stage.client("websocket_client", way, how) for how in ("none", "deflate")]
    same(log_lines(server.text)[1:], logs[0] + logs[1])
    return {"connections": [[[line["kind"], line["size"]] for line in log] for log in logs]}


def http2(stage: Stage) -> Record:
    """nghttpd, asked by nghttp and by curl, without TLS."""
    (stage.folder / "hello.txt").write_text("hello\n")
    port, before = TCP_PORTS
    server = stage.start("nghttpd", "-v", "--no-tls", "-a", LOCAL, "-d", stage.folder, port)
    server.says("listen")
    stage.from_vsock(f"TCP:{LOCAL}:{port}")
    stage.tcp_to_vsock(before)
    url = f"http://{LOCAL}:{before}"
    stage.run("nghttp", "-n", f"{url}/hello.txt", f"{url}/missing?a=1", "-H", "x-lab: yes")
    post = ("--http2-prior-knowledge", "--data", "a=1", "-o", "/dev/null")
    stage.run("curl", "-sS", *post, f"{url}/hello.txt")
    header = r"^\[id=(\d+)\] \[.*\] recv \(stream_id=(\d+)\) :(method|path): (.*)"
    connections: dict[str, dict[str, Record]] = {}
    log = re.sub(r"\x1b\[[\d;]*m", "", server.text)  # its colours
    for connection, stream, name, value in re.findall(header, log, re.M):
        connections.setdefault(connection, {}).setdefault(stream, {})[name] = value
    status = (
        r"^\[id=(\d+)\] \[.*\] send HEADERS frame <.*stream_id=(\d+)>\n(?: .*\n)*? +:status: (.*)"
    )
    for connection, stream, value in re.findall(status, log, re.M):
        connections[connection][stream]["status"] = value
    return {"connections": [list(streams.values()) for streams in connections.values()]}


def grpc(stage: Stage) -> Record:
    """The library grpcio at both ends."""
    path = stage.path("socket")
    stage.service("grpc_server", path)
    stage.from_vsock(f"UNIX-CONNECT:{path}")
    calls = stage.client("grpc_client", stage.to_vsock())
    return {"connections": [calls]}


def ttrpc(stage: Stage) -> Record:
    """containerd's Go library at both ends, on AF_VSOCK."""
    log = log_lines(stage.run(stage.share / "ttrpc_service", stage.port))
    served = [line["served"] for line in log if "served" in line]
    return {"connections": [[line for line in log if "method" in line]], "served": served}


def tls(stage: Stage) -> Record:
    """OpenSSL's s_server and s_client: TLS 1.3, 1.2, one that distrusts, one that retries."""
    key, certificate = stage.path("key"), stage.path("crt")
    make = ("-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc")
    name = ("-subj", "/CN=lab.example", "-addext", "subjectAltName=DNS:lab.example")
    stage.run("openssl", "req", *make, *name, "-keyout", key, "-out", certificate)
    path = stage.path("socket")
    identity = ("-cert", certificate, "-key", key, "-alpn", "h2,http/1.1", "-groups", "P-256")
    names = ("-servername", "lab.example", "-cert2", certificate, "-key2", key)  # to log them
    serve = ("-unix", path, *identity, *names, "-www", "-naccept", 4)
    server = stage.start("openssl", "s_server", *serve).says("ACCEPT")
    stage.from_vsock(f"UNIX-CONNECT:{path}")
    client = ("openssl", "s_client", "-unix", stage.to_vsock(), "-msg", "-ign_eof")
    request = b"GET / HTTP/1.0\r\n\r\n"

    def talk(*options: str, status: int = 0) -> Record:
        return tls_log(stage.run(*client, *options, stdin=request, status=status))

    alpn = ("-alpn", "http/1.1,h2")
    connections = [
        talk("-tls1_3", "-servername", "lab.example", "-alpn", "h2", "-groups", "P-256"),
        talk("-tls1_2", "-servername", "old.example", *alpn),
        talk("-tls1_2", "-noservername", "-verify_return_error", status=1),
        talk("-tls1_3", "-servername", "retry.example", "-groups", "X25519:P-256"),
    ]
    log = server.ends().text
    return {"connections": connections, "names": re.findall(r'Hostname .*: "(.*)"', log)}


def tls_log(text: str) -> Record:
    """What s_client says: messages with their sizes, alerts, and what it came to."""
    message = r"^(>>>|<<<) TLS [\d.]+, (Handshake|Alert) \[length (\w+)\], (\w+(?: \w+)*)"
    result: Record = {"handshake": [], "alerts": []}
    for sign, kind, size, name in re.findall(message, text, re.M):
        if kind == "Handshake":
            result["handshake"].append([sign, name, int(size, 16)])
        else:
            result["alerts"].append([sign, name])
    if found := re.search(r"New, (TLSv[\d.]+), Cipher is (\S+)", text):
        result |= {"version": found[1], "cipher": found[2]}
    for key, pattern in {"alpn": r"ALPN protocol: (.*)", "subject": r"^subject=(.*)"}.items():
        if found := re.search(pattern, text, re.M):
            result[key] = found[1]
    return result


def ssh(stage: Stage) -> Record:
    """OpenSSH at both ends, each behind socat."""
    host, user = stage.path("host"), stage.path("user")
    for key in (host, user):
        stage.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
    Path("/run/sshd").mkdir(exist_ok=True)
    config = stage.path("config")
    words = {"HostKey": host, "AuthorizedKeysFile": f"{user}.pub", "StrictModes": "no"}
    words |= {"UsePAM": "no", "PasswordAuthentication": "no", "PermitRootLogin": "yes"}
    config.write_text("".join(f"{word} {value}\n" for word, value in words.items()))
    stage.from_vsock(f"EXEC:/usr/sbin/sshd -i -e -f {config},nofork")
    options = {"StrictHostKeyChecking": "no", "UserKnownHostsFile": "/dev/null"}
    options["ProxyCommand"] = f"socat - VSOCK-CONNECT:{LOOPBACK}:{stage.port}"
    given = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    text = stage.run("ssh", "-F", "none", "-vv", "-i", user, *given, "root@vm", "id -un")
    patterns = {
        "banner": r"Local version string (.*)",
        "software": r"remote software version (.*)",
        "kex": r"kex: algorithm: (.*)",
        "host key": r"kex: host key algorithm: (.*)",
        "cipher": r"kex: client->server cipher: (\S+)",
        "proposal": r"local client KEXINIT proposal\s+debug2: KEX algorithms: (\S+)",
        "ciphers": r"peer server KEXINIT proposal[^$]*?ciphers stoc: (\S+)",
    }
    text = text.replace("\r", "")
    return {"connections": [{name: search(pattern, text) for name, pattern in patterns.items()}]}


def qga(stage: Stage) -> Record:
    """The QEMU guest agent on AF_VSOCK."""
    here = f"{socket.VMADDR_CID_ANY}:{stage.port}"
    agent = stage.start("qemu-ga", "-m", "vsock-listen", "-p", here, "-t", stage.folder, "-v")
    agent.polls()
    calls: list[tuple[str, Any]] = []
    with socket.socket(socket.AF_VSOCK) as end:
        end.connect((LOOPBACK, stage.port))
        answers = end.makefile("rb")
        end.sendall(b'\xff{"execute":"guest-sync-delimited","arguments":{"id":42}}\n')
        while answers.read(1) != b"\xff":  # the answer to that byte is an error
            pass
        calls.append(("guest-sync-delimited", json.loads(answers.readline())))
        for name in ("guest-ping", "guest-get-osinfo", "guest-nonsense", "guest-get-time"):
            end.sendall(json.dumps({"execute": name}).encode() + b"\n")
            calls.append((name, json.loads(answers.readline())))
    same(agent.text.count("processing command"), len(calls))
    return {"connections": [calls]}


def nbd(stage: Stage) -> Record:
    """nbdkit on AF_VSOCK, its disk looked at, written and read by libnbd's tools."""
    log, ready, fail = stage.path("log"), stage.path("pid"), stage.path("fail")
    filters = ("--filter=log", "--filter=error", "memory", "64K", f"logfile={log}")
    fails = ("error-pread-rate=100%", f"error-file={fail}")
    serve = ("--vsock", "-p", stage.port, "-P", ready)
    stage.start("nbdkit", "-f", *serve, *filters, *fails).wait(ready.exists, "its pid file")
    disk, uri = stage.path("disk"), f"nbd+vsock://{LOOPBACK}:{stage.port}/disk"
    disk.write_bytes(bytes(range(256)) * 64)
    copy = ("nbdcopy", "--connections=1", "--requests=4")
    stage.run("nbdinfo", uri)
    stage.run(*copy, "--request-size=4096", disk, uri)
    stage.run(*copy, "--request-size=8192", uri, stage.path("back"))
    fail.touch()
    stage.run(*copy, uri, stage.path("back"), status=1)
    text = log.read_text()
    pattern = r"connection=(\d+) ([A-Z]\w+) id=(\d+) (.*) \.\.\."
    connections = defaultdict(list)
    for connection, command, number, arguments in re.findall(pattern, text):
        end = search(rf"connection={connection} \.\.\.{command} id={number} (.*)", text)
        values = dict(re.findall(r"(\w+)=(\S+)", arguments))
        error = re.search(r"error=(\w+)", end)
        call = [command, int(values["offset"], 0), int(values["count"], 0)]
        connections[connection].append([*call, error[1] if error else None])
    return {"connections": list(connections.values())}


def adb(stage: Stage) -> Record:
    """Debian's adb with a device of our own: a shell, a file there and back, one that is not."""
    device = stage.start(sys.executable, HERE / "adb_device.py", stage.port).says("listening")
    os.environ |= {"HOME": str(stage.folder), "ANDROID_ADB_SERVER_PORT": str(TCP_PORTS[0])}
    address = f"vsock:{LOOPBACK}:{stage.port}"
    file = stage.path("file")
    file.write_bytes(b"0123456789" * 1000)
    stage.run("adb", "connect", address)
    try:
        on_device = ("adb", "-s", address)
        stage.run(*on_device, "wait-for-device")
        same("hello\nroot\n", stage.run(*on_device, "shell", "echo hello; id -un"))
        stage.run(*on_device, "push", file, "/data/f")
        stage.run(*on_device, "pull", "/data/f", stage.path("file"))
        stage.run(*on_device, "pull", "/data/absent", stage.path("file"), status=1)
    finally:
        stage.run("adb", "kill-server")
    log = log_lines(device.text)[1:]
    return {"connections": [[next(iter(line.items())) for line in log]]}


def nine_p(stage: Stage) -> Record:
    """diod and its user-space clients: 9P2000.L."""
    exported = stage.folder / "export"
    exported.mkdir()
    (exported / "hello.txt").write_text("hello\n")
    port, before = TCP_PORTS
    how = ("-f", "-n", "-S", "-U", "root", "-L", "stderr", "-d", "1")
    server = stage.start("diod", *how, "-l", f"{LOCAL}:{port}", "-e", exported).reached(port)
    stage.from_vsock(f"TCP:{LOCAL}:{port}")
    stage.tcp_to_vsock(before)
    there = ("-s", f"{LOCAL}:{before}", "-a", exported)
    same(True, "hello.txt" in stage.run("diodls", *there, "-l", "/"))
    same("hello\n", stage.run("diodcat", *there, "hello.txt"))
    stage.run("diodcat", *there, "absent.txt", status=1)
    connections: list[list[list[Any]]] = []
    for name, tag, rest in re.findall(r"diod: P9_(\w+) tag (\d+)(.*)", server.text):
        if name == "TVERSION":
            connections.append([])
        error = re.match(r" ecode (\d+)", rest)
        connections[-1].append([name, int(tag), int(error[1]) if error else None])
    return {"connections": connections}


def iperf3(stage: Stage) -> Record:
    """iperf3 at both ends, sending and receiving; a control and a data connection each."""
    port, before = TCP_PORTS
    stage.start("iperf3", "-s", "-B", LOCAL, "-p", port, "--forceflush").says("listening")
    stage.from_vsock(f"TCP:{LOCAL}:{port}")
    stage.tcp_to_vsock(before)
    tests = []
    for direction in ((), ("-R",)):
        size = ("-n", "16K", "-l", "4K", "-J")
        log = json.loads(stage.run("iperf3", "-c", LOCAL, "-p", before, *size, *direction))
        start = {name: log["start"][name] for name in ("cookie", "version")}
        sent = log["end"]["sum_sent"]["bytes"]
        tests.append({**start, "reverse": bool(direction), "sent": sent})
    return {"connections": tests}


def varlink(stage: Stage) -> Record:
    """The library varlink and its command line."""
    path = stage.path("socket")
    server = stage.service("varlink_server", path, stage.folder)
    stage.from_vsock(f"UNIX-CONNECT:{path}")
    client = (sys.executable, "-m", "varlink.cli")
    address = f"unix:{stage.to_vsock()}"
    there = f"{address}/org.example.lab"
    info = stage.run(*client, "info", address)
    connections = [[["org.varlink.service.GetInfo", info.count("Vendor:"), None]]]
    calls = (("Ping", '{"ping":"hello"}'), ("Count", '{"to":3}', "-m"), ("Refuse",), ("Absent",))
    for name, *arguments in calls:
        text = stage.run(*client, "call", f"{there}.{name}", *arguments)
        error = re.search(r"'error': '(\S+)'", text)
        answers = len(re.findall(r"^\{$", text, re.M)) or 1
        connections.append([[f"org.example.lab.{name}", answers, error[1] if error else None]])
    served = [line["method"] for line in log_lines(server.text)[1:]]
    same(served, [calls[0][0] for calls in connections[1:-1]])
    return {"connections": connections}


def notify_stream(stage: Stage) -> Record:
    """sd_notify's notes to vsock-stream:."""
    return {"connections": [line["note"] for line in stage.client("notify", stage.port, "stream")]}


def notify_seqpacket(stage: Stage) -> Record:
    """sd_notify's notes to vsock-seqpacket:."""
    log = stage.client("notify", stage.port, "seqpacket")
    return {"connections": [line["note"] for line in log]}


def raw(stage: Stage) -> Record:
    """ncat and socat with what is no protocol."""
    stage.from_vsock("EXEC:cat")
    texts = b"\7no protocol\n" * 20, b"plain words\n" * 5
    ncat = stage.run("ncat", "--vsock", LOOPBACK, stage.port, stdin=texts[0])
    socat = ("socat", "-t", "9", "-", f"VSOCK-CONNECT:{LOOPBACK}:{stage.port}")
    got = [ncat, stage.run(*socat, stdin=texts[1])]
    same(got, [text.decode() for text in texts])
    return {"connections": [len(text) for text in got]}


def same(one: object, other: object) -> None:
    """Two logs must agree."""
    if one != other:
        raise RuntimeError(f"two logs differ: {one!r} and {other!r}")


def search(pattern: str, text: str) -> str:
    """What the pattern's group finds."""
    found = re.search(pattern, text)
    if not found:
        raise RuntimeError(f"no {pattern!r} in the log: {text}")
    return found[1]


SCENARIOS: Final[dict[str, Callable[[Stage], Record]]] = {
    "http": http,
    "websocket": websocket,
    "http2": http2,
    "grpc": grpc,
    "ttrpc": ttrpc,
    "tls": tls,
    "ssh": ssh,
    "qga": qga,
    "nbd": nbd,
    "adb": adb,
    "9p": nine_p,
    "iperf3": iperf3,
    "varlink": varlink,
    "notify-stream": notify_stream,
    "notify-seqpacket": notify_seqpacket,
    "raw": raw,
}


def play(share: Path, names: Iterable[str]) -> dict[str, Record]:
    """The records of these scenarios."""
    records = {}
    for port, (name, scenario) in enumerate(SCENARIOS.items(), FIRST_PORT):
        if name in names:
            with Stage(port, share) as stage:
                records[name] = {"port": port, **scenario(stage)}
            print(name, flush=True)
    return records


if __name__ == "__main__":
    log, share, *chosen = sys.argv[1:]
    Path(log).write_text(json.dumps(play(Path(share), chosen or SCENARIOS)))
