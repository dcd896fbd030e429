/* tests/fuzz/fuzz_facts.c - a captured computer with damaged contents: read, judged, printed, read again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "facts/facts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct facts *f = malloc(sizeof(*f));
	struct snap s = {0}, again = {0};
	struct str t = {0};
	struct err err;

	if (f && snap_parse(&s, (const char *)data, len, &err) == 0) {
		facts_judge(f, &s);
		snap_print(&s, &t);
		if (!t.failed && t.p) { /* what was printed reads back */
			if (snap_parse(&again, t.p, t.len, &err) < 0 || again.n != s.n)
				abort();
			facts_judge(f, &again);
		}
	}
	str_fini(&t);
	snap_fini(&s);
	snap_fini(&again);
	free(f);
	return 0;
}
