#!/usr/bin/env python3
"""style.t - what can be checked by a script: formatting, sizes, first lines, unfinished work. TAP."""
import os, re, shutil, subprocess, sys

os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
n = bad = 0


def check(wrong, what):
    global n, bad
    n += 1
    bad += bool(wrong)
    print("%sok %d - %s" % ("not " if wrong else "", n, what))
    for w in list(wrong)[:10]:
        print("# " + str(w))


sources = []
for top in ("lib", "tools", "tests", "bench"):
    for root, _, files in os.walk(top):
        sources += [root + "/" + f for f in files if f.endswith((".c", ".h"))]
sources.sort()
text = {f: open(f, errors="replace").read() for f in sources}

if shutil.which("clang-format"):
    r = subprocess.run(["clang-format", "--dry-run", "-Werror"] + sources, stderr=subprocess.PIPE, text=True)
    check([l for l in r.stderr.splitlines() if "error:" in l], "clang-format has nothing to change")
else:
    n += 1
    print("ok %d - formatting # SKIP no clang-format" % n)
check([f for f in sources if text[f].count("\n") > 1200], "no file has more than 1200 lines")


def first_comment(f):
    m = re.match(r"/\*\s*(?:\*?\s*)(\S+)", text[f])
    return m.group(1) if m else ""


check([f for f in sources if not ('/' + f).endswith('/' + (first_comment(f) or '?'))],
      "each file begins with its name and what it is")
words = re.compile(r"\b(TODO|FIXME|XXX|HACK|not implemented|stub out|for now|simplified)\b")
check([f for f in sources if words.search(text[f])], "no words that stand where something was left undone")
vla = re.compile(r"\balloca\s*\(")
check([f for f in sources if vla.search(text[f])], "no alloca")
prints = re.compile(r"(?<![>.\w])(printf|puts|perror|exit|_exit)\s*\(")
child = re.compile(r"\bfork\(\).*", re.S)  # its child may end
check([f for f in sources if f.startswith("lib/") and not f.startswith("lib/cli/") and prints.search(
    re.sub(r"\b_exit\(", "", text[f]) if child.search(text[f]) else
    re.sub(r'/\*.*?\*/|"(?:\\.|[^"\\])*"', "", text[f], flags=re.S))], "lib/ never prints and never exits")
scripts = [os.path.join(r, f) for top in ("tests", "bench", ".ci") for r, _, fs in os.walk(top) for f in fs
           if "corpus" not in r and open(os.path.join(r, f), "rb").read(9) == b"#!/bin/sh"]
check([s for s in scripts if subprocess.run(["sh", "-n", s], stderr=subprocess.PIPE).returncode],
      "shell scripts parse")
check([s for s in scripts if not os.access(s, os.X_OK) and not s.endswith(".sh") and not s.endswith("/init")],
      "scripts can be executed")
print("1..%d" % n)
sys.exit(bad > 0)
