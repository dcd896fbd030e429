/* tests/guest/modes/t_transfers.c - far JMP, CALL, RET and IRET at privilege 0. SDM 2A, 2B; 3A 5.8. */
#include "guest.h"

#define S SEL_FREE

struct {
	u32 off;
	u16 sel;
} __attribute__((packed)) far_ptr;

FAULTS(jmp_mem, "", "ljmp *far_ptr")
FAULTS(call_mem, "", "lcall *far_ptr")
FAULTS(jmp_ok, "movl $1f, far_ptr; movw $0x50, far_ptr + 4",
       "ljmp *far_ptr; 1: ljmp $8, $2f; 2:")
FAULTS(call_ok, "movl $1f, far_ptr; movw $0x50, far_ptr + 4",
       "lcall *far_ptr; jmp 2f; 1: lret; 2:")
FAULTS(ret_null, "pushl $0; pushl $0", "lret")
FAULTS(ret_ds, "pushl $0x10; pushl $0", "lret")
FAULTS(ret_limit, "pushl $0x50; pushl $0x100000", "lret")
FAULTS(ret_imm, "pushl $1; pushl $2; pushl $8; pushl $1f", "lret $8; 1:")
FAULTS(iret_null, "pushfl; pushl $0; pushl $0", "iret")
FAULTS(iret_np, "pushfl; pushl $0x50; pushl $0", "iret")
FAULTS(iret_ok, "pushfl; pushl $8; pushl $1f", "iret; 1:")
FAULTS(iret_outer_ss0, "pushl $0; pushl $0; pushfl; pushl $0x1b; pushl $1f", "iret; 1:")
FAULTS(iret_outer_ss, "pushl $0x10; pushl $0; pushfl; pushl $0x1b; pushl $1f",
       "iret; 1:")
FAULTS(iret_rpl, "pushfl; pushl $9; pushl $1f", "iret; 1:")

static void jumps(void)
{
	far_ptr.sel = 0;
	expect("JMP to a null selector is #GP(0)", catch (jmp_mem), GP, 0);
	far_ptr.sel = SEL_LIMIT;
	expect("JMP beyond the GDT is #GP(sel)", catch (jmp_mem), GP, SEL_LIMIT);
	far_ptr.sel = SEL_DATA;
	expect("JMP to data is #GP(sel)", catch (jmp_mem), GP, SEL_DATA);
	far_ptr.sel = SEL_CODE3 & ~3;
	expect("JMP to privilege 3 is #GP(sel)", catch (jmp_mem), GP, SEL_CODE3 & ~3);
	far_ptr.sel = SEL_CODE | 3;
	expect("JMP with RPL 3 is #GP(sel)", catch (jmp_mem), GP, SEL_CODE);
	gdt_set(S, seg_desc(0, 0xfffff, 0xc1b));
	far_ptr.sel = S;
	expect("JMP to code not present is #NP(sel)", catch (jmp_mem), NP, S);
	gdt_set(S, seg_desc(0, 0xfff, 0x49b));
	far_ptr.off = 0x1000;
	expect("JMP beyond the limit is #GP(0)", catch (jmp_mem), GP, 0);
	gdt_set(S, seg_desc(0, 0xfffff, 0xcfe));
	expect("JMP to conforming code of privilege 3 is #GP(sel)", catch (jmp_mem), GP,
	       S);
	gdt_set(S, seg_desc(0, 0xfffff, 0xc9e));
	expect("JMP to conforming code", catch (jmp_ok), NO_TRAP, -1);
	check_eq("marks it accessed", gdt_access(S), 0x9f);
	gdt_set(S, seg_desc((u32)ldt, 0x7f, 0x82));
	far_ptr.sel = S;
	expect("JMP to an LDT is #GP(sel)", catch (jmp_mem), GP, S);
	gdt_set(S, gate_desc(SEL_CODE, 0, 0x8e));
	expect("JMP to an interrupt gate is #GP(sel)", catch (jmp_mem), GP, S);
}

static void calls(void)
{
	far_ptr.sel = 0;
	expect("CALL to a null selector is #GP(0)", catch (call_mem), GP, 0);
	far_ptr.sel = SEL_DATA;
	expect("CALL to data is #GP(sel)", catch (call_mem), GP, SEL_DATA);
	gdt_set(S, seg_desc(0, 0xfff, 0x49b));
	far_ptr.sel = S;
	far_ptr.off = 0x1000;
	expect("CALL beyond the limit is #GP(0)", catch (call_mem), GP, 0);
	gdt_set(S, seg_desc(0, 0xfffff, 0xc9b));
	expect("CALL and RET", catch (call_ok), NO_TRAP, -1);

	gdt_set(S, gate_desc(0, 0, 0x8c));
	expect("CALL gate to null is #GP(0)", catch (call_mem), GP, 0);
	gdt_set(S, gate_desc(SEL_DATA, 0, 0x8c));
	expect("CALL gate to data is #GP(its selector)", catch (call_mem), GP,
	       SEL_DATA);
	gdt_set(S, gate_desc(SEL_CODE, 0, 0x0c));
	expect("CALL gate not present is #NP(gate)", catch (call_mem), NP, S);
	gdt_set(S, gate_desc(SEL_CODE, 0, 0x8c));
	far_ptr.sel = S | 3;
	expect("CALL gate with RPL above its DPL is #GP(gate)", catch (call_mem), GP,
	       S);
	gdt_set(S, gate_desc(SEL_CODE3, 0, 0x8c));
	far_ptr.sel = S;
	expect("CALL gate to privilege 3 is #GP(its selector)", catch (call_mem), GP,
	       SEL_CODE3 & ~3);
}

static void returns(void)
{
	expect("RET to a null selector is #GP(0)", catch (ret_null), GP, 0);
	expect("RET to data is #GP(sel)", catch (ret_ds), GP, SEL_DATA);
	gdt_set(S, seg_desc(0, 0xff, 0x49b));
	expect("RET beyond the limit is #GP(0)", catch (ret_limit), GP, 0);
	expect("RET with a number takes parameters", catch (ret_imm), NO_TRAP, -1);
	expect("IRET to a null selector is #GP(0)", catch (iret_null), GP, 0);
	gdt_set(S, seg_desc(0, 0xfffff, 0xc1b));
	expect("IRET to code not present is #NP(sel)", catch (iret_np), NP, S);
	expect("IRET", catch (iret_ok), NO_TRAP, -1);
	expect("IRET to privilege 1 of a privilege 0 segment is #GP(sel)",
	       catch (iret_rpl), GP, SEL_CODE);
	expect("IRET to privilege 3 with a null SS is #GP(0)", catch (iret_outer_ss0),
	       GP, 0);
	expect("IRET to privilege 3 with an inner SS is #GP(sel)",
	       catch (iret_outer_ss), GP, SEL_DATA);
	expect("IRET takes nothing when it faults", catch (iret_outer_ss), GP,
	       SEL_DATA);
}

void test_transfers(void)
{
	jumps();
	calls();
	returns();
}
