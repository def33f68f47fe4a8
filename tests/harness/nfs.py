"""Calls of NFS 3 as bytes, for what the tools of libnfs do not do: many calls at once, and replies that nobody takes."""
import socket
import struct

NFS, MOUNT = 100003, 100005


def opaque(data):
    return struct.pack("!I", len(data)) + data + b"\0" * (-len(data) % 4)


def call(program, procedure, arguments, number=1):
    """A record with a call of version 3, as root."""
    credential = struct.pack("!I", 0) + opaque(b"test") + struct.pack("!III", 0, 0, 0)
    message = struct.pack("!6I", number, 0, 2, program, 3, procedure) + struct.pack("!I", 1) + opaque(credential) + bytes(8)
    return struct.pack("!I", 0x80000000 | len(message) + len(arguments)) + message + arguments


def read(handle, offset, count):
    return call(NFS, 6, opaque(handle) + struct.pack("!QI", offset, count))


def attributes(handle):
    return call(NFS, 1, opaque(handle))


class Client:
    """A connection from an address of this machine."""

    def __init__(self, port, own="127.0.0.1", buffer=None):
        self.socket = socket.socket()
        if buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.bind((own, 0))
        self.socket.settimeout(15)
        self.socket.connect(("127.0.0.1", port))

    def take(self, length):
        taken = b""
        while len(taken) < length:
            more = self.socket.recv(length - len(taken))
            if not more:
                raise EOFError("the server ended the connection")
            taken += more
        return taken

    def ask(self, record):
        """The results of a call, from its status on."""
        self.socket.sendall(record)
        length = struct.unpack("!I", self.take(4))[0] & 0x7fffffff
        return self.take(length)[24:]

    def handle(self, path):
        """The handle of a file below an export."""
        export, *names = path.strip("/").split("/")
        handle = self.ask(call(MOUNT, 1, opaque(b"/" + export.encode())))
        for name in names:
            handle = self.ask(call(NFS, 3, opaque(self.of(handle)) + opaque(name.encode())))
        return self.of(handle)

    @staticmethod
    def of(results):
        status, length = struct.unpack("!II", results[:8])
        if status:
            raise ValueError(f"status {status}")
        return results[8:8 + length]

    def close(self):
        self.socket.close()
