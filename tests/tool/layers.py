#!/usr/bin/env python3
"""layers.py - container images for the tests: layers.py docker|oci|oci-gzip OUT.tar, layers.py oci-folder DIR, and tar files that
must be refused or tamed: layers.py bad KIND OUT.tar"""
import gzip
import hashlib
import io
import json
import os
import sys
import tarfile


def entry(t, name, data=None, type=None, link="", mode=0o644, dev=(0, 0)):
    i = tarfile.TarInfo(name)
    i.mode, i.linkname = mode, link
    i.devmajor, i.devminor = dev
    if type:
        i.type = type
        t.addfile(i)
    elif data is None:
        i.type, i.mode = tarfile.DIRTYPE, 0o755
        t.addfile(i)
    else:
        i.size = len(data)
        t.addfile(i, io.BytesIO(data))


def tar(entries):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as t:
        for e in entries:
            entry(t, *e[:2], **(e[2] if len(e) > 2 else {}))
    return out.getvalue()


LNK, SYM = {"type": tarfile.LNKTYPE}, {"type": tarfile.SYMTYPE}
layers = [
    tar([("etc/", None), ("etc/keep", b"1"), ("etc/gone", b"1"), ("etc/changed", b"old"), ("opaque/", None),
         ("opaque/old", b"1"), ("opaque/sub/deep", b"1"), ("tree/a/b", b"1"), ("file-then-dir", b"1"), ("dir-then-file/x", b"1"),
         ("bin/tool", b"tool", {"mode": 0o755}), ("bin/alias", None, dict(LNK, link="bin/tool"))]),
    tar([("etc/.wh.gone", b""), ("etc/changed", b"new"), ("opaque/.wh..wh..opq", b""), ("opaque/new", b"2"), (".wh.tree", b""),
         ("file-then-dir/", None), ("file-then-dir/in", b"2"), ("dir-then-file", b"2"), ("bin/tool", b"TOOL", {"mode": 0o755}),
         (".wh.never-there", b"")]),
    tar([("etc/link", None, dict(SYM, link="/etc/passwd")), ("tree/c", b"3")]),
]
kind, out = sys.argv[1], sys.argv[-1]


def blob(files, data, **more):
    h = hashlib.sha256(data).hexdigest()
    files["blobs/sha256/" + h] = data
    return dict({"digest": "sha256:" + h, "size": len(data)}, **more)


def docker():
    files = {"%d/layer.tar" % i: d for i, d in enumerate(layers)}
    files["c.json"] = b"{}"
    files["manifest.json"] = json.dumps([{"Config": "c.json", "RepoTags": ["x:1"], "Layers": list(files)[:3]}]).encode()
    return files


def oci():
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    pack = gzip.compress if "gzip" in kind else lambda d: d
    m = {"schemaVersion": 2, "layers": [blob(files, pack(d)) for d in layers], "config": blob(files, b"{}")}
    arm = blob(files, b"{}", platform={"architecture": "arm64", "os": "linux"})
    amd = blob(files, json.dumps(m).encode(), platform={"architecture": "amd64", "os": "linux"})
    index = blob(files, json.dumps({"manifests": [arm, amd]}).encode())
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [index]}).encode()
    if "damage" in kind:
        name = "blobs/" + m["layers"][1]["digest"].replace(":", "/")
        files[name] = files[name][:-1] + b"!"
    return files


bad = {
    "dotdot": [("a/../../etc/passwd", b"x")],
    "absolute": [("/etc/x", b"x"), ("//usr//y", b"y")],
    "through-link": [("l", None, dict(SYM, link="/tmp")), ("l/x", b"x")],
    "hard-to-nothing": [("x", None, dict(LNK, link="/etc/passwd"))],
    "hard-above": [("x", None, dict(LNK, link="../../etc/passwd"))],
    "hard-dir": [("d/", None), ("x", None, dict(LNK, link="d"))],
    "below-file": [("f", b"x"), ("f/g", b"y")],
    "long": [("a" * 300, b"x")],
    "deep": [("a/" * 1000 + "x", b"x")],
    "root-file": [("./", b"x")],
    "devices": [("dev/null", None, {"type": tarfile.CHRTYPE, "dev": (1, 3)}), ("dev/sda", None, {"type": tarfile.BLKTYPE, "dev": (8, 300)})],
    "twice": [("x", b"1"), ("x", b"2"), ("l", None, dict(LNK, link="x")), ("l", None, dict(LNK, link="l"))],
}
if kind == "bad":
    open(out, "wb").write(tar(bad[sys.argv[2]]))
elif kind == "oci-folder":
    for name, data in oci().items():
        os.makedirs(os.path.dirname(os.path.join(out, name)) or ".", exist_ok=True)
        open(os.path.join(out, name), "wb").write(data)
else:
    files = docker() if kind == "docker" else oci()
    with tarfile.open(out, "w") as t:
        for name, data in files.items():
            entry(t, name, data)
