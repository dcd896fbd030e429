# Completion of vm-check for bash: options, facts, problems and commands, as the program itself tells them.
_vm_check_topics() { # facts | all
	"$1" --explain list 2>/dev/null | sed -n "$([ "$2" = facts ] && echo '/^Problems:/q;')s/^  \([a-z0-9-]*\).*/\1/p"
}
_vm_check() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} prog=${COMP_WORDS[0]} head
	COMPREPLY=()
	[ "$prev" != = ] || { prev=${COMP_WORDS[COMP_CWORD - 2]}; }
	[ "$cur" != = ] || { prev=${COMP_WORDS[COMP_CWORD - 1]}; cur=; }
	case $prev in
	-e | --explain) mapfile -t COMPREPLY < <(compgen -W "list $(_vm_check_topics "$prog" all)" -- "$cur"); return ;;
	-r | --require) # one of a list
		case $cur in *,*) head=${cur%,*}, ;; esac
		compopt -o nospace 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -P "$head" -W "$(_vm_check_topics "$prog" facts)" -- "${cur##*,}")
		return
		;;
	--root | --device) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
	--capture) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
	esac
	case ${COMP_WORDS[1]} in
	disk | guest)
		if [ "$COMP_CWORD" -gt 1 ]; then
			case $cur in
			-*) mapfile -t COMPREPLY < <(compgen -W "$("$prog" "${COMP_WORDS[1]}" --help 2>/dev/null | sed -n 's/^ *\(-., \)\?\(--[a-z-]*\).*/\2/p')" -- "$cur") ;;
			*) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
			esac
			return
		fi
		;;
	esac
	case $cur in
	-*) mapfile -t COMPREPLY < <(compgen -W "$("$prog" --help 2>/dev/null | sed -n 's/^ *\(-., \)\?\(--[a-z-]*\).*/\2/p')" -- "$cur") ;;
	*) [ "$COMP_CWORD" != 1 ] || mapfile -t COMPREPLY < <(compgen -W 'disk guest' -- "$cur") ;;
	esac
}
complete -o filenames -F _vm_check vm-check
