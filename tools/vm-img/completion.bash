# Completion of vm-img for bash: commands, options and formats, as the program itself tells them.
_vm_img() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} prog=${COMP_WORDS[0]} cmd=${COMP_WORDS[1]} fmt i
	COMPREPLY=()
	if [ "$COMP_CWORD" = 1 ]; then
		mapfile -t COMPREPLY < <(compgen -W "$("$prog" --help 2>/dev/null | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p')" -- "$cur")
		return
	fi
	case $prev in
	-f | -F | -O | --format | --target-format | --backing-format | --second-format)
		mapfile -t COMPREPLY < <(compgen -W "$("$prog" formats 2>/dev/null | awk 'NR > 1 { print $1 }')" -- "$cur")
		return
		;;
	-o | --to)
		case $cmd in import | export) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;; esac
		;;&
	--os) mapfile -t COMPREPLY < <(compgen -W 'other linux debian ubuntu rhel windows7' -- "$cur"); return ;;
	--firmware) mapfile -t COMPREPLY < <(compgen -W 'bios efi' -- "$cur"); return ;;
	--bus) mapfile -t COMPREPLY < <(compgen -W 'sata scsi ide' -- "$cur"); return ;;
	-o | --options)
		for ((i = 2; i < COMP_CWORD; i++)); do
			case ${COMP_WORDS[i]} in -O | -f) fmt=${COMP_WORDS[i + 1]} ;; esac
		done
		compopt -o nospace
		mapfile -t COMPREPLY < <(compgen -S = -W "$("$prog" formats "${fmt:-raw}" 2>/dev/null | awk 'NR > 1 { print $1 }')" -- "$cur")
		return
		;;
	--output) mapfile -t COMPREPLY < <(compgen -W 'human json' -- "$cur"); return ;;
	-t | -T | --cache) mapfile -t COMPREPLY < <(compgen -W 'none writeback writethrough directsync unsafe' -- "$cur"); return ;;
	-r | --repair) [ "$cmd" != check ] || { mapfile -t COMPREPLY < <(compgen -W 'leaks all' -- "$cur"); return; } ;;
	--key-file) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
	--allow-external) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
	esac
	case $cur in
	-*) mapfile -t COMPREPLY < <(compgen -W "$("$prog" "$cmd" --help 2>/dev/null | sed -n 's/^ *\(-., \)\?\(--[a-z-]*\).*/\2/p')" -- "$cur") ;;
	*) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
	esac
}
complete -o filenames -F _vm_img vm-img
