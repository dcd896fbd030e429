#!/usr/bin/env python3
"""vm-check-captures.t - captured computers (tests/captures): verdict, problems, fixes, exit status. TAP.

Each file says before its first "===" line where its facts come from (source:) and what must come out: expect: STATUS, problems: ID..., says: TEXT
(in the text report), not: TEXT."""
import glob, json, os, subprocess, sys, tempfile

os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
tool = os.path.join(os.environ.get("O", "build"), "vm-check")
n = bad = 0


def check(ok, what, more=""):
    global n, bad
    n += 1
    bad += not ok
    print("%sok %d - %s" % ("" if ok else "not ", n, what))
    if not ok:
        print("".join("# " + l + "\n" for l in more.splitlines()), end="")


def run(*args, err=subprocess.STDOUT):
    r = subprocess.run([tool, *args], stdout=subprocess.PIPE, stderr=err, timeout=20)
    return r.returncode, r.stdout.decode()


def unpack(path, top):
    """The text form as a tree, for the captures that need no more than plain files."""
    out = None
    for line in open(path):
        if line.startswith("=== "):
            name, _, attr = line[4:].strip().partition(" ")
            if attr:
                return False
            full = os.path.join(top, name)
            os.makedirs(full if name.endswith("/") else os.path.dirname(full), exist_ok=True)
            out = None if name.endswith("/") else open(full, "w")
        elif out:
            out.write(line)
    return True


for path in sorted(glob.glob("tests/captures/*.txt")):
    name = os.path.basename(path)[:-4]
    want = {"expect": [], "problems": [], "says": [], "not": []}
    sources = 0
    for line in open(path):
        if line.startswith("==="):
            break
        sources += line.startswith("source: ") and len(line) > 20
        key, _, value = line.rstrip("\n").partition(": ")
        if key in want:
            want[key].append(value)
    check(sources == 1, "%s: names its source" % name)
    status, text = run("--root", path)
    check(str(status) == want["expect"][0], "%s: status %s" % (name, want["expect"][0]), "%d\n%s" % (status, text))
    miss = [s for s in want["says"] if s not in text] + ["not: " + s for s in want["not"] if s in text]
    check(not miss, "%s: says what it must" % name, "\n".join(miss) + "\n" + text)
    jstatus, out = run("--json", "--root", path, err=subprocess.DEVNULL)
    doc = json.loads(out)
    ids = " ".join(p["id"] for p in doc["problems"])
    check(ids == " ".join(want["problems"]).strip() and jstatus == doc["status"] == status,
          "%s: problems '%s'" % (name, want["problems"] and want["problems"][0]), ids)
    with tempfile.TemporaryDirectory() as top:
        if unpack(path, top):
            tree, again = run("--root", top)
            check(tree == status and again == text, "%s: the same as a tree" % name, again)
check(n > 150, "there are enough captures")
print("1..%d" % n)
sys.exit(bad > 0)
