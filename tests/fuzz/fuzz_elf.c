/* tests/fuzz/fuzz_elf.c - ELF kernels of both widths: segments, notes, entries damaged. */
#include <elf.h>

#include "fuzz_boot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	uint8_t *p = malloc(len ? len : 1);

	if (!p)
		return 0;
	memcpy(p, data, len);
	if (len >= sizeof(Elf64_Ehdr) && len % 16) {
		memcpy(p, ELFMAG, SELFMAG);
		p[EI_CLASS] = p[EI_CLASS] & 1 ? ELFCLASS32 : ELFCLASS64;
		p[EI_DATA] = ELFDATA2LSB;
		p[18] = p[18] & 1 ? EM_386 : EM_X86_64;
		p[19] = 0;
	}
	fuzz_boot(p, len);
	free(p);
	return 0;
}
