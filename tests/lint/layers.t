#!/usr/bin/env python3
"""layers.t - who may include whom: lib/LAYERS against the sources. TAP."""
import os, re, sys

os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
may, homes = {}, {}
for line in open("lib/LAYERS"):
    line = line.split("#")[0].strip()
    if not line:
        continue
    name, _, rest = line.partition(":")
    uses, _, third = rest.partition("|")
    may[name] = {name, *uses.split()}
    for header in third.split():
        homes.setdefault(header, set()).add(name)

n = bad = 0


def check(ok, what):
    global n, bad
    n += 1
    bad += not ok
    print("%sok %d - %s" % ("" if ok else "not ", n, what))


folders = sorted(d for d in os.listdir("lib") if os.path.isdir("lib/" + d))
check(all(d in may for d in folders), "every folder of lib/ has a line in lib/LAYERS: %s"
      % [d for d in folders if d not in may])
for d in folders:
    wrong = []
    for root, _, files in os.walk("lib/" + d):
        for f in files:
            if not f.endswith((".c", ".h")):
                continue
            for inc in re.findall(r'^\s*#\s*include\s+([<"][^>"]+)', open(root + "/" + f).read(), re.M):
                quoted, path = inc[0] == '"', inc[1:]
                top = path.split("/")[0]
                if quoted and "/" in path:
                    if top not in may.get(d, set()):
                        wrong.append("%s/%s includes %s" % (root, f, path))
                    if path.endswith("_int.h") and top != d:
                        wrong.append("%s/%s includes the private %s" % (root, f, path))
                elif not quoted and path in homes and d not in homes[path]:
                    wrong.append("%s/%s includes <%s>" % (root, f, path))
    check(not wrong, "lib/%s includes what its line allows %s" % (d, wrong or ""))
check(len(may) > 5, "lib/LAYERS was read")
print("1..%d" % n)
sys.exit(bad > 0)
