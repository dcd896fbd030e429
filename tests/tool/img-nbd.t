#!/bin/sh
# img-nbd.t - disks of other programs and computers: NBD by qemu-nbd and nbdkit, http by nbdkit, servers that mean harm. TAP.
. "$(dirname "$0")/../lib.sh"
for p in qemu-nbd nbdkit python3; do command -v $p >/dev/null || { echo "1..0 # SKIP no $p"; exit 0; }; done
here=$PWD/tests/tool
cd "$TMP" || exit 1
trap 'kill $(cat ./*.pid 2>/dev/null) 2>/dev/null; rm -rf "$TMP"' EXIT

seq 1 400000 | dd of=a.raw bs=64k seek=3 conv=notrunc status=none
truncate -s 8388608 a.raw
qemu-img convert -O qcow2 a.raw a.qcow2

# serve NAME PROGRAM...: a server at ./NAME, until the test ends.
serve() {
	name=$1
	shift
	case $1 in
	qemu-nbd) "$@" -t --fork -k "$PWD/$name" --pid-file="$name.pid" ;;
	*) "$@" -U "$PWD/$name" -P "$name.pid" ;;
	esac
}
u() { echo "nbd+unix:///?socket=$PWD/$1"; }

# ---- reading ----
serve r1 qemu-nbd -r -f raw a.raw
serve r2 qemu-nbd -r -f qcow2 -e 4 a.qcow2
serve r3 nbdkit -r file a.qcow2
serve r4 nbdkit -r --filter=blocksize-policy file a.raw blocksize-minimum=4096 blocksize-preferred=4096 blocksize-maximum=64k \
	blocksize-error-policy=error
serve r5 nbdkit -r --filter=noextents file a.raw
for s in r1 r2 r4 r5; do
	t "$s: is what it should be" "$VM_IMG" compare -f raw "$(u $s)" a.raw
	t "$s: is copied" sh -c '"$1" convert -f raw -O qcow2 "$2" o.qcow2 && qemu-img compare o.qcow2 a.raw' - "$VM_IMG" "$(u $s)"
done
t 'an image behind NBD is recognized' says 'file format: qcow2' "$VM_IMG" info "$(u r3)"
t 'and read' "$VM_IMG" compare "$(u r3)" a.raw
t 'and checked' "$VM_IMG" check "$(u r3)"
t 'holes stay holes' sh -c '"$1" convert "$2" o.raw && [ $(stat -c %b o.raw) -le $(($(stat -c %b a.raw) + 64)) ]' - "$VM_IMG" "$(u r2)"
t 'map says the same as of the file' sh -c '"$1" map --json -f raw "$2" | grep -c true >m1; "$1" map --json -f raw a.raw | grep -c true >m2
	cmp m1 m2' - "$VM_IMG" "$(u r1)"
t "QEMU's short form" "$VM_IMG" compare -f raw "nbd:unix:$PWD/r1" a.raw
t 'a server that only reads is not written to' fails 'does not allow' "$VM_IMG" convert -n -O raw a.raw "$(u r1)"
t 'nobody listens' fails 'onnection refused' "$VM_IMG" info nbd://localhost:9/
t 'no such socket' fails 'No such file' "$VM_IMG" info "$(u nowhere)"

# ---- writing ----
truncate -s 16M w1.raw w2.raw w3.raw
serve w1 qemu-nbd -f raw -e 4 w1.raw
serve w2 nbdkit --filter=blocksize-policy file w2.raw blocksize-minimum=512 blocksize-preferred=4096 blocksize-maximum=128k \
	blocksize-error-policy=error
serve w3 nbdkit --filter=nozero file w3.raw zeromode=none
for s in w1 w2 w3; do
	head -c 3000000 /dev/urandom | dd of=$s.raw conv=notrunc status=none
	t "$s: raw, written" sh -c '"$1" convert -O raw a.qcow2 "$2" && "$1" compare -f raw "$2" a.raw' - "$VM_IMG" "$(u $s)"
	t "$s: on the disk" cmp -n 8388608 $s.raw a.raw
	t "$s: qcow2, written" sh -c '"$1" convert -O qcow2 a.raw "$2" && "$1" check "$2" && "$1" compare "$2" a.raw' - "$VM_IMG" "$(u $s)"
	t "$s: qcow2, as qemu-img sees it" sh -c 'qemu-img check -U "$1" && qemu-img compare -U -F raw "$1" a.raw' - $s.raw
	t "$s: -n" sh -c '"$1" convert -n -O raw a.raw "$2" && cmp -n 8388608 "$3" a.raw' - "$VM_IMG" "$(u $s)" $s.raw
done
truncate -s 1M small.raw
serve small qemu-nbd -f raw small.raw
t 'what does not fit is refused' fails 'fewer than' "$VM_IMG" convert -O raw a.raw "$(u small)"
"$VM_IMG" convert -r 200k -O raw a.raw "$(u w1)" &
p=$!
sleep 1
kill -9 $p
wait $p 2>/dev/null
t 'killed: info says so' fails 'is unfinished' "$VM_IMG" info "$(u w1)"
t 'killed: check says so' exits 3 "$VM_IMG" check "$(u w1)"
t 'and again, to its end' sh -c '"$1" convert -O raw a.raw "$2" && "$1" compare -f raw "$2" a.raw' - "$VM_IMG" "$(u w1)"

# ---- http ----
t 'http is not written to' fails 'only be read' "$VM_IMG" convert -n -O raw a.raw http://localhost:9/x
t 'nbdkit is missing' sh -c 'mkdir -p bin; ! PATH=$PWD/bin "$1" info http://localhost:9/x 2>e; grep "needs nbdkit" e' - "$VM_IMG"
t 'half an address' fails 'no whole address' "$VM_IMG" info ssh://host
cat >web.py <<'X'
import http.server, os, re
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_HEAD(self): self.go(False)
    def do_GET(self): self.go(True)
    def log_message(self, *a): pass
    def go(self, body):
        if self.path == "/away":
            self.send_response(302); self.send_header("Location", "file:///etc/passwd"); self.send_header("Content-Length", "0")
            return self.end_headers()
        try: data = open("." + self.path, "rb").read()
        except OSError: self.send_response(404); self.send_header("Content-Length", "0"); return self.end_headers()
        m = re.match(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if m: data = data[int(m[1]):int(m[2]) + 1]
        self.send_response(206 if m else 200); self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data))); self.end_headers()
        if body: self.wfile.write(data)
s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), H)
print(s.server_port, flush=True)
s.serve_forever()
X
python3 web.py >port 2>/dev/null &
echo $! >web.pid
while [ ! -s port ]; do sleep 0.1; done
url=http://127.0.0.1:$(cat port)
if nbdkit curl --version >/dev/null 2>&1; then
	t 'http: info' says 'file format: qcow2' "$VM_IMG" info "$url/a.qcow2"
	t 'http: the same content' "$VM_IMG" compare "$url/a.qcow2" a.raw
	t 'http: not there' exits 1 "$VM_IMG" info "$url/none"
	t 'http: not led to files of this computer' exits 1 "$VM_IMG" info "$url/away"
fi

# ---- servers that mean harm ----
export VM_NBD_TIMEOUT=1
harm() { # harm MODE STATUSES COMMAND...: ends soon, with one of these statuses
	mode=$1 want=$2
	shift 2
	rm -f h h.log
	python3 "$here/nbd-server.py" "$PWD/h" "$mode" >h.log &
	echo $! >h.pid
	while [ ! -s h.log ]; do sleep 0.05; done
	(ulimit -v 4000000; timeout 20 "$@" >harm.log 2>&1)
	st=$?
	kill "$(cat h.pid)"
	wait "$(cat h.pid)" 2>/dev/null
	cat harm.log
	case " $want " in *" $st "*) ;; *) echo "status $st"; return 1 ;; esac
}
[ "$(nm -D "$VM_IMG" 2>/dev/null | grep -c __asan)" = 0 ] || harm() { echo; } # its shadow memory is larger than the limit
for m in silent noise negative longreply stall error overrun hole cut cookie; do
	t "server: $m" harm $m 1 "$VM_IMG" convert -f raw -O raw "$(u h)" h.raw
done
t 'server: a huge disk' harm huge '0 1' "$VM_IMG" info -f raw "$(u h)"
t 'server: an empty disk' harm empty '0 1' "$VM_IMG" convert -f raw -O raw "$(u h)" h.raw
for m in blocks nospans; do
	t "server: $m" harm $m "0 1" "$VM_IMG" convert -f raw -O raw "$(u h)" h.raw
done
for m in good units zerolen past many shuffled; do
	t "server: $m" harm $m 0 "$VM_IMG" convert -f raw -O raw "$(u h)" h.raw
done
t 'nothing of the failed ones stays' sh -c '[ -z "$(ls -a | grep part)" ]'
done_testing
