# fish completion for hotwrap(1)
# Made by `make completions` from the options in main.go and command.go: do not edit.

# The names of what runs, by the sockets that lie where hotwrap puts them.
function __hotwrap_names
    set -l dirs /run/hotwrap $HOTWRAP_RUNTIME_DIR (string split : -- $RUNTIME_DIRECTORY)[1]
    set -q XDG_RUNTIME_DIR; and set -a dirs $XDG_RUNTIME_DIR/hotwrap
    set -l tmp /tmp
    set -q TMPDIR; and set tmp $TMPDIR
    set -a dirs /run/user/*/hotwrap
    set -a dirs $tmp/hotwrap-*
    for dir in $dirs
        for socket in $dir/control/*.sock $dir/control-*/*.sock
            test -S $socket; and string replace -r '^.*/(.*)\.sock$' '$1' -- $socket
        end
    end
end

# COMMAND... : whether the words so far are for one of these; with - none, and no program yet.
function __hotwrap_for
    set -l words (commandline -opc)
    contains -- -- $words; and return 1
    if test "$argv[1]" = -
        not contains -- "$words[2]" $__hotwrap_commands
    else
        contains -- "$words[2]" $argv
    end
end

# Behind -- it is the program's.
function __hotwrap_program
    contains -- -- (commandline -opc)
end

function __hotwrap_complete_program
    set -l words (commandline -opc)
    set -l at (contains -i -- -- $words)
    complete -C (string join ' ' -- (string escape -- $words[(math $at + 1)..]) (commandline -ct))
end

set -g __hotwrap_commands restart rollback status stop signal reexec doctor exec

complete -c hotwrap -f
complete -c hotwrap -n __hotwrap_program -a '(__hotwrap_complete_program)'
complete -c hotwrap -n '__hotwrap_for - && test (count (commandline -opc)) = 1' -a restart -d 'start a successor and wait for the verdict'
complete -c hotwrap -n '__hotwrap_for - && test (count (commandline -opc)) = 1' -a rollback -d 'go back to the build that served before'
complete -c hotwrap -n '__hotwrap_for - && test (count (commandline -opc)) = 1' -a status -d 'builds, listeners, what a drain waits for'
complete -c hotwrap -n '__hotwrap_for - && test (count (commandline -opc)) = 1' -a stop -d 'drain and exit'
complete -c hotwrap -n '__hotwrap_for - && test (count (commandline -opc)) = 1' -a signal -d 'send the workers a signal'
complete -c hotwrap -n '__hotwrap_for - && test (count (commandline -opc)) = 1' -a reexec -d 'replace hotwrap itself'
complete -c hotwrap -n '__hotwrap_for - && test (count (commandline -opc)) = 1' -a doctor -d 'what this machine permits'
complete -c hotwrap -n '__hotwrap_for - && test (count (commandline -opc)) = 1' -a exec -d 'become the program, inside a script'
complete -c hotwrap -n '__hotwrap_for -' -l listen -s l -x -d 'a socket to open'
complete -c hotwrap -n '__hotwrap_for -' -l adopt -x -a 'auto always never' -d 'for a program that binds by itself'
complete -c hotwrap -n '__hotwrap_for -' -l no-overlap -d 'stop the old one, then start the new one'
complete -c hotwrap -n '__hotwrap_for -' -l env -s e -x -d 'set a variable'
complete -c hotwrap -n '__hotwrap_for -' -l env-file -r -F -d 'variables, read at each restart'
complete -c hotwrap -n '__hotwrap_for -' -l user -s u -x -a '(__fish_complete_users)' -d 'run the program as this user'
complete -c hotwrap -n '__hotwrap_for -' -l dir -s C -x -a '(__fish_complete_directories)' -d 'run the program there'
complete -c hotwrap -n '__hotwrap_for -' -l workers -s n -x -a 'auto' -d 'how many processes'
complete -c hotwrap -n '__hotwrap_for -' -l surge -x -d 'how many more at once in a restart'
complete -c hotwrap -n '__hotwrap_for -' -l check -x -a '(__fish_complete_command)' -d 'must succeed before a start'
complete -c hotwrap -n '__hotwrap_for -' -l ready -x -a 'auto notify alive= fd= http:// https://' -d 'when the program is ready'
complete -c hotwrap -n '__hotwrap_for -' -l ready-timeout -x -d 'how long it may take to be ready'
complete -c hotwrap -n '__hotwrap_for -' -l bake -x -d 'how long it must live then'
complete -c hotwrap -n '__hotwrap_for -' -l stop-signal -x -a 'TERM INT QUIT HUP USR1 USR2 WINCH KILL' -d 'what tells it to finish'
complete -c hotwrap -n '__hotwrap_for -' -l drain-timeout -x -d 'how long it may take to finish'
complete -c hotwrap -n '__hotwrap_for -' -l respawn -x -a 'always on-failure never' -d 'whether a crashed one is started again'
complete -c hotwrap -n '__hotwrap_for -' -l stop-delay -x -d 'serve on for so long after TERM'
complete -c hotwrap -n '__hotwrap_for -' -l stop-timeout -x -d 'how long everything may take to end'
complete -c hotwrap -n '__hotwrap_for -' -l watch -s w -F -d 'restart when the program or a file changes'
complete -c hotwrap -n '__hotwrap_for -' -l build -x -a '(__fish_complete_command)' -d 'run when a source changes'
complete -c hotwrap -n '__hotwrap_for -' -l src -x -a '(__fish_complete_directories)' -d 'where the sources are'
complete -c hotwrap -n '__hotwrap_for -' -l ignore -s i -x -d 'what is not watched'
complete -c hotwrap -n '__hotwrap_for -' -l clear -s c -d 'clear the screen at a change'
complete -c hotwrap -n '__hotwrap_for -' -l debounce -x -d 'how quiet a file must be'
complete -c hotwrap -n '__hotwrap_for -' -l stdin -d 'the terminal is the program\'s'
complete -c hotwrap -n '__hotwrap_for -' -l die-with-parent -d 'the program dies with hotwrap'
complete -c hotwrap -n '__hotwrap_for -' -l log-file -r -F -d 'where the program\'s output goes'
complete -c hotwrap -n '__hotwrap_for -' -l capture -d 'pass the program\'s output on in whole lines'
complete -c hotwrap -n '__hotwrap_for -' -l log-stamp -d 'time and generation before each line'
complete -c hotwrap -n '__hotwrap_for -' -l name -x -d 'what the commands call it'
complete -c hotwrap -n '__hotwrap_for -' -l control-group -x -a '(__fish_complete_groups)' -d 'who may restart, roll back, look'
complete -c hotwrap -n '__hotwrap_for -' -l http -x -d 'serve metrics, events, status'
complete -c hotwrap -n '__hotwrap_for -' -l hook -x -a 'ready= switch= failed= drained= stop=' -d 'run a command at an event'
complete -c hotwrap -n '__hotwrap_for -' -l pid-file -r -F -d 'hotwrap\'s process id'
complete -c hotwrap -n '__hotwrap_for -' -l log-format -x -a 'text json' -d 'how messages are written'
complete -c hotwrap -n '__hotwrap_for -' -l quiet -s q -d 'say less'
complete -c hotwrap -n '__hotwrap_for -' -l verbose -s v -d 'decisions too'
complete -c hotwrap -n '__hotwrap_for -' -l help -s h -d 'print the help'
complete -c hotwrap -n '__hotwrap_for -' -l version -s V -d 'print the version'
complete -c hotwrap -n '__hotwrap_for restart' -a '(__hotwrap_names)' -d instance
complete -c hotwrap -n '__hotwrap_for restart' -l message -s m -x -d 'why'
complete -c hotwrap -n '__hotwrap_for restart' -l wait -x -a 'promoted drained none' -d 'for what to wait'
complete -c hotwrap -n '__hotwrap_for restart' -l timeout -x -d 'give up waiting'
complete -c hotwrap -n '__hotwrap_for restart' -l canary -x -a '1%:1m,10%:5m' -d 'a share of the connections first'
complete -c hotwrap -n '__hotwrap_for restart' -l canary-check -x -a '(__fish_complete_command)' -d 'run in each step'
complete -c hotwrap -n '__hotwrap_for restart' -l json -d 'JSON on standard output'
complete -c hotwrap -n '__hotwrap_for restart' -l help -s h -d 'print the help'
complete -c hotwrap -n '__hotwrap_for rollback' -a '(__hotwrap_names)' -d instance
complete -c hotwrap -n '__hotwrap_for rollback' -l message -s m -x -d 'why'
complete -c hotwrap -n '__hotwrap_for rollback' -l wait -x -a 'promoted drained none' -d 'for what to wait'
complete -c hotwrap -n '__hotwrap_for rollback' -l timeout -x -d 'give up waiting'
complete -c hotwrap -n '__hotwrap_for rollback' -l json -d 'JSON on standard output'
complete -c hotwrap -n '__hotwrap_for rollback' -l help -s h -d 'print the help'
complete -c hotwrap -n '__hotwrap_for status' -a '(__hotwrap_names)' -d instance
complete -c hotwrap -n '__hotwrap_for status' -l json -d 'JSON on standard output'
complete -c hotwrap -n '__hotwrap_for status' -l quiet -s q -d 'say less'
complete -c hotwrap -n '__hotwrap_for status' -l help -s h -d 'print the help'
complete -c hotwrap -n '__hotwrap_for stop' -a '(__hotwrap_names)' -d instance
complete -c hotwrap -n '__hotwrap_for stop' -l message -s m -x -d 'why'
complete -c hotwrap -n '__hotwrap_for stop' -l timeout -x -d 'give up waiting'
complete -c hotwrap -n '__hotwrap_for stop' -l json -d 'JSON on standard output'
complete -c hotwrap -n '__hotwrap_for stop' -l now -d 'kill instead of waiting'
complete -c hotwrap -n '__hotwrap_for stop' -l help -s h -d 'print the help'
complete -c hotwrap -n '__hotwrap_for signal && test (count (commandline -opc)) = 2' -a 'TERM INT QUIT HUP USR1 USR2 WINCH KILL'
complete -c hotwrap -n '__hotwrap_for signal && test (count (commandline -opc)) -gt 2' -a '(__hotwrap_names)' -d instance
complete -c hotwrap -n '__hotwrap_for signal' -l json -d 'JSON on standard output'
complete -c hotwrap -n '__hotwrap_for signal' -l help -s h -d 'print the help'
complete -c hotwrap -n '__hotwrap_for reexec' -a '(__hotwrap_names)' -d instance
complete -c hotwrap -n '__hotwrap_for reexec' -l message -s m -x -d 'why'
complete -c hotwrap -n '__hotwrap_for reexec' -l timeout -x -d 'give up waiting'
complete -c hotwrap -n '__hotwrap_for reexec' -l json -d 'JSON on standard output'
complete -c hotwrap -n '__hotwrap_for reexec' -l all -d 'every hotwrap here'
complete -c hotwrap -n '__hotwrap_for reexec' -l help -s h -d 'print the help'
complete -c hotwrap -n '__hotwrap_for doctor' -l listen -s l -x -d 'a socket to open'
complete -c hotwrap -n '__hotwrap_for doctor' -l adopt -x -a 'auto always never' -d 'for a program that binds by itself'
complete -c hotwrap -n '__hotwrap_for doctor' -l no-overlap -d 'stop the old one, then start the new one'
complete -c hotwrap -n '__hotwrap_for doctor' -l env -s e -x -d 'set a variable'
complete -c hotwrap -n '__hotwrap_for doctor' -l env-file -r -F -d 'variables, read at each restart'
complete -c hotwrap -n '__hotwrap_for doctor' -l user -s u -x -a '(__fish_complete_users)' -d 'run the program as this user'
complete -c hotwrap -n '__hotwrap_for doctor' -l dir -s C -x -a '(__fish_complete_directories)' -d 'run the program there'
complete -c hotwrap -n '__hotwrap_for doctor' -l workers -s n -x -a 'auto' -d 'how many processes'
complete -c hotwrap -n '__hotwrap_for doctor' -l surge -x -d 'how many more at once in a restart'
complete -c hotwrap -n '__hotwrap_for doctor' -l check -x -a '(__fish_complete_command)' -d 'must succeed before a start'
complete -c hotwrap -n '__hotwrap_for doctor' -l ready -x -a 'auto notify alive= fd= http:// https://' -d 'when the program is ready'
complete -c hotwrap -n '__hotwrap_for doctor' -l ready-timeout -x -d 'how long it may take to be ready'
complete -c hotwrap -n '__hotwrap_for doctor' -l bake -x -d 'how long it must live then'
complete -c hotwrap -n '__hotwrap_for doctor' -l stop-signal -x -a 'TERM INT QUIT HUP USR1 USR2 WINCH KILL' -d 'what tells it to finish'
complete -c hotwrap -n '__hotwrap_for doctor' -l drain-timeout -x -d 'how long it may take to finish'
complete -c hotwrap -n '__hotwrap_for doctor' -l respawn -x -a 'always on-failure never' -d 'whether a crashed one is started again'
complete -c hotwrap -n '__hotwrap_for doctor' -l stop-delay -x -d 'serve on for so long after TERM'
complete -c hotwrap -n '__hotwrap_for doctor' -l stop-timeout -x -d 'how long everything may take to end'
complete -c hotwrap -n '__hotwrap_for doctor' -l watch -s w -F -d 'restart when the program or a file changes'
complete -c hotwrap -n '__hotwrap_for doctor' -l build -x -a '(__fish_complete_command)' -d 'run when a source changes'
complete -c hotwrap -n '__hotwrap_for doctor' -l src -x -a '(__fish_complete_directories)' -d 'where the sources are'
complete -c hotwrap -n '__hotwrap_for doctor' -l ignore -s i -x -d 'what is not watched'
complete -c hotwrap -n '__hotwrap_for doctor' -l clear -s c -d 'clear the screen at a change'
complete -c hotwrap -n '__hotwrap_for doctor' -l debounce -x -d 'how quiet a file must be'
complete -c hotwrap -n '__hotwrap_for doctor' -l stdin -d 'the terminal is the program\'s'
complete -c hotwrap -n '__hotwrap_for doctor' -l die-with-parent -d 'the program dies with hotwrap'
complete -c hotwrap -n '__hotwrap_for doctor' -l log-file -r -F -d 'where the program\'s output goes'
complete -c hotwrap -n '__hotwrap_for doctor' -l capture -d 'pass the program\'s output on in whole lines'
complete -c hotwrap -n '__hotwrap_for doctor' -l log-stamp -d 'time and generation before each line'
complete -c hotwrap -n '__hotwrap_for doctor' -l name -x -d 'what the commands call it'
complete -c hotwrap -n '__hotwrap_for doctor' -l control-group -x -a '(__fish_complete_groups)' -d 'who may restart, roll back, look'
complete -c hotwrap -n '__hotwrap_for doctor' -l http -x -d 'serve metrics, events, status'
complete -c hotwrap -n '__hotwrap_for doctor' -l hook -x -a 'ready= switch= failed= drained= stop=' -d 'run a command at an event'
complete -c hotwrap -n '__hotwrap_for doctor' -l pid-file -r -F -d 'hotwrap\'s process id'
complete -c hotwrap -n '__hotwrap_for doctor' -l log-format -x -a 'text json' -d 'how messages are written'
complete -c hotwrap -n '__hotwrap_for doctor' -l quiet -s q -d 'say less'
complete -c hotwrap -n '__hotwrap_for doctor' -l verbose -s v -d 'decisions too'
complete -c hotwrap -n '__hotwrap_for doctor' -l help -s h -d 'print the help'
complete -c hotwrap -n '__hotwrap_for doctor' -l version -s V -d 'print the version'
complete -c hotwrap -n '__hotwrap_for doctor' -l json -d 'JSON on standard output'
