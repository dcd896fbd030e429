#!/usr/bin/env python3
"""vhd-images.py - VDI, VHD and VHDX images that no packaged program writes, for the tests, from the formats'
specifications:   vhd-images.py FORMAT FILE KEY=VALUE..."""
import struct
import sys


def options(args):
    o = {}
    for a in args:
        k, v = a.split("=", 1)
        o[k] = v
    return o


def num(o, key, usual):
    return int(str(o.get(key, usual)), 0)


def guid(o, key):
    n = num(o, key, 0)
    return bytes([n]) * 16 if n else bytes(16)


def disk_of(o):
    if "data" in o:
        with open(o["data"], "rb") as f:
            return f.read()
    return None


def pad(b, n):
    return b + bytes(-len(b) % n)


# ---- VDI ----
def vdi(path, o):
    data = disk_of(o)
    block = num(o, "block", 1 << 20)
    extra = num(o, "extra", 0)
    size = num(o, "size", len(data) if data is not None else 0)
    version = num(o, "version", 1)
    minor = num(o, "minor", 1)
    kind = num(o, "type", 1)
    n = -(-size // block)
    table, blocks = [], []
    for i in range(n):
        own = o.get("block%d" % i)
        piece = pad(data[i * block:(i + 1) * block], block) if data is not None else None
        if own == "zero":
            table.append(0xfffffffe)
        elif own:
            table.append(len(blocks))
            blocks.append(bytes(extra) + own.encode() * (block // len(own)))
        elif piece is None or not any(piece):
            table.append(0xffffffff)
        else:
            table.append(len(blocks))
            blocks.append(bytes(extra) + piece)
    for k in o:
        if k.startswith("entry"):
            table[int(k[5:])] = num(o, k, 0)
    raw_block = num(o, "raw_block", block)
    raw_blocks = num(o, "raw_blocks", n)
    raw_size = num(o, "raw_size", size)
    head = o.get("text", "<<< hand made >>>\n").encode().ljust(64, b"\0")
    head += struct.pack("<IHH", 0xbeda107f, minor, version)
    geo = struct.pack("<4I", 0, 0, 0, 512)
    table = struct.pack("<%dI" % n, *table)
    ids = guid(o, "create") + guid(o, "modify") + guid(o, "parent")
    if version == 0:
        head += struct.pack("<2I", kind, 0) + bytes(256) + geo
        head += struct.pack("<Q3I", raw_size, raw_block, raw_blocks, len(blocks)) + ids
        assert len(head) == 420
        head += table
    else:
        map_off = 512
        data_off = num(o, "data_off", (map_off + len(table) + 511) // 512 * 512)
        head += struct.pack("<3I", 400 if minor else 384, kind, 0) + bytes(256)
        head += struct.pack("<2I", map_off, data_off) + geo + bytes(4)
        head += struct.pack("<Q4I", raw_size, raw_block, extra, raw_blocks, len(blocks)) + ids
        head += guid(o, "pmodify")
        if minor:
            head += geo
        head = head.ljust(512, b"\0") + table
        head = head.ljust(data_off, b"\0")
    with open(path, "wb") as f:
        f.write(head + b"".join(blocks))


# ---- VHD ----
def vhd_sum(b, at):
    return ~(sum(b) - sum(b[at:at + 4])) & 0xffffffff


def vhd_footer(o, kind, size, header_off):
    chs = [int(x) for x in o.get("chs", "0,0,0").split(",")]
    f = b"conectix" + struct.pack(">IIQI", 2, 0x10000, header_off, num(o, "time", 1000))
    f += o.get("creator", "win ").encode().ljust(4, b"\0") + struct.pack(">I", 0x60001) + b"Wi2k"
    f += struct.pack(">QQHBBII", size, size, chs[0], chs[1], chs[2], kind, 0) + guid(o, "id")
    f = bytearray(f.ljust(512, b"\0"))
    f[64:68] = struct.pack(">I", vhd_sum(f, 64))
    return bytes(f)


def vhd(path, o):
    data = disk_of(o)
    size = num(o, "size", len(data) if data is not None else 0)
    kind = {"fixed": 2, "dynamic": 3, "diff": 4}.get(o.get("type", "dynamic"), 0) or num(o, "type", 3)
    if kind == 2:
        foot = vhd_footer(o, kind, num(o, "raw_size", size), 0xffffffffffffffff)
        with open(path, "wb") as f:
            f.write(data + foot[:num(o, "footer", 512)])
        return
    block = num(o, "block", 2 << 20)
    n = -(-size // block)
    foot = vhd_footer(o, kind, num(o, "raw_size", size), 512)
    locators, texts = [], b""
    text_off = 1536 + -(-4 * n // 512) * 512
    for code in ("W2ru", "W2ku", "MacX"):
        if code in o:
            t = o[code].encode("utf-8" if code == "MacX" else "utf-16-le")
            locators.append(code.encode() + struct.pack(">IIIQ", 512, len(t), 0, text_off + len(texts)))
            texts = pad(texts + t, 512)
    at = text_off + len(texts)
    bits_len = max(512, block // 4096)
    table, body = [], []
    for i in range(n):
        bits, piece = bytearray(bits_len), bytearray(block)
        there = False
        for s in range(block // 512):
            src = None
            if kind == 3 and data is not None:
                src = data[i * block + s * 512:i * block + (s + 1) * 512]
                src = src if any(src) else None
            own = o.get("sector%d" % (i * (block // 512) + s))
            if own:
                src = own.encode() * (512 // len(own))
            if src:
                there = True
                bits[s // 8] |= 0x80 >> (s % 8)
                piece[s * 512:s * 512 + len(src)] = src
            elif o.get("junk"):
                piece[s * 512:s * 512 + 512] = b"J" * 512
        if there:
            table.append(at // 512)
            body.append(bytes(bits) + bytes(piece))
            at += bits_len + block
        else:
            table.append(0xffffffff)
    for k in o:
        if k.startswith("entry"):
            table[int(k[5:])] = num(o, k, 0)
    h = b"cxsparse" + struct.pack(">QQIIII", 0xffffffffffffffff, num(o, "bat_off", 1536), 0x10000,
                                      num(o, "raw_blocks", n), num(o, "raw_block", block), 0)
    h += guid(o, "parent") + struct.pack(">II", num(o, "ptime", 1000), 0)
    h += o.get("name", "").encode("utf-16-be").ljust(512, b"\0")
    h += b"".join(locators).ljust(24 * 8, b"\0") + bytes(256)
    h = bytearray(h)
    h[36:40] = struct.pack(">I", vhd_sum(h, 36))
    assert len(h) == 1024
    if o.get("footer") == "damaged":
        end = bytes(512)
    elif o.get("footer") == "none":
        end = b""
    else:
        end = foot[:num(o, "footer", 512)]
    with open(path, "wb") as f:
        f.write(foot + bytes(h) + pad(struct.pack(">%dI" % n, *table), 512) + texts + b"".join(body) + end)


if __name__ == "__main__":
    {"vdi": vdi, "vhd": vhd}[sys.argv[1]](sys.argv[2], options(sys.argv[3:]))
