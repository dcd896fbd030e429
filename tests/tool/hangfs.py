#!/usr/bin/env python3
"""hangfs.py DIR - mounts at DIR (as root) a FUSE file system whose files are there and never answer a read:
proc/cpuinfo hangs when it is read, dev/kvm when it is opened, a name "never" when it is looked up. Prints "ready"
when it stands. When it is killed, who waits gets an error; the mount stays, for umount -l."""
import ctypes, os, struct, sys

LOOKUP, FORGET, GETATTR, OPEN, READ, INIT, OPENDIR, READDIR, RELEASEDIR, INTERRUPT, BATCH_FORGET = 1, 2, 3, 14, 15, 26, 27, 28, 29, 36, 42
FOLDERS = {b"proc": 2, b"dev": 3, b"sys": 4, b"vm-check": 5}
FILES = {b"cpuinfo": 16, b"kvm": 17}

fd = os.open("/dev/fuse", os.O_RDWR)
libc = ctypes.CDLL(None, use_errno=True)
top = os.fsencode(sys.argv[1])
if libc.mount(b"hangfs", top, b"fuse.hangfs", 0, b"fd=%d,rootmode=40000,user_id=0,group_id=0" % fd):
    sys.exit("cannot mount: " + os.strerror(ctypes.get_errno()))
print("ready", flush=True)


def attr(node):
    mode = 0o40755 if node < 16 else 0o100644
    return struct.pack("<6Q10I", node, 4096, 8, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def answer(unique, data=b"", error=0):
    os.write(fd, struct.pack("<IiQ", 16 + len(data), -error, unique) + data)


while True:
    try:
        msg = os.read(fd, 1 << 20)
    except OSError:
        continue
    _, op, unique, node = struct.unpack_from("<IIQQ", msg)
    if op == INIT:
        answer(unique, struct.pack("<IIIIHHIIHHII6I", 7, 31, 65536, 0, 16, 12, 65536, 1, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0)[:64])
    elif op == LOOKUP:
        name = msg[40:].rstrip(b"\0")
        child = FOLDERS.get(name) or FILES.get(name)
        if child:
            answer(unique, struct.pack("<4Q2I", child, 1, 1, 1, 0, 0) + attr(child))
        elif name != b"never":
            answer(unique, error=2)
    elif op == GETATTR:
        answer(unique, struct.pack("<QII", 1, 0, 0) + attr(node))
    elif op == OPENDIR or (op == OPEN and node == 16):
        answer(unique, struct.pack("<QII", 1, 0, 0))
    elif op in (READDIR, RELEASEDIR):
        answer(unique)
    elif op not in (OPEN, READ, FORGET, INTERRUPT, BATCH_FORGET):
        answer(unique, error=38)
