"""Services and clients in Python that the scenarios run: `services.py NAME ARGUMENT...`.

Each is a library's own server or client on AF_VSOCK, or on a UNIX socket where the library
knows no other (socat stands between); each logs to stdout, in lines of JSON, what it was
asked for or what it was answered.

Rules for editors: a service says `{"listening": ...}` when it can be connected to.
"""

import functools
import http.server
import json
import socket
import socketserver
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

CHUNK: Final = 1000
LOOPBACK: Final = 1  # VMADDR_CID_LOCAL


def log(**line: Any) -> None:
    """Write a line of the log."""
    print(json.dumps(line), flush=True)


# --- HTTP/1 -------------------------------------------------------------------------------


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files, and answers POST with its body, in chunks."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Give the body back."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(201)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for at in range(0, len(body), CHUNK):
            part = body[at : at + CHUNK]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Log method, path and status of an answered request."""
        log(peer=self.client_address[1], method=self.command, path=self.path, status=int(code))

    def log_message(self, format: str, *args: Any) -> None:
        """Leave out the rest."""


class WebServer(socketserver.ThreadingTCPServer):
    """http.server's server; HTTPServer would ask the DNS for the name of its address."""

    address_family = socket.AF_VSOCK
    allow_reuse_address = False  # an option of TCP
    daemon_threads = True


def http_server(port: str, folder: str) -> None:
    """Serve the files of a folder on a vsock port."""
    handler = functools.partial(Handler, directory=folder)
    with WebServer((socket.VMADDR_CID_ANY, int(port)), handler) as server:
        log(listening=port)
        server.serve_forever()


# --- WebSocket ----------------------------------------------------------------------------


def websocket_server(path: str) -> None:
    """Serve on a UNIX socket: each message comes back, texts in upper case."""
    from websockets.sync.server import ServerConnection, unix_serve

    def echo(connection: ServerConnection) -> None:
        for message in connection:
            log(**_described(message))
            connection.send(message.upper() if isinstance(message, str) else message)

    with unix_serve(echo, path, subprotocols=["echo.lab"]) as server:
        log(listening=path)
        server.serve_forever()


def websocket_client(path: str, compression: str) -> None:
    """Talk to it; `compression` is "deflate" or "none"."""
    from websockets.sync.client import unix_connect

    with unix_connect(
        path,
        "ws://vm/echo?a=1",
        compression=None if compression == "none" else compression,
        subprotocols=["echo.lab"],
    ) as connection:
        for message in ("hello", bytes(range(200)), "long " * 1000):
            connection.send(message)
            log(**_described(connection.recv()))
        connection.ping(b"are you there").wait()
        connection.send(iter(["in ", "three ", "frames"]))
        log(**_described(connection.recv()))
        connection.close(1000, "done")


def _described(message: str | bytes) -> dict[str, Any]:
    return {"kind": "text" if isinstance(message, str) else "binary", "size": len(message)}


# --- gRPC ---------------------------------------------------------------------------------


def grpc_server(path: str) -> None:
    """Serve `lab.Greeter` on a UNIX socket."""
    from concurrent.futures import ThreadPoolExecutor

    import grpc
    from google.protobuf.wrappers_pb2 import StringValue

    def hello(request: Any, _: grpc.ServicerContext) -> Any:
        return StringValue(value=f"hello {request.value}")

    def missing(request: Any, context: grpc.ServicerContext) -> Any:
        context.abort(grpc.StatusCode.NOT_FOUND, f"nobody is called {request.value}")

    def count(request: Any, _: grpc.ServicerContext) -> Iterator[Any]:
        for number in range(int(request.value)):
            yield StringValue(value=str(number))

    def chat(requests: Iterator[Any], _: grpc.ServicerContext) -> Iterator[Any]:
        for request in requests:
            yield StringValue(value=request.value.upper())

    forms = {"request_deserializer": StringValue.FromString}
    forms["response_serializer"] = StringValue.SerializeToString
    handlers = {
        "Hello": grpc.unary_unary_rpc_method_handler(hello, **forms),
        "Missing": grpc.unary_unary_rpc_method_handler(missing, **forms),
        "Count": grpc.unary_stream_rpc_method_handler(count, **forms),
        "Chat": grpc.stream_stream_rpc_method_handler(chat, **forms),
    }
    server = grpc.server(ThreadPoolExecutor(4))
    service = grpc.method_handlers_generic_handler("lab.Greeter", handlers)
    server.add_generic_rpc_handlers([service])
    server.add_insecure_port(f"unix:{path}")
    server.start()
    log(listening=path)
    server.wait_for_termination()


def grpc_client(path: str) -> None:
    """Call its methods, one after the other; log method, status and answers of each."""
    import grpc
    from google.protobuf.wrappers_pb2 import StringValue

    forms = {"request_serializer": StringValue.SerializeToString}
    forms["response_deserializer"] = StringValue.FromString

    def call(method: str, kind: str, argument: Any, **options: Any) -> None:
        answers: list[str] = []
        status, details = grpc.StatusCode.OK, ""
        try:
            result = getattr(channel, kind)(f"/{method}", **forms)(argument, **options)
            answers += [one.value for one in (result if kind.endswith("stream") else [result])]
        except grpc.RpcError as error:
            status, details = error.code(), error.details()
        log(method=method, status=status.name, details=details, answers=len(answers))

    with grpc.insecure_channel(f"unix:{path}", [("grpc.enable_http_proxy", 0)]) as channel:
        metadata = [("trace", "abc123"), ("blob-bin", b"\0\1\2")]
        call("lab.Greeter/Hello", "unary_unary", StringValue(value="you"), metadata=metadata)
        call("lab.Greeter/Hello", "unary_unary", StringValue(value="x" * 20000))
        call("lab.Greeter/Missing", "unary_unary", StringValue(value="Godot"))
        call("lab.Greeter/Count", "unary_stream", StringValue(value="4"))
        words = [StringValue(value=word) for word in ("one", "two", "three")]
        call("lab.Greeter/Chat", "stream_stream", iter(words))
        call("lab.Greeter/Absent", "unary_unary", StringValue(value=""), timeout=60)


# --- varlink ------------------------------------------------------------------------------

INTERFACE: Final = """interface org.example.lab

method Ping(ping: string) -> (pong: string)
method Count(to: int) -> (number: int)
method Refuse() -> ()

error Refused(reason: string)
"""


def varlink_server(path: str, folder: str) -> None:
    """Serve `org.example.lab` on a UNIX socket; the folder is for its interface file."""
    import varlink

    class Refused(varlink.VarlinkError):  # type: ignore[misc] # untyped
        def __init__(self, reason: str) -> None:
            super().__init__({"error": "org.example.lab.Refused", "parameters": {"reason": reason}})

    Path(folder, "org.example.lab.varlink").write_text(INTERFACE)
    service = varlink.Service(
        vendor="vsockdump",
        product="lab",
        version="1",
        url="https://example.org",
        interface_dir=folder,
    )

    @service.interface("org.example.lab")
    class Lab:
        def Ping(self, ping: str) -> dict[str, str]:
            log(method="org.example.lab.Ping")
            return {"pong": ping}

        def Count(self, to: int, _more: bool = False) -> Iterator[dict[str, Any]]:
            log(method="org.example.lab.Count")
            for number in range(to):
                yield {"number": number, "_continues": number + 1 < to}

        def Refuse(self) -> None:
            log(method="org.example.lab.Refuse")
            raise Refused("not today")

    class RequestHandler(varlink.RequestHandler):  # type: ignore[misc] # untyped
        pass

    RequestHandler.service = service
    with varlink.ThreadingServer(f"unix:{path}", RequestHandler) as server:
        log(listening=path)
        server.serve_forever()


# --- sd_notify ----------------------------------------------------------------------------

NOTES: Final = ("STATUS=Loading\nEXTEND_TIMEOUT_USEC=5000000", "READY=1\nMAINPID=42", "STOPPING=1")


def notify(port: str, kind: str) -> None:
    """Receive what a service says to its manager and say it, as sd_notify(3) has it.

    Each note is a connection of its own; `kind` is "seqpacket" or "stream".
    """
    types = {"stream": socket.SOCK_STREAM, "seqpacket": socket.SOCK_SEQPACKET}
    with socket.socket(socket.AF_VSOCK, types[kind]) as manager:
        manager.bind((socket.VMADDR_CID_ANY, int(port)))
        manager.listen()
        for note in NOTES:
            with socket.socket(socket.AF_VSOCK, types[kind]) as service:
                service.connect((LOOPBACK, int(port)))
                service.sendall(note.encode())
            end, _ = manager.accept()
            with end:
                log(note=end.recv(4096).decode())
                end.recv(1)  # the end


SERVICES: Final[dict[str, Callable[..., None]]] = {
    each.__name__: each
    for each in (
        http_server,
        websocket_server,
        websocket_client,
        grpc_server,
        grpc_client,
        varlink_server,
        notify,
    )
}

if __name__ == "__main__":
    SERVICES[sys.argv[1]](*sys.argv[2:])
