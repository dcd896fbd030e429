#!/usr/bin/env python3
"""nbd-server.py SOCKET MODE - an NBD server that means harm, for tests/tool/img-nbd.t. Speaks the newstyle handshake of
https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md and then does what MODE says."""
import os, socket, struct, sys, threading, time

path, mode = sys.argv[1:3]
SIZE = 1 << 20
OPTS, REPLY, SIMPLE, CHUNK = 0x49484156454F5054, 0x3E889045565A9, 0x67446698, 0x668E33EF


def need(c, n):
    data = b""
    while len(data) < n:
        part = c.recv(n - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def chunk(c, cookie, kind, payload, last=True):
    c.sendall(struct.pack(">IHHQI", CHUNK, last, kind, cookie, len(payload)) + payload)


def handshake(c):
    if mode == "silent":
        time.sleep(60)
    if mode == "noise":
        c.sendall(os.urandom(4096))
        return
    c.sendall(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 1))
    need(c, 4)
    while True:
        magic, opt, n = struct.unpack(">QII", need(c, 16))
        data = need(c, n)

        def reply(kind, payload=b""):
            c.sendall(struct.pack(">QIII", REPLY, opt, kind, len(payload)) + payload)

        if opt == 8:  # structured replies
            reply(1)
        elif opt == 10:  # set meta context
            reply(4, struct.pack(">I", 7) + b"base:allocation")
            reply(1)
        elif opt in (6, 7):  # info, go
            size = {"huge": (1 << 63) - 1, "negative": 1 << 63, "empty": 0}.get(mode, SIZE)
            reply(3, struct.pack(">HQH", 0, size, 1 | 4 | 32 | 64 | 256))
            if mode == "blocks":
                reply(3, struct.pack(">HIII", 3, 12345, 77, 3))
            if mode == "units":
                reply(3, struct.pack(">HIII", 3, 4096, 4096, 8192))
            if mode == "longreply":
                c.sendall(struct.pack(">QIII", REPLY, opt, 3, 0xFFFFFFFF))
            reply(1)
            if opt == 7:
                return
        else:
            reply(0x80000001)


def requests(c):
    while True:
        magic, flags, kind, cookie, off, n = struct.unpack(">IHHQQI", need(c, 28))
        data = need(c, n) if kind == 1 else b""
        if kind == 2:
            return
        if kind == 0:
            if mode == "units" and (off % 4096 or n % 4096 or n > 8192):
                c.sendall(struct.pack(">IIQ", SIMPLE, 22, cookie))
            elif mode == "overrun":
                chunk(c, cookie, 1, struct.pack(">Q", off + n - 1) + bytes(4096))
            elif mode == "hole":
                chunk(c, cookie, 2, struct.pack(">QI", off, 0xFFFFFFFF))
            elif mode == "cut":
                c.sendall(struct.pack(">IHHQI", CHUNK, 1, 1, cookie, n + 8) + struct.pack(">Q", off) + bytes(n // 2))
                return
            elif mode == "stall":
                time.sleep(60)
            elif mode == "error":
                chunk(c, cookie, 32769, struct.pack(">IH", 5, 0))
            elif mode == "cookie":
                chunk(c, cookie + 1, 1, struct.pack(">Q", off) + bytes(n))
            else:
                chunk(c, cookie, 1, struct.pack(">Q", off) + bytes([(off >> 12) & 255]) * n)
        elif kind == 7:
            spans = {"zerolen": [(0, 0)] * 8, "past": [(0xFFFFFFFF, 0)] * 4, "nospans": [],
                     "many": [(1, i & 1) for i in range(65536)], "shuffled": [(0, 3), (512, 0), (0, 0)]}.get(mode, [(n, 0)])
            chunk(c, cookie, 5, struct.pack(">I", 7) + b"".join(struct.pack(">II", *s) for s in spans))
        else:
            chunk(c, cookie, 0, b"")


def serve(c):
    try:
        handshake(c)
        requests(c)
    except (EOFError, OSError):
        pass
    c.close()


s = socket.socket(socket.AF_UNIX)
s.bind(path)
s.listen(8)
print("ready", flush=True)
while True:
    c, _ = s.accept()
    threading.Thread(target=serve, args=(c,), daemon=True).start()
