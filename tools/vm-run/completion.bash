# Completion of vm-run for bash: options as the program itself tells them, their values, files.
_vm_run() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} prog=${COMP_WORDS[0]} words=
	COMPREPLY=()
	case $prev in
	-e | --engine) words='auto kvm emulator' ;;
	--emulator) words='interpreter translator lockstep' ;;
	-n | --net) words='none user tap=' ;;
	-f | --forward) words='tcp: udp:' ;;
	--serial | --console | --debugcon) words='stdio none pty file: socket:' ;;
	-m | --memory) words='256M 512M 1G 2G 4G' ;;
	-a | --append) words='console=ttyS0' ;;
	-c | --cpus | -t | --timeout | --code-cache) return ;;
	--dump-acpi) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
	esac
	if [ -n "$words" ]; then
		compopt -o nospace 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
		return
	fi
	case $cur in
	-*) mapfile -t COMPREPLY < <(compgen -W "$("$prog" --help 2>/dev/null | sed -n 's/^ *\(-., \)\?\(--[a-z-]*\).*/\2/p')" -- "$cur") ;;
	*) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
	esac
}
complete -o filenames -F _vm_run vm-run
