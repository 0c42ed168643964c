#!/usr/bin/env bash
# Runs a command for another process: bash runs/keep.sh PID COMMAND …. It ends, with all that it started (vLLM's engines
# are processes of their own), on SIGTERM and when that process is gone, even by SIGKILL; on SIGUSR1 it is killed at
# once. The exit status is the command's.
set -u
owner=$1
shift
trap 'asked=TERM' TERM INT HUP
trap 'asked=KILL' USR1
setsid "$@" & # a group of its own, whose processes may all be killed
command=$!
while [ -z "${asked:-}" ] && kill -0 "$owner" && kill -0 "$command"; do sleep 0.5; done 2> /dev/null

# vLLM removes its shared memory when it is asked to end; what is left of it after 20 seconds is not asked again
if [ "${asked:-TERM}" = TERM ]; then
    kill -TERM -- "-$command" 2> /dev/null
    for ((i = 0; i < 40; i++)); do
        kill -0 -- "-$command" 2> /dev/null || break
        sleep 0.5
    done
fi
kill -KILL -- "-$command" 2> /dev/null
wait "$command"
