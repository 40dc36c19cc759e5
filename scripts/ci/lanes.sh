# Lanes of named, timed stages, side by side; the first red stage ends all. Sourced by .ci/run.
#
#   begin_lanes CLEANUP          a folder for logs; CLEANUP runs at the end, whatever the end is
#   lane NAME FUNCTION           start FUNCTION in the background; what it does is `stage`s
#   stage NAME COMMAND...        run a command or function; its output is printed in one piece when it ends
#   done_with NAME, wait_for NAME    between lanes: NAME is there; wait until it is
#   finish_lanes                 wait for all lanes; exits with 1 after the first that failed
#
# A stage runs in its lane's shell, so that what it exports is there for the next one.

begin_lanes() {
    lanes_cleanup=$1
    lanes_dir=$(mktemp -d)
    mkdir "$lanes_dir/done"
    declare -gA lane_pids=()
    # Everything started from here on carries this mark; what is left of it at the end is found by it.
    export LARY_CI_RUN=$lanes_dir
    # Each lane gets a process group of its own, and does not ignore SIGINT.
    set -m
    trap end_lanes EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

lane() {
    (
        set +m # what it starts stays in its group
        trap show_unfinished EXIT
        trap 'exit 143' INT TERM
        lane_name=$1
        stage_log=""
        "$2"
    ) &
    lane_pids[$1]=$!
}

stage() {
    stage_name=$1 stage_began=$SECONDS
    shift
    stage_log=$lanes_dir/$lane_name.log
    printf 'begin\t%d\t%s\t%s\n' "$SECONDS" "$lane_name" "$stage_name" >>"$lanes_dir/times"
    "$@" >"$stage_log" 2>&1
    printf 'end\t%d\t%s\t%s\n' "$SECONDS" "$lane_name" "$stage_name" >>"$lanes_dir/times"
    show_stage "$((SECONDS - stage_began)) s"
    stage_log=""
}

show_stage() { # show_stage STATE: the output of the stage, not mixed with that of other lanes
    {
        flock 9
        printf '\n== %s: %s, after %d s\n' "$stage_name" "$1" "$SECONDS"
        cat "$stage_log"
    } 9>"$lanes_dir/print.lock"
}

show_unfinished() { # in a lane that ends within a stage: it is red, or was stopped
    if [[ -n $stage_log ]]; then
        if [[ -e $lanes_dir/stopping ]]; then show_stage "stopped"; else show_stage "RED"; fi
    fi
}

done_with() { touch "$lanes_dir/done/$1"; }

wait_for() { until [[ -e $lanes_dir/done/$1 ]]; do sleep 0.2; done; }

finish_lanes() {
    local ended name
    while ((${#lane_pids[@]})); do
        wait -n -p ended "${lane_pids[@]}" || exit 1
        for name in "${!lane_pids[@]}"; do
            if [[ ${lane_pids[$name]} == "$ended" ]]; then unset "lane_pids[$name]"; fi
        done
    done
}

end_lanes() {
    local code=$?
    trap - EXIT
    trap '' INT TERM
    touch "$lanes_dir/stopping"
    stop_groups INT TERM KILL
    "$lanes_cleanup"
    end_marked
    print_times "$code"
    rm -rf "$lanes_dir"
    exit "$code"
}

stop_groups() { # stop_groups SIGNAL...: each to all lanes that are left, with 5 s between
    local signal name i
    for signal in "$@"; do
        for name in "${!lane_pids[@]}"; do
            if ! kill "-$signal" -- "-${lane_pids[$name]}" 2>/dev/null; then unset "lane_pids[$name]"; fi
        done
        for ((i = 0; i < 25; i++)); do
            any_group || return 0
            sleep 0.2
        done
    done
}

any_group() {
    local pid
    for pid in "${lane_pids[@]}"; do
        if kill -0 -- "-$pid" 2>/dev/null; then return 0; fi
    done
    return 1
}

end_marked() { # what left its lane's process group, and was not stopped by the cleanup
    local process
    for process in /proc/[0-9]*; do
        grep -qzFx "LARY_CI_RUN=$lanes_dir" "$process/environ" 2>/dev/null || continue
        printf 'left running, killed: %s %s\n' "${process#/proc/}" "$(tr '\0' ' ' <"$process/cmdline" 2>/dev/null | cut -c1-150)"
        kill -KILL "${process#/proc/}" 2>/dev/null || true
    done
}

print_times() { # print_times CODE
    local what at lane name
    declare -A ends=()
    [[ -f $lanes_dir/times ]] || return 0
    while IFS=$'\t' read -r what at lane name; do
        if [[ $what == end ]]; then ends[$lane/$name]=$at; fi
    done <"$lanes_dir/times"
    printf '\n%-10s %-32s %8s %8s\n' lane stage 'began s' 'took s'
    while IFS=$'\t' read -r what at lane name; do
        if [[ $what != begin ]]; then continue; fi
        if [[ -n ${ends[$lane/$name]:-} ]]; then
            printf '%-10s %-32s %8d %8d\n' "$lane" "$name" "$at" "$((ends[$lane/$name] - at))"
        else
            printf '%-10s %-32s %8d %8s\n' "$lane" "$name" "$at" 'no end'
        fi
    done <"$lanes_dir/times"
    if (($1)); then printf 'RED after %d s\n' "$SECONDS"; else printf 'green after %d s\n' "$SECONDS"; fi
}
