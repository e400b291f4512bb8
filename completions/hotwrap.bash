# bash completion for hotwrap(1)
# Made by `make completions` from the options in main.go and command.go: do not edit.

# The names of what runs, by the sockets that lie where hotwrap puts them.
_hotwrap_names() {
	local dir socket
	for dir in "$HOTWRAP_RUNTIME_DIR" "${RUNTIME_DIRECTORY%%:*}" "${XDG_RUNTIME_DIR:+$XDG_RUNTIME_DIR/hotwrap}" \
		/run/user/*/hotwrap /run/hotwrap "${TMPDIR:-/tmp}"/hotwrap-*; do
		[[ -n $dir ]] || continue
		for socket in "$dir"/control/*.sock "$dir"/control-*/*.sock; do
			[[ -S $socket ]] && socket=${socket##*/} && echo "${socket%.sock}"
		done
	done
}

_hotwrap_value() { # OPTION: complete its value; fails if it has none
	case $1 in
	-l|--listen) COMPREPLY=() ;;
	--adopt) mapfile -t COMPREPLY < <(compgen -W 'auto always never' -- "$cur") ;;
	-e|--env) COMPREPLY=() ;;
	--env-file) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
	-u|--user) mapfile -t COMPREPLY < <(compgen -u -- "$cur") ;;
	-C|--dir) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d -- "$cur") ;;
	-n|--workers) mapfile -t COMPREPLY < <(compgen -W 'auto' -- "$cur") ;;
	--surge) COMPREPLY=() ;;
	--check) mapfile -t COMPREPLY < <(compgen -c -- "$cur") ;;
	--ready) mapfile -t COMPREPLY < <(compgen -W 'auto notify alive= fd= http:// https://' -- "$cur") ;;
	--ready-timeout) COMPREPLY=() ;;
	--bake) COMPREPLY=() ;;
	--stop-signal) mapfile -t COMPREPLY < <(compgen -W 'TERM INT QUIT HUP USR1 USR2 WINCH KILL' -- "$cur") ;;
	--drain-timeout) COMPREPLY=() ;;
	--respawn) mapfile -t COMPREPLY < <(compgen -W 'always on-failure never' -- "$cur") ;;
	--stop-delay) COMPREPLY=() ;;
	--stop-timeout) COMPREPLY=() ;;
	-w|--watch) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
	--build) mapfile -t COMPREPLY < <(compgen -c -- "$cur") ;;
	--src) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d -- "$cur") ;;
	-i|--ignore) COMPREPLY=() ;;
	--debounce) COMPREPLY=() ;;
	--log-file) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
	--name) COMPREPLY=() ;;
	--control-group) mapfile -t COMPREPLY < <(compgen -g -- "$cur") ;;
	--http) COMPREPLY=() ;;
	--hook) mapfile -t COMPREPLY < <(compgen -W 'ready= switch= failed= drained= stop=' -- "$cur") ;;
	--pid-file) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
	--log-format) mapfile -t COMPREPLY < <(compgen -W 'text json' -- "$cur") ;;
	-m|--message) COMPREPLY=() ;;
	--wait) mapfile -t COMPREPLY < <(compgen -W 'promoted drained none' -- "$cur") ;;
	--timeout) COMPREPLY=() ;;
	--canary) mapfile -t COMPREPLY < <(compgen -W '1%:1m,10%:5m' -- "$cur") ;;
	--canary-check) mapfile -t COMPREPLY < <(compgen -c -- "$cur") ;;
	*) return 1 ;;
	esac
}

_hotwrap() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command='' joined='' i IFS=$' \t\n'
	COMPREPLY=()

	# Behind -- it is the program's.
	for ((i = 1; i < COMP_CWORD; i++)); do
		[[ ${COMP_WORDS[i]} == -- ]] || continue
		if declare -F _comp_command_offset >/dev/null; then
			_comp_command_offset $((i + 1))
		elif declare -F _command_offset >/dev/null; then
			_command_offset $((i + 1))
		elif ((COMP_CWORD == i + 1)); then
			compopt -o filenames 2>/dev/null
			mapfile -t COMPREPLY < <(compgen -c -- "$cur"; compgen -f -- "$cur")
		else
			compopt -o filenames 2>/dev/null
			mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		fi
		return
	done

	# bash parts words at =.
	if [[ $cur == = ]]; then
		cur='' joined=1
	elif [[ $prev == = ]]; then
		prev=${COMP_WORDS[COMP_CWORD-2]} joined=1
	fi
	if [[ $prev == -w || $prev == --watch && -z $joined ]]; then
		prev=''
	fi
	if [[ $prev == -* ]] && _hotwrap_value "$prev"; then
		[[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[=/] ]] && compopt -o nospace 2>/dev/null
		return
	fi
	((COMP_CWORD > 1)) && command=${COMP_WORDS[1]}
	case $command in
	restart)
		if [[ $cur == -* ]]; then
			mapfile -t COMPREPLY < <(compgen -W '--message --wait --timeout --canary --canary-check --json --help' -- "$cur")
		else
			mapfile -t COMPREPLY < <(compgen -W "$(_hotwrap_names)" -- "$cur")
		fi
		;;
	rollback)
		if [[ $cur == -* ]]; then
			mapfile -t COMPREPLY < <(compgen -W '--message --wait --timeout --json --help' -- "$cur")
		else
			mapfile -t COMPREPLY < <(compgen -W "$(_hotwrap_names)" -- "$cur")
		fi
		;;
	status)
		if [[ $cur == -* ]]; then
			mapfile -t COMPREPLY < <(compgen -W '--json --quiet --help' -- "$cur")
		else
			mapfile -t COMPREPLY < <(compgen -W "$(_hotwrap_names)" -- "$cur")
		fi
		;;
	stop)
		if [[ $cur == -* ]]; then
			mapfile -t COMPREPLY < <(compgen -W '--message --timeout --json --now --help' -- "$cur")
		else
			mapfile -t COMPREPLY < <(compgen -W "$(_hotwrap_names)" -- "$cur")
		fi
		;;
	signal)
		if [[ $cur == -* ]]; then
			mapfile -t COMPREPLY < <(compgen -W '--json --help' -- "$cur")
		elif ((COMP_CWORD == 2)); then
			mapfile -t COMPREPLY < <(compgen -W 'TERM INT QUIT HUP USR1 USR2 WINCH KILL' -- "$cur")
		else
			mapfile -t COMPREPLY < <(compgen -W "$(_hotwrap_names)" -- "$cur")
		fi
		;;
	reexec)
		if [[ $cur == -* ]]; then
			mapfile -t COMPREPLY < <(compgen -W '--message --timeout --json --all --help' -- "$cur")
		else
			mapfile -t COMPREPLY < <(compgen -W "$(_hotwrap_names)" -- "$cur")
		fi
		;;
	doctor)
		if [[ $cur == -* ]]; then
			mapfile -t COMPREPLY < <(compgen -W '--listen --adopt --no-overlap --env --env-file --user --dir --workers --surge --check --ready --ready-timeout --bake --stop-signal --drain-timeout --respawn --stop-delay --stop-timeout --watch --build --src --ignore --clear --debounce --stdin --die-with-parent --log-file --capture --log-stamp --name --control-group --http --hook --pid-file --log-format --quiet --verbose --help --version --json --' -- "$cur")
		fi
		;;
	exec) mapfile -t COMPREPLY < <(compgen -W '--' -- "$cur") ;;
	*)
		if [[ $cur == -* || $COMP_CWORD != 1 ]]; then
			mapfile -t COMPREPLY < <(compgen -W '--listen --adopt --no-overlap --env --env-file --user --dir --workers --surge --check --ready --ready-timeout --bake --stop-signal --drain-timeout --respawn --stop-delay --stop-timeout --watch --build --src --ignore --clear --debounce --stdin --die-with-parent --log-file --capture --log-stamp --name --control-group --http --hook --pid-file --log-format --quiet --verbose --help --version --' -- "$cur")
		else
			mapfile -t COMPREPLY < <(compgen -W 'restart rollback status stop signal reexec doctor exec' -- "$cur")
		fi
		;;
	esac
}

complete -F _hotwrap hotwrap
