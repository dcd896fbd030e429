/*
 * base/bytes.h - integers as they lie on disk, in guest memory and on the wire.
 * They are structures, so that a forgotten byte swap does not compile; alignment is 1.
 */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include <stdint.h>
#include <string.h>

typedef struct {
	uint8_t b[2];
} le16;
typedef struct {
	uint8_t b[2];
} be16;
typedef struct {
	uint8_t b[4];
} le32;
typedef struct {
	uint8_t b[8];
} le64;
typedef struct {
	uint8_t b[4];
} be32;
typedef struct {
	uint8_t b[8];
} be64;

static inline uint16_t load_u16(const void *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline uint32_t load_u32(const void *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline uint64_t load_u64(const void *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

/* The host is x86-64: little-endian values load as they are. */
static inline uint16_t le16_get(le16 v)
{
	return load_u16(v.b);
}

static inline uint32_t le32_get(le32 v)
{
	return load_u32(v.b);
}

static inline uint64_t le64_get(le64 v)
{
	return load_u64(v.b);
}

static inline uint16_t be16_get(be16 v)
{
	return __builtin_bswap16(load_u16(v.b));
}

static inline uint32_t be32_get(be32 v)
{
	return __builtin_bswap32(load_u32(v.b));
}

static inline uint64_t be64_get(be64 v)
{
	return __builtin_bswap64(load_u64(v.b));
}

static inline le16 le16_make(uint16_t v)
{
	le16 r;

	memcpy(r.b, &v, sizeof(v));
	return r;
}

static inline le32 le32_make(uint32_t v)
{
	le32 r;

	memcpy(r.b, &v, sizeof(v));
	return r;
}

static inline le64 le64_make(uint64_t v)
{
	le64 r;

	memcpy(r.b, &v, sizeof(v));
	return r;
}

static inline be16 be16_make(uint16_t v)
{
	be16 r;

	v = __builtin_bswap16(v);
	memcpy(r.b, &v, sizeof(v));
	return r;
}

static inline be32 be32_make(uint32_t v)
{
	be32 r;

	v = __builtin_bswap32(v);
	memcpy(r.b, &v, sizeof(v));
	return r;
}

static inline be64 be64_make(uint64_t v)
{
	be64 r;

	v = __builtin_bswap64(v);
	memcpy(r.b, &v, sizeof(v));
	return r;
}

#endif
