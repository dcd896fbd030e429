#!/usr/bin/env python3
"""vmdk-images.py - VMDK extents that no packaged program writes, for the tests, from the formats' specifications:
vmdk-images.py sparse FILE KEY=VALUE...      vmdk-images.py se FILE RAW"""
import struct
import sys


def sparse(path, args):
    o = {}
    for a in args:
        k, v = a.split("=")
        o[k] = int(v, 0)
    flags = 3 | (0x30000 if o.get("compressed") else 0)
    newlines = b"\n \r\n" if o.get("newlines", 1) else b"\n \n\n"
    h = struct.pack("<4sIIQQQQIQQQB4sH", b"KDMV", o.get("version", 1), flags, o.get("capacity", 131072),
                    o.get("grain", 128), 0, 0, o.get("gtes", 512), 0, o.get("gd", 21), 128, 0, newlines,
                    1 if o.get("compressed") else 0)
    f = bytearray(128 * 512 * 3)
    f[:len(h)] = h
    for i in range(2):
        struct.pack_into("<I", f, 21 * 512 + i * 4, o.get("gde%d" % i, 22 + i * 4))
    for i in range(1024):
        struct.pack_into("<I", f, 22 * 512 + i * 4, o.get("gte%d" % i, 0))
    if o.get("packed"):
        struct.pack_into("<QI", f, 128 * 512, 128, o["packed"])
        f[128 * 512 + 12:128 * 512 + 60] = b"not a zlib stream" * 2 + bytes(14)
    with open(path, "wb") as out:
        out.write(f)


def se(path, args):
    with open(args[0], "rb") as r:
        data = r.read()
    data += bytes(-len(data) % 4096)
    n = len(data) // 4096
    tables = (n + 4095) // 4096
    gd_at, tables_at = 16, 32
    grains_at = tables_at + tables * 64 + 8
    h = struct.pack("<6Q", 0xcafebabe, 0x200000001, len(data) // 512, 8, 64, 0) + bytes(32)
    h += struct.pack("<16Q", 1, 1, 2, 1, 3, 1, gd_at, 8, tables_at, tables * 64, 0, 0, 0, 0, grains_at, n * 8)
    f = bytearray(grains_at * 512)
    f[:len(h)] = h
    struct.pack_into("<QQQQ", f, 512, 0xcafecafe, 0, 1, 0)
    for i in range(tables):
        struct.pack_into("<Q", f, gd_at * 512 + i * 8, 0x1000000000000000 | i)
    place = 0
    for i in range(n):
        grain = data[i * 4096:(i + 1) * 4096]
        if grain == bytes(4096):
            e = (0, 1 << 60, 2 << 60)[i % 3]
        else:
            e = 3 << 60 | (place & 0xfff) << 48 | place >> 12
            f += grain
            place += 1
        struct.pack_into("<Q", f, tables_at * 512 + i * 8, e)
    with open(path, "wb") as out:
        out.write(f)


{"sparse": sparse, "se": se}[sys.argv[1]](sys.argv[2], sys.argv[3:])
