# Sourced by up and down: processes that outlive the script, each with a file NAME.pid in $folder: its number and when it began.

fail() {
    echo "$(basename "$0"): $1" >&2
    exit 1
}

begun() { # when process $1 began, empty where it is no more: after a reboot its number may be somebody else's
    if [[ -r /proc/$1/stat ]]; then
        local stat
        stat=$(<"/proc/$1/stat") || return 0
        stat=${stat##*) }                                # the program's name may hold spaces
        if [[ $stat != Z* ]]; then cut -d' ' -f20 <<<"$stat"; fi # a zombie has ended
    else
        ps -o lstart= -p "$1" 2>/dev/null || true
    fi
}

record() { echo "$2 $(begun "$2")" >"$folder/$1.pid"; } # NAME PID

pid_of() { # the number of NAME's process where it runs; fails where it does not
    local pid began
    [[ -f $folder/$1.pid ]] || return 1
    read -r pid began <"$folder/$1.pid"
    [[ -n $began && $(begun "$pid") == "$began" ]] && echo "$pid"
}

group_runs() { ps -A -o pgid=,stat= | awk -v group="$1" '$1 == group && $2 !~ /^Z/ { found = 1 } END { exit !found }'; }

stop_group() { # NAME SIGNAL SECONDS: end the process and what it started, by force where it takes longer
    local pid
    if pid=$(pid_of "$1"); then
        kill "-$2" "$pid"
    else # its first process died; a number is not given anew while it is a group's
        [[ -f $folder/$1.pid ]] || return 1
        read -r pid _ <"$folder/$1.pid"
        if kill -0 "$pid" 2>/dev/null || ! group_runs "$pid"; then return 1; fi
    fi
    for _ in $(seq $(($3 * 10))); do
        group_runs "$pid" || break
        sleep 0.1
    done
    if group_runs "$pid"; then kill -KILL -- "-$pid"; fi
    while group_runs "$pid"; do sleep 0.1; done
    rm -f "$folder/$1.pid"
}
