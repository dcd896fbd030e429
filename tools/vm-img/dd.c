/* vm-img/dd.c - `dd`, `copy`: copies a part of an image. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "vm-img.h"

#define STEP (1u << 20)

static struct common c;
static const char *in_name, *out_name;
static uint64_t bs = 512, count = UINT64_MAX, skip;

static int operand(const char *text)
{
	static const struct {
		const char *name;
		uint64_t *v;
	} numbers[] = {{"bs=", &bs}, {"count=", &count}, {"skip=", &skip}};

	if (!strncmp(text, "if=", 3)) {
		in_name = text + 3;
		return 0;
	}
	if (!strncmp(text, "of=", 3)) {
		out_name = text + 3;
		return 0;
	}
	for (unsigned i = 0; i < ARRAY_LEN(numbers); i++) {
		size_t n = strlen(numbers[i].name);

		if (!strncmp(text, numbers[i].name, n))
			return parse_size(text, text + n, numbers[i].v);
	}
	return usage("'%s' is not known: if=, of=, bs=, count=, skip=", text);
}

static bool all_zero(const uint8_t *p, uint64_t len)
{
	return !*p && !memcmp(p, p + 1, len - 1);
}

static int copy(struct img *in, struct img *out, uint64_t from, uint64_t len,
		struct err *err)
{
	uint8_t *buf = malloc(STEP);
	uint64_t n;
	int rc = buf ? 0 : err_set(err, ENOMEM, "no memory to copy");

	for (uint64_t at = 0; at < len && !rc; at += n) {
		n = min_u64(STEP, len - at);
		rc = img_read(in, buf, from + at, n);
		if (rc)
			err_sys(err, -rc, "cannot read '%s' at offset %" PRIu64,
				img_path(in), from + at);
		else if (!all_zero(buf, n) && (rc = img_write(out, buf, at, n)))
			err_sys(err, -rc, "cannot write '%s' at offset %" PRIu64,
				img_path(out), at);
	}
	free(buf);
	return rc;
}

static int run_copy(struct img *in, uint64_t from, uint64_t len)
{
	struct img_create_opts o = {
		.format = c.target_format ? c.target_format : "raw",
		.size = len,
		.replace = true,
		.allow_external = c.allow_external,
	};
	struct img_target *t;
	struct img *out;
	struct err err = {0};

	if (img_target_new(out_name, &o, NULL, &t, &out, &err) < 0)
		return fail(&err);
	if (copy(in, out, from, len, &err)) {
		img_target_drop(t, out);
		return fail(&err);
	}
	return img_target_commit(t, out, &err) < 0 ? fail(&err) : 0;
}

static int run(const struct command *cmd, int argc, const char **argv)
{
	const struct poptOption table[] = {
		O_FORMAT(&c),
		{"target-format", 'O', POPT_ARG_STRING, &c.target_format, 0,
		 "format of the target (default raw)", "FMT"},
		O_SHARE(&c),
		O_EXTERN(&c),
		O_COMMON(&c),
	};
	struct img *in;
	uint64_t from, len;
	int st;

	if (args_parse(cmd, table, argc, argv, &c, 2, 5, NULL, &st))
		return st;
	for (unsigned i = 0; i < c.n_args; i++)
		if ((st = operand(c.args[i])))
			return st;
	if (!in_name || !out_name)
		return usage("if=IMAGE and of=IMAGE are wanted");
	if (!bs || bs > INT32_MAX)
		return usage("bs: 1 to 2G are wanted");
	st = image_open(&c, in_name, c.format, OPEN_COPY, NULL, &in);
	if (st)
		return st;
	from = skip > img_size(in) / bs ? img_size(in) : skip * bs;
	if (skip && from == img_size(in))
		fprintf(stderr, "%s: '%s': cannot skip to specified offset\n",
			page.name, in_name);
	len = img_size(in) - from;
	if (as_qemu_img && count != UINT64_MAX) /* what is skipped counts, too */
		count -= min_u64(count, skip);
	if (count < len / bs + 1)
		len = min_u64(len, count * bs);
	st = run_copy(in, from, len);
	img_close(in);
	return st;
}

const struct command cmd_dd = {
	.name = "dd",
	.run = run,
	.usage = "[OPTION...] if=IMAGE of=IMAGE [bs=SIZE] [count=N] [skip=N]",
	.summary = "Copies a part of an image to a new one (also called copy).",
	.examples = "  vm-img dd if=disk.qcow2 of=boot.raw bs=1M count=512\n",
};
