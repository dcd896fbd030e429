// userland.js - what userland.t has a JIT runtime do: each line is the same on every computer.
"use strict";
const crypto = require("crypto");
const zlib = require("zlib");
const say = (name, v) => console.log(name + " " + v);

function sieve(n) {
	const a = new Uint8Array(n + 1);
	let count = 0;
	for (let i = 2; i <= n; i++) {
		if (a[i]) continue;
		count++;
		for (let k = i * 2; k <= n; k += i) a[k] = 1;
	}
	return count;
}
function mandel(w) {
	let sum = 0;
	for (let y = 0; y < w; y++)
		for (let x = 0; x < w; x++) {
			let a = 0, b = 0, n = 0;
			const ca = (x / w) * 3 - 2, cb = (y / w) * 2 - 1;
			while (a * a + b * b < 4 && n < 200) [a, b, n] = [a * a - b * b + ca, 2 * a * b + cb, n + 1];
			sum = (sum * 31 + n) >>> 0;
		}
	return sum;
}
function* fib() {
	let a = 0n, b = 1n;
	for (;;) { yield a; [a, b] = [b, a + b]; }
}
class Shape { area() { return 0; } }
class Square extends Shape { constructor(s) { super(); this.s = s; } area() { return this.s * this.s; } }
class Disc extends Shape { constructor(r) { super(); this.r = r; } area() { return Math.PI * this.r * this.r; } }

say("sieve", sieve(2000000));
say("mandel", mandel(200));
let n = 0, big;
for (big of fib()) if (++n > 2000) break;
say("fib", crypto.createHash("sha256").update(big.toString()).digest("hex"));
let area = 0;
for (let i = 0; i < 300000; i++) area += (i % 3 ? new Square(i % 7) : new Disc(i % 5)).area();
say("shapes", area.toFixed(6));
const m = new Map();
for (let i = 0; i < 200000; i++) m.set("k" + (i * 7919) % 65537, i);
say("map", [...m.values()].reduce((a, b) => (a * 33 + b) >>> 0, 5));
say("sort", crypto.createHash("md5").update(Array.from({length: 100000}, (_, i) => Math.sin(i)).sort((a, b) => a - b).join()).digest("hex"));
say("regexp", "the quick brown fox ".repeat(5000).replace(/(\w+) (\w+)/g, "$2-$1").match(/q\w+-the/g).length);
say("json", crypto.createHash("md5").update(JSON.stringify(JSON.parse(JSON.stringify(Array.from({length: 20000}, (_, i) => ({i, s: "x" + i, f: i / 3})))))).digest("hex"));
const text = Buffer.from("compressed and back ".repeat(20000));
say("zlib", zlib.inflateSync(zlib.deflateSync(text)).equals(text));
let caught = 0;
for (let i = 0; i < 20000; i++) try { if (i % 3 == 0) throw new Error(i); } catch (e) { caught++; }
say("throw", caught);
// (func (param i32) (result i32)): the sum of squares below, in a loop
const wasm = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 6, 1, 96, 1, 127, 1, 127, 3, 2, 1, 0, 7, 5, 1, 1, 102, 0, 0, 10, 30, 1, 28, 1, 1, 127, 3, 64,
	32, 1, 32, 0, 32, 0, 108, 106, 33, 1, 32, 0, 65, 1, 107, 34, 0, 13, 0, 11, 32, 1, 11]);
say("wasm", new WebAssembly.Instance(new WebAssembly.Module(wasm)).exports.f(1000000));
for (let r = 0; r < 300; r++) // code that is made and thrown away
	n += new Function("a", "let s = 0; for (let i = 0; i < 500; i++) s += i % " + (r + 1) + "; return s + a;")(r);
say("function", n);
const {Worker, isMainThread} = require("worker_threads");
const shared = new Int32Array(new SharedArrayBuffer(8));
const code = "const {workerData: a} = require('worker_threads'); for (let i = 0; i < 200000; i++) Atomics.add(a, 0, 1);";
let left = 3;
for (let i = 0; i < 3; i++)
	new Worker(code, {eval: true, workerData: shared}).on("exit", () => { if (!--left) { say("workers", shared[0]); say("done", isMainThread); } });
